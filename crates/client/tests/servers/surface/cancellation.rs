use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use evenkeel_client::Client;
use evenkeel_testkit::launcher::for_each_server;

use super::single;

const CANCELLED: u64 = 10_000;
const TASKS: u64 = 32;

/// Asks for its own word again and again; gives up at a random moment, or checks that the answer is that word.
async fn ask(client: Client, task: u64, seed: u64, cancelled: Arc<AtomicU64>) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed.wrapping_add(task));
    let mut moments = random.fork();
    let mut wrong = 0;
    let mut round = 0u64;
    while cancelled.load(Ordering::Relaxed) < CANCELLED {
        round += 1;
        let word = format!("{task}:{round}");
        let call = async {
            match random.u8(..3) {
                0 => client.echo::<String>(&word).await.unwrap() == word,
                1 => {
                    let (a, b) = client.pipeline().echo::<String>(&word).echo::<String>("b").await.unwrap();
                    a == word && b == "b"
                }
                _ => {
                    let key = format!("key:{task}");
                    let (set, got) = client.transaction().set(&key, &word).get::<String>(&key).await.unwrap();
                    set && got == word
                }
            }
        };
        let mut call = pin!(call);
        // So many polls are allowed, then so much time.
        let polls = moments.u32(..4);
        let mut polled = 0;
        let first = std::future::poll_fn(|cx| match call.as_mut().poll(cx) {
            Poll::Ready(right) => Poll::Ready(Some(right)),
            Poll::Pending if polled >= polls => Poll::Ready(None),
            Poll::Pending => {
                polled += 1;
                Poll::Pending
            }
        })
        .await;
        let answer = match first {
            Some(right) => Some(right),
            None => tokio::time::timeout(Duration::from_micros(moments.u64(..300)), call).await.ok(),
        };
        match answer {
            Some(true) => {}
            Some(false) => wrong += 1,
            None => {
                cancelled.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_cancellations_shift_no_reply() {
    for_each_server("client::ten_thousand_cancellations", |kind| async move {
        let (_server, client) = single(&kind).await;
        let seed = fastrand::u64(..);
        let cancelled = Arc::new(AtomicU64::new(0));
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| tokio::spawn(ask(client.clone(), task, seed, Arc::clone(&cancelled))))
            .collect();
        let mut wrong = 0;
        for task in tasks {
            wrong += task.await.unwrap();
        }
        let cancelled = cancelled.load(Ordering::Relaxed);
        println!("seed {seed}: {cancelled} cancelled, {wrong} wrong replies");
        assert_eq!(wrong, 0, "seed {seed}");
        assert!(cancelled >= CANCELLED);
        client.ping().await.unwrap();
    })
    .await;
}
