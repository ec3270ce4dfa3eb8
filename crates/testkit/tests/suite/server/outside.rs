//! Clients of other makers, with maintenance notifications on: they hear everything and lose nothing.
//!
//! They come from the package registries once and are kept in the target folder. Without registry, python or node
//! the tests say why they tried nothing.

use std::{path::PathBuf, process::Stdio, time::Duration};

use evenkeel_protocol::Notice;
use evenkeel_testkit::server::{Audience, EmbeddedServer, Move};
use tokio::process::Command;

use super::peer::Peer;

const PATIENCE: Duration = Duration::from_secs(60);

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("outside").join(name)
}

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/suite/server/outside").join(name)
}

/// Runs a command to its end; what speaks against it is an error.
async fn run(command: &mut Command) -> Result<(), String> {
    let done =
        command.stdin(Stdio::null()).output().await.map_err(|error| format!("{command:?}: {error}"))?;
    if done.status.success() {
        Ok(())
    } else {
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&done.stderr).trim()))
    }
}

/// What a client reports at its end, read without a JSON library: the numbers and the list of notices.
struct Outcome {
    line: String,
}

impl Outcome {
    fn done(&self) -> u64 {
        let rest = self.line.split_once("\"done\":").unwrap().1.trim_start();
        rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
    }

    fn notices(&self, name: &str) -> usize {
        self.line.split_once("\"notices\":").unwrap().1.matches(name).count()
    }

    fn has_no_errors(&self) -> bool {
        self.line.replace(' ', "").contains("\"errors\":[]")
    }
}

/// Puts a client under every kind of notice and three moves.
async fn sail(mut client: Command, endpoint_type: &str) -> Outcome {
    let server = EmbeddedServer::builder().addresses(2).start().await.unwrap();
    let addr = server.addr();
    let mut client = client
        .args([&addr.ip().to_string(), &addr.port().to_string(), endpoint_type])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let opted_in = async {
        while !server.connections().iter().any(|conn| conn.maintenance.is_some() && conn.commands > 20) {
            if client.try_wait().unwrap().is_some() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    };
    let opted_in = tokio::time::timeout(PATIENCE, opted_in).await;
    if opted_in != Ok(true) {
        client.kill().await.unwrap();
        let output = client.wait_with_output().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "the client never opted in");
        return Outcome { line: String::new() };
    }
    let shards = || vec!["1".to_owned()];
    let within = Some(Duration::from_secs(2));
    for notice in [
        Notice::Migrating { seq: None, within, shards: shards() },
        Notice::Migrated { seq: None, shards: shards() },
        Notice::FailingOver { seq: None, within, shards: shards() },
        Notice::FailedOver { seq: None, shards: shards() },
    ] {
        assert_eq!(server.announce(&notice, Audience::All).connections, 1);
    }
    for (from, to) in [(0, 1), (1, 0), (0, 1)] {
        let plan = Move::new(from, to, Duration::from_secs(1)).flip_at(0.25);
        let report = server.move_endpoint(plan).await.unwrap().finished().await.unwrap();
        assert_eq!(report.closed, 0, "the client did not leave in time: {report:?}");
        assert!(server.counters(to).open > 0);
    }
    let mut peer = Peer::connect(addr).await;
    peer.ask(&["SET", "stop", "1"]).await;
    let output = tokio::time::timeout(PATIENCE, client.wait_with_output()).await.unwrap().unwrap();
    let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
    let outcome = Outcome { line };
    let counted = peer.next_integer(&["GET", "n"]).await;
    assert!(outcome.has_no_errors(), "{}", outcome.line);
    assert_eq!(outcome.done(), counted, "every increment stands once");
    assert!(counted > 100, "it ran: {counted}");
    outcome
}

#[tokio::test]
async fn redis_py_hears_everything_and_loses_nothing() {
    let home = folder("python");
    let python = home.join("bin/python");
    if !python.exists() {
        let made = async {
            std::fs::create_dir_all(&home).map_err(|error| error.to_string())?;
            run(Command::new("python3").args(["-m", "venv"]).arg(&home)).await?;
            run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "redis==8.1.0"])).await
        };
        if let Err(reason) = made.await {
            std::fs::remove_dir_all(&home).ok();
            println!("skipped: {reason}");
            return;
        }
    }
    for endpoint_type in ["internal-ip", "none"] {
        let mut command = Command::new(&python);
        command.arg(script("client.py"));
        let outcome = sail(command, endpoint_type).await;
        for (name, least) in [
            ("NodeMigratingNotification", 1),
            ("NodeMigratedNotification", 1),
            ("NodeFailingOverNotification", 1),
            ("NodeFailedOverNotification", 1),
            ("NodeMovingNotification", 3),
        ] {
            assert!(outcome.notices(name) >= least, "{name}: {}", outcome.line);
        }
    }
}

#[tokio::test]
async fn node_redis_hears_everything_and_loses_nothing() {
    let home = folder("node");
    if !home.join("node_modules/redis").exists() {
        let made = async {
            std::fs::create_dir_all(&home).map_err(|error| error.to_string())?;
            std::fs::write(home.join("package.json"), "{\"private\":true}")
                .map_err(|error| error.to_string())?;
            run(Command::new("npm").args(["install", "--silent", "redis@6.3.1"]).current_dir(&home)).await
        };
        if let Err(reason) = made.await {
            std::fs::remove_dir_all(&home).ok();
            println!("skipped: {reason}");
            return;
        }
    }
    for endpoint_type in ["internal-ip", "none"] {
        let mut command = Command::new("node");
        command.arg(script("client.cjs")).env("NODE_PATH", home.join("node_modules"));
        let outcome = sail(command, endpoint_type).await;
        for (name, least) in
            [("MIGRATING", 1), ("MIGRATED", 1), ("FAILING_OVER", 1), ("FAILED_OVER", 1), ("MOVING", 3)]
        {
            assert!(outcome.notices(&format!("\"{name}\"")) >= least, "{name}: {}", outcome.line);
        }
    }
}
