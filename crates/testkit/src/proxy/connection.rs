//! One connection: the client's socket, the server's socket, and a pump for each direction.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::handle::{Both, ConnectionId, Live, MAX_ORDERS, Reach, State};
use super::pump::Pump;
use super::rules::{CutHow, Rules};

/// Time in which the other side's bytes are still taken after an orderly end: a socket closed with unread bytes resets.
const LINGER: Duration = Duration::from_secs(1);

/// Takes the connection out of the list, however its task ends.
struct Listed {
    id: ConnectionId,
    state: Arc<Mutex<State>>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.state.lock().live.remove(&self.id);
    }
}

pub(super) async fn run(
    id: ConnectionId,
    mut client: TcpStream,
    from: SocketAddr,
    upstream: SocketAddr,
    seed: u64,
    state: Arc<Mutex<State>>,
) {
    let Ok(mut server) = TcpStream::connect(upstream).await else {
        reset(client);
        return;
    };
    let quick = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
    if quick.is_err() {
        // Only a socket that has ended refuses.
        return;
    }
    let (end, mut ends) = mpsc::channel(1);
    let (to_client, to_server, _listed) = {
        let mut listed = state.lock();
        let rules = listed.rules.clone();
        let (to_client, reach_client) = way(id, rules.to_client, seed);
        let (to_server, reach_server) = way(id, rules.to_server, seed ^ u64::MAX);
        let ways = Both { to_client: reach_client, to_server: reach_server };
        listed.live.insert(id, Live { client: from, upstream, ways, end });
        drop(listed);
        (to_client, to_server, Listed { id, state })
    };
    let how = {
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        tokio::select! {
            biased;
            how = ends.recv() => how.unwrap_or_default(),
            both = async {
                tokio::try_join!(
                    to_client.run(server_reads, client_writes),
                    to_server.run(client_reads, server_writes),
                )
            } => both.err().unwrap_or_default(),
        }
    };
    match how {
        CutHow::Close => {
            tokio::join!(finish(&mut client), finish(&mut server));
        }
        CutHow::Reset => {
            reset(client);
            reset(server);
        }
    }
}

fn way(id: ConnectionId, rules: Rules, seed: u64) -> (Pump, Reach) {
    let delivered = Arc::new(AtomicU64::new(0));
    let (rules, seen) = watch::channel(rules);
    let (injections, injected) = mpsc::channel(MAX_ORDERS);
    let pump = Pump { id, rules: seen, injected, delivered: Arc::clone(&delivered), seed };
    (pump, Reach { rules, injections, delivered })
}

/// Closes a socket so that its peer sees a reset.
fn reset(socket: TcpStream) {
    // Fails only on a socket that has ended, which is as good.
    let _ended = socket.set_zero_linger();
    drop(socket);
}

/// Ends our side, and takes what the peer still sends until it ends its own.
async fn finish(socket: &mut TcpStream) {
    use tokio::io::AsyncWriteExt;
    if socket.shutdown().await.is_err() {
        return;
    }
    let mut waste = [0; 4096];
    let rest = async { while socket.read(&mut waste).await.is_ok_and(|read| read > 0) {} };
    let _late = tokio::time::timeout(LINGER, rest).await;
}
