//! `cargo xtask failover-bench`: races through failovers and reshards, the servers' own times measured beside the client's.
//!
//! A race starts real servers, a client in a process of its own under a steady load of counted writes, and a prober with a
//! raw connection to each node. Then it does the fault, waits for what follows, and looks every write up.

mod fault;
mod judge;
mod probe;
mod racer;
mod scene;
mod show;

use evenkeel_testkit::launcher::ServerKind;

use crate::failure::{Failure, Outcome};
use crate::servers;

use fault::{Fault, Mode};

/// Arguments of `failover-bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The deployment; both when it is left out
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// What is done to it; everything that the deployment and the servers at hand can do when it is left out
    #[arg(long, value_enum, value_delimiter = ',')]
    fault: Vec<Fault>,
    /// Times that each fault is done to each client
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// One JSON object a line on standard output instead of a table
    #[arg(long)]
    json: bool,
    /// Who races: evenkeel, redis, fred
    #[arg(long, value_delimiter = ',', default_value = "evenkeel")]
    clients: Vec<String>,
    /// The server, by the beginning of its name and version (`valkey 9`); the first that can do the fault when it is left out
    #[arg(long, default_value = "")]
    server: String,
    /// Writes a second
    #[arg(long, default_value_t = 2000)]
    rate: u32,
    /// Milliseconds: down-after of the sentinels (500 when left out), or the node timeout of a cluster (1000)
    #[arg(long)]
    timeout: Option<u64>,
    /// Slots moved by a reshard
    #[arg(long, default_value_t = 500)]
    slots: u16,
}

/// What one race is about.
#[derive(Clone, Debug)]
pub(crate) struct Race {
    pub(crate) mode: Mode,
    pub(crate) fault: Fault,
    pub(crate) kind: ServerKind,
    pub(crate) client: String,
    pub(crate) runs: u32,
    pub(crate) rate: u32,
    pub(crate) timeout: u64,
    pub(crate) slots: u16,
}

pub(crate) fn run(args: &Args) -> Outcome {
    servers::need_redis()?;
    racer::build()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(Failure::of("a runtime"))?;
    let mut report = show::Report::new(args.json);
    let mut failed = 0;
    for race in races(args)? {
        // What is done once to a deployment starts on a new one each time.
        let sessions = if race.fault.is_repeatable(race.mode) { 1 } else { race.runs };
        for session in 0..sessions {
            let once = Race { runs: race.runs / sessions, ..race.clone() };
            eprintln!(
                "{} {} on {} by {}, {} of {}",
                race.mode,
                race.fault,
                race.kind,
                race.client,
                session + 1,
                sessions
            );
            match runtime.block_on(scene::race(&once)) {
                Ok(lines) => lines.into_iter().for_each(|line| report.add(session, line)),
                Err(failure) => {
                    failed += 1;
                    eprintln!("xtask: {failure}");
                }
            }
        }
        report.end_of_race();
    }
    if failed == 0 { Ok(()) } else { Err(Failure::new(format!("{failed} races could not be run"))) }
}

fn races(args: &Args) -> Outcome<Vec<Race>> {
    let found = servers::found();
    let modes = args.mode.map_or_else(|| vec![Mode::Sentinel, Mode::Cluster], |mode| vec![mode]);
    let mut races = Vec::new();
    for mode in modes {
        let asked = if args.fault.is_empty() { Fault::all_of(mode) } else { args.fault.clone() };
        for fault in asked {
            let fits =
                |kind: &&ServerKind| kind.to_string().starts_with(&args.server) && fault.is_in(mode, kind);
            let Some(kind) = found.kinds().iter().find(fits) else {
                if args.fault.is_empty() {
                    eprintln!("{mode} {fault}: skipped, no server at hand can do it");
                    continue;
                }
                return Err(Failure::new(format!("{mode} {fault}: no server at hand can do it")));
            };
            for client in &args.clients {
                let timeout = args.timeout.unwrap_or_else(|| fault.timeout(mode));
                races.push(Race {
                    mode,
                    fault,
                    kind: kind.clone(),
                    client: client.clone(),
                    runs: args.runs.max(1),
                    rate: args.rate,
                    timeout,
                    slots: args.slots,
                });
            }
        }
    }
    Ok(races)
}
