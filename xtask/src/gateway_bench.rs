//! `cargo xtask gateway-bench`: the gateway, the least that a server can do, and two peers, under the same load.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::failure::{Failure, Outcome};
use crate::{process, servers};

/// The peer's source, its packages beside it.
const PEER: &str = "crates/gateway/examples/gateway-bench/peer";
/// Where Debian puts the module.
const NCHAN: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
const NGINX: [&str; 2] = ["/usr/sbin/nginx", "/usr/bin/nginx"];

/// Arguments of `gateway-bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Prints one JSON object a line and nothing else.
    #[arg(long)]
    json: bool,
    /// The systems, joined by commas: evenkeel, evenkeel-history, evenkeel-plain, floor, floor-coalesced, nchan, node [default: all]
    #[arg(long, value_name = "LIST")]
    systems: Option<String>,
    /// The scenarios, joined by commas: alone, hot, idle10k, connect, latency, slow-reader, redis-restart, sentinel-crash,
    /// deployment
    /// [default: all]
    #[arg(long, value_name = "LIST")]
    scenario: Option<String>,
    /// Rounds of each, the systems in turn; the median is told.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
    /// Seconds of each load.
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    seconds: f64,
}

pub(crate) fn run(args: &Args) -> Outcome {
    servers::need_redis()?;
    eprintln!("building (the first time takes some minutes)");
    let mut build = process::cargo(&["build", "--release", "--quiet"]);
    build.args([
        "-p",
        "evenkeel-cli",
        "-p",
        "evenkeel-gateway",
        "--bin",
        "evenkeel",
        "--example",
        "gateway-bench",
    ]);
    ended_well("the build", build.stdout(Stdio::null()).status())?;
    let release = process::target_dir().join("release");
    let mut bench = process::program(release.join("examples").join("gateway-bench"));
    bench.arg("run").arg("--evenkeel").arg(release.join("evenkeel"));
    bench.env("EVENKEEL_SERVERS_DIR", servers::folder());
    bench.args(["--rounds", &args.rounds.to_string(), "--seconds", &args.seconds.to_string()]);
    let wanted = |name: &str| args.systems.as_ref().is_none_or(|list| list.split(',').any(|one| one == name));
    if wanted("nchan")
        && let Some(nginx) = nginx()
    {
        bench.arg("--nginx").arg(nginx);
    }
    if wanted("node")
        && let Some(folder) = peer()
    {
        bench.arg("--node").arg(folder);
    }
    if args.json {
        bench.arg("--json");
    }
    for (name, value) in [("--systems", &args.systems), ("--scenario", &args.scenario)] {
        if let Some(value) = value {
            bench.args([name, value]);
        }
    }
    // Not `process::run`: standard output is for figures alone.
    ended_well("gateway-bench", bench.status())
}

fn ended_well(what: &str, status: std::io::Result<std::process::ExitStatus>) -> Outcome {
    let status = status.map_err(Failure::of(what))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("{what} ended with {status}"))) }
}

/// nginx with nchan; installed when this machine's packages have it and we may.
fn nginx() -> Option<PathBuf> {
    let find = || {
        let has_module = Path::new(NCHAN).is_file();
        NGINX.into_iter().map(PathBuf::from).find(|path| has_module && path.is_file())
    };
    if find().is_none() && process::is_installed("apt-get") {
        eprintln!("installing nginx with nchan");
        let mut install = process::program("apt-get");
        install.args(["install", "-y", "-qq", "--no-install-recommends", "nginx", "libnginx-mod-nchan"]);
        install.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(Stdio::null());
        if let Err(failure) = ended_well("apt-get install", install.stderr(Stdio::null()).status()) {
            eprintln!("{failure}; nchan is left out");
        }
    }
    find()
}

/// The folder of the Node server with its packages.
fn peer() -> Option<PathBuf> {
    if !process::is_installed("node") || !process::is_installed("npm") {
        eprintln!("node or npm is not installed; that server is left out");
        return None;
    }
    let folder = process::target_dir().join("gateway-bench");
    let source = process::root().join(PEER);
    let copied = fs::create_dir_all(&folder).and_then(|()| {
        ["package.json", "server.mjs"]
            .into_iter()
            .try_for_each(|name| fs::copy(source.join(name), folder.join(name)).map(drop))
    });
    if let Err(error) = copied {
        eprintln!("the Node server cannot be copied: {error}");
        return None;
    }
    if folder.join("node_modules").join("ioredis").is_dir() {
        return Some(folder);
    }
    eprintln!("installing the packages of the Node server");
    let mut install = process::program("npm");
    install.args(["install", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&folder);
    install.stdin(Stdio::null()).stdout(Stdio::null());
    match ended_well("npm install", install.status()) {
        Ok(()) => Some(folder),
        Err(failure) => {
            eprintln!("{failure}; the Node server is left out");
            None
        }
    }
}
