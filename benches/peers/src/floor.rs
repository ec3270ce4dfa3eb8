//! The floor: a raw socket, commands encoded beforehand, replies counted in bytes. What nobody can go below.

use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::meter::{Meter, Outcome};
use crate::publisher;
use crate::row::{BURST, FIELDS, HASH_KEY, KEYS, LARGE, LARGE_KEY, MANY, Row, Run};

/// The floor as a contestant.
#[derive(Debug)]
pub struct Floor;

fn command(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        out += &format!("${}\r\n{word}\r\n", word.len());
    }
    out.into_bytes()
}

/// What is written at once, how many bytes come back, and how many operations that is.
struct Round {
    window: Vec<u8>,
    replies: usize,
    ops: u64,
}

fn round(row: Row) -> Round {
    let get = |count: usize| {
        let window =
            (0..count).flat_map(|key| command(&["GET", &format!("{KEYS}{:04}", key % 512)])).collect();
        Round { window, replies: count * 71, ops: count as u64 }
    };
    match row {
        Row::Get(tasks) => get(tasks),
        Row::Pipeline => get(8 * MANY),
        Row::Burst => get(BURST),
        Row::Set(tasks) => {
            let value = "x".repeat(1024);
            let set = |key| command(&["SET", &format!("bench:set:{key:04}"), &value]);
            Round { window: (0..tasks).flat_map(set).collect(), replies: tasks * 5, ops: tasks as u64 }
        }
        Row::ManyKeys => {
            let keys: Vec<String> = (0..MANY).map(|key| format!("{KEYS}{key:04}")).collect();
            let words: Vec<&str> = std::iter::once("MGET").chain(keys.iter().map(String::as_str)).collect();
            let one = "*100\r\n".len() + MANY * 71;
            Round { window: command(&words).repeat(8), replies: 8 * one, ops: 8 * MANY as u64 }
        }
        Row::Hash => {
            // In RESP2 a flat array of fields and values, as the driver has written them.
            let pair = "$10\r\nfield:0000\r\n".len() + "$11\r\nvalue:00000\r\n".len();
            let replies = "*2000\r\n".len() + FIELDS * pair;
            Round { window: command(&["HGETALL", HASH_KEY]), replies, ops: 1 }
        }
        Row::Large => {
            let one = "$1048576\r\n".len() + LARGE + 2;
            Round { window: command(&["GET", LARGE_KEY]).repeat(4), replies: 4 * one, ops: 4 }
        }
        Row::PubSub | Row::Tasks => Round { window: Vec::new(), replies: 0, ops: 0 },
    }
}

async fn exchange(stream: &mut TcpStream, round: &Round, buffer: &mut [u8]) -> std::io::Result<()> {
    stream.write_all(&round.window).await?;
    count(stream, round.replies, buffer).await
}

async fn count(stream: &mut TcpStream, mut left: usize, buffer: &mut [u8]) -> std::io::Result<()> {
    while left > 0 {
        let room = buffer.len().min(left);
        let got = stream.read(&mut buffer[..room]).await?;
        if got == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        left -= got;
    }
    Ok(())
}

pub(crate) async fn run(run: &Run) -> (Outcome, Arc<Meter>) {
    let meter = Arc::new(Meter::new(1));
    let mut stream = TcpStream::connect(&run.address).await.expect("the server listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let outcome = match run.row {
        Row::PubSub => subscribe(&mut stream, run, &meter).await,
        row => {
            let (row, shared) = (round(row), Arc::clone(&meter));
            let running = tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                while shared.goes_on() {
                    let start = Instant::now();
                    exchange(&mut stream, &row, &mut buffer).await.expect("the server answers");
                    if shared.is_open() {
                        shared.latencies.note(start.elapsed());
                    }
                    shared.add(0, row.ops);
                }
            });
            tokio::time::sleep(std::time::Duration::from_millis(250)).await;
            let window = meter.open();
            tokio::time::sleep(run.window).await;
            let outcome = meter.close(&window);
            meter.stop();
            running.await.expect("the floor does not panic");
            outcome
        }
    };
    (outcome, meter)
}

async fn subscribe(stream: &mut TcpStream, run: &Run, meter: &Meter) -> Outcome {
    let (channel, messages) = ("bench:channel", 400_000u64);
    let mut buffer = vec![0; 64 * 1024];
    stream.write_all(&command(&["SUBSCRIBE", channel])).await.expect("the server listens");
    let confirmed = format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n{channel}\r\n:1\r\n", channel.len()).len();
    count(stream, confirmed, &mut buffer).await.expect("the server answers");
    let one = format!("*3\r\n$7\r\nmessage\r\n${}\r\n{channel}\r\n$64\r\n", channel.len()).len() + 64 + 2;
    let mut publisher = publisher::start(&run.address, channel, messages);
    count(stream, one, &mut buffer).await.expect("the server answers");
    let window = meter.open();
    count(stream, one * (messages as usize - 1), &mut buffer).await.expect("the server answers");
    meter.add(0, messages - 1);
    let outcome = meter.close(&window);
    let _ended = publisher.wait();
    outcome
}
