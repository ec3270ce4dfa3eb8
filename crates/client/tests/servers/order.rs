//! The order of one slot's commands (P7), with many in flight while the slot changes hands.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use evenkeel_client::{Client, Error, Executed};
use evenkeel_protocol::{Slot, maintenance::SlotRanges};
use evenkeel_testkit::{
    launcher::{
        Cluster, ClusterFailover, ClusterOptions, Feature, SentinelOptions, SentinelTrio, Single,
        for_each_server, for_each_server_with,
    },
    server::EmbeddedServer,
};
use tokio::sync::watch;

use crate::seeds::{follow, until};

/// Commands of one key on their way at once.
const IN_FLIGHT: usize = 24;

type Sending = Pin<Box<dyn Future<Output = Result<i64, Error>> + Send>>;

/// Appends numbers to a list, always many in flight, each polled once before the next is made.
struct Stream {
    key: String,
    stop: Arc<AtomicBool>,
    answered: watch::Sender<usize>,
    task: tokio::task::JoinHandle<Vec<Result<i64, Error>>>,
}

/// What a stream found: the numbers that were not executed, and how many are not known.
struct Found {
    sent: usize,
    failed: Vec<String>,
    unknown: usize,
}

fn send(client: &Client, key: &str, number: usize) -> Sending {
    let (client, key) = (client.clone(), key.to_owned());
    // Every third is a script, every seventh a transaction: they go other ways through the client.
    match number % 21 {
        0 | 7 | 14 => Box::pin(async move {
            let (length,) = client.transaction().rpush(&key, [number]).await?;
            Ok(length)
        }),
        rest if rest % 3 == 1 => Box::pin(async move {
            let append = "return redis.call('RPUSH', KEYS[1], ARGV[1])";
            client.cmd("EVAL").arg(append).arg(1).arg(&key).arg(number).query().await
        }),
        _ => Box::pin(async move { client.rpush(&key, [number]).await }),
    }
}

impl Stream {
    fn start(client: &Client, key: &str) -> Self {
        Self::start_with(client, key, send)
    }

    fn start_with(
        client: &Client,
        key: &str,
        send: impl Fn(&Client, &str, usize) -> Sending + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (client, name, stopped) = (client.clone(), key.to_owned(), Arc::clone(&stop));
        let counter = watch::Sender::new(0);
        let count = counter.clone();
        let task = tokio::spawn(async move {
            let mut results = Vec::new();
            let mut flying: VecDeque<Sending> = VecDeque::new();
            let mut number = 0;
            // A list of millions would make the server stand still when it moves.
            let mut pace = tokio::time::interval(Duration::from_millis(2));
            pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while !stopped.load(Ordering::Relaxed) || !flying.is_empty() {
                while flying.len() < IN_FLIGHT && !stopped.load(Ordering::Relaxed) {
                    let mut next = send(&client, &name, number);
                    number += 1;
                    match std::future::poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await {
                        Poll::Ready(result) => results.push(result),
                        Poll::Pending => flying.push_back(next),
                    }
                }
                // Whichever is answered first makes room for another.
                let answered = std::future::poll_fn(|cx| {
                    let mut answered = Vec::new();
                    flying.retain_mut(|sending| match sending.as_mut().poll(cx) {
                        Poll::Ready(result) => {
                            answered.push(result);
                            false
                        }
                        Poll::Pending => true,
                    });
                    if answered.is_empty() && !flying.is_empty() {
                        return Poll::Pending;
                    }
                    Poll::Ready(answered)
                })
                .await;
                results.extend(answered);
                count.send_replace(results.len());
                pace.tick().await;
            }
            results
        });
        Self { key: key.to_owned(), stop, answered: counter, task }
    }

    /// Waits until all that is in flight now has been answered, and as much again: a slot that goes to and fro faster than
    /// replies arrive has no order that anybody could keep.
    async fn settle(&self) {
        let enough = *self.answered.borrow() + 2 * IN_FLIGHT;
        let mut answered = self.answered.subscribe();
        let settled = answered.wait_for(|count| *count >= enough);
        tokio::time::timeout(Duration::from_secs(20), settled).await.unwrap().unwrap();
    }

    /// Stops, and looks whether what stands is in order, each number once.
    async fn finish(self, client: &Client) -> Found {
        self.stop.store(true, Ordering::Relaxed);
        let results = self.task.await.unwrap();
        let stands: Vec<usize> = client.cmd("LRANGE").arg(&self.key).arg(0).arg(-1).query().await.unwrap();
        let wrong = stands.windows(2).position(|pair| pair[0] >= pair[1]);
        let around = wrong.map(|at| &stands[at.saturating_sub(30)..(at + 30).min(stands.len())]);
        assert_eq!(around, None, "{} is out of order at {wrong:?}", self.key);
        let (mut failed, mut unknown) = (Vec::new(), 0);
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            if error.executed() == Executed::No {
                failed.push(error.to_string());
            } else {
                unknown += 1;
            }
        }
        let done = results.iter().filter(|result| result.is_ok()).count();
        assert!((done..=done + unknown).contains(&stands.len()), "{done} done, {} stand", stands.len());
        Found { sent: results.len(), failed, unknown }
    }
}

/// Keys of slots below 500, each with its own.
fn keys(count: usize) -> Vec<String> {
    (0..)
        .map(|n: usize| format!("ordered:{n}"))
        .filter(|key| Slot::of(key.as_bytes()).number() < 500)
        .take(count)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_are_handed_to_and_fro_keep_their_order() {
    // The embedded server answers no scripts that nobody taught it.
    let plain = |client: &Client, key: &str, number: usize| -> Sending {
        let (client, key) = (client.clone(), key.to_owned());
        match number % 5 {
            0 => Box::pin(async move {
                let (length,) = client.transaction().rpush(&key, [number]).await?;
                Ok(length)
            }),
            _ => Box::pin(async move { client.rpush(&key, [number]).await }),
        }
    };
    let server = EmbeddedServer::builder().addresses(3).cluster().start().await.unwrap();
    let client = Client::connect(format!("redis+cluster://{}", server.address(0))).await.unwrap();
    let streams: Vec<_> = keys(2).iter().map(|key| Stream::start_with(&client, key, plain)).collect();
    let slots = SlotRanges::from_ranges([0..=499]);
    for round in 0..60 {
        let to = [1, 2, 0][round % 3];
        match round % 2 {
            // At once, as after a failover; and by and by, with ASK in between.
            0 => drop(server.move_slots(&slots, to).unwrap()),
            _ => drop(server.reshard(&slots, to, Duration::from_millis(20)).await.unwrap()),
        }
        for stream in &streams {
            stream.settle().await;
        }
    }
    for stream in streams {
        let found = stream.finish(&client).await;
        assert_eq!((found.failed, found.unknown), (Vec::new(), 0));
        assert!(found.sent > 500, "{}", found.sent);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failovers_and_reshards_keep_the_order_of_a_slot() {
    for_each_server("client::order::cluster", |kind| async move {
        let cluster = Cluster::start(&kind, ClusterOptions::default()).await.unwrap();
        let client = Client::connect(format!("redis+cluster://{}", cluster.addresses()[0])).await.unwrap();
        let streams: Vec<_> = keys(2).iter().map(|key| Stream::start(&client, key)).collect();
        for _ in 0..2 {
            let owner = cluster.owner(0).await.unwrap();
            let replica =
                cluster.replicas_of(owner.addr).await.unwrap().first().map(|node| node.addr).unwrap();
            cluster.settle().await.unwrap();
            cluster.failover(replica, ClusterFailover::Graceful).await.unwrap();
            cluster.wait_for_owner(0, replica).await.unwrap();
            let other = cluster.owner(16383).await.unwrap().addr;
            for (from, to) in [(replica, other), (other, replica)] {
                cluster.wait_for_owner(499, from).await.unwrap();
                cluster.reshard(0..=499, from, to).await.unwrap();
                cluster.wait_for_owner(499, to).await.unwrap();
                for stream in &streams {
                    stream.settle().await;
                }
            }
        }
        for stream in streams {
            let found = stream.finish(&client).await;
            println!("{} sent", found.sent);
            assert_eq!((found.failed, found.unknown), (Vec::new(), 0));
            assert!(found.sent > 500, "{}", found.sent);
        }
    })
    .await;
}

/// The port of the primary that the client goes to.
fn primary(client: &Client) -> Option<u16> {
    client.topology().primary_of(None).map(evenkeel_protocol::Endpoint::port)
}

/// What streams found outside a cluster: a script that a replica ran in place of its primary has failed by its own words, which
/// prove nothing; all else has gone through, in its order.
async fn in_order(streams: Vec<Stream>, client: &Client, scripts: usize) {
    for stream in streams {
        let found = stream.finish(client).await;
        assert_eq!(found.failed, Vec::<String>::new());
        assert!(found.unknown <= scripts, "{} unknown", found.unknown);
        assert!(found.sent > 4 * IN_FLIGHT, "{}", found.sent);
    }
}

/// Roles change places by the servers themselves, and the old primary names the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_keep_the_order_of_a_key() {
    for_each_server_with("client::order::redirect", &[Feature::ClientCapa], |kind| async move {
        let (one, other) = (Single::start(&kind).await.unwrap(), Single::start(&kind).await.unwrap());
        follow(&other, &one).await;
        let client = Client::connect(format!("redis://{}", one.addr())).await.unwrap();
        let streams: Vec<_> = keys(2).iter().map(|key| Stream::start(&client, key)).collect();
        let rounds = 6;
        for round in 0..rounds {
            let (from, to) = if round % 2 == 0 { (&one, &other) } else { (&other, &one) };
            for stream in &streams {
                stream.settle().await;
            }
            until("the replica can take over", async || from.command(&["FAILOVER"]).await.is_ok()).await;
            until("the client follows", async || primary(&client) == Some(to.addr().port())).await;
        }
        in_order(streams, &client, rounds * IN_FLIGHT).await;
    })
    .await;
}

/// The same with sentinels that have not noticed: the old primary says `READONLY`, or names the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_steps_down_keeps_the_order_of_a_key() {
    for_each_server_with("client::order::sentinel", &[Feature::Sentinel], |kind| async move {
        let trio = SentinelTrio::start(&kind, SentinelOptions::default().replicas(1)).await.unwrap();
        let seeds: Vec<String> = trio.sentinels().iter().map(ToString::to_string).collect();
        let url = format!("redis+sentinel://{}/{}", seeds.join(","), trio.name());
        let client = Client::connect(url).await.unwrap();
        let streams: Vec<_> = keys(2).iter().map(|key| Stream::start(&client, key)).collect();
        let mut from = trio.primary().await.unwrap();
        let rounds = 2;
        for _ in 0..rounds {
            for stream in &streams {
                stream.settle().await;
            }
            until("the replica can take over", async || {
                trio.nodes().command(from, &["FAILOVER"]).await.is_ok()
            })
            .await;
            let to = trio.data_nodes().into_iter().find(|node| *node != from).unwrap();
            until("the client follows", async || primary(&client) == Some(to.port())).await;
            from = to;
        }
        for stream in &streams {
            stream.settle().await;
        }
        in_order(streams, &client, rounds * IN_FLIGHT).await;
    })
    .await;
}
