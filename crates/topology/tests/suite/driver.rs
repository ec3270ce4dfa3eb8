//! The loop against a scripted asker, in virtual time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use evenkeel_protocol::{Command, Endpoint, Reply};
use evenkeel_topology::{
    AskFailure, FixedConfig, FixedResolver, ResolveError, SentinelConfig, SentinelResolver,
    driver::{Ask, DriverConfig, EventSink, NodeRole, TopologyEvent, spawn},
};

/// Answers as one sentinel and one primary; counts what is alive.
#[derive(Clone, Debug, Default)]
struct Scripted {
    alive: Arc<AtomicUsize>,
    behaviour: Behaviour,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Behaviour {
    #[default]
    Answers,
    Panics,
    Silent,
}

struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Scripted {
    fn alive(&self) -> Alive {
        self.alive.fetch_add(1, Ordering::SeqCst);
        Alive(Arc::clone(&self.alive))
    }
}

fn at(port: u16) -> Endpoint {
    Endpoint::new("10.0.0.1", port)
}

impl Ask for Scripted {
    async fn ask(
        &self,
        _endpoint: Endpoint,
        _role: NodeRole,
        commands: Vec<Command>,
        _deadline: Duration,
    ) -> Result<Vec<Reply>, AskFailure> {
        let _alive = self.alive();
        assert_ne!(self.behaviour, Behaviour::Panics, "a bug of whoever implements `Ask`");
        if self.behaviour == Behaviour::Silent {
            std::future::pending::<()>().await;
        }
        let answer = |command: &Command| {
            let words: Vec<_> = command.args().take(2).map(String::from_utf8_lossy).collect();
            let wire = match words.join(" ").as_str() {
                "ROLE" => "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n",
                "SENTINEL MASTER" => "*2\r\n$12\r\nconfig-epoch\r\n$1\r\n3\r\n",
                "SENTINEL GET-MASTER-ADDR-BY-NAME" => "*2\r\n$8\r\n10.0.0.1\r\n$4\r\n6379\r\n",
                "SENTINEL MYID" => "$2\r\nid\r\n",
                "INFO server" => "$21\r\nredis_mode:standalone\r\n",
                _ => "*0\r\n",
            };
            Reply::new(wire.into())
        };
        Ok(commands.iter().map(answer).collect())
    }

    async fn watch(&self, _sentinel: Endpoint, events: EventSink) -> AskFailure {
        let _alive = self.alive();
        events.up().await;
        std::future::pending().await
    }
}

fn sentinel(
    asker: &Scripted,
) -> (evenkeel_topology::driver::ResolverHandle, tokio::sync::mpsc::Receiver<TopologyEvent>) {
    let config = SentinelConfig::new("m", [at(26379)]);
    spawn(|now| SentinelResolver::new(config, 1, now), asker.clone(), DriverConfig::default().name("m"))
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_published_before_its_events() {
    let asker = Scripted::default();
    let (handle, mut events) = sentinel(&asker);
    loop {
        match events.recv().await.unwrap() {
            TopologyEvent::PrimaryChanged { from: None, to, epoch: 3, .. } => {
                assert_eq!(handle.reader().with(|topology| topology.primary_of(None).cloned()), Some(to));
                break;
            }
            TopologyEvent::Changed(changes) => assert!(!changes.is_empty()),
            TopologyEvent::Report(_) => {}
            other => panic!("{other:?}"),
        }
    }
    handle.shutdown().await;
    assert_eq!(asker.alive.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_questions_and_watches_and_so_does_dropping_the_handle() {
    let asker = Scripted { behaviour: Behaviour::Silent, ..Scripted::default() };
    let (handle, mut events) = sentinel(&asker);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(asker.alive.load(Ordering::SeqCst) >= 3);
    let (reader, reporter) = (handle.reader().clone(), handle.reporter().clone());
    drop(handle);
    while events.recv().await.is_some() {}
    assert_eq!(asker.alive.load(Ordering::SeqCst), 0);
    assert_eq!(reader.newer_than(0).await, None);
    reporter.connection_lost(at(6379));
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up_at_the_deadline() {
    let asker = Scripted { behaviour: Behaviour::Silent, ..Scripted::default() };
    let (handle, mut events) = sentinel(&asker);
    let unresolved = async {
        loop {
            if let TopologyEvent::Unresolved(error) = events.recv().await.unwrap() {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(Duration::from_millis(1001), unresolved).await.unwrap();
    assert_eq!(error, ResolveError::NoneReachable { seeds: vec![(at(26379), AskFailure::TimedOut)] });
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_question_that_panics_counts_as_unanswered() {
    let asker = Scripted { behaviour: Behaviour::Panics, ..Scripted::default() };
    let (handle, mut events) = sentinel(&asker);
    let mut rounds = 0;
    while rounds < 3 {
        if let TopologyEvent::Unresolved(error) = events.recv().await.unwrap() {
            assert_eq!(
                error,
                ResolveError::NoneReachable { seeds: vec![(at(26379), AskFailure::Unreachable)] }
            );
            rounds += 1;
        }
    }
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_still_gets_snapshots() {
    let asker = Scripted::default();
    let config = FixedConfig::new(at(6379)).poll_interval(Duration::from_millis(1));
    let (handle, events) =
        spawn(|now| FixedResolver::new(config, 1, now), asker.clone(), DriverConfig::default());
    drop(events);
    let topology = handle.reader().newer_than(1).await.unwrap();
    assert_eq!(topology.primary_of(None), Some(&at(6379)));
    handle.shutdown().await;
}
