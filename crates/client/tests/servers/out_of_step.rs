//! A peer that answers once too often or once too seldom: the connection is closed, and everybody is told the truth.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use evenkeel_client::{Client, Disorder, Event, EventStream, Executed};
use evenkeel_testkit::{
    proxy::{Direction, Proxy, Rules, When},
    server::EmbeddedServer,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// The next word of a connection that is out of step.
async fn disorder(events: &mut EventStream) -> Disorder {
    let hearing = async {
        loop {
            if let Event::OutOfStep { cause, .. } = events.recv().await.unwrap() {
                return cause;
            }
        }
    };
    tokio::time::timeout(PATIENCE, hearing).await.unwrap()
}

/// Replies find their callers again, on another connection.
async fn is_in_step(client: &Client, proxy: &Proxy, before: u64) {
    for number in 0..30u64 {
        let key = format!("own:{number}");
        client.set(&key, number).await.unwrap();
        assert_eq!(client.get::<u64>(&key).await.unwrap(), number);
    }
    assert_eq!(client.health().out_of_step, 1);
    assert!(proxy.handle().accepted() > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_nobody_asked_for_ends_the_connection_and_no_command() {
    let server = EmbeddedServer::start().await.unwrap();
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let client = Client::connect(format!("redis://{}", proxy.addr())).await.unwrap();
    let mut events = client.events();
    assert_eq!(client.incr("count").await.unwrap(), 1);
    assert_eq!(client.health().out_of_step, 0);
    let before = proxy.handle().accepted();
    for connection in proxy.handle().connections() {
        proxy.handle().inject(connection.id, Direction::ToClient, &b"+STRAY\r\n"[..], When::BetweenFrames);
    }
    assert_eq!(disorder(&mut events).await, Disorder::Unasked);
    is_in_step(&client, &proxy, before).await;
    assert_eq!(client.incr("count").await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_too_many_in_front_of_others_is_found_by_the_sentry_and_nobody_gets_it() {
    let server = EmbeddedServer::start().await.unwrap();
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let client = Client::connect(format!("redis://{}?sentry_every=1", proxy.addr())).await.unwrap();
    let mut events = client.events();
    assert_eq!(client.incr("count").await.unwrap(), 1);
    let before = proxy.handle().accepted();
    // In front of the next reply stands another one.
    let armed = Arc::new(AtomicBool::new(true));
    let edit = Rules::new().edit(move |_connection, bytes| {
        if armed.swap(false, Ordering::SeqCst) {
            let rest = bytes.split();
            bytes.extend_from_slice(b":-1\r\n");
            bytes.unsplit(rest);
        }
    });
    proxy.handle().set(Direction::ToClient, edit);
    // What was read with the proof that replies are others' is handed to nobody.
    let error = client.incr("count").await.unwrap_err();
    assert_eq!(error.executed(), Executed::Maybe, "{error}");
    assert_eq!(disorder(&mut events).await, Disorder::Sentry);
    is_in_step(&client, &proxy, before).await;
    assert_eq!(client.get::<u64>("count").await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_too_few_is_found_by_the_sentry_in_the_silence_behind_it() {
    let server = EmbeddedServer::start().await.unwrap();
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let url = format!("redis://{}?sentry_idle=100ms&timeout=60s&answer_timeout=60s", proxy.addr());
    let client = Client::connect(url).await.unwrap();
    let mut events = client.events();
    assert_eq!(client.incr("count").await.unwrap(), 1);
    let before = proxy.handle().accepted();
    let armed = Arc::new(AtomicBool::new(true));
    let edit = Rules::new().edit(move |_connection, bytes| {
        if bytes.starts_with(b":2\r\n") && armed.swap(false, Ordering::SeqCst) {
            bytes.clear();
        }
    });
    proxy.handle().set(Direction::ToClient, edit);
    let lost = tokio::time::timeout(PATIENCE, async { client.incr("count").await });
    let error = lost.await.expect("the silence tells").unwrap_err();
    assert_eq!(error.executed(), Executed::Maybe, "{error}");
    assert_eq!(disorder(&mut events).await, Disorder::Sentry);
    is_in_step(&client, &proxy, before).await;
    assert_eq!(client.get::<u64>("count").await.unwrap(), 2);
}
