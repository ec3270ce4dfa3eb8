//! The servers to be measured: how each is started, and how a client talks to it.

use crate::Words;
use crate::process::{Running, on_first};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The key of the gateways' server API.
pub(crate) const API_KEY: &str = "bench";
const START: Duration = Duration::from_secs(10);

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    Evenkeel,
    /// The gateway on a channel with history.
    EvenkeelHistory,
    /// The gateway by plain WebSocket, where the channel is in the path as it is with nchan.
    EvenkeelPlain,
    Floor,
    FloorCoalesced,
    Nchan,
    Node,
}

impl System {
    pub(crate) const ALL: [Self; 7] = [
        Self::Evenkeel,
        Self::EvenkeelHistory,
        Self::EvenkeelPlain,
        Self::Floor,
        Self::FloorCoalesced,
        Self::Nchan,
        Self::Node,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Evenkeel => "evenkeel",
            Self::EvenkeelHistory => "evenkeel-history",
            Self::EvenkeelPlain => "evenkeel-plain",
            Self::Floor => "floor",
            Self::FloorCoalesced => "floor-coalesced",
            Self::Nchan => "nchan",
            Self::Node => "node",
        }
    }

    pub(crate) fn is_floor(self) -> bool {
        matches!(self, Self::Floor | Self::FloorCoalesced)
    }

    /// What the load's `--hello` is called.
    pub(crate) fn hello(self) -> &'static str {
        match self {
            Self::EvenkeelPlain => "plain",
            Self::Nchan => "nchan",
            Self::Node => "node",
            _ => "centrifugo",
        }
    }
}

/// Where the programs are.
#[derive(Debug)]
pub(crate) struct Programs {
    evenkeel: Option<PathBuf>,
    nginx: Option<PathBuf>,
    node: Option<PathBuf>,
    pub(crate) pinned: bool,
}

/// A running server.
pub(crate) struct Server {
    _process: Running,
    _folder: Option<tempfile::TempDir>,
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
}

impl Programs {
    pub(crate) fn read(words: &Words, pinned: bool) -> Self {
        let path = |name| words.value(name).map(PathBuf::from);
        Self { evenkeel: path("--evenkeel"), nginx: path("--nginx"), node: path("--node"), pinned }
    }

    /// The systems that can be measured with these programs.
    pub(crate) fn has(&self, system: System) -> bool {
        match system {
            System::Evenkeel | System::EvenkeelHistory | System::EvenkeelPlain => self.evenkeel.is_some(),
            System::Floor | System::FloorCoalesced => true,
            System::Nchan => self.nginx.is_some(),
            System::Node => self.node.is_some(),
        }
    }

    /// Starts a server before `redis`; variables in `env` say more to the gateway.
    pub(crate) fn start(&self, system: System, redis: SocketAddr, env: &[(&str, String)]) -> Server {
        match system {
            System::Evenkeel | System::EvenkeelHistory | System::EvenkeelPlain => {
                self.start_evenkeel(redis, env)
            }
            System::Floor | System::FloorCoalesced => {
                let own = std::env::current_exe().expect("our own program");
                let mut command = self.command(&own);
                command.args(["floor", "--redis", &redis.to_string()]);
                if system == System::FloorCoalesced {
                    command.arg("--coalesce");
                }
                announced(command, None)
            }
            System::Nchan => self.start_nchan(redis),
            System::Node => {
                let folder = self.node.as_deref().expect("node's folder");
                let mut command = self.command(Path::new("node"));
                command.arg("server.mjs").arg(redis.port().to_string()).current_dir(folder);
                announced(command, None)
            }
        }
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = on_first(&program.to_string_lossy(), self.pinned);
        command.stdin(Stdio::null());
        command
    }

    fn start_evenkeel(&self, redis: SocketAddr, env: &[(&str, String)]) -> Server {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = folder.path().join("gateway.toml");
        let text = format!(
            "listen = \"127.0.0.1:0\"\n[channels]\nsubscribe = \"anyone\"\n[[namespaces]]\nname = \"kept\"\n\
             subscribe = \"anyone\"\nhistory = \"anyone\"\nhistory_size = 10000\nrecovery = true\n[limits]\n\
             max_recovered = 10000\n[api]\nkey = \"{API_KEY}\"\n"
        );
        std::fs::write(&settings, text).expect("settings");
        let mut command = self.command(self.evenkeel.as_deref().expect("the program"));
        command.arg("gateway").arg("--config").arg(&settings).env("EVENKEEL_LOG", "error");
        if env.is_empty() {
            command.env("REDIS_URL", format!("redis://{redis}"));
        }
        command.envs(env.iter().map(|(name, value)| (*name, value.as_str())));
        announced(command, Some(folder))
    }

    fn start_nchan(&self, redis: SocketAddr) -> Server {
        let folder = tempfile::tempdir().expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = port.expect("a port");
        let text = nginx_conf(folder.path(), address, redis);
        let settings = folder.path().join("nginx.conf");
        std::fs::write(&settings, text).expect("settings");
        let mut command = self.command(self.nginx.as_deref().expect("nginx"));
        command.arg("-c").arg(&settings).arg("-p").arg(folder.path()).stderr(Stdio::null());
        let child = command.spawn().expect("nginx");
        let pid = child.id();
        let process = Running(child);
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(begun.elapsed() < START, "nginx did not start");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Server { _process: process, _folder: Some(folder), address, pid }
    }
}

fn nginx_conf(folder: &Path, address: SocketAddr, redis: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
user root;
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log /dev/null crit;
events {{ worker_connections 20000; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  upstream redis {{ nchan_redis_server redis://{redis}; }}
  server {{
    listen {address} backlog=16384;
    location ~ /sub/(\\w+)$ {{
      nchan_subscriber websocket;
      nchan_channel_id $1;
      nchan_redis_pass redis;
      nchan_subscriber_first_message newest;
    }}
    location ~ /pub/(\\w+)$ {{
      nchan_publisher http;
      nchan_channel_id $1;
      nchan_redis_pass redis;
      nchan_message_buffer_length 100;
      nchan_message_timeout 10s;
    }}
  }}
}}
"
    )
}

/// Starts a server that says where it listens.
fn announced(mut command: Command, folder: Option<tempfile::TempDir>) -> Server {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("a server");
    let pid = child.id();
    let out = child.stdout.take().expect("its output");
    let process = Running(child);
    let mut lines = BufReader::new(out);
    let mut line = String::new();
    lines.read_line(&mut line).expect("a line");
    let address = line.split_whitespace().find_map(|word| {
        let word = word.trim_start_matches("ws://");
        word.split('/').next().and_then(|address| address.parse().ok())
    });
    let address = address.unwrap_or_else(|| panic!("no address in {line:?}"));
    // What it says later goes nowhere, and must not stop it.
    std::thread::spawn(move || drop(std::io::copy(&mut lines, &mut std::io::sink())));
    Server { _process: process, _folder: folder, address, pid }
}
