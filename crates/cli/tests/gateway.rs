//! The built program `evenkeel gateway`, told about Redis by the six variables as the deployment page tells it.

#![expect(clippy::panic, clippy::unwrap_used, reason = "the helpers of tests")]

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_testkit::launcher::{
    Cluster, ClusterOptions, SentinelOptions, SentinelTrio, Single, SingleOptions, for_each_server, until,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);

/// The program, with what it logs.
struct Program {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Program {
    async fn start(env: &[(&str, String)]) -> Self {
        Self::start_on("127.0.0.1:0", env).await
    }

    async fn start_on(listen: &str, env: &[(&str, String)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        for name in ["REDIS_MODE", "REDIS_URL", "REDIS_PASSWORD", "REDIS_SENTINELS", "REDIS_CLUSTER_NODES"] {
            command.env_remove(name);
        }
        let mut child = command
            .args(["gateway", "--listen", listen, "--subscribe", "anyone"])
            .env("EVENKEEL_GATEWAY_API_KEY", "hush")
            .env_remove("EVENKEEL_LOG")
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let written = log.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = said.next_line().await {
                let mut log = written.lock();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(LIMIT, out.next_line()).await.unwrap().unwrap();
        let line = line.unwrap_or_else(|| panic!("it ended: {}", log.lock()));
        let address = line.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap();
        Self { child, address: address.parse().unwrap(), log }
    }

    async fn ready(&self) {
        self.until("readiness", async || self.get("/readyz").await.contains("200 OK")).await;
    }

    async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let waited = until(LIMIT, what, || async { holds().await.then_some(()) }).await;
        assert!(waited.is_ok(), "never came: {what}; the log: {}", self.log.lock());
    }

    async fn logs(&self, words: &str) {
        self.until(words, async || self.log.lock().contains(words)).await;
    }

    async fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")).await
    }

    async fn publish(&self, data: &str) -> Value {
        self.publish_with(json!({"channel":"news","data":data})).await
    }

    async fn publish_with(&self, request: Value) -> Value {
        let body = request.to_string();
        let answer = self
            .ask(&format!(
                "POST /api/publish HTTP/1.1\r\nHost: h\r\nX-API-Key: hush\r\nConnection: close\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            ))
            .await;
        serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap()
    }

    async fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(LIMIT, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    /// Events of the channel `news`, as `curl -N` would print them.
    async fn listen(&self) -> Lines<BufReader<OwnedReadHalf>> {
        let (read, mut write) = TcpStream::connect(self.address).await.unwrap().into_split();
        write.write_all(b"GET /sse/news HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        // The other half stays open for as long as the process lives: a closed one would end the stream.
        write.forget();
        let mut lines = BufReader::new(read).lines();
        // The head comes before the subscription stands; the first event says that it does.
        let heard = timeout(LIMIT, async {
            loop {
                self.publish("begin").await;
                let soon = Duration::from_millis(200);
                while let Ok(Ok(Some(line))) = timeout(soon, lines.next_line()).await {
                    if line == "data: \"begin\"" {
                        return;
                    }
                }
            }
        });
        assert!(heard.await.is_ok(), "no event: {}", self.log.lock());
        lines
    }

    async fn signal(&self, signal: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
    }

    async fn ends_by(mut self, signal: &str) {
        self.signal(signal).await;
        let ended = timeout(LIMIT, self.child.wait()).await.unwrap().unwrap();
        assert!(ended.success(), "{ended}: {}", self.log.lock());
    }
}

async fn hears(lines: &mut Lines<BufReader<OwnedReadHalf>>, data: &str) {
    while first_of(lines, data).await == "event: gap" {}
}

/// What comes first: the data, or word of a gap.
async fn first_of(lines: &mut Lines<BufReader<OwnedReadHalf>>, data: &str) -> String {
    let wanted = format!("data: {data}");
    let heard = timeout(LIMIT, async {
        // Heartbeats come in between, and one event too many of the beginning may.
        while let Ok(Some(line)) = lines.next_line().await {
            if line == wanted || line == "event: gap" {
                return Some(line);
            }
        }
        None
    });
    heard.await.ok().flatten().unwrap_or_else(|| panic!("{wanted} never came"))
}

#[tokio::test]
async fn a_single_server_by_the_variables() {
    for_each_server("cli::gateway_single", |kind| async move {
        let server =
            Single::start_with(&kind, SingleOptions::default().password("yourpassword")).await.unwrap();
        let program = Program::start(&[
            ("REDIS_MODE", "single".to_owned()),
            ("REDIS_URL", format!("redis://localhost:{}", server.addr().port())),
            ("REDIS_PASSWORD", "yourpassword".to_owned()),
        ])
        .await;
        program.ready().await;
        program.logs("Redis connected").await;
        let mut events = program.listen().await;
        server.command(&["PUBLISH", "news", "plain"]).await.unwrap();
        hears(&mut events, "\"plain\"").await;
        assert!(program.publish("by api").await["result"].is_object());
        hears(&mut events, "\"by api\"").await;
        // It goes and comes back: the gateway says so, and what is published meanwhile waits.
        server.nodes().kill(server.addr()).await.unwrap();
        program.logs("Redis reconnecting").await;
        assert_eq!(program.publish("while away").await["result"]["accepted"], true);
        server.nodes().restart(server.addr()).await.unwrap();
        hears(&mut events, "\"while away\"").await;
        assert!(!program.log.lock().contains("yourpassword"));
        program.ends_by("-TERM").await;
    })
    .await;
}

#[tokio::test]
async fn sentinels_by_the_variables_through_a_failover() {
    for_each_server("cli::gateway_sentinel", |kind| async move {
        let options = SentinelOptions::default().replicas(1).password("yourpassword");
        let trio = SentinelTrio::start(&kind, options).await.unwrap();
        let sentinels: Vec<_> =
            trio.sentinels().iter().map(|sentinel| format!("localhost:{}", sentinel.port())).collect();
        let program = Program::start(&[
            ("REDIS_MODE", "sentinel".to_owned()),
            ("REDIS_SENTINELS", sentinels.join(",")),
            ("REDIS_SENTINEL_NAME", trio.name().to_owned()),
            ("REDIS_PASSWORD", "yourpassword".to_owned()),
            ("EVENKEEL_GATEWAY_NAMESPACES", "[{name='kept',subscribe='anyone',history_size=9}]".to_owned()),
        ])
        .await;
        program.ready().await;
        let mut events = program.listen().await;
        program.publish("before").await;
        hears(&mut events, "\"before\"").await;
        // One replica has it, two are not there; and what keeps nothing cannot be kept twice.
        let durably = async |channel: &str, durability: &str| {
            program.publish_with(json!({"channel":channel,"data":1,"durability":durability})).await
        };
        let on_one = durably("kept:1", "replicas(1)").await;
        assert_eq!(on_one["result"]["replicas"], 1, "{on_one}");
        assert_eq!(durably("kept:1", "replicas(2)").await["error"]["code"], 120);
        assert_eq!(durably("news", "replicas(1)").await["error"]["code"], 108);
        trio.nodes().kill(trio.primary().await.unwrap()).await.unwrap();
        assert!(program.publish("while away").await["result"].is_object());
        hears(&mut events, "\"while away\"").await;
        program.logs("Redis failover completed").await;
        program.ready().await;
        program.ends_by("-INT").await;
    })
    .await;
}

#[tokio::test]
async fn a_cluster_by_the_variables_through_a_failover() {
    for_each_server("cli::gateway_cluster", |kind| async move {
        let cluster = Cluster::start(&kind, ClusterOptions::default().replicas_per_primary(1)).await.unwrap();
        let nodes: Vec<_> =
            cluster.addresses().iter().take(3).map(|node| format!("localhost:{}", node.port())).collect();
        let program =
            Program::start(&[("REDIS_MODE", "cluster".to_owned()), ("REDIS_CLUSTER_NODES", nodes.join(","))])
                .await;
        program.ready().await;
        let mut events = program.listen().await;
        program.publish("before").await;
        hears(&mut events, "\"before\"").await;
        let owner = cluster.owner(0).await.unwrap();
        cluster.nodes().kill(owner.addr).await.unwrap();
        cluster.wait_for_new_owner(0, owner.addr).await.unwrap();
        program.logs("Redis cluster slot moved").await;
        assert!(program.publish("after").await["result"].is_object());
        // In a cluster no fence keeps what reaches the new primary before the subscription stands there: the gap says so.
        while first_of(&mut events, "\"after\"").await == "event: gap" {
            assert!(program.publish("after").await["result"].is_object());
        }
        program.ready().await;
        program.ends_by("-TERM").await;
    })
    .await;
}

#[tokio::test]
async fn it_starts_before_its_redis_and_is_ready_when_that_is_there() {
    for_each_server("cli::gateway_first", |kind| async move {
        let server = Single::start_with(&kind, SingleOptions::default()).await.unwrap();
        server.nodes().kill(server.addr()).await.unwrap();
        let program = Program::start(&[("REDIS_URL", format!("redis://{}", server.addr()))]).await;
        assert!(program.get("/healthz").await.contains("200 OK"));
        assert!(program.get("/readyz").await.contains("503"));
        server.nodes().restart(server.addr()).await.unwrap();
        program.ready().await;
    })
    .await;
}

#[tokio::test]
async fn a_hangup_signal_reads_the_certificate_anew_and_a_wrong_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let write = || {
        let pair = rcgen::generate_simple_self_signed(vec!["gateway.test".to_owned()]).unwrap();
        std::fs::write(&cert, pair.cert.pem()).unwrap();
        std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    };
    write();
    let program = Program::start(&[
        ("EVENKEEL_GATEWAY_TLS_CERT_FILE", cert.to_str().unwrap().to_owned()),
        ("EVENKEEL_GATEWAY_TLS_KEY_FILE", key.to_str().unwrap().to_owned()),
    ])
    .await;
    write();
    program.signal("-HUP").await;
    program.logs("keys and certificates were read again").await;
    std::fs::write(&cert, "no certificate").unwrap();
    program.signal("-HUP").await;
    program.logs("setting tls.cert_file").await;
    program.ends_by("-TERM").await;
}

#[tokio::test]
async fn one_process_takes_over_from_another_on_the_same_port() {
    let env = [
        ("EVENKEEL_GATEWAY_REUSE_PORT", "true".to_owned()),
        ("EVENKEEL_GATEWAY_SESSION_DRAIN", "200ms".to_owned()),
    ];
    let old = Program::start_on("127.0.0.1:0", &env).await;
    let address = old.address;
    let new = Program::start_on(&address.to_string(), &env).await;
    // Which of the two answers is the system's choice, so there are enough of them for both.
    let (done, watching) = watch::channel(false);
    let mut clients = JoinSet::new();
    for _ in 0..16 {
        let mut stream = session(address).await;
        let mut watching = watching.clone();
        clients.spawn(async move {
            let mut last = Vec::new();
            let finished =
                async |watching: &mut watch::Receiver<bool>| drop(watching.wait_for(|is| *is).await);
            tokio::select! {
                // Whoever is sent away comes back at once.
                read = stream.read_to_end(&mut last) => {
                    assert!(read.is_ok() && last.first() == Some(&0x88), "{read:?}: {last:?}");
                    let again = session(address).await;
                    finished(&mut watching).await;
                    drop(again);
                    true
                }
                () = finished(&mut watching) => false,
            }
        });
    }
    old.ends_by("-TERM").await;
    let all = async || new.get("/metrics").await.contains("evenkeel_gateway_sessions 16\n");
    new.until("all sessions", all).await;
    done.send_replace(true);
    let moved = clients.join_all().await.into_iter().filter(|moved| *moved).count();
    assert!(moved > 0 && moved < 16, "{moved}");
    new.ends_by("-TERM").await;
}

/// A plain WebSocket on `news`, open.
async fn session(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET /ws/news HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(LIMIT, stream.read_u8()).await.unwrap().unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}

#[tokio::test]
async fn wrong_variables_end_it_by_their_names() {
    for (name, value) in
        [("REDIS_MODE", "clutser"), ("REDIS_URL", "http://h"), ("EVENKEEL_GATEWAY_LISTN", "x")]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
            .args(["gateway", "--listen", "127.0.0.1:0"])
            .env(name, value)
            .kill_on_drop(true)
            .output();
        let output = timeout(LIMIT, output).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(name), "{name}: {said}");
    }
}
