//! Order: commands of one slot run in the order in which they were first polled, while the slot changes hands (P7).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use evenkeel_client::Client;
use evenkeel_protocol::Slot;
use evenkeel_testkit::launcher::{Cluster, ClusterFailover, ClusterOptions, for_each_server};

/// Commands polled in a row before the writer looks up; as many are in flight at once, each in a task of its own.
const WAVE: usize = 24;

/// Appends numbers to a list until told to stop; gives how many.
async fn write(client: &'static Client, key: String, stop: Arc<AtomicBool>) -> usize {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut wave = Vec::new();
        for _ in 0..WAVE {
            let mut call = Box::pin(client.cmd("RPUSH").arg(&key).arg(number).query::<i64>().into_future());
            number += 1;
            // Its place in the order is taken here; its answer is waited for on whatever thread is free.
            match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(reply) => drop(reply.unwrap()),
                Poll::Pending => wave.push(tokio::spawn(call)),
            }
        }
        for reply in wave {
            reply.await.unwrap().unwrap();
        }
    }
    number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_survives_slots_that_move() {
    for_each_server("client::order::reshard", |kind| async move {
        let options = ClusterOptions::default().node_timeout(Duration::from_secs(2));
        let cluster = Cluster::start(&kind, options).await.unwrap();
        let seeds: Vec<String> = cluster.addresses().iter().take(3).map(ToString::to_string).collect();
        let client = Client::connect(format!("redis+cluster://{}", seeds.join(","))).await.unwrap();
        // The handle outlives the test: its futures are spawned.
        let client: &'static Client = Box::leak(Box::new(client));
        let home = cluster.owner(0).await.unwrap().addr;
        let view = cluster.view(home).await.unwrap();
        let there = view.iter().find(|node| node.is_primary() && node.addr != home).unwrap().addr;
        let names = (0..).map(|number| format!("order:{number}"));
        let slot = |name: &String| Slot::of(name.as_bytes()).number();
        let keys: Vec<String> = names.filter(|name| slot(name) < 300).take(6).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> =
            keys.iter().map(|key| tokio::spawn(write(client, key.clone(), Arc::clone(&stop)))).collect();
        for _ in 0..3 {
            for slot in keys.iter().map(slot) {
                cluster.reshard(slot..=slot, home, there).await.unwrap();
            }
            for slot in keys.iter().map(slot) {
                cluster.reshard(slot..=slot, there, home).await.unwrap();
            }
        }
        let replica = cluster.replicas_of(home).await.unwrap().first().unwrap().addr;
        cluster.failover(replica, ClusterFailover::Graceful).await.unwrap();
        cluster.wait_for_owner(0, replica).await.unwrap();
        stop.store(true, Ordering::Relaxed);
        for (key, writer) in keys.iter().zip(writers) {
            let written = writer.await.unwrap();
            let stands: Vec<usize> = client.cmd("LRANGE").arg(key).arg(0).arg(-1).query().await.unwrap();
            assert_eq!(stands.len(), written, "{key}");
            let late = stands.windows(2).position(|pair| pair[0] >= pair[1]);
            assert_eq!(
                late,
                None,
                "{key}: {:?}",
                late.map(|at| &stands[at.saturating_sub(3)..(at + 5).min(written)])
            );
        }
    })
    .await;
}
