//! One server.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::error::LaunchError;
use super::kind::ServerKind;
use super::node::{Nodes, Role, data_config};
use super::wire::Reply;

/// How a single server is started.
#[derive(Clone, Debug, Default)]
pub struct SingleOptions {
    password: Option<String>,
    append_only: bool,
    unix_socket: bool,
    config: Vec<String>,
}

impl SingleOptions {
    /// Password of the default user. Default: none.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Whether every write goes to a file before it is answered, so that data outlive a SIGKILL. Default: no.
    #[must_use]
    pub fn append_only(mut self, append_only: bool) -> Self {
        self.append_only = append_only;
        self
    }

    /// Whether the server listens on a Unix socket too. Default: no.
    #[must_use]
    pub fn unix_socket(mut self, unix_socket: bool) -> Self {
        self.unix_socket = unix_socket;
        self
    }

    /// Adds a line to the server's configuration. Default: none.
    #[must_use]
    pub fn config(mut self, line: impl Into<String>) -> Self {
        self.config.push(line.into());
        self
    }
}

/// One running server. It ends with this guard.
#[derive(Debug)]
pub struct Single {
    nodes: Nodes,
    addr: SocketAddr,
    unix_socket: Option<PathBuf>,
}

impl Single {
    /// Starts a server without a password and waits until it answers.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was started is ended.
    pub async fn start(kind: &ServerKind) -> Result<Self, LaunchError> {
        Self::start_with(kind, SingleOptions::default()).await
    }

    /// Starts a server and waits until it answers.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was started is ended.
    pub async fn start_with(kind: &ServerKind, options: SingleOptions) -> Result<Self, LaunchError> {
        let SingleOptions { password, append_only, unix_socket, config } = options;
        let mut nodes = Nodes::prepare(kind, "single")?;
        let addr = nodes
            .start(Role::Data, password.as_deref(), |addr, folder| {
                let mut lines = data_config(addr, folder, password.as_deref(), append_only);
                if append_only {
                    lines.push("appendfsync always".into());
                }
                if unix_socket {
                    // Relative to the working folder: the name of a Unix socket is at most 107 bytes long.
                    lines.push("unixsocket server.sock".into());
                }
                lines.extend_from_slice(&config);
                lines
            })
            .await?;
        let unix_socket = unix_socket.then(|| nodes.path().join(addr.port().to_string()).join("server.sock"));
        Ok(Self { nodes, addr, unix_socket })
    }

    /// Returns the server's address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the path of the Unix socket, when one was asked for.
    pub fn unix_socket(&self) -> Option<&std::path::Path> {
        self.unix_socket.as_deref()
    }

    /// Returns the process, to kill, stop or restart it.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Sends one command, over a connection of its own.
    ///
    /// # Errors
    ///
    /// [`LaunchError::Refused`] for an error reply.
    ///
    /// # Cancel safety
    ///
    /// A cancelled call may or may not have run the command.
    pub async fn command(&self, arguments: &[&str]) -> Result<Reply, LaunchError> {
        self.nodes.command(self.addr, arguments).await
    }
}
