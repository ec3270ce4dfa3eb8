//! The processes of one topology and their folders.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;
use tempfile::TempDir;

use super::error::LaunchError;
use super::kind::ServerKind;
use super::ports::ReservedPort;
use super::process::Process;
use super::wait::until;
use super::wire::{Control, Reply};

/// A server starts within 50 ms here; a loaded machine gets four hundred times that.
const START_LIMIT: Duration = Duration::from_secs(20);
/// A killed process is gone at once, an asked one within its 100 ms cron round plus its last save.
const END_LIMIT: Duration = Duration::from_secs(10);
/// A program outside this launcher may take a port between our look and the server's start.
const START_TRIES: u32 = 5;
const LOG_TAIL: u64 = 2_000;

/// What a process runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    ClusterNode,
    Data,
    Sentinel,
}

#[derive(Debug)]
struct Node {
    addr: SocketAddr,
    role: Role,
    password: Option<String>,
    folder: PathBuf,
    process: Mutex<Option<Process>>,
    _port: ReservedPort,
}

/// The processes of one topology, named by their addresses.
///
/// Dropping it ends them all.
#[derive(Debug)]
pub struct Nodes {
    program: PathBuf,
    // Before the folder: processes end first, then what they wrote is removed.
    all: Vec<Node>,
    folder: Option<TempDir>,
}

impl Nodes {
    pub(super) fn prepare(kind: &ServerKind, topology: &str) -> Result<Self, LaunchError> {
        let parent = env::var_os("EVENKEEL_TEST_DIR").map_or_else(env::temp_dir, PathBuf::from);
        fs::create_dir_all(&parent).map_err(LaunchError::Folder)?;
        let prefix = format!("evenkeel-{topology}-{}-{}-", kind.name(), kind.version());
        let folder =
            tempfile::Builder::new().prefix(&prefix).tempdir_in(parent).map_err(LaunchError::Folder)?;
        Ok(Self { program: kind.program().to_owned(), all: Vec::new(), folder: Some(folder) })
    }

    /// Starts one more process and waits until it answers PING.
    ///
    /// `configure` writes its configuration, given its address and folder.
    pub(super) async fn start(
        &mut self,
        role: Role,
        password: Option<&str>,
        configure: impl Fn(SocketAddr, &Path) -> Vec<String>,
    ) -> Result<SocketAddr, LaunchError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let port = ReservedPort::reserve(role == Role::ClusterNode)?;
            let addr = port.addr();
            let folder = self.path().join(addr.port().to_string());
            fs::create_dir_all(&folder).map_err(LaunchError::Folder)?;
            let config = configure(addr, &folder).join("\n") + "\n";
            fs::write(folder.join("server.conf"), config).map_err(LaunchError::Folder)?;
            let node = Node {
                addr,
                role,
                password: password.map(str::to_owned),
                folder,
                process: Mutex::new(None),
                _port: port,
            };
            match self.run(&node).await {
                Ok(()) => {
                    self.all.push(node);
                    return Ok(addr);
                }
                Err(LaunchError::Exited { log, .. })
                    if tries < START_TRIES && log.contains("Address already in use") => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn run(&self, node: &Node) -> Result<(), LaunchError> {
        let log =
            OpenOptions::new().create(true).append(true).open(node.log()).map_err(LaunchError::Folder)?;
        let errors = log.try_clone().map_err(LaunchError::Folder)?;
        let mut arguments = vec!["server.conf"];
        if node.role == Role::Sentinel {
            arguments.push("--sentinel");
        }
        let process = Process::spawn(&self.program, &arguments, |command| {
            command.current_dir(&node.folder).stdin(Stdio::null()).stdout(log).stderr(errors);
        })
        .map_err(|source| self.spawn_error(source))?;
        *node.process.lock() = Some(process);
        let what = format!("{} on {} to answer PING", self.program.display(), node.addr);
        until(START_LIMIT, &what, || async {
            if let Err(error) = self.check_running(node) {
                return Some(Err(error));
            }
            let mut control = Control::connect(node.addr, node.password.as_deref()).await.ok()?;
            control.command(&["PING"]).await.ok().map(|_pong| Ok(()))
        })
        .await?
    }

    fn check_running(&self, node: &Node) -> Result<(), LaunchError> {
        let mut process = node.process.lock();
        let Some(running) = process.as_mut() else {
            return Err(LaunchError::NotRunning { addr: node.addr });
        };
        let Some(status) = running.exited().map_err(|source| self.spawn_error(source))? else {
            return Ok(());
        };
        *process = None;
        Err(LaunchError::Exited {
            program: self.program.clone(),
            addr: node.addr,
            status: status.to_string(),
            log: tail(&node.log()).unwrap_or_default(),
        })
    }

    fn spawn_error(&self, source: io::Error) -> LaunchError {
        LaunchError::Spawn { program: self.program.clone(), source }
    }

    fn node(&self, addr: SocketAddr) -> Result<&Node, LaunchError> {
        self.all.iter().find(|node| node.addr == addr).ok_or(LaunchError::UnknownNode { addr })
    }

    /// Returns the addresses of all nodes, in the order in which they were started.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.all.iter().map(|node| node.addr).collect()
    }

    pub(super) fn with_role(&self, role: Role) -> Vec<SocketAddr> {
        self.all.iter().filter(|node| node.role == role).map(|node| node.addr).collect()
    }

    /// Returns the folder that holds the folders of all nodes.
    pub fn path(&self) -> &Path {
        self.folder.as_ref().map_or_else(|| Path::new(""), TempDir::path)
    }

    /// Returns the path of a node's log.
    pub fn log(&self, addr: SocketAddr) -> Result<PathBuf, LaunchError> {
        self.node(addr).map(Node::log)
    }

    /// Returns the pid of a node's process, or `None` when it is not running.
    pub fn pid(&self, addr: SocketAddr) -> Option<u32> {
        self.node(addr).ok()?.process.lock().as_ref().map(Process::pid)
    }

    /// Returns whether a node's process runs. A stopped process (SIGSTOP) runs.
    pub fn is_running(&self, addr: SocketAddr) -> bool {
        self.node(addr).is_ok_and(|node| self.check_running(node).is_ok())
    }

    /// Connects to a node and authenticates.
    ///
    /// # Cancel safety
    ///
    /// Safe: a connection half made is closed.
    pub async fn control(&self, addr: SocketAddr) -> Result<Control, LaunchError> {
        Control::connect(addr, self.node(addr)?.password.as_deref()).await
    }

    /// Sends one command to a node, over a connection of its own.
    ///
    /// # Errors
    ///
    /// [`LaunchError::Refused`] for an error reply.
    ///
    /// # Cancel safety
    ///
    /// A cancelled call may or may not have run the command.
    pub async fn command(&self, addr: SocketAddr, arguments: &[&str]) -> Result<Reply, LaunchError> {
        self.control(addr).await?.command(arguments).await
    }

    /// Ends a node with SIGKILL and waits until it is gone. Its port stays reserved.
    ///
    /// # Cancel safety
    ///
    /// The signal is sent at the first poll; the wait may be given up.
    pub async fn kill(&self, addr: SocketAddr) -> Result<(), LaunchError> {
        self.signal(addr, Signal::KILL)?;
        self.ended(addr).await
    }

    /// Ends a node with SIGTERM, as an operator would, and waits until it is gone. Its port stays reserved.
    ///
    /// # Cancel safety
    ///
    /// The signal is sent at the first poll; the wait may be given up.
    pub async fn terminate(&self, addr: SocketAddr) -> Result<(), LaunchError> {
        self.signal(addr, Signal::TERM)?;
        self.ended(addr).await
    }

    /// Waits until a node's process has ended, whatever made it end.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn ended(&self, addr: SocketAddr) -> Result<(), LaunchError> {
        let node = self.node(addr)?;
        let what = format!("the server on {addr} to end");
        until(END_LIMIT, &what, || async { self.check_running(node).is_err().then_some(()) }).await
    }

    /// Stops a node with SIGSTOP: its connections stay open, nothing answers.
    pub fn stop(&self, addr: SocketAddr) -> Result<(), LaunchError> {
        self.signal(addr, Signal::STOP)
    }

    /// Lets a stopped node go on (SIGCONT).
    pub fn cont(&self, addr: SocketAddr) -> Result<(), LaunchError> {
        self.signal(addr, Signal::CONT)
    }

    /// Starts a node again that was ended, on its old port with the configuration that it had last, and waits
    /// until it answers PING.
    ///
    /// A node that still runs is ended first, with SIGTERM.
    ///
    /// # Cancel safety
    ///
    /// A cancelled call may leave the node ended or starting; call it again.
    pub async fn restart(&self, addr: SocketAddr) -> Result<(), LaunchError> {
        let node = self.node(addr)?;
        if self.is_running(addr) {
            self.terminate(addr).await?;
        }
        self.run(node).await
    }

    fn signal(&self, addr: SocketAddr, signal: Signal) -> Result<(), LaunchError> {
        let node = self.node(addr)?;
        let process = node.process.lock();
        let running = process.as_ref().ok_or(LaunchError::NotRunning { addr })?;
        running.signal(signal).map_err(|source| self.spawn_error(source))
    }
}

impl Node {
    fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }
}

impl Drop for Nodes {
    #[expect(clippy::print_stderr, reason = "a failed test must say where its servers' logs are")]
    fn drop(&mut self) {
        // All are asked first, so that their last rounds run side by side.
        for node in &self.all {
            if let Some(process) = node.process.lock().as_ref() {
                process.ask_to_end();
            }
        }
        self.all.clear();
        if thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            eprintln!("the servers' configurations and logs are kept in {}", folder.keep().display());
        }
    }
}

/// Quotes a value for a server's configuration file.
pub(super) fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Returns the configuration that every data node has, line by line.
pub(super) fn data_config(
    addr: SocketAddr,
    folder: &Path,
    password: Option<&str>,
    append_only: bool,
) -> Vec<String> {
    let mut config = vec![
        format!("port {}", addr.port()),
        "bind 127.0.0.1".into(),
        format!("dir {}", quoted(&folder.to_string_lossy())),
        "save \"\"".into(),
        format!("appendonly {}", if append_only { "yes" } else { "no" }),
        "enable-debug-command local".into(),
        "repl-diskless-sync-delay 0".into(),
        "shutdown-timeout 0".into(),
    ];
    if let Some(password) = password.map(quoted) {
        config.push(format!("requirepass {password}"));
        // A primary that comes back as a replica needs it as much as a replica does.
        config.push(format!("masterauth {password}"));
    }
    config
}

fn tail(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(LOG_TAIL)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
