//! `evenkeel demo`: servers, a steady load, the gateway, and trouble; every promise is checked at the end.

mod board;
mod clock;
mod deployment;
mod ledger;
mod load;
mod page;
mod pubsub;
mod scripts;
mod troubles;
mod verdict;
mod websocket;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use evenkeel::gateway::{Access, ChannelOptions, Gateway, GatewayConfig, Namespace, RedisBroker};
use evenkeel::{Client, Event};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::board::Board;
use self::deployment::{Deployment, Mode, Outcome, Trouble};
use self::ledger::Ledger;
use self::load::Load;
use self::pubsub::{CHANNELS, Raw, SUBSCRIBERS, Subscriber};
use self::troubles::Troublemaker;
use crate::interrupt::Interrupt;

/// How long everything may take to stand after the servers do, and what is left to be delivered at the end.
const LIMIT: Duration = Duration::from_secs(15);
const STEP: Duration = Duration::from_millis(10);
/// Commands before the first trouble.
const WARM: u64 = 100;
/// How long clients finish what they owe.
const CLOSE: Duration = Duration::from_secs(2);

/// Arguments of `evenkeel demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The servers: within this process, or real ones.
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    redis: Mode,
    /// Makes each kind of trouble without a person, and ends with one JSON object on the last line.
    #[arg(long)]
    check: bool,
    /// How long the check runs at least; each kind of trouble is made once, whatever it takes.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Makes these kinds of trouble alone, to look into one; a check needs all of them to pass.
    #[arg(long, value_enum, value_name = "KIND", hide = true)]
    only: Vec<Trouble>,
    /// The page's port on 127.0.0.1; 0 lets the system choose.
    #[arg(long, value_name = "P", default_value_t = 0)]
    port: u16,
}

/// Runs the demo; false when a promise was broken.
pub(crate) async fn run(args: Args) -> Outcome<bool> {
    let board = Arc::new(Board::default());
    let run = fastrand::u64(..);
    say(&format!("starting the servers: {}", args.redis.name()))?;
    let mut interrupted = Interrupt::new()?;
    let deployment = tokio::select! {
        biased;
        deployment = Deployment::start(args.redis, run) => deployment?,
        () = interrupted.wait() => return Ok(!args.check),
    };
    say(&format!("running: {}", deployment.describe()))?;
    let outcome = with_servers(&args, &board, run, deployment, &mut interrupted).await;
    let left = children();
    if left.is_empty() {
        return outcome;
    }
    complain(&format!("processes were left behind: {left:?}"))?;
    outcome.map(|_held| false)
}

async fn with_servers(
    args: &Args,
    board: &Arc<Board>,
    run: u64,
    deployment: Deployment,
    interrupted: &mut Interrupt,
) -> Outcome<bool> {
    let deployment = Arc::new(deployment);
    let url = deployment.url();
    let client = Client::connect(url.as_str()).await?;
    let brokers = Client::connect(url.as_str()).await?;
    let mut listeners = JoinSet::new();
    for (who, client) in [("program", &client), ("gateway", &brokers)] {
        listeners.spawn(hear_events(who, client.events(), Arc::clone(board)));
    }
    let config = gateway_config();
    let broker = RedisBroker::new(Arc::new(brokers.clone()), config.outage.clone());
    let gateway = Gateway::builder().config(config).broker(Arc::new(broker)).start().await?;

    let ledger = Arc::new(Ledger::new(SUBSCRIBERS));
    let raw = Arc::new(Raw::default());
    let ready = Arc::new(AtomicU64::new(0));
    for number in 0..SUBSCRIBERS {
        let address = gateway.local_addr();
        let subscriber =
            Subscriber { address, number, ledger: Arc::clone(&ledger), board: Arc::clone(board) };
        listeners.spawn(subscriber.run(Arc::clone(&ready)));
    }
    let subscription = pubsub::subscribe_raw(&client).await?;
    listeners.spawn(pubsub::hear_raw(subscription, Arc::clone(&raw), Arc::clone(board)));
    let wanted = (SUBSCRIBERS * CHANNELS.len()) as u64;
    reach("the subscribers to stand", || ready.load(Ordering::Relaxed) >= wanted).await?;

    let (stop, stopped) = watch::channel(false);
    let load = Load::start(&client, board, run, &stopped);
    let mut publishers = JoinSet::new();
    for channel in 0..CHANNELS.len() {
        publishers.spawn(pubsub::publish(gateway.handle(), Arc::clone(&ledger), channel, stopped.clone()));
    }
    publishers.spawn(pubsub::publish_raw(client.clone(), Arc::clone(&raw), stopped.clone()));
    reach("the load to run", || board.commands.load(Ordering::Relaxed) >= WARM).await?;

    let troublemaker = Arc::new(Troublemaker {
        board: Arc::clone(board),
        client: client.clone(),
        deployment: Arc::clone(&deployment),
        ledger: Arc::clone(&ledger),
        last: tokio::sync::Mutex::new(Some(clock::now())),
    });
    let mut broken = Vec::new();
    if args.check {
        let until = clock::now() + Duration::from_secs(args.seconds);
        tokio::select! {
            biased;
            made = make_all(args, &troublemaker, until) => broken.extend(made),
            () = interrupted.wait() => broken.push("it was interrupted".to_owned()),
        }
    } else {
        let page = page::Page {
            mode: args.redis,
            board: Arc::clone(board),
            client: client.clone(),
            gateway: gateway.handle(),
            brokers: brokers.clone(),
            ledger: Arc::clone(&ledger),
            raw: Arc::clone(&raw),
            troublemaker: Arc::clone(&troublemaker),
        };
        let (address, serving) = page::serve(page, args.port).await?;
        say(&format!(
            "open http://{address}/ (the gateway: ws://{}/connection/websocket)",
            gateway.local_addr()
        ))?;
        tokio::select! {
            biased;
            () = serving => {}
            () = interrupted.wait() => say("ending")?,
        }
    }

    stop.send_replace(true);
    let records = load.finish().await?;
    while publishers.join_next().await.is_some() {}
    // What is late is counted below.
    let late = reach("the last publications to be delivered", || {
        ledger.is_settled(Duration::ZERO) && raw.counts().1 == 0
    });
    broken.extend(late.await.err().map(|error| error.to_string()).filter(|_| args.check));
    let mut held = true;
    if args.check {
        let judged =
            verdict::judge(args.redis, run, board, &deployment, &records, &ledger, raw.counts()).await?;
        let (report, found) = judged;
        broken.extend(found);
        for broken in &broken {
            complain(broken)?;
        }
        held = broken.is_empty();
        if !held {
            print_log(board)?;
        }
        gateway.stop().await;
        end(listeners, client, brokers).await;
        drop(troublemaker);
        shutdown(deployment).await;
        let left = children();
        if !left.is_empty() {
            held = false;
        }
        say(&serde_json::to_string(&report)?)?;
    } else {
        gateway.stop().await;
        end(listeners, client, brokers).await;
        drop(troublemaker);
        shutdown(deployment).await;
    }
    Ok(held)
}

async fn end(mut listeners: JoinSet<()>, client: Client, brokers: Client) {
    listeners.shutdown().await;
    tokio::join!(client.close(CLOSE), brokers.close(CLOSE));
}

async fn shutdown(deployment: Arc<Deployment>) {
    if let Some(deployment) = Arc::into_inner(deployment) {
        deployment.shutdown().await;
    }
}

/// Makes every kind of trouble of a mode, again and again until the time is over; gives what went wrong.
async fn make_all(args: &Args, troublemaker: &Troublemaker, until: Instant) -> Vec<String> {
    let mut broken = Vec::new();
    let mut is_first = true;
    while is_first || clock::now() < until {
        let wanted = |trouble: &&Trouble| args.only.is_empty() || args.only.contains(trouble);
        for trouble in args.redis.troubles().iter().filter(wanted) {
            if is_first || clock::now() < until {
                let made = troublemaker.make(*trouble).await;
                broken.extend(made.err().map(|error| error.to_string()));
            }
        }
        is_first = false;
    }
    // The calm after the last trouble belongs to the run.
    tokio::time::sleep(Duration::from_secs(1)).await;
    broken
}

async fn hear_events(who: &'static str, mut events: evenkeel::EventStream, board: Arc<Board>) {
    while let Some(event) = events.recv().await {
        let line = match event {
            Event::Connected { endpoint, again } => {
                let again = if again { " again" } else { "" };
                format!("connected{again} to {endpoint}")
            }
            Event::FailoverCompleted { from, to, took } => {
                board.failovers.fetch_add(1, Ordering::Relaxed);
                let from = from.map_or_else(|| "?".to_owned(), |from| from.to_string());
                format!("failover from {from} to {to} completed in {took:.0?}")
            }
            Event::HandedOff { from, to, took, .. } => {
                board.handoffs.fetch_add(1, Ordering::Relaxed);
                format!("handed off from {from} to {to} in {took:.0?}")
            }
            Event::Reconnecting { endpoint, attempt, delay } => {
                format!("reconnecting to {endpoint}, attempt {attempt} after {delay:.0?}")
            }
            Event::SlotMoved { first, last, to, .. } => format!("slots {first} to {last} are at {to}"),
            other => format!("{other:?}"),
        };
        board.log(format!("{who}: {line}"));
    }
}

fn gateway_config() -> GatewayConfig {
    let mut config = GatewayConfig::default();
    config.listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let mut kept = ChannelOptions::default();
    kept.subscribe = Access::Anyone;
    // Fifty seconds of the load, for outages.
    kept.history_size = 5_000;
    kept.recovery = true;
    config.namespaces = vec![Namespace::new("demo", kept)];
    config.limits.max_recovered = 5_000;
    config.limits.outbox_messages = 65_536;
    config.session.drain = Duration::from_millis(100);
    config
}

async fn reach(what: &str, holds: impl Fn() -> bool) -> Outcome<()> {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(STEP).await;
        }
    };
    let limit = tokio::time::timeout(LIMIT, waiting).await;
    limit.map_err(|_elapsed| format!("waited {LIMIT:?} in vain for {what}").into())
}

/// The processes that this one started and that still run, zombies too, as far as the system tells.
fn children() -> Vec<u32> {
    let own = std::process::id().to_string();
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // "pid (name) state parent ..."; a name may hold anything.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        parent == Some(own.as_str())
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_child).collect()
}

fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{line}")
}

fn complain(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stderr().lock(), "demo: {line}")
}

fn print_log(board: &Board) -> std::io::Result<()> {
    board.lines(0).1.iter().try_for_each(|line| complain(&format!("log: {line}")))
}
