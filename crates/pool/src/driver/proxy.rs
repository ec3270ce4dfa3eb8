//! Connectors through a proxy: SOCKS5 and HTTP CONNECT. The proxy resolves the server's name.

use std::{fmt, io, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use evenkeel_protocol::Endpoint;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_socks::tcp::Socks5Stream;

use super::{
    connect::{ConnectError, Connected, Connecting, Connector, Direct, Resolver},
    dial::Phase,
};

/// A user and a password for a proxy.
#[derive(Clone)]
struct Login {
    user: Arc<str>,
    password: Arc<str>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The proxy can reach names and addresses, not files.
fn reachable(endpoint: &Endpoint) -> Result<(), ConnectError> {
    let plain = |c: char| !c.is_control() && !c.is_whitespace();
    if endpoint.is_unix() || !endpoint.host().chars().all(plain) {
        let refused = io::Error::new(io::ErrorKind::InvalidInput, "a proxy cannot reach it");
        return Err(ConnectError::new(Phase::Connect, refused));
    }
    Ok(())
}

/// Connects through a SOCKS5 proxy (RFC 1928), with a user and password where it asks for them (RFC 1929).
///
/// ```
/// use std::sync::Arc;
/// use evenkeel_pool::{DialConfig, Socks5};
/// # use evenkeel_protocol::Endpoint;
/// let proxy = Socks5::new(Endpoint::new("bastion", 1080)).login("user", "password");
/// let dial = DialConfig::default().connector(Arc::new(proxy));
/// ```
#[derive(Clone, Debug)]
pub struct Socks5 {
    proxy: Endpoint,
    login: Option<Login>,
    direct: Direct,
}

impl Socks5 {
    /// Through the proxy at `proxy`.
    pub fn new(proxy: Endpoint) -> Self {
        Self { proxy, login: None, direct: Direct::default() }
    }

    /// Who we are to the proxy. Default: nobody.
    #[must_use]
    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.login = Some(Login { user: user.into(), password: password.into() });
        self
    }

    /// Who finds the proxy's own address. Default: the system.
    #[must_use]
    pub fn resolver(mut self, resolver: Arc<dyn Resolver>) -> Self {
        self.direct = self.direct.resolver(resolver);
        self
    }
}

impl Connector for Socks5 {
    fn connect(&self, endpoint: &Endpoint) -> Connecting {
        let (this, endpoint) = (self.clone(), endpoint.clone());
        Box::pin(async move {
            reachable(&endpoint)?;
            let socket = this.direct.tcp(&this.proxy).await?;
            let target = (endpoint.host(), endpoint.port());
            let tunnel = match &this.login {
                None => Socks5Stream::connect_with_socket(socket, target).await,
                Some(login) => {
                    let (user, password) = (&*login.user, &*login.password);
                    Socks5Stream::connect_with_password_and_socket(socket, target, user, password).await
                }
            };
            let tunnel: Socks5Stream<TcpStream> = tunnel.map_err(|error| {
                let cause = match error {
                    tokio_socks::Error::Io(error) => error,
                    other => io::Error::other(other),
                };
                ConnectError::new(Phase::Connect, cause)
            })?;
            Ok(Connected::new(tunnel.into_inner(), None))
        })
    }
}

/// Connects through an HTTP proxy by CONNECT (RFC 9110, 9.3.6), with basic authentication where a login is set.
///
/// ```
/// use std::sync::Arc;
/// use evenkeel_pool::{DialConfig, HttpConnect};
/// # use evenkeel_protocol::Endpoint;
/// let dial = DialConfig::default().connector(Arc::new(HttpConnect::new(Endpoint::new("proxy", 3128))));
/// ```
#[derive(Clone, Debug)]
pub struct HttpConnect {
    proxy: Endpoint,
    login: Option<Login>,
    direct: Direct,
}

/// The longest answer of a proxy that is read.
const MAX_ANSWER: usize = 8 * 1024;

impl HttpConnect {
    /// Through the proxy at `proxy`.
    pub fn new(proxy: Endpoint) -> Self {
        Self { proxy, login: None, direct: Direct::default() }
    }

    /// Who we are to the proxy. Default: nobody.
    #[must_use]
    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.login = Some(Login { user: user.into(), password: password.into() });
        self
    }

    /// Who finds the proxy's own address. Default: the system.
    #[must_use]
    pub fn resolver(mut self, resolver: Arc<dyn Resolver>) -> Self {
        self.direct = self.direct.resolver(resolver);
        self
    }

    fn request(&self, endpoint: &Endpoint) -> String {
        let host = endpoint.host();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let target = format!("{host}:{}", endpoint.port());
        let login = self.login.as_ref().map_or_else(String::new, |login| {
            let pair = BASE64_STANDARD.encode(format!("{}:{}", login.user, login.password));
            format!("Proxy-Authorization: Basic {pair}\r\n")
        });
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n")
    }
}

impl Connector for HttpConnect {
    fn connect(&self, endpoint: &Endpoint) -> Connecting {
        let (this, endpoint) = (self.clone(), endpoint.clone());
        Box::pin(async move {
            reachable(&endpoint)?;
            let mut socket = this.direct.tcp(&this.proxy).await?;
            let failed = ConnectError::at(Phase::Connect);
            socket.write_all(this.request(&endpoint).as_bytes()).await.map_err(failed)?;
            let status = read_answer(&mut socket).await.map_err(failed)?;
            if !(200..300).contains(&status) {
                let refused = io::Error::other(format!("the proxy answered {status}"));
                return Err(ConnectError::new(Phase::Connect, refused));
            }
            Ok(Connected::new(socket, None))
        })
    }
}

/// Reads the head of the answer and not a byte more, since what follows is the server's; gives the status.
async fn read_answer(socket: &mut TcpStream) -> io::Result<u16> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_ANSWER {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the proxy's answer is too long"));
        }
        head.push(socket.read_u8().await?);
    }
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let status = std::str::from_utf8(line).ok().and_then(|line| {
        let mut words = line.split(' ');
        words.next().filter(|version| version.starts_with("HTTP/1."))?;
        words.next()?.parse().ok()
    });
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "what answers is no HTTP proxy"))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A proxy that checks what it is asked byte by byte, and then is the server: it says `hi`.
    async fn scripted(script: Vec<(Vec<u8>, Vec<u8>)>) -> (Endpoint, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Endpoint::new("127.0.0.1", listener.local_addr().unwrap().port());
        let task = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            for (asked, answer) in script {
                let mut read = vec![0; asked.len()];
                socket.read_exact(&mut read).await.unwrap();
                assert_eq!(read, asked, "{}", String::from_utf8_lossy(&read));
                socket.write_all(&answer).await.unwrap();
            }
        });
        (proxy, task)
    }

    async fn hi(connector: &dyn Connector, endpoint: &Endpoint) -> Result<String, String> {
        let connected = connector.connect(endpoint).await.map_err(|error| error.cause.to_string())?;
        let mut stream = connected.stream;
        let mut text = [0; 2];
        stream.read_exact(&mut text).await.map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    #[tokio::test]
    async fn socks5_names_the_server_and_logs_in() {
        let redis = Endpoint::new("redis.internal", 6379);
        let mut request = vec![5, 1, 0, 3, 14];
        request.extend_from_slice(b"redis.internal");
        request.extend_from_slice(&6379u16.to_be_bytes());
        let granted = [&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], b"hi"].concat();
        let (proxy, _task) =
            scripted(vec![(vec![5, 1, 0], vec![5, 0]), (request.clone(), granted.clone())]).await;
        assert_eq!(hi(&Socks5::new(proxy), &redis).await.unwrap(), "hi");

        let login = [&[1, 4][..], b"user", &[6], b"secret"].concat();
        let script = vec![(vec![5, 2, 0, 2], vec![5, 2]), (login, vec![1, 0]), (request.clone(), granted)];
        let (proxy, _task) = scripted(script).await;
        let connector = Socks5::new(proxy).login("user", "secret");
        assert_eq!(hi(&connector, &redis).await.unwrap(), "hi");
        assert!(!format!("{connector:?}").contains("secret"));

        let refused = vec![5, 5, 0, 1, 0, 0, 0, 0, 0, 0];
        let (proxy, _task) = scripted(vec![(vec![5, 1, 0], vec![5, 0]), (request, refused)]).await;
        assert!(hi(&Socks5::new(proxy), &redis).await.is_err());
    }

    #[tokio::test]
    async fn http_connect_names_the_server_and_leaves_its_bytes_alone() {
        let asked = b"CONNECT redis.internal:6379 HTTP/1.1\r\nHost: redis.internal:6379\r\n\r\n".to_vec();
        let answer = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nhi".to_vec();
        let redis = Endpoint::new("redis.internal", 6379);
        let (proxy, _task) = scripted(vec![(asked.clone(), answer)]).await;
        assert_eq!(hi(&HttpConnect::new(proxy), &redis).await.unwrap(), "hi");

        let (proxy, _task) = scripted(vec![(asked, b"HTTP/1.1 407 No\r\n\r\n".to_vec())]).await;
        assert_eq!(hi(&HttpConnect::new(proxy), &redis).await.unwrap_err(), "the proxy answered 407");

        let asked = b"CONNECT [::1]:6379 HTTP/1.1\r\nHost: [::1]:6379\r\nProxy-Authorization: Basic dTpzZWNyZXQ=\r\n\r\n";
        let (proxy, _task) = scripted(vec![(asked.to_vec(), b"SSH-2.0-OpenSSH\r\n\r\n".to_vec())]).await;
        let connector = HttpConnect::new(proxy).login("u", "secret");
        assert_eq!(
            hi(&connector, &Endpoint::new("::1", 6379)).await.unwrap_err(),
            "what answers is no HTTP proxy"
        );
        assert!(!format!("{connector:?}").contains("secret"));
    }

    #[tokio::test]
    async fn what_a_proxy_cannot_reach_is_not_asked_of_it() {
        let connector = HttpConnect::new(Endpoint::new("127.0.0.1", 1));
        for host in ["a\r\nX: y", "a b"] {
            assert!(hi(&connector, &Endpoint::new(host, 1)).await.unwrap_err().contains("cannot reach"));
        }
    }
}
