//! Sockets that listen: where they are bound, and the loops that accept.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::net::{TcpListener, TcpStream};

use super::{config::Spread, error::Error, session::Session, shared::Shared};

/// Draws of a port that is free on every loopback host.
const DRAWS: usize = 50;

/// Which connections a listener takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Door {
    Address(usize),
    /// Those of the configured name: they belong to whatever it leads to when they come.
    Front,
}

/// A server's listeners.
pub(super) struct Bound {
    pub(super) front: Option<TcpListener>,
    pub(super) addresses: Vec<TcpListener>,
}

async fn bind_one(host: u8, port: u16) -> Result<TcpListener, (SocketAddr, io::Error)> {
    let addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)), port);
    TcpListener::bind(addr).await.map_err(|error| (addr, error))
}

fn port_of(listener: &TcpListener) -> u16 {
    listener.local_addr().map_or(0, |addr| addr.port())
}

/// Binds `count` addresses, and a front door when there is one.
pub(super) async fn bind(count: usize, front: bool, spread: Spread) -> Result<Bound, Error> {
    if spread == Spread::Hosts && count + usize::from(front) > 1 {
        for _ in 0..DRAWS {
            match bind_hosts(count, front).await {
                Ok(bound) => return Ok(bound),
                // Somebody has this port on another host: draw again.
                Err((_, error)) if error.kind() == io::ErrorKind::AddrInUse => {}
                // The system has no such host.
                Err(_) => break,
            }
        }
    }
    let listen = |(addr, source)| Error::Listen { addr, source };
    let front = if front { Some(bind_one(1, 0).await.map_err(listen)?) } else { None };
    let mut addresses = Vec::with_capacity(count);
    for _ in 0..count {
        addresses.push(bind_one(1, 0).await.map_err(listen)?);
    }
    Ok(Bound { front, addresses })
}

async fn bind_hosts(count: usize, front: bool) -> Result<Bound, (SocketAddr, io::Error)> {
    let first = bind_one(1, 0).await?;
    let port = port_of(&first);
    let mut listeners = vec![first];
    let all = count + usize::from(front);
    for host in 2..=u8::try_from(all).unwrap_or(u8::MAX) {
        listeners.push(bind_one(host, port).await?);
    }
    let front = front.then(|| listeners.remove(0));
    Ok(Bound { front, addresses: listeners })
}

/// Accepts until it is aborted.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>, door: Door) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => admit(stream, peer, &shared, door),
            // Out of descriptors, most likely: those who leave make room.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

fn admit(stream: TcpStream, peer: SocketAddr, shared: &Arc<Shared>, door: Door) {
    let address = match door {
        Door::Address(index) => index,
        Door::Front => shared.front_target(),
    };
    let Ok(local) = stream.local_addr() else { return };
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let registered = shared.with(|engine| {
        // What was accepted in the moment of retirement is closed with the rest.
        engine.addresses.get(address).filter(|address| address.listening)?;
        let key = engine.connect(address, (peer, local));
        engine.conns.get(key).map(|conn| (key, Arc::clone(&conn.wake)))
    });
    if let Some((key, wake)) = registered {
        let session = Session::new(Arc::clone(shared), key, wake, stream);
        shared.spawn(session.run());
    }
}

/// Listens again on an address that had been retired.
pub(super) async fn listen_again(shared: &Arc<Shared>, index: usize) -> Result<(), Error> {
    let state = shared.with(|engine| {
        engine
            .addresses
            .get(index)
            .map(|address| (address.socket, address.listening))
            .ok_or(Error::NoSuchAddress { index, count: engine.addresses.len() })
    })?;
    let (addr, listening) = state;
    if listening {
        return Ok(());
    }
    let listener = TcpListener::bind(addr).await.map_err(|source| Error::Listen { addr, source })?;
    shared.with(|engine| {
        if let Some(address) = engine.addresses.get_mut(index) {
            address.listening = true;
        }
    });
    let task = accept(listener, Arc::clone(shared), Door::Address(index));
    if shared.spawn_listener(index, task) { Ok(()) } else { Err(Error::Ended) }
}

/// Stops listening on an address and closes its connections; gives their number.
pub(super) async fn retire(shared: &Arc<Shared>, index: usize) -> usize {
    let closed = shared.with(|engine| {
        if let Some(address) = engine.addresses.get_mut(index) {
            address.listening = false;
            address.moves.clear();
        }
        engine.close_all(super::Audience::Address(index))
    });
    if let Some(task) = shared.stop_listener(index) {
        // An aborted task ends with an error that says so; the socket is closed then.
        let _aborted = task.await;
    }
    closed
}
