//! One gateway leaves its port to another: nobody is refused, and its clients leave one after the other.

use crate::peer::{Frame, Peer};
use crate::start::{DEADLINE, config, until, with};
use evenkeel_gateway::{Error, Gateway};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

const CLIENTS: usize = 24;

async fn is_alive(address: SocketAddr) -> Result<(), std::io::Error> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if answer.ends_with("alive") { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

async fn finished(done: &mut watch::Receiver<bool>) {
    drop(done.wait_for(|done| *done).await);
}

#[tokio::test]
async fn nobody_is_refused_while_a_gateway_leaves_its_port_to_another() {
    let mut settings = config();
    settings.reuse_port = true;
    let old = with(settings.clone()).await;
    let address = old.local_addr();
    settings.listen = address;
    let new = with(settings).await;
    let (done, watching) = watch::channel(false);
    let moved = Arc::new(AtomicUsize::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let mut peer = Peer::connect(address).await;
        let (mut watching, moved) = (watching.clone(), moved.clone());
        clients.spawn(async move {
            tokio::select! {
                code = peer.closed() => {
                    assert_eq!(code, 3001);
                    peer = Peer::connect(address).await;
                    moved.fetch_add(1, Ordering::Relaxed);
                }
                () = finished(&mut watching) => return,
            }
            finished(&mut watching).await;
            drop(peer);
        });
    }
    // Others come all the time, and each asks once more after the old gateway is gone.
    for _ in 0..8 {
        let watching = watching.clone();
        clients.spawn(async move {
            loop {
                let last = *watching.borrow();
                timeout(DEADLINE, is_alive(address)).await.expect("no answer").expect("refused");
                if last {
                    return;
                }
            }
        });
    }
    let before = old.handle().sessions();
    assert!(before > 0 && before < CLIENTS, "{before}: the system spreads them");
    old.stop().await;
    until("the clients of the old gateway", || moved.load(Ordering::Relaxed) == before).await;
    assert_eq!(new.handle().sessions(), CLIENTS);
    done.send_replace(true);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    new.stop().await;
}

#[tokio::test]
async fn a_port_is_shared_by_those_that_say_so() {
    let alone = with(config()).await;
    let mut settings = config();
    settings.listen = alone.local_addr();
    for reuse_port in [false, true] {
        settings.reuse_port = reuse_port;
        let error = Gateway::builder().config(settings.clone()).start().await.unwrap_err();
        assert!(matches!(error, Error::Listen { .. }), "{error}");
    }
    alone.stop().await;
}

#[tokio::test]
async fn clients_are_sent_away_one_after_the_other() {
    let mut settings = config();
    // Longer than the test may take: it is cut short below.
    settings.session.drain = 4 * DEADLINE;
    let gateway = with(settings).await;
    let handle = gateway.handle();
    let mut peers = Vec::new();
    for _ in 0..CLIENTS {
        let mut peer = Peer::connect(gateway.local_addr()).await;
        peer.subscribe("news").await;
        peers.push(peer);
    }
    let stopping = tokio::spawn(gateway.stop());
    until("the first to leave", || handle.sessions() < CLIENTS).await;
    assert!(!handle.is_ready());
    handle.publish("news", "1").await.unwrap();
    let mut heard = 0;
    for peer in &mut peers {
        // Each is told one thing first: that it is to leave, or what was published.
        match peer.next().await {
            Frame::Close(Some((3001, _))) => {}
            Frame::Text(_) => heard += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(heard > 0 && heard < CLIENTS, "{heard}");
    stopping.abort();
}
