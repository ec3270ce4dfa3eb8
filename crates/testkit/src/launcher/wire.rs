//! A small RESP2 client, enough to set servers up and to ask them what they see.
//!
//! Independent of `evenkeel-protocol` on purpose: a fault there must not blind the suite that looks for it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::error::LaunchError;

/// Time in which a server must answer: MIGRATE of many keys is the slowest thing asked.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest line or bulk string that is believed: no set-up command answers with more.
const MAX_LEN: usize = 64 * 1024 * 1024;
const MAX_DEPTH: usize = 8;

/// A reply in RESP2.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// A list of replies.
    Array(Vec<Self>),
    /// A bulk string.
    Bulk(Vec<u8>),
    /// An error, inside a list.
    Error(String),
    /// An integer.
    Integer(i64),
    /// A null.
    Nil,
    /// A simple string.
    Simple(String),
}

impl Reply {
    /// Returns the text of a simple or bulk string that is UTF-8.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Simple(text) => Some(text),
            Self::Bulk(bytes) => std::str::from_utf8(bytes).ok(),
            Self::Array(_) | Self::Error(_) | Self::Integer(_) | Self::Nil => None,
        }
    }

    /// Returns the items of a list; of anything else, none.
    pub fn items(&self) -> &[Self] {
        if let Self::Array(items) = self { items } else { &[] }
    }

    /// Returns the value of an integer.
    pub fn integer(&self) -> Option<i64> {
        if let Self::Integer(value) = self { Some(*value) } else { None }
    }
}

/// A connection for set-up commands.
#[derive(Debug)]
pub struct Control {
    addr: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Control {
    /// Connects, and authenticates when there is a password.
    ///
    /// # Cancel safety
    ///
    /// Safe: a connection half made is closed.
    pub async fn connect(addr: SocketAddr, password: Option<&str>) -> Result<Self, LaunchError> {
        let io = |source| LaunchError::Io { addr, source };
        let stream = tokio::time::timeout(ANSWER_TIMEOUT, TcpStream::connect(addr))
            .await
            .map_err(|elapsed| io(elapsed.into()))?
            .map_err(io)?;
        let mut control = Self { addr, stream: BufReader::new(stream) };
        if let Some(password) = password {
            control.command(&["AUTH", password]).await?;
        }
        Ok(control)
    }

    /// Sends a command and returns its reply.
    ///
    /// # Errors
    ///
    /// [`LaunchError::Refused`] for an error reply. Errors name the command but never its arguments.
    ///
    /// # Cancel safety
    ///
    /// Not safe: after a cancelled call the connection must not be used again.
    pub async fn command(&mut self, arguments: &[&str]) -> Result<Reply, LaunchError> {
        let bytes: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_bytes()).collect();
        self.command_bytes(&bytes).await
    }

    /// Sends a command whose arguments need not be text and returns its reply.
    ///
    /// # Errors
    ///
    /// As [`command`](Self::command).
    ///
    /// # Cancel safety
    ///
    /// Not safe: after a cancelled call the connection must not be used again.
    pub async fn command_bytes(&mut self, arguments: &[&[u8]]) -> Result<Reply, LaunchError> {
        let addr = self.addr;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(arguments))
            .await
            .map_err(|elapsed| LaunchError::Io { addr, source: elapsed.into() })??;
        match answer {
            Reply::Error(answer) => {
                let command = String::from_utf8_lossy(arguments.first().copied().unwrap_or_default());
                Err(LaunchError::Refused { addr, command: command.into_owned(), answer })
            }
            answer => Ok(answer),
        }
    }

    async fn exchange(&mut self, arguments: &[&[u8]]) -> Result<Reply, LaunchError> {
        let mut wire = format!("*{}\r\n", arguments.len()).into_bytes();
        for argument in arguments {
            wire.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            wire.extend_from_slice(argument);
            wire.extend_from_slice(b"\r\n");
        }
        let addr = self.addr;
        self.stream.get_mut().write_all(&wire).await.map_err(|source| LaunchError::Io { addr, source })?;
        self.read(MAX_DEPTH).await
    }

    async fn read(&mut self, depth: usize) -> Result<Reply, LaunchError> {
        let addr = self.addr;
        let io = |source| LaunchError::Io { addr, source };
        let mut line = String::new();
        let read = (&mut self.stream).take(MAX_LEN as u64).read_line(&mut line).await.map_err(io)?;
        if read == 0 {
            return Err(io(io::ErrorKind::UnexpectedEof.into()));
        }
        let protocol = || LaunchError::Protocol { addr };
        let line = line.strip_suffix("\r\n").ok_or_else(protocol)?;
        let (sort, rest) = line.split_at_checked(1).ok_or_else(protocol)?;
        let number = || rest.parse::<i64>().map_err(|_not_a_number| LaunchError::Protocol { addr });
        match sort {
            "+" => Ok(Reply::Simple(rest.to_owned())),
            "-" => Ok(Reply::Error(rest.to_owned())),
            ":" => Ok(Reply::Integer(number()?)),
            "$" => {
                let Ok(len) = usize::try_from(number()?) else { return Ok(Reply::Nil) };
                if len > MAX_LEN {
                    return Err(protocol());
                }
                let mut bytes = vec![0; len + 2];
                self.stream.read_exact(&mut bytes).await.map_err(io)?;
                bytes.truncate(len);
                Ok(Reply::Bulk(bytes))
            }
            "*" => {
                let Ok(len) = usize::try_from(number()?) else { return Ok(Reply::Nil) };
                if len > MAX_LEN || depth == 0 {
                    return Err(protocol());
                }
                let mut items = Vec::new();
                for _ in 0..len {
                    items.push(Box::pin(self.read(depth - 1)).await?);
                }
                Ok(Reply::Array(items))
            }
            _ => Err(protocol()),
        }
    }
}
