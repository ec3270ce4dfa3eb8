//! `cargo xtask autobahn`: the cases of the Autobahn test suite against the gateway's WebSocket codec.
//!
//! The suite is a client written for Python 2.7, which few machines have. Where there is none the command says so and does
//! nothing: conformance never depends on it, since the gateway's own tests have a table of the same classes of cases.

mod python;
mod report;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use serde_json::json;

use crate::failure::{Failure, Outcome};
use crate::process::{self, Stopwatch};
use report::Report;

/// The suite puts its folders of modules, one of them a namespace, onto Python's path by itself.
const START: &str = "import site, sys; folder = sys.argv.pop(1); site.addsitedir(folder); sys.path.insert(0, folder); \
                     from autobahntestsuite.wstest import run; run()";

/// Arguments of `autobahn`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The cases, joined by commas, such as 1.*,7.3.1,12.*
    #[arg(long, value_name = "LIST", default_value = "*", value_delimiter = ',')]
    cases: Vec<String>,
    /// Fails instead of skipping where the suite cannot be had
    #[arg(long)]
    required: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let suite = match python::ensure() {
        Ok(suite) => suite,
        Err(failure) if args.required => return Err(failure),
        Err(failure) => {
            println!("skipped: {failure}");
            return Ok(());
        }
    };
    process::run(&mut process::cargo(&[
        "build",
        "--release",
        "--quiet",
        "-p",
        "evenkeel-gateway",
        "--example",
        "echo",
    ]))?;
    let (_server, address) = Server::start()?;
    let reports = suite.folder.join("reports");
    // Cases of an earlier run must not count.
    let _nothing_there = fs::remove_dir_all(&reports);
    let spec = suite.folder.join("spec.json");
    let settings = json!({
        "outdir": reports,
        "servers": [{ "agent": "evenkeel", "url": format!("ws://{address}") }],
        "cases": args.cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    });
    fs::write(&spec, settings.to_string()).map_err(Failure::of("writing the suite's settings"))?;
    let log = suite.folder.join("log");
    let watch = Stopwatch::start();
    println!("running (all cases take some ten minutes)");
    let out = fs::File::create(&log).map_err(Failure::of("making the suite's log"))?;
    let err = out.try_clone().map_err(Failure::of("making the suite's log"))?;
    let mut client = process::program(&suite.python);
    client.args(["-c", START]).arg(&suite.packages).args(["-m", "fuzzingclient", "-s"]).arg(&spec);
    let status = client.stdin(Stdio::null()).stdout(out).stderr(err).status();
    let status = status.map_err(Failure::of("starting the suite"))?;
    if !status.success() {
        return Err(Failure::new(format!("the suite ended with {status}; it said: {}", log.display())));
    }
    let report = Report::read(&reports)?;
    print!("{report}");
    println!("took {:.0} s; {}", watch.elapsed().as_secs_f64(), reports.join("index.html").display());
    report.judge()
}

/// The gateway's codec behind a server that gives back what it hears.
struct Server(Child);

impl Server {
    /// Starts it on a free port, and returns its address.
    fn start() -> Outcome<(Self, String)> {
        let program = process::target_dir().join("release/examples/echo");
        let mut command = process::program(program);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut server = Self(child.map_err(Failure::of("starting the echo server"))?);
        let stdout = server.0.stdout.take().ok_or_else(|| Failure::new("the echo server has no output"))?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).map_err(Failure::of("reading the server's address"))?;
        let address = line.trim().strip_prefix("listening on ").map(str::to_owned);
        address
            .map(|address| (server, address))
            .ok_or_else(|| Failure::new("the echo server does not say where it listens"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _ended = self.0.wait();
    }
}
