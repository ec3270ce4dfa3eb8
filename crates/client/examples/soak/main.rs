//! Hours of load, calm or with trouble every few seconds: `cargo xtask soak` builds and runs it.
//!
//! Replies are held against what was asked, writes against what the server holds, messages against their numbers; memory and
//! descriptors of the process are sampled every second. Nothing that the load remembers grows with time, so that what grows is
//! the client's. The last line is one JSON object.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#![expect(clippy::cast_precision_loss, reason = "figures far below the limits of the types")]
#![expect(
    clippy::disallowed_methods,
    reason = "a load measures real time, and its tasks end with the program"
)]

mod heap;
mod tally;
mod trouble;
mod vitals;
mod work;

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use evenkeel_client::Client;
use evenkeel_testkit::{
    launcher::{Servers, Single, SingleOptions},
    proxy::Proxy,
};

use self::{tally::Tally, trouble::Troublemaker, vitals::Vitals};

/// Anything that can go wrong in a program at a terminal.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How often a long run says that it is alive.
const SAYS: Duration = Duration::from_secs(60);

/// How long what is owed may take when the load ends.
const END: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (mode, seconds) = (args.next(), args.next().and_then(|text| text.parse().ok()));
    let (Some(chaos), Some(seconds)) = (mode.map(|mode| mode == "chaos"), seconds) else {
        eprintln!("say `calm` or `chaos`, and for how many seconds");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let held = runtime
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(chaos, Duration::from_secs(seconds))));
    match held {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("soak: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the load for so long; gives whether everything held.
async fn run(chaos: bool, length: Duration) -> Result<bool, Failure> {
    let servers = Servers::discover();
    let kind = servers.preferred().ok_or("there is no redis-server here")?;
    // Each write is on disk before it is acknowledged: what a SIGKILL takes was never promised.
    let options = SingleOptions::default().append_only(true).config("appendfsync always");
    let server = Arc::new(Single::start_with(kind, options).await?);
    let proxy = Proxy::start(server.addr()).await?;
    let client = Client::connect(format!("redis://{}", proxy.addr())).await?;
    let tally = Arc::new(Tally::default());
    let work = work::start(&client, &tally).await?;
    let troublemaker = chaos.then(|| {
        let troublemaker = Troublemaker::new(Arc::clone(&server), proxy.handle());
        let tally = Arc::clone(&tally);
        tokio::spawn(async move { troublemaker.run(&tally).await })
    });
    let mut vitals = Vitals::default();
    let (start, mut said) = (Instant::now(), Instant::now());
    while start.elapsed() < length {
        tokio::time::sleep(Duration::from_secs(1)).await;
        // The first tenth is for buffers to reach their sizes.
        if start.elapsed() > length / 10 {
            vitals.sample();
        }
        if said.elapsed() >= SAYS {
            said = Instant::now();
            eprintln!("{:.0?} of {length:.0?}: {}", start.elapsed(), tally.line());
        }
    }
    tally.stop();
    if let Some(troublemaker) = troublemaker {
        // Ends what it has begun: the server runs and the way is free.
        troublemaker.await??;
    }
    if tokio::time::timeout(END, work.finish(&client, &tally)).await.is_err() {
        return Err("the load did not end".into());
    }
    let held = tally.held(chaos) && vitals.are_flat();
    println!(
        r#"{{"mode":"{}","seconds":{},"connections":{},{},{}}}"#,
        if chaos { "chaos" } else { "calm" },
        length.as_secs(),
        proxy.handle().accepted(),
        tally.json(),
        vitals.json(),
    );
    client.close(Duration::from_secs(5)).await;
    Ok(held)
}
