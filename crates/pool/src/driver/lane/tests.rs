//! Lanes against scripted peers on loopback.

use std::{sync::atomic::AtomicUsize, task::Poll};

use bytes::{Bytes, BytesMut};
use evenkeel_protocol::Scanner;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::queue::Failure;

/// Answers HELLO, and everything else with its last argument; `QUITNOW` closes without an answer.
async fn serve(mut stream: TcpStream, delay: Duration) {
    let mut read = BytesMut::new();
    let mut scanner = Scanner::new(Limits::default());
    loop {
        while let Some(found) = scanner.scan(&read).unwrap() {
            let args: Vec<Bytes> = Reply::new(read.split_to(found.len).freeze()).decode().unwrap();
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            let answer = match args[0].as_ref() {
                b"HELLO" => b"%1\r\n+proto\r\n:3\r\n".to_vec(),
                b"QUITNOW" => return,
                _ => {
                    let last = args.last().unwrap();
                    [format!("${}\r\n", last.len()).as_bytes(), last, b"\r\n"].concat()
                }
            };
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

async fn listen(delay: Duration) -> (Endpoint, Arc<AtomicUsize>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new("127.0.0.1", listener.local_addr().unwrap().port());
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(stream, delay));
        }
    });
    (endpoint, accepted, task)
}

fn lane(endpoint: &Endpoint) -> Lane {
    Lane::start(LaneId(1), endpoint.clone(), LaneConfig::default(), Arc::new(Deaf))
}

async fn echo(lane: &Lane, text: &str) -> Outcome {
    lane.request(&Command::new("ECHO").arg(text), Duration::from_secs(5)).await
}

fn text(outcome: Outcome) -> String {
    match outcome {
        Outcome::Reply(reply) => reply.decode().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn many_callers_share_a_lane_and_each_gets_its_own() {
    let (endpoint, accepted, _server) = listen(Duration::ZERO).await;
    let lane = lane(&endpoint);
    let mut tasks = Vec::new();
    for task in 0..50 {
        let lane = lane.clone();
        tasks.push(tokio::spawn(async move {
            for round in 0..100 {
                let own = format!("{task}-{round}");
                assert_eq!(text(echo(&lane, &own).await), own);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
    assert_eq!((lane.bytes(), lane.in_flight()), (0, 0));
}

#[tokio::test]
async fn dropped_callers_shift_nobody() {
    let (endpoint, _, _server) = listen(Duration::ZERO).await;
    let lane = lane(&endpoint);
    for round in 0..500u32 {
        let mut doomed = Box::pin(echo(&lane, "doomed"));
        let _pending = std::future::poll_fn(|cx| Poll::Ready(doomed.as_mut().poll(cx).is_ready())).await;
        if round % 3 == 0 {
            tokio::task::yield_now().await;
        }
        drop(doomed);
        let own = round.to_string();
        assert_eq!(text(echo(&lane, &own).await), own);
    }
}

#[tokio::test]
async fn a_lane_comes_back_and_tells_what_is_unknown() {
    let (endpoint, accepted, _server) = listen(Duration::ZERO).await;
    let lane = lane(&endpoint);
    assert_eq!(text(echo(&lane, "a").await), "a");
    let cut = lane.request(&Command::new("QUITNOW"), Duration::from_secs(5)).await;
    assert!(matches!(cut, Outcome::Failed(Failure::Lost)), "{cut:?}");
    assert_eq!(text(echo(&lane, "b").await), "b");
    assert_eq!(accepted.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_move_loses_nothing_and_leaves_the_old_side() {
    let (old, accepted_old, _server_old) = listen(Duration::from_micros(200)).await;
    let (new, accepted_new, _server_new) = listen(Duration::ZERO).await;
    let lane = lane(&old);
    let worker = {
        let lane = lane.clone();
        tokio::spawn(async move {
            for round in 0..2000u32 {
                let own = round.to_string();
                assert_eq!(text(echo(&lane, &own).await), own);
            }
        })
    };
    assert!(lane.ready().await);
    let now = clock::now();
    let request = MoveRequest::new(crate::machine::MoveId(1), new.clone(), now, now + Duration::from_secs(3));
    assert!(lane.move_to(request));
    worker.await.unwrap();
    assert_eq!(lane.endpoint(), new);
    assert_eq!((accepted_old.load(Ordering::SeqCst), accepted_new.load(Ordering::SeqCst)), (1, 1));
}

/// Keeps what a lane reports of moves.
#[derive(Default)]
struct Ear {
    reports: Mutex<Vec<Report>>,
    opened: Mutex<Vec<(u64, Option<u64>)>>,
    closed: Mutex<Vec<u64>>,
}

impl LaneObserver for Ear {
    fn report(&self, _lane: LaneId, report: Report) {
        self.reports.lock().push(report);
    }

    fn opened(&self, _lane: LaneId, info: &Arc<ConnInfo>, instead_of: Option<&Arc<ConnInfo>>) {
        self.opened.lock().push((info.number, instead_of.map(|info| info.number)));
    }

    fn closed(&self, _lane: LaneId, info: &Arc<ConnInfo>, _by_peer: bool) {
        self.closed.lock().push(info.number);
    }
}

async fn until(what: impl Fn() -> bool) {
    let patience = tokio::time::timeout(Duration::from_secs(5), async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    patience.await.unwrap();
}

fn renewal(target: &Endpoint, overlap: crate::machine::Overlap, dial_in: Duration) -> MoveRequest {
    let now = clock::now();
    let mut request =
        MoveRequest::new(crate::machine::MoveId(1), target.clone(), now, now + Duration::from_secs(3));
    (request.renew, request.overlap, request.not_before) = (true, overlap, now + dial_in);
    request
}

#[tokio::test]
async fn a_quiet_lane_writes_nothing_until_its_successor_stands() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let old = Endpoint::new("127.0.0.1", listener.local_addr().unwrap().port());
    let close_old = watch::Sender::new(false);
    let mut closing = close_old.subscribe();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::select! {
            () = serve(stream, Duration::ZERO) => {}
            _ = closing.changed() => {}
        }
    });
    let (new, accepted_new, _server_new) = listen(Duration::ZERO).await;
    let ear = Arc::new(Ear::default());
    let observer: Arc<dyn LaneObserver> = Arc::<Ear>::clone(&ear);
    // As a lease's: a connection that is lost in its quiet time is not the end of it.
    let lane = Lane::start(LaneId(1), old, LaneConfig::default().reconnect(false), observer);
    assert!(lane.ready().await);
    let old_number = lane.info().unwrap().number;
    assert!(lane.move_to(renewal(&new, crate::machine::Overlap::Quiet, Duration::from_secs(2))));
    tokio::task::yield_now().await;
    let waiting = {
        let lane = lane.clone();
        tokio::spawn(async move { text(echo(&lane, "later").await) })
    };
    until(|| lane.in_flight() == 1).await;
    assert_eq!(accepted_new.load(Ordering::SeqCst), 0);
    // The server closes: its last connection ends with the sender.
    close_old.send_replace(true);
    until(|| accepted_new.load(Ordering::SeqCst) == 1).await;
    assert_eq!(waiting.await.unwrap(), "later");
    // The successor takes the place of the lost one in one step.
    until(|| ear.closed.lock().contains(&old_number)).await;
    assert_eq!(ear.opened.lock().last().unwrap().1, Some(old_number));
}

#[tokio::test]
async fn a_lane_that_comes_late_to_its_silence_writes_nothing_any_more() {
    let (new, _, _server_new) = listen(Duration::ZERO).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let old = Endpoint::new("127.0.0.1", listener.local_addr().unwrap().port());
    let heard = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heard);
    let _server_old = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = BytesMut::new();
        stream.read_buf(&mut read).await.unwrap();
        stream.write_all(b"%1\r\n+proto\r\n:3\r\n").await.unwrap();
        while stream.read_buf(&mut read).await.unwrap_or(0) > 0 {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let lane = lane(&old);
    assert!(lane.ready().await);
    let mut quietly = renewal(&new, crate::machine::Overlap::Quiet, Duration::from_millis(60));
    quietly.hush_at = clock::now() + Duration::from_millis(20);
    assert!(lane.move_to(quietly.clone()));
    // It knows of its move before its time has come.
    tokio::time::sleep(Duration::from_millis(5)).await;
    // Nobody runs for a while, and a caller is the first to run again.
    while clock::now() < quietly.hush_at + Duration::from_millis(5) {}
    assert_eq!(text(echo(&lane, "later").await), "later");
    assert_eq!((lane.endpoint(), heard.load(Ordering::SeqCst)), (new, 0));
}

#[tokio::test]
async fn a_lane_that_moves_in_place_answers_everything_first() {
    let (old, accepted_old, _server_old) = listen(Duration::from_millis(20)).await;
    let (new, accepted_new, _server_new) = listen(Duration::ZERO).await;
    let ear = Arc::new(Ear::default());
    let observer: Arc<dyn LaneObserver> = Arc::<Ear>::clone(&ear);
    let lane = Lane::start(LaneId(1), old, LaneConfig::default().reconnect(false), observer);
    assert!(lane.ready().await);
    let owed: Vec<_> = (0..3)
        .map(|number| {
            let lane = lane.clone();
            tokio::spawn(async move { text(echo(&lane, &number.to_string()).await) })
        })
        .collect();
    until(|| lane.in_flight() == 3).await;
    assert!(lane.move_to(renewal(&new, crate::machine::Overlap::InPlace, Duration::ZERO)));
    for (number, owed) in owed.into_iter().enumerate() {
        assert_eq!(owed.await.unwrap(), number.to_string());
    }
    until(|| ear.reports.lock().contains(&Report::Moved(crate::machine::MoveId(1)))).await;
    assert_eq!(text(echo(&lane, "there").await), "there");
    assert_eq!((accepted_old.load(Ordering::SeqCst), accepted_new.load(Ordering::SeqCst)), (1, 1));
    assert_eq!(lane.endpoint(), new);
}

#[tokio::test]
async fn a_pinned_lane_stays_until_it_is_let_go() {
    let (old, _, _server_old) = listen(Duration::ZERO).await;
    let (new, accepted_new, _server_new) = listen(Duration::ZERO).await;
    let lane = lane(&old);
    assert!(lane.ready().await);
    lane.pin(true);
    assert!(lane.move_to(renewal(&new, crate::machine::Overlap::Beside, Duration::ZERO)));
    until(|| accepted_new.load(Ordering::SeqCst) == 1).await;
    for round in 0..50 {
        assert_eq!(text(echo(&lane, &round.to_string()).await), round.to_string());
        assert_eq!(lane.endpoint(), old);
    }
    lane.pin(false);
    until(|| lane.endpoint() == new).await;
    assert_eq!(text(echo(&lane, "there").await), "there");
}

#[tokio::test]
async fn a_lane_that_is_pinned_again_and_again_moves_in_between() {
    let (old, _, _server_old) = listen(Duration::ZERO).await;
    let (new, _, _server_new) = listen(Duration::ZERO).await;
    let lane = lane(&old);
    assert!(lane.ready().await);
    lane.pin(true);
    assert!(lane.move_to(renewal(&new, crate::machine::Overlap::Beside, Duration::ZERO)));
    until(|| lane.shared.pin.lock().parked).await;
    // The lane's task gets no turn between the end of one state and the beginning of the next.
    lane.pin(false);
    lane.pin(true);
    assert_eq!(text(echo(&lane, "watch").await), "watch");
    assert_eq!(lane.endpoint(), new, "the state begins on the successor");
    assert!(lane.shared.is_pinned(), "and holds the lane there");
}

#[tokio::test]
async fn deadlines_hold_when_nobody_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new("127.0.0.1", listener.local_addr().unwrap().port());
    let lane = lane(&endpoint);
    let outcome = lane.request(&Command::new("PING"), Duration::from_millis(200)).await;
    assert!(matches!(outcome, Outcome::Failed(Failure::TimedOutUnsent)), "{outcome:?}");
}

#[tokio::test]
async fn nothing_is_written_to_a_peer_that_is_mute_and_all_of_it_when_it_speaks_again() {
    let (go_on, stands_still) = watch::channel(false);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new("127.0.0.1", listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        let (first, _) = listener.accept().await.unwrap();
        let mut stopped = stands_still.clone();
        let mut first = first;
        // The handshake, and then nothing until it goes on; other connections are taken and not answered.
        let mut hello = [0; 1024];
        let _read = first.read(&mut hello).await.unwrap();
        first.write_all(b"%1\r\n+proto\r\n:3\r\n").await.unwrap();
        let _others = tokio::spawn(async move {
            let mut others = Vec::new();
            while let Ok((other, _)) = listener.accept().await {
                others.push(other);
            }
        });
        stopped.wait_for(|go| *go).await.unwrap();
        let mut waiting = BytesMut::new();
        first.read_buf(&mut waiting).await.unwrap();
        first.write_all(b"$5\r\nfirst\r\n").await.unwrap();
        let came = waiting.len();
        serve(first, Duration::ZERO).await;
        came
    });
    let config = LaneConfig::default().suspect_after(Duration::from_millis(100));
    let lane = Lane::start(LaneId(1), endpoint, config, Arc::new(Deaf));
    let command = Command::new("ECHO").arg("first");
    let first = tokio::spawn({
        let (lane, command) = (lane.clone(), command.clone());
        async move { lane.request(&command, Duration::from_secs(5)).await }
    });
    until(|| lane.is_mute()).await;
    assert!(lane.is_suspect());
    let hasty = lane.request(&Command::new("ECHO").arg("hasty"), Duration::from_millis(100)).await;
    assert!(matches!(hasty, Outcome::Failed(Failure::TimedOutUnsent)), "{hasty:?}");
    let second = tokio::spawn({
        let lane = lane.clone();
        async move { echo(&lane, "second").await }
    });
    until(|| lane.in_flight() == 2).await;
    go_on.send(true).unwrap();
    assert_eq!(text(first.await.unwrap()), "first");
    assert_eq!(text(second.await.unwrap()), "second");
    assert!(!lane.is_mute() && !lane.is_suspect());
    drop(lane);
    assert_eq!(server.await.unwrap(), command.encoded_len(), "only the first one was written");
}

#[tokio::test]
async fn closing_finishes_what_is_owed() {
    let (endpoint, _, _server) = listen(Duration::from_millis(30)).await;
    let lane = lane(&endpoint);
    assert!(lane.ready().await);
    let owed = {
        let lane = lane.clone();
        tokio::spawn(async move { text(echo(&lane, "owed").await) })
    };
    while lane.in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    lane.close(Duration::from_secs(5)).await;
    assert_eq!(owed.await.unwrap(), "owed");
    assert!(matches!(echo(&lane, "late").await, Outcome::Failed(Failure::Closed)));
    assert_eq!(lane.readiness(), Readiness::Closed);
}

#[tokio::test]
async fn sixty_four_mebibytes_both_ways_do_not_lock() {
    let (endpoint, _, _server) = listen(Duration::ZERO).await;
    let lane = Lane::start(LaneId(1), endpoint, LaneConfig::default().budget(256 << 20), Arc::new(Deaf));
    let large = Bytes::from(vec![b'x'; 16 << 20]);
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (lane, large) = (lane.clone(), large.clone());
        tasks.push(tokio::spawn(async move {
            let command = Command::new("ECHO").arg(&large);
            match lane.request(&command, Duration::from_secs(30)).await {
                Outcome::Reply(reply) => assert_eq!(reply.decode::<Bytes>().unwrap().len(), large.len()),
                other => panic!("{other:?}"),
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}
