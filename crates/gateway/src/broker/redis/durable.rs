//! How many replicas have a publication.
//!
//! `WAIT` speaks of the writes of its own connection, and the publication was written by the lane of its channel, for
//! the sake of order. So the unit that waits begins with a write of its own, made only where the publication stands:
//! what has reached a replica there has reached it behind the publication.

use super::scripts::{self, Script};
use super::{LinkReply, RedisBroker};
use crate::namespace::ChannelOptions;
use crate::publication::{Channel, Position};
use bytes::Bytes;
use std::time::Duration;

/// Writes, and gives 1, when an entry stands under its epoch; a promoted replica may have given its offset to another.
///
/// KEYS: stream, hash. ARGV: epoch, id of the entry, life of the hash in ms.
static STANDS: Script = Script::new(
    r"
if redis.call('HGET', KEYS[2], 'e') ~= ARGV[1] then return 0 end
if not redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1] then return 0 end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
",
);

/// Waits at most `within` until `replicas` have a publication; gives how many certainly do.
pub(super) async fn copies(
    broker: &RedisBroker,
    (channel, options): (&Channel, &ChannelOptions),
    (at, nonce): (&Position, u64),
    replicas: u32,
    within: Duration,
) -> u32 {
    let [stream, hash] = scripts::keys(&broker.prefix, channel);
    let args = vec![
        Bytes::from_static(b"EVAL"),
        STANDS.text(),
        Bytes::from_static(b"2"),
        stream,
        hash,
        Bytes::copy_from_slice(at.epoch.as_bytes()),
        Bytes::from(format!("{}-{nonce}", at.offset)),
        scripts::meta_life(options.history_ttl),
    ];
    match broker.link.command_and_wait(args, replicas, within).await {
        Ok((LinkReply::Integer(1), copies)) => copies,
        Ok(_) => 0,
        Err(error) => {
            tracing::warn!(%channel, %error, "how many replicas have a publication is not known");
            0
        }
    }
}
