//! Runs the listings of `docs/deployment.md` as they are printed, but for the ports.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use evenkeel_testkit::launcher::{Control, Reply, ReservedPort, ServerKind, for_each_server, skip, until};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

const PAGE: &str = include_str!("../../../../docs/deployment.md");
const PASSWORD: &str = "yourpassword";
const SETPRIV: &str = "/usr/bin/setpriv";
const LIMIT: Duration = Duration::from_secs(60);

/// The listings of the page by name.
fn listings() -> BTreeMap<&'static str, &'static str> {
    let parts = PAGE.split("<!-- listing: ").skip(1).map(|part| {
        let (name, rest) = part.split_once(" -->\n```").unwrap();
        let (_language, rest) = rest.split_once('\n').unwrap();
        (name, rest.split_once("```").unwrap().0)
    });
    parts.collect()
}

#[test]
fn every_listing_has_a_name_and_a_test() {
    let source = include_str!("deployment.rs");
    for name in listings().keys() {
        assert!(source.contains(&format!("\"{name}\"")), "{name} is run by no test");
    }
    // Pictures are the only blocks without a name.
    let blocks = PAGE.matches("\n```").count() / 2;
    assert_eq!(blocks, listings().len() + PAGE.matches("\n\n```text").count());
}

/// A terminal in an empty folder, in which the page's ports stand for free ones, and `redis-server` for the server under test.
struct Terminal {
    folder: TempDir,
    path: String,
    ports: BTreeMap<u16, ReservedPort>,
    shells: Vec<Child>,
}

impl Terminal {
    fn open(kind: &ServerKind, ports: &[u16]) -> Self {
        // Where the launcher's folders are: whoever looks for processes left over looks there.
        let parent = std::env::var_os("EVENKEEL_TEST_DIR").map_or_else(std::env::temp_dir, Into::into);
        let folder = tempfile::Builder::new().prefix("evenkeel-page-").tempdir_in(parent).unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        // With its shell gone, a server ends too: the chain reaches from this process to every server of the page.
        let server = bin.join("redis-server");
        let with_parent =
            if Path::new(SETPRIV).exists() { format!("{SETPRIV} --pdeathsig KILL ") } else { String::new() };
        fs::write(&server, format!("#!/bin/sh\nexec {with_parent}'{}' \"$@\"\n", kind.program().display()))
            .unwrap();
        fs::set_permissions(&server, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let reserve = |port: &u16| (*port, ReservedPort::reserve((7000..8000).contains(port)).unwrap());
        Self { folder, path, ports: ports.iter().map(reserve).collect(), shells: Vec::new() }
    }

    fn addr(&self, port: u16) -> SocketAddr {
        self.ports[&port].addr()
    }

    /// The listing, with every port of the page replaced wherever it stands as a number of its own.
    fn text(&self, listing: &str) -> String {
        let mut text = String::new();
        let mut number = String::new();
        for c in listings()[listing].chars().chain(['\0']) {
            if c.is_ascii_digit() {
                number.push(c);
                continue;
            }
            let port = number.parse().ok().and_then(|port: u16| self.ports.get(&port));
            match port {
                Some(port) => text.push_str(&port.addr().port().to_string()),
                None => text.push_str(&number),
            }
            number.clear();
            text.push(c);
        }
        text.trim_end_matches('\0').to_owned()
    }

    fn bash(&self, script: &str) -> Command {
        let mut command = if Path::new(SETPRIV).exists() {
            let mut command = Command::new(SETPRIV);
            command.args(["--pdeathsig", "KILL", "bash"]);
            command
        } else {
            Command::new("bash")
        };
        command.args(["-c", script]).current_dir(self.folder.path().join("work")).env("PATH", &self.path);
        command.stdin(Stdio::null());
        command
    }

    fn work(&self) -> std::path::PathBuf {
        let work = self.folder.path().join("work");
        fs::create_dir_all(&work).unwrap();
        work
    }

    /// Runs a listing that ends by itself.
    fn run(&self, listing: &str) -> Output {
        self.work();
        self.bash(&format!("set -e\n{}", self.text(listing))).output().unwrap()
    }

    fn succeed(&self, listing: &str) -> String {
        let output = self.run(listing);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{listing}: {said}{complaint}");
        said
    }

    /// Runs a listing that starts servers in the background. They end with this terminal.
    fn start(&mut self, listing: &str) {
        let log = fs::File::create(self.work().join(format!("{listing}.log"))).unwrap();
        let mut command = self.bash(&format!("{}\nwait", self.text(listing)));
        command.stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        self.shells.push(command.spawn().unwrap());
    }

    fn write(&self, file: &str, listing: &str) {
        let mut file = fs::File::create(self.work().join(file)).unwrap();
        file.write_all(self.text(listing).as_bytes()).unwrap();
    }

    /// The variables of a listing of settings.
    fn settings(&self, listing: &str) -> BTreeMap<String, String> {
        let text = self.text(listing);
        let pair = |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        text.lines().map(|line| pair(line).unwrap()).collect()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Each shell leads a group of its own, in which its servers are, and is not reaped yet: the group is ours.
        // Not SIGTERM: a server that cannot save, because its folder goes, refuses to end.
        for shell in &mut self.shells {
            kill_process_group(Pid::from_child(shell), Signal::KILL).unwrap();
            shell.wait().unwrap();
        }
        let serves = |port: &ReservedPort| std::net::TcpStream::connect(port.addr()).is_ok();
        for _ in 0..200 {
            if !self.ports.values().any(serves) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(25));
        }
        let left: Vec<_> = self.ports.iter().filter(|(_, port)| serves(port)).map(|(page, _)| page).collect();
        assert!(std::thread::panicking(), "servers of the page are left on {left:?}");
    }
}

async fn ask(addr: SocketAddr, password: Option<&str>, command: &[&str]) -> Option<Reply> {
    Control::connect(addr, password).await.ok()?.command(command).await.ok()
}

async fn answers(addr: SocketAddr, password: Option<&str>) {
    until(LIMIT, "a server of the page to answer", || ask(addr, password, &["PING"])).await.unwrap();
}

/// Names resolve to loopback addresses; servers of the page listen on all of them.
fn resolve(endpoint: &str) -> SocketAddr {
    let (host, port) = endpoint.rsplit_once(':').unwrap();
    assert!(matches!(host, "localhost" | "127.0.0.1"), "{endpoint}");
    SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()))
}

fn has_redis_cli(test: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap();
    let has = std::env::split_paths(&path).any(|folder| folder.join("redis-cli").is_file());
    if !has {
        skip(test, "redis-cli is not installed");
    }
    has
}

#[tokio::test]
async fn the_single_server_of_the_page_answers() {
    if !has_redis_cli("deployment::single") {
        return;
    }
    for_each_server("deployment::single", |kind| async move {
        let mut terminal = Terminal::open(&kind, &[6379]);
        terminal.start("single-start");
        answers(terminal.addr(6379), Some(PASSWORD)).await;
        assert_eq!(terminal.succeed("check-single"), "PONG\n");
        let settings = terminal.settings("single-env");
        assert_eq!(settings["REDIS_MODE"], "single");
        let addr = resolve(settings["REDIS_URL"].strip_prefix("redis://").unwrap());
        assert_eq!(addr, terminal.addr(6379));
        assert!(ask(addr, Some(&settings["REDIS_PASSWORD"]), &["PING"]).await.is_some());
    })
    .await;
}

#[tokio::test]
async fn the_sentinels_of_the_page_fail_over_when_its_test_is_made() {
    if !has_redis_cli("deployment::sentinel") {
        return;
    }
    for_each_server("deployment::sentinel", |kind| async move {
        let mut terminal = Terminal::open(&kind, &[6379, 6380, 26379, 26380, 26381]);
        let primary = terminal.addr(6379);
        let replica = terminal.addr(6380);
        terminal.start("sentinel-primary");
        answers(primary, Some(PASSWORD)).await;
        terminal.start("sentinel-replica");
        terminal.write("sentinel1.conf", "sentinel-conf");
        terminal.start("sentinel-start");

        let settings = terminal.settings("sentinel-env");
        assert_eq!(settings["REDIS_MODE"], "sentinel");
        assert_eq!(settings["REDIS_PASSWORD"], PASSWORD);
        let name = &settings["REDIS_SENTINEL_NAME"];
        let sentinels: Vec<_> = settings["REDIS_SENTINELS"].split(',').map(resolve).collect();
        assert_eq!(sentinels.len(), 3);
        let named_by_all = async |wanted: SocketAddr| {
            until(LIMIT, "all sentinels to name the primary", || async {
                for sentinel in &sentinels {
                    let named = ask(*sentinel, None, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name]).await?;
                    let port = named.items().get(1)?.text()?.parse::<u16>().ok()?;
                    if port != wanted.port() {
                        return None;
                    }
                }
                Some(())
            })
            .await
            .unwrap();
        };
        named_by_all(primary).await;
        // Every sentinel must know the two others, or there is no majority; and the replica, or there is nobody to promote.
        let replica_port = replica.port().to_string();
        for sentinel in &sentinels {
            until(LIMIT, "the sentinels to know each other and the replica", || async {
                let others = ask(*sentinel, None, &["SENTINEL", "SENTINELS", name]).await?;
                let replicas = ask(*sentinel, None, &["SENTINEL", "REPLICAS", name]).await?;
                let knows =
                    |reply: &Reply| reply.items().iter().any(|item| item.text() == Some(&replica_port));
                let is_linked = |reply: &Reply| reply.items().iter().any(|item| item.text() == Some("ok"));
                let known = replicas.items().iter().any(|replica| knows(replica) && is_linked(replica));
                (others.items().len() == 2 && known).then_some(())
            })
            .await
            .unwrap();
        }
        assert!(terminal.succeed("sentinel-replicas").lines().any(|line| line == replica_port));
        assert!(terminal.succeed("check-sentinel").contains(&primary.port().to_string()));

        // The server dies before it can answer, so redis-cli complains.
        let crash = terminal.run("sentinel-crash");
        assert!(
            !crash.status.success() || String::from_utf8_lossy(&crash.stderr).contains("closed"),
            "{crash:?}"
        );
        until(LIMIT, "the replica to become the primary", || async {
            let role = ask(replica, Some(PASSWORD), &["ROLE"]).await?;
            (role.items().first()?.text()? == "master").then_some(())
        })
        .await
        .unwrap();
        named_by_all(replica).await;
        assert!(terminal.succeed("sentinel-verify").lines().any(|line| line == replica_port));
        assert!(ask(primary, Some(PASSWORD), &["PING"]).await.is_none());
        // The old primary comes back by the same listing, follows the new one, and logs in to it.
        terminal.start("sentinel-primary");
        until(LIMIT, "the old primary to follow", || async {
            let role = ask(primary, Some(PASSWORD), &["ROLE"]).await?;
            (role.items().first()?.text()? == "slave" && role.items().get(3)?.text()? == "connected")
                .then_some(())
        })
        .await
        .unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_cluster_of_the_page_fails_over_when_its_test_is_made() {
    if !has_redis_cli("deployment::cluster") {
        return;
    }
    for_each_server("deployment::cluster", |kind| async move {
        let pages = [7000, 7001, 7002, 7003, 7004, 7005];
        let mut terminal = Terminal::open(&kind, &pages);
        terminal.succeed("cluster-conf");
        terminal.start("cluster-start");
        for port in pages {
            answers(terminal.addr(port), None).await;
        }
        let said = terminal.succeed("cluster-create");
        assert!(said.contains("All 16384 slots covered"), "{said}");
        let settings = terminal.settings("cluster-env");
        assert_eq!(settings["REDIS_MODE"], "cluster");
        for node in settings["REDIS_CLUSTER_NODES"].split(',').map(resolve) {
            until(LIMIT, "the cluster to be ok", || is_ok(node)).await.unwrap();
        }
        assert!(terminal.succeed("check-cluster").contains("cluster_state:ok"));

        let crashed = terminal.addr(7000).port().to_string();
        let owner = async || {
            let slots = ask(terminal.addr(7001), None, &["CLUSTER", "SLOTS"]).await?;
            let first = slots
                .items()
                .iter()
                .find(|range| range.items().first().and_then(Reply::integer) == Some(0))?;
            first.items().get(2)?.items().get(1)?.integer()
        };
        assert_eq!(owner().await.unwrap().to_string(), crashed);
        // A replica that has not followed yet would not be elected.
        until(LIMIT, "the replicas to follow", || async {
            for port in [7003, 7004, 7005] {
                let role = ask(terminal.addr(port), None, &["ROLE"]).await?;
                if role.items().get(3)?.text()? != "connected" {
                    return None;
                }
            }
            Some(())
        })
        .await
        .unwrap();
        terminal.run("cluster-crash");
        let new = until(LIMIT, "another node to serve the slots", || async {
            let owner = owner().await?.to_string();
            (owner != crashed && is_ok(terminal.addr(7001)).await.is_some()).then_some(owner)
        })
        .await
        .unwrap();
        let replicas: Vec<_> = [7003, 7004, 7005].map(|port| terminal.addr(port).port().to_string()).into();
        assert!(replicas.contains(&new), "{new}");
        assert!(terminal.succeed("cluster-verify").contains("master,fail"));
    })
    .await;
}

async fn is_ok(node: SocketAddr) -> Option<()> {
    let info = ask(node, None, &["CLUSTER", "INFO"]).await?;
    info.text()?.contains("cluster_state:ok").then_some(())
}
