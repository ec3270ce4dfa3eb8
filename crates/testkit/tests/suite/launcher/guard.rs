use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use evenkeel_testkit::launcher::{Cluster, ClusterOptions, Single, for_each_server, skip, until};
use tokio::io::{AsyncBufReadExt, BufReader};

fn runs(pid: u32) -> bool {
    // A zombie has ended: its parent, a killed test process, can no longer reap it.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

async fn gone(pids: &[u32]) {
    until(Duration::from_secs(10), "the processes to end", || async {
        pids.iter().all(|pid| !runs(*pid)).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn processes_and_folders_go_with_the_guard() {
    for_each_server("launcher::processes_and_folders_go_with_the_guard", |kind| async move {
        let options = ClusterOptions::default().replicas_per_primary(0);
        let cluster = Cluster::start(&kind, options).await.unwrap();
        let pids: Vec<_> =
            cluster.addresses().iter().map(|addr| cluster.nodes().pid(*addr).unwrap()).collect();
        let folder = cluster.nodes().path().to_owned();
        assert!(pids.iter().all(|pid| runs(*pid)) && folder.is_dir());
        // A stopped process must end as well.
        cluster.nodes().stop(cluster.addresses()[0]).unwrap();
        drop(cluster);
        assert!(pids.iter().all(|pid| !runs(*pid)));
        assert!(!folder.exists());
    })
    .await;
}

#[tokio::test]
async fn a_panic_ends_the_processes_and_keeps_the_logs() {
    for_each_server("launcher::a_panic_ends_the_processes", |kind| async move {
        let (tx, rx) = std::sync::mpsc::channel();
        let task = tokio::spawn(async move {
            let server = Single::start(&kind).await.unwrap();
            let pid = server.nodes().pid(server.addr()).unwrap();
            tx.send((pid, server.nodes().path().to_owned(), server.nodes().log(server.addr()).unwrap()))
                .unwrap();
            panic!("as a failing test does");
        });
        assert!(task.await.unwrap_err().is_panic());
        let (pid, folder, log): (u32, PathBuf, PathBuf) = rx.recv().unwrap();
        assert!(!runs(pid));
        assert!(fs::read_to_string(log).unwrap().contains("Ready to accept connections"));
        fs::remove_dir_all(folder).unwrap();
    })
    .await;
}

/// Plays two parts: called by the harness, it starts itself as a process that starts a server, and kills that process.
#[tokio::test]
async fn servers_end_when_the_test_process_is_killed() {
    const PART: &str = "EVENKEEL_TESTKIT_CHILD";
    const NAME: &str = "launcher::guard::servers_end_when_the_test_process_is_killed";
    if !Path::new("/usr/bin/setpriv").exists() {
        skip("launcher::servers_end_when_the_test_process_is_killed", "setpriv is not installed");
        return;
    }
    if let Some(program) = std::env::var_os(PART) {
        let kind = evenkeel_testkit::launcher::ServerKind::probe(Path::new(&program)).unwrap();
        let server = Single::start(&kind).await.unwrap();
        println!("\npid={}", server.nodes().pid(server.addr()).unwrap());
        println!("folder={}", server.nodes().path().display());
        std::future::pending::<()>().await;
    }
    for_each_server("launcher::servers_end_when_the_test_process_is_killed", |kind| async move {
        let mut test = tokio::process::Command::from({
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", NAME, "--nocapture"]).env(PART, kind.program()).stdout(Stdio::piped());
            command
        })
        .kill_on_drop(true)
        .spawn()
        .unwrap();
        let mut lines = BufReader::new(test.stdout.take().unwrap()).lines();
        let (mut pid, mut folder) = (None, None);
        while folder.is_none() {
            let line = lines.next_line().await.unwrap().expect("the child says what it started");
            pid = pid.or_else(|| line.strip_prefix("pid=").map(|pid| pid.parse::<u32>().unwrap()));
            folder = line.strip_prefix("folder=").map(PathBuf::from);
        }
        assert!(runs(pid.unwrap()));
        test.kill().await.unwrap();
        gone(&[pid.unwrap()]).await;
        fs::remove_dir_all(folder.unwrap()).unwrap();
    })
    .await;
}
