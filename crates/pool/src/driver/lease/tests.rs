//! Leases against a server in memory: every sequence of taking, using, cancelling and giving back.

use std::{future::poll_fn, pin::Pin, task::Poll};

use bytes::{Bytes, BytesMut};
use evenkeel_protocol::{Limits, Reply, Scanner};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::driver::{
    connect::{Connected, Connecting, Connector},
    dial::DialConfig,
    lane::Deaf,
};

/// Opens connections to a server that is a task.
#[derive(Debug, Default)]
struct Memory {
    dialed: AtomicUsize,
    open: Arc<AtomicUsize>,
}

impl Connector for Memory {
    fn connect(&self, _endpoint: &Endpoint) -> Connecting {
        self.dialed.fetch_add(1, Ordering::Relaxed);
        let open = Arc::clone(&self.open);
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(4096);
            open.fetch_add(1, Ordering::Relaxed);
            let _server = tokio::spawn(async move {
                serve(far).await;
                open.fetch_sub(1, Ordering::Relaxed);
            });
            Ok(Connected::new(near, None))
        })
    }
}

/// Answers HELLO; `MARK x` leaves x on the connection, `STATE` tells what is left there, `ECHO x` says x.
async fn serve(mut stream: DuplexStream) {
    let (mut read, mut scanner) = (BytesMut::new(), Scanner::new(Limits::default()));
    let mut mark = Bytes::new();
    loop {
        while let Some(found) = scanner.scan(&read).unwrap() {
            let args: Vec<Bytes> = Reply::new(read.split_to(found.len).freeze()).decode().unwrap();
            let last = args.last().unwrap().clone();
            let answer = match args[0].as_ref() {
                b"HELLO" => b"%1\r\n+proto\r\n:3\r\n".to_vec(),
                b"STATE" => [format!("${}\r\n", mark.len()).as_bytes(), &mark, b"\r\n"].concat(),
                b"MARK" => {
                    mark = last;
                    b"+OK\r\n".to_vec()
                }
                _ => [format!("${}\r\n", last.len()).as_bytes(), &last, b"\r\n"].concat(),
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

fn pool(memory: &Arc<Memory>, config: LeaseConfig) -> LeasePool {
    let connector: Arc<dyn Connector> = Arc::<Memory>::clone(memory);
    let lanes = LaneConfig::default().dial(DialConfig::default().connector(connector));
    LeasePool::new(Endpoint::new("memory", 1), lanes, config, Arc::new(Deaf))
}

async fn ask(lease: &Lease, command: Command) -> String {
    match lease.request(&command, Duration::from_secs(5)).await {
        Outcome::Reply(reply) => reply.decode().unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn poll_once<F: Future>(future: &mut Pin<Box<F>>) -> Option<F::Output> {
    poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

/// One sequence: what it does is drawn from the seed, what must hold is checked at each step.
async fn sequence(memory: &Arc<Memory>, seed: u64) {
    let mut draw = Seed::new(seed);
    let max = 1 + (draw.draw() % 3) as usize;
    let reuse = if draw.draw() & 1 == 0 { Reuse::Fifo } else { Reuse::Lifo };
    let pool = pool(memory, LeaseConfig::default().max(max).reuse(reuse));
    let mut held: Vec<Lease> = Vec::new();
    for step in 0..=draw.draw() % 10 {
        let own = format!("{seed}-{step}");
        let choice = draw.draw();
        let index = (choice >> 8) as usize % held.len().max(1);
        let room = held.len() < max;
        match (choice % 8, held.get_mut(index)) {
            (0..=2, _) if room => {
                let lease = pool.acquire().await.unwrap();
                // Nobody's state is on it, and what it answers is for us.
                assert_eq!(ask(&lease, Command::new("STATE")).await, "", "seed {seed}");
                assert_eq!(ask(&lease, Command::new("ECHO").arg(&own)).await, own, "seed {seed}");
                held.push(lease);
            }
            // Asked for and given up: at once, in the line, while dialling, or just before it came.
            (0..=3, _) => {
                let mut acquire = Box::pin(pool.acquire());
                for _ in 0..(choice >> 16) % 6 {
                    if let Some(lease) = poll_once(&mut acquire).await {
                        drop(lease);
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
            (4, Some(lease)) => {
                let command = Command::new("ECHO").arg(&own);
                assert_eq!(ask(lease, command).await, own, "seed {seed}");
            }
            // A request given up in the middle: its reply is still to come.
            (5, Some(lease)) => {
                let command = Command::new("ECHO").arg("foreign");
                let mut request = Box::pin(lease.request(&command, Duration::from_secs(5)));
                for _ in 0..=(choice >> 16) % 3 {
                    if poll_once(&mut request).await.is_some() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
            (6, Some(lease)) => {
                lease.mark_dirty();
                ask(lease, Command::new("MARK").arg(&own)).await;
            }
            (_, Some(_)) => {
                let lease = held.remove(index);
                let (idle, dirty) =
                    (pool.idle(), lease.dirty.load(Ordering::Relaxed) || lease.lane.in_flight() > 0);
                drop(lease);
                assert_eq!(pool.idle(), idle + usize::from(!dirty), "seed {seed}");
            }
            _ => {}
        }
        assert_eq!(pool.in_use(), held.len(), "seed {seed}");
        assert!(pool.idle() + pool.in_use() <= max, "seed {seed}");
    }
    let in_hand = held.len();
    assert_eq!(pool.inner.permits.available_permits(), max - in_hand, "seed {seed}");
    drop(held);
    assert_eq!(pool.inner.permits.available_permits(), max, "seed {seed}");
    assert_eq!((pool.in_use(), pool.inner.waiters.load(Ordering::Relaxed)), (0, 0), "seed {seed}");
    pool.close();
    assert_eq!(pool.idle(), 0, "seed {seed}");
}

#[tokio::test]
async fn a_hundred_thousand_sequences_leak_nothing_and_lend_nothing_dirty() {
    let memory = Arc::new(Memory::default());
    for seed in 0..100_000 {
        sequence(&memory, seed).await;
    }
    // Connections end when their tasks have heard of it.
    for _ in 0..1000 {
        if memory.open.load(Ordering::Relaxed) == 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(memory.open.load(Ordering::Relaxed), 0);
    assert!(memory.dialed.load(Ordering::Relaxed) > 50_000);
}

#[tokio::test]
async fn the_line_is_served_in_order_whoever_leaves_it() {
    let memory = Arc::new(Memory::default());
    for seed in 0..500 {
        let mut draw = Seed::new(seed);
        let pool = pool(&memory, LeaseConfig::default().max(1));
        let mut holder = Some(pool.acquire().await.unwrap());
        let mut line: Vec<_> = (0..8).map(|place| (place, Box::pin(pool.acquire()))).collect();
        for (_, waiter) in &mut line {
            assert!(poll_once(waiter).await.is_none());
        }
        assert_eq!(pool.inner.waiters.load(Ordering::Relaxed), 8);
        line.retain(|_| !draw.draw().is_multiple_of(3));
        assert_eq!(pool.inner.waiters.load(Ordering::Relaxed), line.len());
        while !line.is_empty() {
            drop(holder.take());
            if draw.draw().is_multiple_of(4) {
                // The first in the line leaves just when its turn has come.
                drop(line.remove(0));
            }
            let mut served = Vec::new();
            for (place, waiter) in &mut line {
                if let Some(lease) = poll_once(waiter).await {
                    served.push(*place);
                    holder = Some(lease.unwrap());
                }
            }
            let first: Vec<i32> = line.first().map(|(place, _)| *place).into_iter().collect();
            assert_eq!(served, first, "seed {seed}");
            if !line.is_empty() {
                drop(line.remove(0));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn idle_connections_go_by_age_and_a_few_stay() {
    let memory = Arc::new(Memory::default());
    let config = LeaseConfig::default().max(4).min_idle(1).idle_timeout(Duration::from_secs(60));
    let pool = pool(&memory, config.max_lifetime(Some(Duration::from_secs(1000))));
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(pool.acquire().await.unwrap());
    }
    drop(held);
    assert_eq!(pool.idle(), 3);
    tokio::time::advance(Duration::from_secs(61)).await;
    pool.reap();
    assert_eq!(pool.idle(), 1);
    tokio::time::advance(Duration::from_secs(1000)).await;
    pool.reap();
    assert_eq!(pool.idle(), 0);
}

#[tokio::test]
async fn after_a_renewal_nothing_that_was_open_is_lent_again() {
    let memory = Arc::new(Memory::default());
    let pool = pool(&memory, LeaseConfig::default().max(2));
    let (out, back) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    drop(back);
    pool.renew();
    assert_eq!(pool.idle(), 0);
    assert_eq!(ask(&out, Command::new("ECHO").arg("still of use")).await, "still of use");
    drop(out);
    assert_eq!(pool.idle(), 0);
    drop(pool.acquire().await.unwrap());
    assert_eq!((pool.idle(), memory.dialed.load(Ordering::Relaxed)), (1, 3));
}

#[tokio::test]
async fn a_lease_belongs_to_the_configured_endpoint_wherever_it_was_dialled() {
    let memory = Arc::new(Memory::default());
    let pool = pool(&memory, LeaseConfig::default());
    let (configured, target) = (Endpoint::new("memory", 1), Endpoint::new("target", 1));
    pool.redirect(&target);
    let lease = pool.acquire().await.unwrap();
    let info = lease.lane().info().unwrap();
    assert_eq!((&info.home, &info.endpoint), (&configured, &target));
    assert_eq!(lease.lane().home(), configured);
}
