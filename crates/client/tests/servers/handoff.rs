//! Announced maintenance against the embedded server: nothing fails, nothing is lost, nothing comes twice.

use std::time::Duration;

use evenkeel_client::{Client, Delivery};
use evenkeel_protocol::Notice;
use evenkeel_testkit::server::{Audience, EmbeddedServer, Move};

use crate::load::Load;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_under_load_lose_nothing() {
    let server = EmbeddedServer::builder().addresses(2).start().await.unwrap();
    let client = Client::connect(server.url()).await.unwrap();
    let load = Load::start(&client, "load", 8);
    let mut news = client.subscribe(["news"]).await.unwrap();
    let publisher = {
        let client = client.clone();
        tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(2));
            for number in 0..3000u32 {
                client.publish("news", number.to_string()).await.unwrap();
                pace.tick().await;
            }
        })
    };
    let listener = tokio::spawn(async move {
        let (mut heard, mut gaps) = (Vec::new(), 0);
        while heard.last() != Some(&2999u32) {
            match tokio::time::timeout(Duration::from_secs(5), news.recv()).await {
                Ok(Some(Delivery::Message { payload, .. })) => {
                    heard.push(std::str::from_utf8(&payload).unwrap().parse().unwrap());
                }
                Ok(Some(Delivery::Gap { .. })) => gaps += 1,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        (heard, gaps)
    });
    // A connection of its own that waits through all of it.
    let blocked = {
        let client = client.clone();
        tokio::spawn(async move {
            client.cmd("BLPOP").arg("never").arg(30).query::<Option<(String, String)>>().await
        })
    };
    let mut closed = 0;
    for round in 0..6usize {
        let plan = Move::new(round % 2, 1 - round % 2, Duration::from_millis(800));
        let report = server.move_endpoint(plan).await.unwrap().finished().await.unwrap();
        println!("{report:?}");
        closed += server.counters(round % 2).closed_by_server;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    publisher.await.unwrap();
    let (heard, gaps) = listener.await.unwrap();
    let outcome = load.finish(&client).await;
    println!("{outcome:?}; heard {}, gaps {gaps}, closed by the server {closed}", heard.len());
    assert_eq!((outcome.failed, outcome.unknown, outcome.lost, outcome.doubled), (0, 0, 0, 0), "{outcome:?}");
    assert_eq!(outcome.disordered, 0);
    assert_eq!(heard, (0..3000).collect::<Vec<u32>>(), "in order, each once");
    assert_eq!(gaps, 0);
    blocked.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_announced_stall_is_waited_for() {
    let server = EmbeddedServer::start().await.unwrap();
    let client = Client::connect(format!("{}?timeout=1s", server.url())).await.unwrap();
    let load = Load::start(&client, "load", 4);
    load.goes_on().await;
    let notice = |name: &str| {
        let elements = evenkeel_protocol::Frame::parse(
            &format!(">4\r\n+{name}\r\n:1\r\n:3\r\n*1\r\n+1\r\n").into(),
            &evenkeel_protocol::Limits::default(),
        );
        Notice::parse(elements.unwrap().elements().unwrap()).unwrap().unwrap()
    };
    server.announce(&notice("FAILING_OVER"), Audience::All);
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.hold_replies(None, Duration::from_secs(3));
    tokio::time::sleep(Duration::from_millis(3300)).await;
    let outcome = load.finish(&client).await;
    assert_eq!((outcome.failed, outcome.unknown, outcome.lost, outcome.doubled), (0, 0, 0, 0), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_announcements_do_nothing() {
    let server = EmbeddedServer::builder().addresses(2).start().await.unwrap();
    let client = Client::connect(server.url()).await.unwrap();
    let load = Load::start(&client, "load", 4);
    for frame in [
        ">1\r\n+MOVING\r\n",
        ">4\r\n+MOVING\r\n+abc\r\n+xyz\r\n:5\r\n",
        ">4\r\n+MOVING\r\n:9\r\n:1\r\n*1\r\n+h:1\r\n",
        ">4\r\n+MOVING\r\n:9\r\n:1\r\n+h:port\r\n",
        ">3\r\n+SMIGRATED\r\n:1\r\n+x\r\n",
        ">2\r\n+MIGRATING\r\n%0\r\n",
    ] {
        server.send_raw(frame.as_bytes(), Audience::All);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let outcome = load.finish(&client).await;
    assert_eq!((outcome.failed, outcome.unknown, outcome.lost, outcome.doubled), (0, 0, 0, 0), "{outcome:?}");
    assert_eq!(server.counters(0).accepted + server.counters(1).accepted, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_do_not_announce_are_met_quietly_or_refused_in_their_words() {
    use evenkeel_testkit::launcher::{Single, for_each_server};
    for_each_server("client::handoff::opt_in", |kind| async move {
        let server = Single::start(&kind).await.unwrap();
        let url = |mode: &str| format!("redis://{}?maint_mode={mode}", server.addr());
        for quiet in ["auto", "disabled"] {
            let client = Client::connect(url(quiet)).await.unwrap();
            assert_eq!(client.incr("met").await.unwrap() % 10, if quiet == "auto" { 1 } else { 2 });
        }
        let error = Client::connect(url("enabled")).await.unwrap_err();
        assert_eq!(error.kind(), evenkeel_client::ErrorKind::Handshake);
        let text = error.to_string();
        assert!(text.contains("MAINT_NOTIFICATIONS") && text.contains("unknown subcommand"), "{text}");
    })
    .await;
}

/// Passes bytes on, and counts what comes from the client: the bytes, and the reads that it took.
#[derive(Default)]
struct Meter {
    bytes: std::sync::atomic::AtomicUsize,
    reads: std::sync::atomic::AtomicUsize,
}

impl Meter {
    async fn start(to: std::net::SocketAddr) -> (std::sync::Arc<Self>, std::net::SocketAddr) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let meter = std::sync::Arc::new(Self::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let counting = std::sync::Arc::clone(&meter);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let meter = std::sync::Arc::clone(&counting);
                let server = tokio::net::TcpStream::connect(to).await.unwrap();
                tokio::spawn(async move {
                    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                        (client.into_split(), server.into_split());
                    tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
                    let mut buffer = vec![0; 65_536];
                    while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
                        meter.bytes.fetch_add(count, std::sync::atomic::Ordering::SeqCst);
                        meter.reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        to_server.write_all(&buffer[..count]).await.unwrap();
                    }
                });
            }
        });
        (meter, addr)
    }

    /// Bytes and reads since this was last asked.
    fn take(&self) -> (usize, usize) {
        let take =
            |counter: &std::sync::atomic::AtomicUsize| counter.swap(0, std::sync::atomic::Ordering::SeqCst);
        (take(&self.bytes), take(&self.reads))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_quietly_costs_no_round_trip_and_is_not_repeated() {
    use evenkeel_testkit::launcher::{Single, for_each_server};
    for_each_server("client::handoff::cost", |kind| async move {
        let server = Single::start(&kind).await.unwrap();
        let (meter, addr) = Meter::start(server.addr()).await;
        let url = |mode: &str| format!("redis://{addr}?maint_mode={mode}");
        let silent = Client::connect(url("disabled")).await.unwrap();
        let (without, reads) = meter.take();
        let auto = Client::connect(url("auto")).await.unwrap();
        let (with, auto_reads) = meter.take();
        assert!(with > without, "{kind:?}: it asks");
        assert_eq!((reads, auto_reads), (1, 1), "{kind:?}: all of the handshake in one write");
        // The refusal is remembered: the next connection of this client does not ask.
        drop(auto.lease().await.unwrap());
        assert_eq!(meter.take(), (without, 1), "{kind:?}");
        drop(silent);
    })
    .await;
}
