//! Who is on a channel, in Redis: a hash of members and a sorted set of when each ends, in the channel's slot.
//!
//! Whoever reads or writes clears away those who ended, and tells the others: the script gives each of them to one
//! caller only.

use super::link::LinkReply;
use super::{RedisBroker, scripts};
use crate::error::BrokerError;
use crate::presence::{LIFE, Member};
use crate::publication::Channel;
use bytes::Bytes;
use std::sync::Arc;

/// Clears away who ended, then adds, removes or lists.
///
/// KEYS: hash, sorted set. ARGV: life in ms, `add`, `remove` or `list`, then client and member of each to add, or
/// each client to remove. Gives how many have ended, they themselves, then: for `add` the clients that are new, for
/// `remove` the members removed, for `list` everybody.
pub(super) static PRESENCE: scripts::Script = scripts::Script::new(
    r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ended = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)
local out = {#ended}
for _, client in ipairs(ended) do
  out[#out + 1] = redis.call('HGET', KEYS[1], client) or ''
  redis.call('HDEL', KEYS[1], client)
  redis.call('ZREM', KEYS[2], client)
end
if ARGV[2] == 'add' then
  for at = 3, #ARGV, 2 do
    if redis.call('ZADD', KEYS[2], now + ARGV[1], ARGV[at]) == 1 then out[#out + 1] = ARGV[at] end
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[1] * 2)
  redis.call('PEXPIRE', KEYS[2], ARGV[1] * 2)
elseif ARGV[2] == 'remove' then
  for at = 3, #ARGV do
    local member = redis.call('HGET', KEYS[1], ARGV[at])
    if member and redis.call('ZREM', KEYS[2], ARGV[at]) == 1 then out[#out + 1] = member end
    redis.call('HDEL', KEYS[1], ARGV[at])
  end
else
  for _, member in ipairs(redis.call('HVALS', KEYS[1])) do out[#out + 1] = member end
end
return out
",
);

/// What [`PRESENCE`] gave: who ended, and the rest.
type Given = (Vec<Member>, Vec<Bytes>);

async fn call(
    broker: &RedisBroker,
    channel: &Channel,
    what: &'static str,
    more: impl Iterator<Item = Bytes>,
) -> Result<Given, BrokerError> {
    let life = scripts::millis(LIFE);
    let args = [life, Bytes::from_static(what.as_bytes())].into_iter().chain(more).collect();
    let keys = scripts::presence_keys(&broker.prefix, channel);
    let reply = broker.eval(&PRESENCE, &keys, args).await.map_err(|_failed| BrokerError::Unavailable)?;
    given(&reply).ok_or(BrokerError::Unavailable)
}

fn given(reply: &LinkReply) -> Option<Given> {
    let LinkReply::Array(items) = reply else { return None };
    let (count, items) = items.split_first()?;
    let LinkReply::Integer(count) = count else { return None };
    let texts: Vec<Bytes> = items
        .iter()
        .map(|item| match item {
            LinkReply::Bytes(bytes) => Some(bytes.clone()),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let (ended, rest) = texts.split_at_checked(usize::try_from(*count).ok()?)?;
    Some((ended.iter().filter_map(|json| Member::from_json(json)).collect(), rest.to_vec()))
}

/// Adds members, or says again that they are there; gives those who were not, and those who ended.
pub(super) async fn add(
    broker: &RedisBroker,
    channel: &Channel,
    members: &[Arc<Member>],
) -> Result<(Vec<Arc<Member>>, Vec<Member>), BrokerError> {
    let pairs = members
        .iter()
        .flat_map(|member| [Bytes::copy_from_slice(member.client.as_bytes()), member.to_json()]);
    let (ended, fresh) = call(broker, channel, "add", pairs).await?;
    let is_new = |member: &&Arc<Member>| fresh.iter().any(|client| *client == member.client.as_bytes());
    Ok((members.iter().filter(is_new).cloned().collect(), ended))
}

/// Removes a member; gives whoever is gone by this.
pub(super) async fn remove(
    broker: &RedisBroker,
    channel: &Channel,
    client: &str,
) -> Result<Vec<Member>, BrokerError> {
    let client = std::iter::once(Bytes::copy_from_slice(client.as_bytes()));
    let (mut gone, removed) = call(broker, channel, "remove", client).await?;
    gone.extend(removed.iter().filter_map(|json| Member::from_json(json)));
    Ok(gone)
}

/// Everybody who is there.
pub(super) async fn list(
    broker: &RedisBroker,
    channel: &Channel,
) -> Result<(Vec<Member>, Vec<Member>), BrokerError> {
    let (ended, there) = call(broker, channel, "list", std::iter::empty()).await?;
    let mut there: Vec<Member> = there.iter().filter_map(|json| Member::from_json(json)).collect();
    there.sort_by(|one, other| one.client.cmp(&other.client));
    Ok((there, ended))
}
