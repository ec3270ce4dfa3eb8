//! A server in memory that makes the trouble that it is told to.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use evenkeel_pool::{Connected, Connecting, Connector};
use evenkeel_protocol::{Endpoint, Limits, Reply, Scanner};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// What a connection does wrong, behind the handshake unless it is about the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Ends after so many bytes of commands; what came whole runs, and its replies may be lost.
    CutReading(usize),
    /// Ends after so many bytes of replies; all that came has run.
    CutWriting(usize),
    /// Answers this part of the handshake a minute late.
    Late(usize),
    /// One reply more than was asked for, behind the eighth: that of a pipeline of eight.
    OneTooMany,
    /// Two replies to the command of this number, counted from 1.
    Doubled(usize),
    /// No reply to the command of this number.
    Swallowed(usize),
    /// A push in front of every reply, as Redis 7.0 sends it.
    PushBefore,
    /// A push behind every reply, as later ones do.
    PushBehind,
}

/// Opens connections to a server that is a task.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    troubles: Mutex<VecDeque<Trouble>>,
    pub(crate) dialed: AtomicUsize,
    /// Replies to the last handshake.
    pub(crate) handshake_replies: Arc<AtomicUsize>,
    /// How often each `COUNT` ran.
    pub(crate) ran: Arc<Mutex<BTreeMap<String, usize>>>,
    /// How often `PING` was asked.
    pub(crate) pings: Arc<AtomicUsize>,
}

impl Memory {
    /// The next connection makes this trouble; those behind it none.
    pub(crate) fn next(&self, trouble: Trouble) {
        self.troubles.lock().push_back(trouble);
    }
}

impl Connector for Memory {
    fn connect(&self, _endpoint: &Endpoint) -> Connecting {
        self.dialed.fetch_add(1, Ordering::Relaxed);
        let server = Server {
            trouble: self.troubles.lock().pop_front(),
            ran: Arc::clone(&self.ran),
            handshake: Arc::clone(&self.handshake_replies),
            pings: Arc::clone(&self.pings),
            greeted: 0,
            answered: 0,
        };
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let _server = tokio::spawn(server.serve(far));
            Ok(Connected::new(near, None))
        })
    }
}

struct Server {
    trouble: Option<Trouble>,
    ran: Arc<Mutex<BTreeMap<String, usize>>>,
    handshake: Arc<AtomicUsize>,
    pings: Arc<AtomicUsize>,
    greeted: usize,
    answered: usize,
}

impl Server {
    async fn serve(mut self, mut stream: DuplexStream) {
        let (mut read, mut scanner) = (BytesMut::new(), Scanner::new(Limits::default()));
        let (mut taken, mut written) = (0, 0);
        loop {
            // Bytes of commands beyond the cut have never arrived.
            let arrived = match self.trouble {
                Some(Trouble::CutReading(cut)) if self.greeting_is_over(&read) => {
                    read.len().min(cut.saturating_sub(taken))
                }
                _ => read.len(),
            };
            if let Some(found) = scanner.scan(&read[..arrived]).unwrap() {
                let args: Vec<Bytes> = Reply::new(read.split_to(found.len).freeze()).decode().unwrap();
                let greeting = !matches!(args[0].as_ref(), b"COUNT" | b"PING");
                if !greeting {
                    taken += found.len;
                }
                let mut answer = self.answer(&args, greeting).await;
                if let (Some(Trouble::CutWriting(cut)), false) = (self.trouble, greeting) {
                    let rest = cut - written;
                    if answer.len() > rest {
                        answer.truncate(rest);
                        let _gone = stream.write_all(&answer).await;
                        self.run_what_came(&mut read, &mut scanner, &mut stream).await;
                        return;
                    }
                    written += answer.len();
                }
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
                continue;
            }
            if arrived < read.len() {
                return;
            }
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        }
    }

    fn greeting_is_over(&self, read: &BytesMut) -> bool {
        read.starts_with(b"*2\r\n$5\r\nCOUNT") || self.answered > 0
    }

    /// The server has read further than it could answer.
    async fn run_what_came(&self, read: &mut BytesMut, scanner: &mut Scanner, stream: &mut DuplexStream) {
        // What is in the pipe already has arrived too.
        let mut more = vec![0; 64 * 1024];
        if let Ok(Ok(count)) = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut more)).await {
            read.extend_from_slice(&more[..count]);
        }
        while let Some(found) = scanner.scan(read).unwrap() {
            let args: Vec<Bytes> = Reply::new(read.split_to(found.len).freeze()).decode().unwrap();
            self.run(&args);
        }
    }

    fn run(&self, args: &[Bytes]) {
        if args[0].as_ref() == b"COUNT" {
            *self.ran.lock().entry(String::from_utf8_lossy(&args[1]).into_owned()).or_default() += 1;
        }
    }

    async fn answer(&mut self, args: &[Bytes], greeting: bool) -> Vec<u8> {
        const PUSH: &[u8] = b">2\r\n+news\r\n$3\r\nabc\r\n";
        if greeting {
            if self.trouble == Some(Trouble::Late(self.greeted)) {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            self.greeted += 1;
            self.handshake.store(self.greeted, Ordering::Relaxed);
            return match args[0].as_ref() {
                b"HELLO" => b"%1\r\n+proto\r\n:3\r\n".to_vec(),
                _ => b"+OK\r\n".to_vec(),
            };
        }
        self.run(args);
        self.pings.fetch_add(usize::from(args[0].as_ref() == b"PING"), Ordering::Relaxed);
        self.answered += 1;
        let last = args.last().unwrap();
        let reply = [format!("${}\r\n", last.len()).as_bytes(), last, b"\r\n"].concat();
        match self.trouble {
            Some(Trouble::PushBefore) => [PUSH, &reply].concat(),
            Some(Trouble::PushBehind) => [&reply, PUSH].concat(),
            Some(Trouble::Doubled(number)) if self.answered == number => [&reply[..], &reply].concat(),
            Some(Trouble::Swallowed(number)) if self.answered == number => Vec::new(),
            Some(Trouble::OneTooMany) if self.answered == 8 => [&reply[..], b"+OK\r\n"].concat(),
            _ => reply,
        }
    }
}
