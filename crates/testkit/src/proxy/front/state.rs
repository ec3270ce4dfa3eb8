//! What a front knows: who opted in, how, and which moves are under way. No socket, no task.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::notice::moving;
use super::sniffer::Sniffer;
use crate::proxy::ConnectionId;
use crate::proxy::replace::Replace;

/// The refusal of every open server; it repeats the subcommand in the client's own letters, which are of one case or the other.
const REFUSALS: [&[u8]; 2] = [
    b"-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.\r\n",
    b"-ERR unknown subcommand 'maint_notifications'. Try CLIENT HELP.\r\n",
];

/// How the endpoint of a move is to be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndpointType {
    Ip,
    Name,
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Malformed,
    Off,
    On(EndpointType),
}

#[derive(Debug)]
struct Connection {
    sniffer: Sniffer,
    refusals: [Replace; 2],
    is_resp3: bool,
    /// Asked and not yet refused by the server, in order.
    asked: VecDeque<Ask>,
    opted_in: Option<EndpointType>,
}

#[derive(Clone, Copy, Debug)]
struct Move {
    to: SocketAddr,
    sequence: u64,
    until: Instant,
}

#[derive(Debug, Default)]
pub(super) struct FrontState {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) refuses: bool,
    connections: BTreeMap<(usize, ConnectionId), Connection>,
    /// The moves under way, by the address that is left.
    moves: BTreeMap<usize, Move>,
    sequence: u64,
}

impl FrontState {
    /// Takes note of what a client asks for.
    pub(super) fn client_sent(&mut self, address: usize, id: ConnectionId, bytes: &[u8]) {
        let connection = self.connections.entry((address, id)).or_default();
        let Connection { sniffer, asked, is_resp3, .. } = connection;
        sniffer.feed(bytes, |words| {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match words.as_slice() {
                ["HELLO", version, ..] => *is_resp3 = *version == "3",
                ["CLIENT", "MAINT_NOTIFICATIONS", rest @ ..] => asked.push_back(ask(rest)),
                _ => {}
            }
        });
    }

    /// Turns the server's refusals of the opt-in into what a hosted server says.
    pub(super) fn server_sent(
        &mut self,
        address: usize,
        id: ConnectionId,
        bytes: &mut BytesMut,
        now: Instant,
    ) {
        let refuses = self.refuses;
        let under_way = self.moves.get(&address).copied();
        let connection = self.connections.entry((address, id)).or_default();
        let Connection { refusals, asked, opted_in, is_resp3, .. } = connection;
        for (replace, refusal) in refusals.iter_mut().zip(REFUSALS) {
            *bytes = replace.feed_with(bytes, |out| {
                let answer = asked.pop_front().filter(|_| !refuses).unwrap_or(Ask::Malformed);
                match answer {
                    Ask::Malformed => out.extend_from_slice(refusal),
                    Ask::Off => {
                        *opted_in = None;
                        out.extend_from_slice(b"+OK\r\n");
                    }
                    Ask::On(endpoint_type) => {
                        *opted_in = Some(endpoint_type);
                        out.extend_from_slice(b"+OK\r\n");
                        // Who comes late to a move is told at once, with the time that is left.
                        if let Some(late) = under_way.filter(|_| *is_resp3) {
                            out.extend_from_slice(&late.frame(endpoint_type, now));
                        }
                    }
                }
            });
        }
    }

    /// Returns who is to be told on an address, and forgets connections that are no more.
    pub(super) fn listeners(
        &mut self,
        address: usize,
        live: &[ConnectionId],
    ) -> Vec<(ConnectionId, EndpointType)> {
        self.connections.retain(|(at, id), _| *at != address || live.contains(id));
        let listens = |((at, id), connection): (&(usize, ConnectionId), &Connection)| {
            let endpoint_type = connection.opted_in.filter(|_| *at == address && connection.is_resp3)?;
            Some((*id, endpoint_type))
        };
        self.connections.iter().filter_map(listens).collect()
    }

    pub(super) fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Begins a move. `to` is in service from here on, whatever was announced before.
    pub(super) fn begin_move(&mut self, from: usize, to: usize, until: Instant) -> u64 {
        let sequence = self.next_sequence();
        self.moves.remove(&to);
        if let Some(addr) = self.addresses.get(to) {
            self.moves.insert(from, Move { to: *addr, sequence, until });
        }
        sequence
    }

    /// Ends a move. Returns false when another one has taken its place.
    pub(super) fn end_move(&mut self, from: usize, sequence: u64) -> bool {
        let is_it = self.moves.get(&from).is_some_and(|under_way| under_way.sequence == sequence);
        is_it && self.moves.remove(&from).is_some()
    }

    /// Returns the announcement of the move under way from an address.
    pub(super) fn moving(&self, from: usize, endpoint_type: EndpointType, now: Instant) -> Option<Bytes> {
        self.moves.get(&from).map(|under_way| under_way.frame(endpoint_type, now))
    }
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            sniffer: Sniffer::default(),
            refusals: REFUSALS.map(|refusal| Replace::new(Bytes::from_static(refusal), Bytes::new())),
            is_resp3: false,
            asked: VecDeque::new(),
            opted_in: None,
        }
    }
}

impl Move {
    fn frame(&self, endpoint_type: EndpointType, now: Instant) -> Bytes {
        let endpoint = match endpoint_type {
            EndpointType::Ip => Some(self.to.to_string()),
            EndpointType::Name => Some(format!("localhost:{}", self.to.port())),
            EndpointType::Nothing => None,
        };
        moving(self.sequence, self.until.saturating_duration_since(now), endpoint.as_deref())
    }
}

/// Reads what stands behind `CLIENT MAINT_NOTIFICATIONS`, in upper case.
fn ask(words: &[&str]) -> Ask {
    match words {
        ["OFF"] => Ask::Off,
        // A bare ON is answered like `none`.
        ["ON"] | ["ON", "MOVING-ENDPOINT-TYPE", "NONE"] => Ask::On(EndpointType::Nothing),
        ["ON", "MOVING-ENDPOINT-TYPE", "INTERNAL-IP" | "EXTERNAL-IP"] => Ask::On(EndpointType::Ip),
        ["ON", "MOVING-ENDPOINT-TYPE", "INTERNAL-FQDN" | "EXTERNAL-FQDN"] => Ask::On(EndpointType::Name),
        _ => Ask::Malformed,
    }
}
