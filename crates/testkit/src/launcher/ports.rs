//! Loopback ports that stay ours while a guard lives.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

use tokio::net::TcpSocket;

use super::error::LaunchError;

/// Ports are taken below 22768, so that the cluster bus (port + 10000) stays below the ephemeral range,
/// which starts at 32768: a client's socket could sit on the bus port otherwise.
const PORTS: RangeInclusive<u16> = 11_000..=22_767;
/// Distance of the cluster bus from a node's port, fixed by Redis.
const BUS_OFFSET: u16 = 10_000;
const TRIES: u32 = 200;

/// A reserved port, and its bus port where one was asked for.
///
/// The guard holds a socket that is bound but does not listen. A server that binds with `SO_REUSEADDR`, as
/// they all do, may still listen there; another launcher, which binds without, may not take it; a connection is refused while
/// no server listens. So a killed server finds its port free when it is restarted.
#[derive(Debug)]
pub struct ReservedPort {
    addr: SocketAddr,
    _held: Vec<TcpSocket>,
}

impl ReservedPort {
    /// Reserves a random port below 22768; with `bus`, together with the port of its cluster bus, 10000 above.
    ///
    /// # Errors
    ///
    /// [`LaunchError::NoPort`] when 200 ports in a row were taken.
    pub fn reserve(bus: bool) -> Result<Self, LaunchError> {
        for _ in 0..TRIES {
            let port = fastrand::u16(PORTS);
            let Some(main) = hold(port) else { continue };
            let mut held = vec![main];
            if bus {
                let Some(bus) = hold(port + BUS_OFFSET) else { continue };
                held.push(bus);
            }
            return Ok(Self { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), _held: held });
        }
        Err(LaunchError::NoPort { tries: TRIES })
    }

    /// Returns the address, on 127.0.0.1.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

fn hold(port: u16) -> Option<TcpSocket> {
    let socket = TcpSocket::new_v4().ok()?;
    // Bound without SO_REUSEADDR: that fails wherever anybody else is bound. Set afterwards, it lets the server in.
    socket.set_reuseaddr(false).ok()?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).ok()?;
    socket.set_reuseaddr(true).ok()?;
    Some(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_given_to_nobody_else() {
        let reserved = ReservedPort::reserve(true).unwrap();
        assert!(hold(reserved.addr().port()).is_none());
        assert!(hold(reserved.addr().port() + BUS_OFFSET).is_none());
    }

    #[tokio::test]
    async fn a_server_may_listen_on_it_again_and_again() {
        let reserved = ReservedPort::reserve(false).unwrap();
        for _ in 0..2 {
            assert!(tokio::net::TcpStream::connect(reserved.addr()).await.is_err());
            let server = TcpSocket::new_v4().unwrap();
            server.set_reuseaddr(true).unwrap();
            server.bind(reserved.addr()).unwrap();
            let listener = server.listen(8).unwrap();
            tokio::net::TcpStream::connect(reserved.addr()).await.unwrap();
            drop(listener);
        }
    }
}
