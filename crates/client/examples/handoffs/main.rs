//! One scenario of announced maintenance under load: `cargo xtask handoff-bench` builds and runs it.
//!
//! It is two processes: `handoffs serve` is the embedded server, which does what it reads on standard input; `handoffs
//! run` is the client with its load, so that memory and time are the client's alone. The last line of `run` is what was
//! counted, as `name=value` pairs.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#![expect(
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "figures far below the limits of the types"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "a load measures real time, and its tasks end with the program"
)]

mod consumers;
mod ledger;
mod measure;
mod plan;
mod run;
mod serve;
mod server;
mod workers;

use std::process::ExitCode;

/// Anything that can go wrong in a program at a terminal.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // What the client says of itself, when somebody asks for it as for any program: RUST_LOG=evenkeel=debug.
    if let Ok(filter) = std::env::var("RUST_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = runtime.map_err(Failure::from).and_then(|runtime| match arguments.split_first() {
        Some((role, _)) if role == "serve" => runtime.block_on(serve::serve()),
        Some((role, rest)) if role == "run" => runtime.block_on(async {
            let plan = plan::Plan::read(rest)?;
            println!("{}", run::run(&plan).await?);
            Ok(())
        }),
        _ => Err("say `serve`, or `run` with --scenario, --on, --handoffs, --grace".into()),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("handoffs: {failure}");
            ExitCode::FAILURE
        }
    }
}
