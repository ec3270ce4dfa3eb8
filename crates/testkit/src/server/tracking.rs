//! Client-side caching: who has read what, and the invalidations that follow a change.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use super::{
    commands::Command,
    conn::ConnKey,
    engine::Engine,
    out::{Out, Proto},
    request::Args,
};

/// What `CLIENT CACHING` said of the next command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caching {
    No,
    Yes,
}

/// What `CLIENT TRACKING ON` asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracking {
    pub(super) broadcast: bool,
    pub(super) prefixes: Vec<Bytes>,
    pub(super) opt_in: bool,
    pub(super) opt_out: bool,
    pub(super) no_loop: bool,
    /// The id of the connection that is told.
    pub(super) redirect: Option<u64>,
    pub(super) caching: Option<Caching>,
}

/// Keys that connections may have cached.
#[derive(Debug, Default)]
pub(super) struct Trackers {
    readers: HashMap<Bytes, BTreeSet<ConnKey>>,
    broadcast: BTreeMap<ConnKey, Vec<Bytes>>,
    /// Connections that track, in either way.
    count: usize,
}

impl Engine {
    pub(super) fn start_tracking(&mut self, key: ConnKey, tracking: Tracking) {
        self.stop_tracking(key);
        self.trackers.count += 1;
        if tracking.broadcast {
            self.trackers.broadcast.insert(key, tracking.prefixes.clone());
        }
        if let Some(conn) = self.conns.get_mut(key) {
            conn.tracking = Some(tracking);
        }
    }

    pub(super) fn stop_tracking(&mut self, key: ConnKey) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.tracking.take().is_none() {
            return;
        }
        self.trackers.count -= 1;
        self.trackers.broadcast.remove(&key);
        self.trackers.readers.retain(|_, readers| {
            readers.remove(&key);
            !readers.is_empty()
        });
    }

    /// Remembers the keys that a command has read.
    pub(super) fn track_reads(&mut self, key: ConnKey, command: &Command, args: Args<'_>) {
        if self.trackers.count == 0 {
            return;
        }
        let Some(tracking) = self.conns.get_mut(key).and_then(|conn| conn.tracking.as_mut()) else { return };
        if command.full_name() == "CLIENT|CACHING" {
            return;
        }
        let caching = tracking.caching.take();
        if tracking.broadcast || !command.is_read_only() {
            return;
        }
        if (tracking.opt_in && caching != Some(Caching::Yes)) || caching == Some(Caching::No) {
            return;
        }
        for name in command.keys_of(args) {
            self.trackers.readers.entry(Bytes::copy_from_slice(name)).or_default().insert(key);
        }
    }

    /// Tells those who may have cached the key.
    pub(super) fn invalidate(&mut self, name: &[u8]) {
        if self.trackers.count == 0 {
            return;
        }
        let mut told: BTreeSet<ConnKey> = self.trackers.readers.remove(name).unwrap_or_default();
        told.extend(
            self.trackers
                .broadcast
                .iter()
                .filter(|(_, prefixes)| prefixes.is_empty() || prefixes.iter().any(|p| name.starts_with(p)))
                .map(|(&key, _)| key),
        );
        for key in told {
            self.tell(key, Some(name));
        }
    }

    /// Tells everybody who tracks that all keys are gone.
    pub(super) fn invalidate_all(&mut self) {
        if self.trackers.count == 0 {
            return;
        }
        self.trackers.readers.clear();
        let told: Vec<ConnKey> =
            self.conns.iter().filter(|(_, conn)| conn.tracking.is_some()).map(|(key, _)| key).collect();
        for key in told {
            self.tell(key, None);
        }
    }

    fn tell(&mut self, key: ConnKey, name: Option<&[u8]>) {
        let Some(tracking) = self.conns.get(key).and_then(|conn| conn.tracking.as_ref()) else { return };
        if tracking.no_loop && name.is_some() && self.current == Some(key) {
            return;
        }
        let redirect = tracking.redirect;
        let receiver = match redirect {
            None => Some(key),
            Some(id) => self.by_id(id),
        };
        let Some(receiver) = receiver else {
            // The connection that was to be told has gone; the one that tracks is told so.
            let id = i64::try_from(redirect.unwrap_or_default()).unwrap_or_default();
            self.send(key, |out| {
                if out.proto == Proto::Resp3 {
                    out.push(2);
                    out.bulk(b"tracking-redir-broken");
                    out.integer(id);
                }
            });
            return;
        };
        let subscribed =
            self.conns.get(receiver).is_some_and(|conn| conn.channels.contains(&b"__redis__:invalidate"[..]));
        self.send(receiver, |out| match out.proto {
            Proto::Resp3 => {
                out.push(2);
                out.bulk(b"invalidate");
                keys(out, name);
            }
            Proto::Resp2 if redirect.is_some() && subscribed => {
                out.array(3);
                out.bulk(b"message");
                out.bulk(b"__redis__:invalidate");
                keys(out, name);
            }
            Proto::Resp2 => {}
        });
    }
}

fn keys(out: &mut Out, name: Option<&[u8]>) {
    match name {
        Some(name) => {
            out.array(1);
            out.bulk(name);
        }
        None => out.null_array(),
    }
}
