//! One server: commands, blocking commands, transactions, kills.

use std::{collections::HashMap, time::Duration};

use evenkeel_client::{Client, ErrorKind, Executed};
use evenkeel_testkit::launcher::{Single, SingleOptions, for_each_server};

use crate::load::Load;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_every_kind() {
    for_each_server("client::single::commands", |kind| async move {
        let server = Single::start_with(&kind, SingleOptions::default().password("hush")).await.unwrap();
        let client = Client::connect(format!("redis://:hush@{}", server.addr())).await.unwrap();
        client.set("greeting", "hello").await.unwrap();
        let greeting: String = client.get("greeting").await.unwrap();
        assert_eq!(greeting, "hello");
        assert_eq!(client.incr("visits").await.unwrap(), 1);
        let (a, b): (i64, Option<String>) = client.pipeline().incr("a").get("b").await.unwrap();
        assert_eq!((a, b), (1, None));
        client.cmd("HSET").arg("h").arg("x").arg("1").arg("y").arg("2").query::<i64>().await.unwrap();
        let all: HashMap<String, i64> = client.hgetall("h").await.unwrap();
        assert_eq!(all, HashMap::from([("x".to_owned(), 1), ("y".to_owned(), 2)]));
        let pop = {
            let client = client.clone();
            tokio::spawn(async move { client.cmd("BLPOP").arg("l").arg(5).query::<(String, String)>().await })
        };
        // The shared connection is not held up by the command that blocks.
        for _ in 0..100 {
            client.incr("visits").await.unwrap();
        }
        client.lpush("l", ["item"]).await.unwrap();
        assert_eq!(pop.await.unwrap().unwrap(), ("l".to_owned(), "item".to_owned()));
        let error = client.cmd("HGETALL").arg("a").query::<HashMap<String, String>>().await.unwrap_err();
        assert_eq!((error.kind(), error.server_code()), (ErrorKind::Server, Some("WRONGTYPE")));
        let refused = client.cmd("SUBSCRIBE").arg("x").query::<()>().await.unwrap_err();
        assert_eq!((refused.kind(), refused.executed()), (ErrorKind::Misused, Executed::No));
        assert!(client.is_healthy().await);
        client.close(Duration::from_secs(1)).await;
        let closed = client.incr("visits").await.unwrap_err();
        assert_eq!(closed.executed(), Executed::No);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_and_a_restart_cost_only_the_outage() {
    for_each_server("client::single::kill", |kind| async move {
        let server = Single::start_with(&kind, SingleOptions::default().append_only(true)).await.unwrap();
        let client = Client::connect(format!("redis://{}", server.addr())).await.unwrap();
        let load = Load::start(&client, "load", 8);
        load.goes_on().await;
        server.nodes().kill(server.addr()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.nodes().restart(server.addr()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let outcome = load.finish(&client).await;
        // A write is unknown when it was on its way at the moment of the kill, and none fails.
        assert!(outcome.unknown <= 8 && outcome.failed == 0, "{outcome:?}");
        assert_eq!((outcome.doubled, outcome.disordered), (0, 0), "{outcome:?}");
        assert!(outcome.commands > 1000, "{outcome:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_pauses_costs_nothing() {
    for_each_server("client::single::pause", |kind| async move {
        let server = Single::start(&kind).await.unwrap();
        let client = Client::connect(format!("redis://{}", server.addr())).await.unwrap();
        let id: i64 = client.cmd("CLIENT").arg("ID").query().await.unwrap();
        let load = Load::start(&client, "load", 8);
        load.goes_on().await;
        server.command(&["DEBUG", "SLEEP", "3"]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let outcome = load.finish(&client).await;
        assert_eq!((outcome.failed, outcome.unknown, outcome.doubled), (0, 0, 0), "{outcome:?}");
        assert_eq!(client.cmd("CLIENT").arg("ID").query::<i64>().await.unwrap(), id);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_cancellations_shift_no_reply() {
    for_each_server("client::single::cancellations", |kind| async move {
        let server = Single::start(&kind).await.unwrap();
        let client = Client::connect(format!("redis://{}", server.addr())).await.unwrap();
        let mut tasks = Vec::new();
        for task in 0..20u64 {
            let client = client.clone();
            tasks.push(tokio::spawn(async move {
                let own = format!("own:{task}");
                client.set(&own, &own).await.unwrap();
                let (mut wrong, mut cancelled, mut seed) = (0u32, 0u32, task + 1);
                while cancelled < 500 {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let patience = Duration::from_micros((seed >> 33) % 300);
                    match tokio::time::timeout(patience, client.get::<String>(&own)).await {
                        Ok(value) => wrong += u32::from(value.unwrap() != own),
                        Err(_elapsed) => cancelled += 1,
                    }
                    let doomed = tokio::spawn({
                        let (client, own) = (client.clone(), own.clone());
                        async move { client.get::<String>(&own).await }
                    });
                    if seed.trailing_zeros() >= 3 {
                        doomed.abort();
                        cancelled += 1;
                    } else {
                        wrong += u32::from(doomed.await.unwrap().unwrap() != own);
                    }
                }
                (wrong, cancelled)
            }));
        }
        let (mut wrong, mut cancelled) = (0, 0);
        for task in tasks {
            let (w, c) = task.await.unwrap();
            wrong += w;
            cancelled += c;
        }
        assert_eq!(wrong, 0);
        assert!(cancelled >= 10_000);
    })
    .await;
}

#[tokio::test]
async fn addresses_that_do_not_work_say_why() {
    let connect = |url: &str| Client::connect(url.to_owned());
    let error = connect("redis://127.0.0.1:1").await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("ECONNREFUSED") && text.contains("127.0.0.1:1") && text.contains("running"),
        "{text}"
    );
    // Accepts, and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}?handshake_timeout=200ms", silent.local_addr().unwrap());
    let error = connect(&url).await.unwrap_err();
    assert!(error.is_timeout() && error.to_string().contains("ETIMEDOUT"), "{error}");
    // Speaks something else.
    let http = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", http.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = http.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
    });
    let error = connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_command_that_a_lane_refuses_names_the_right_call() {
    for_each_server("client::single::refusals", |kind| async move {
        let server = Single::start(&kind).await.unwrap();
        let client = Client::connect(format!("redis://{}", server.addr())).await.unwrap();
        for refusal in evenkeel_protocol::command::LaneRefusal::all() {
            let mut words = refusal.command.split(' ');
            let mut command = client.cmd(words.next().unwrap());
            for word in words {
                command = command.arg(word);
            }
            let error = command.arg("x").query::<()>().await.unwrap_err();
            assert_eq!(
                (error.kind(), error.executed()),
                (ErrorKind::Misused, Executed::No),
                "{}",
                refusal.command
            );
            assert!(error.to_string().contains(refusal.instead), "{error}");
        }
        assert_eq!(client.incr("still-works").await.unwrap(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_password_that_nobody_asks_for_is_told() {
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    for_each_server("client::single::superfluous_password", |kind| async move {
        let server = Single::start(&kind).await.unwrap();
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let _logging = tracing::subscriber::set_default(subscriber);
        let _client = Client::connect(format!("redis://:hush@{}", server.addr())).await.unwrap();
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("is not asked for") && !text.contains("hush"), "{text}");
    })
    .await;
}
