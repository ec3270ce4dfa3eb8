//! The bench's own redis-server: nothing on disk, one core, and the keys that the rows read.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::cores::Cores;
use crate::failure::{Failure, Outcome};
use crate::process::Stopwatch;
use crate::servers;

/// How long the server may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running server; it ends with this.
pub(super) struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    pub(super) fn start(cores: &Cores) -> Outcome<Self> {
        servers::need_redis()?;
        let found = servers::found();
        let kind = found.preferred().ok_or_else(|| Failure::new("there is no redis-server"))?;
        eprintln!("server: {kind} ({})", kind.program().display());
        // Between its choice and the server's bind another process might take the port; then the server ends at once.
        let mut last = Failure::new("redis-server does not start");
        for _ in 0..5 {
            let mut server = Self::spawn(kind.program())?;
            match server.wait() {
                Ok(()) => {
                    server.pin(cores, false);
                    server.fill()?;
                    return Ok(server);
                }
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    fn spawn(program: &std::path::Path) -> Outcome<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .map_err(Failure::of("finding a free port"))?
            .port();
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", "no", "--loglevel", "warning"]);
        // A subscriber that is behind is not to be thrown out in the middle of its row.
        command.args(["--client-output-buffer-limit", "pubsub 0 0 0"]);
        command.current_dir(std::env::temp_dir()).stdin(Stdio::null()).stdout(Stdio::null());
        let process = command.spawn().map_err(Failure::of("starting redis-server"))?;
        Ok(Self { process, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Keeps it on its core; or lets it go anywhere.
    pub(super) fn pin(&self, cores: &Cores, free: bool) {
        cores.pin_server(self.process.id(), free);
    }

    fn wait(&mut self) -> Outcome {
        let watch = Stopwatch::start();
        while watch.elapsed() < PATIENCE {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(Failure::new(format!("redis-server ended with {status}")));
            }
            if TcpStream::connect_timeout(&self.address, Duration::from_millis(100)).is_ok() {
                return Ok(());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Err(Failure::new("redis-server does not listen"))
    }

    /// Writes what the rows read.
    fn fill(&self) -> Outcome {
        let mut wire = String::new();
        let value = "x".repeat(64);
        for key in 0..512 {
            append(&mut wire, &["SET", &format!("bench:key:{key:04}"), &value]);
        }
        let fields: Vec<String> =
            (0..1000).flat_map(|n| [format!("field:{n:04}"), format!("value:{n:05}")]).collect();
        let mut hash = vec!["HSET", "bench:hash"];
        hash.extend(fields.iter().map(String::as_str));
        append(&mut wire, &hash);
        append(&mut wire, &["SET", "bench:large", &"x".repeat(1 << 20)]);
        append(&mut wire, &["ECHO", "filled"]);
        let mut stream = TcpStream::connect(self.address).map_err(Failure::of("filling the server"))?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(Failure::of("filling the server"))?;
        stream.write_all(wire.as_bytes()).map_err(Failure::of("filling the server"))?;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !answer.ends_with(b"$6\r\nfilled\r\n") {
            let got = stream.read(&mut buffer).map_err(Failure::of("filling the server"))?;
            let new = buffer.get(..got).filter(|new| !new.is_empty());
            answer.extend_from_slice(
                new.ok_or_else(|| Failure::new("redis-server closed while it was filled"))?,
            );
        }
        Ok(())
    }
}

fn append(wire: &mut String, words: &[&str]) {
    // Writing to a string does not fail.
    let _written = write!(wire, "*{}\r\n", words.len());
    for word in words {
        let _written = write!(wire, "${}\r\n{word}\r\n", word.len());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _status = self.process.wait();
    }
}
