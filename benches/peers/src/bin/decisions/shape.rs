//! What a multiplexer costs that knows GET and nothing else: the floor under any client of this shape.
//!
//! One lock over a buffer and a line of oneshots, one task that lets runnable callers append before it writes. It has no
//! deadline, no slot and no place that survives the loss of its connection.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use evenkeel_client::Client;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{Notify, oneshot};

use super::{ROUNDS, cpu, median};

/// Commands of a round, all tasks together.
const COMMANDS: usize = 200_000;
const KEY: &str = "bench:shape";
const VALUE: [u8; 64] = [b'v'; 64];

#[derive(Default)]
struct Queue {
    out: Vec<u8>,
    line: VecDeque<oneshot::Sender<Bytes>>,
}

#[derive(Clone, Default)]
struct Sketch(Arc<(Mutex<Queue>, Notify)>);

impl Sketch {
    async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("a socket");
        let sketch = Self::default();
        tokio::spawn(sketch.clone().serve(stream));
        sketch
    }

    async fn get(&self, key: &str) -> Bytes {
        let (sender, receiver) = oneshot::channel();
        {
            let mut queue = self.0.0.lock();
            queue.out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n$");
            queue.out.extend_from_slice(key.len().to_string().as_bytes());
            queue.out.extend_from_slice(b"\r\n");
            queue.out.extend_from_slice(key.as_bytes());
            queue.out.extend_from_slice(b"\r\n");
            queue.line.push_back(sender);
        }
        self.0.1.notify_one();
        receiver.await.expect("the server answers")
    }

    async fn serve(self, stream: TcpStream) {
        let (mut reader, mut writer) = stream.into_split();
        let mut owed = VecDeque::new();
        let mut input = BytesMut::with_capacity(64 * 1024);
        let mut spare = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = self.0.1.notified() => {
                    tokio::task::yield_now().await;
                    {
                        let mut queue = self.0.0.lock();
                        std::mem::swap(&mut queue.out, &mut spare);
                        owed.append(&mut queue.line);
                    }
                    writer.write_all(&spare).await.expect("a socket");
                    spare.clear();
                }
                open = read(&mut reader, &mut input) => {
                    if !open {
                        return;
                    }
                    while let Some(value) = take(&mut input) {
                        let sender: oneshot::Sender<Bytes> = owed.pop_front().expect("a reply that is owed");
                        let _gone = sender.send(value);
                    }
                }
            }
        }
    }
}

/// Safe to drop: what was read stands in `input`.
async fn read(reader: &mut OwnedReadHalf, input: &mut BytesMut) -> bool {
    input.reserve(16 * 1024);
    reader.read_buf(input).await.is_ok_and(|count| count > 0)
}

/// The next value, if all of it is there.
fn take(input: &mut BytesMut) -> Option<Bytes> {
    let end = input.iter().position(|byte| *byte == b'\r')?;
    let len: usize = std::str::from_utf8(input.get(1..end)?).ok()?.parse().expect("a length");
    if input.len() < end + 2 + len + 2 {
        return None;
    }
    input.advance(end + 2);
    let value = Bytes::copy_from_slice(input.get(..len)?);
    input.advance(len + 2);
    Some(value)
}

/// CPU microseconds for a GET: the sketch, and Evenkeel in turn with it.
pub(crate) async fn costs(address: &str, tasks: usize) -> (f64, f64) {
    let client = Client::connect(format!("redis://{address}")).await.expect("the server listens");
    client.set(KEY, VALUE.as_slice()).await.expect("SET");
    let sketch = Sketch::connect(address).await;
    let (mut bare, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(round(tasks, &sketch).await);
        whole.push(round(tasks, &client).await);
    }
    (median(bare), median(whole))
}

/// Tasks that ask one after the other, each on its own.
async fn round(tasks: usize, getter: &impl Get) -> f64 {
    let (before, each) = (cpu(), COMMANDS / tasks);
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let getter = getter.clone();
            tokio::spawn(async move {
                for _ in 0..each {
                    assert_eq!(getter.get_value().await, VALUE.len());
                }
            })
        })
        .collect();
    let commands = tasks.len() * each;
    for task in tasks {
        task.await.expect("a task does not panic");
    }
    (cpu() - before).as_nanos() as f64 / 1e3 / commands as f64
}

trait Get: Clone + Send + 'static {
    /// The length of the value.
    fn get_value(&self) -> impl Future<Output = usize> + Send;
}

impl Get for Sketch {
    async fn get_value(&self) -> usize {
        self.get(KEY).await.len()
    }
}

impl Get for Client {
    async fn get_value(&self) -> usize {
        let value: Vec<u8> = self.get(KEY).await.expect("GET");
        value.len()
    }
}
