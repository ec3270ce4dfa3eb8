//! A page with each npm client in a real browser, without a window.
//!
//! Skipped, with the reason printed, where no Chromium is installed or the packages cannot be had.

use crate::npm::install;
use crate::start::{config, with};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A browser takes its time to start on a busy machine.
const DEADLINE: Duration = Duration::from_secs(90);
const PROGRAMS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// Without a window, a profile to keep or anybody to call.
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
];

fn chromium() -> Option<PathBuf> {
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    let all = PROGRAMS.iter().flat_map(|program| folders.iter().map(move |folder| folder.join(program)));
    all.into_iter().find(|path| path.is_file())
}

/// A browser that ends with all its processes.
struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn open(program: &Path, url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let child = Command::new(program)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            // Without it a browser that has no page to print ends at once.
            .arg("--remote-debugging-port=0")
            .arg(url)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child, _profile: profile }
    }

    async fn close(mut self) {
        let group = format!("-{}", self.child.id().unwrap());
        assert!(Command::new("kill").args(["-KILL", "--", &group]).status().await.unwrap().success());
        self.child.wait().await.unwrap();
    }
}

/// Serves the folder, and passes on what is posted.
async fn serve(listener: TcpListener, folder: PathBuf, said: mpsc::UnboundedSender<Value>) {
    let mut serving = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        serving.spawn(answer(stream, folder.clone(), said.clone()));
    }
}

async fn answer(stream: TcpStream, folder: PathBuf, said: mpsc::UnboundedSender<Value>) {
    let mut stream = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    stream.read_line(&mut first).await.unwrap();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) <= 2 {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    if stream.read_exact(&mut body).await.is_err() {
        return;
    }
    let path = first.split(' ').nth(1).and_then(|target| target.split('?').next()).unwrap_or("/");
    let file = folder.join(path.trim_start_matches('/'));
    let (status, kind, text) = if path == "/said" {
        // The test may have heard enough.
        drop(said.send(serde_json::from_slice(&body).unwrap()));
        ("200 OK", "text/plain", Vec::new())
    } else {
        let is_script = file.extension().is_some_and(|extension| extension == "js");
        let kind = if is_script { "text/javascript" } else { "text/html" };
        match std::fs::read(&file) {
            Ok(text) => ("200 OK", kind, text),
            Err(_missing) => ("404 Not Found", "text/plain", Vec::new()),
        }
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    // A page that has gone reads no answer.
    drop(stream.write_all(&[head.as_bytes(), &text].concat()).await);
}

#[tokio::test]
async fn pages_with_both_libraries_connect_subscribe_and_receive() {
    let Some(program) = chromium() else {
        println!("skipped: none of {} is installed", PROGRAMS.join(", "));
        return;
    };
    let folder = match install().await {
        Ok(folder) => folder,
        Err(reason) => {
            println!("skipped: the npm clients cannot be had: {reason}");
            return;
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pages = listener.local_addr().unwrap();
    let (said, mut heard) = mpsc::unbounded_channel();
    let serving = tokio::spawn(serve(listener, folder, said));
    let mut settings = config();
    settings.allowed_origins = vec![format!("http://{pages}")];
    let gateway = with(settings).await;
    let browser =
        Browser::open(&program, &format!("http://{pages}/pages.html?gateway={}", gateway.local_addr()));
    let mut all = Vec::new();
    let mut expect = async |wanted: &[Value]| {
        let mut left = wanted.to_vec();
        while !left.is_empty() {
            let event = timeout(DEADLINE, heard.recv()).await;
            let Ok(Some(event)) = event else { panic!("{left:?} never came; before it: {all:?}") };
            left.retain(|wanted| {
                !wanted.as_object().unwrap().iter().all(|(key, value)| event[key] == *value)
            });
            all.push(event);
        }
    };
    let pages = ["centrifuge", "pusher"];
    expect(&pages.map(|page| json!({"page":page,"event":"subscribed"}))).await;
    for n in 1..=3 {
        gateway.handle().publish("kept:page", json!({"n":n}).to_string()).await.unwrap();
        let event = json!({"event":"tick","data":{"n":n}});
        gateway.handle().publish("page", event.to_string()).await.unwrap();
        expect(&pages.map(|page| json!({"page":page,"event":"publication","data":{"n":n}}))).await;
    }
    assert!(!all.iter().any(|event| event["event"] == "disconnected"), "{all:?}");
    browser.close().await;
    serving.abort();
    gateway.stop().await;
}
