//! The scripts that run in the server, how they are called, and what their replies mean.
//!
//! A channel with history has two keys in the slot of the channel's own name: a stream whose entry ids are
//! `<offset>-<nonce>`, and a hash with the epoch `e`, the newest offset `o` and its nonce `n`. The nonce is
//! drawn by the publisher, so that an entry which a failover lost is told from another one that got its offset.

use super::envelope::Mark;
use super::link::LinkReply;
use super::tracker::{Checked, Verdict};
use bytes::Bytes;
use sha1::{Digest, Sha1};
use std::fmt::Write;
use std::sync::OnceLock;
use std::time::Duration;

/// How long an epoch outlives the last publication at least, so that a client that comes back learns the truth.
const META_TTL: Duration = Duration::from_secs(24 * 3600);

/// A script with its digest.
#[derive(Debug)]
pub(super) struct Script {
    text: &'static str,
    sha: OnceLock<Bytes>,
}

impl Script {
    pub(super) const fn new(text: &'static str) -> Self {
        Self { text, sha: OnceLock::new() }
    }

    pub(super) fn source(&self) -> &'static str {
        self.text
    }

    pub(super) fn text(&self) -> Bytes {
        Bytes::from_static(self.text.as_bytes())
    }

    pub(super) fn sha(&self) -> Bytes {
        let digest = || {
            let mut hex = String::with_capacity(40);
            for byte in Sha1::digest(self.text.as_bytes()) {
                #[expect(clippy::expect_used, reason = "a string takes every character")]
                write!(hex, "{byte:02x}").expect("text into a string");
            }
            Bytes::from(hex)
        };
        self.sha.get_or_init(digest).clone()
    }
}

/// Appends publications and publishes them, as one.
///
/// KEYS: stream, hash. ARGV: channel, most entries, life of the entries and of the hash in ms, an epoch in case
/// there is none, 1 if this may be a repeat, the command that publishes, then nonce and data of each publication.
/// A repeat of a call that did run appends nothing, and publishes again what subscribers tell apart by offset.
pub(super) static APPEND: Script = Script::new(
    r"
local epoch = redis.call('HGET', KEYS[2], 'e')
if not epoch then
  epoch = ARGV[5]
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[2], 'e', epoch)
end
local known = {}
if ARGV[6] == '1' then
  for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1000)) do
    local offset, nonce = string.match(entry[1], '(%d+)-(%d+)')
    known[nonce] = offset
  end
end
local out = {epoch}
for at = 8, #ARGV, 2 do
  local nonce, data = ARGV[at], ARGV[at + 1]
  local offset = known[nonce]
  if not offset then
    offset = string.format('%.0f', redis.call('HINCRBY', KEYS[2], 'o', 1))
    redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[2], offset .. '-' .. nonce, 'd', data)
    redis.call('HSET', KEYS[2], 'n', nonce)
  end
  redis.call(ARGV[7], ARGV[1], '\1ek1 ' .. epoch .. ' ' .. offset .. ' ' .. nonce .. ' ' .. data)
  out[#out + 1] = offset
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return out
",
);

/// Publishes payloads in order, unless fewer gateways hear than expected.
///
/// KEYS: whatever leads to the node that is to publish, or none. ARGV: the common channel of the gateways or nothing, how
/// many are expected, channel, the command that publishes, then payloads. Gives how many there are, or -1 less their number
/// when they are too few and nothing was published.
pub(super) static PUBLISH_ALL: Script = Script::new(
    r"
local here = 0
if ARGV[1] ~= '' then
  here = redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2]
  if here < tonumber(ARGV[2]) then return -1 - here end
end
for at = 5, #ARGV do redis.call(ARGV[4], ARGV[3], ARGV[at]) end
return here
",
);

/// Reads the history. KEYS: stream, hash. ARGV: an epoch in case there is none, life of the hash in ms, offset
/// after which (or, in reverse, before which) to read, most entries, 1 for reverse.
/// Gives epoch, newest offset, its nonce, then id and data of each entry.
pub(super) static READ: Script = Script::new(
    r"
local epoch, offset, nonce = unpack(redis.call('HMGET', KEYS[2], 'e', 'o', 'n'))
if not epoch then
  epoch = ARGV[1]
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[2], 'e', epoch)
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
local out = {epoch, offset or '0', nonce or '0'}
if tonumber(ARGV[4]) > 0 then
  local entries
  if ARGV[5] == '1' then
    entries = redis.call('XREVRANGE', KEYS[1], '(' .. ARGV[3] .. '-0', '-', 'COUNT', ARGV[4])
  else
    entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[3] .. '-18446744073709551615', '+', 'COUNT', ARGV[4])
  end
  for _, entry in ipairs(entries) do
    out[#out + 1] = entry[1]
    out[#out + 1] = entry[2][2]
  end
end
return out
",
);

/// Says whether a mark stands, and what follows it; if it does not, a new epoch is written, once: a gateway
/// that asks later finds the epoch changed and takes it over.
///
/// KEYS: stream, hash. ARGV: the new epoch, life of the hash in ms, the mark's epoch, offset and nonce, most
/// entries. Gives epoch, newest offset, its nonce, verdict, then id and data of each entry.
pub(super) static CHECK: Script = Script::new(
    r"
local epoch, offset, nonce = unpack(redis.call('HMGET', KEYS[2], 'e', 'o', 'n'))
offset, nonce = offset or '0', nonce or '0'
if epoch and epoch ~= ARGV[3] then
  return {epoch, offset, nonce, 'new'}
end
local stands = false
local top, seen = tonumber(offset), tonumber(ARGV[4])
local lost = false
if epoch and top == seen then
  stands = seen == 0 or nonce == ARGV[5]
elseif epoch and top > seen then
  if seen == 0 then
    stands = true
  else
    local entry = redis.call('XRANGE', KEYS[1], ARGV[4] .. '-0', ARGV[4] .. '-18446744073709551615', 'COUNT', 1)[1]
    if entry then
      stands = entry[1] == ARGV[4] .. '-' .. ARGV[5]
    else
      stands = true
      lost = true
    end
  end
end
if not epoch then
  redis.call('DEL', KEYS[1])
end
if not stands then
  redis.call('HSET', KEYS[2], 'e', ARGV[1])
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
  return {ARGV[1], offset, nonce, 'new'}
end
if lost then
  return {epoch, offset, nonce, 'hole'}
end
local entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[4] .. '-18446744073709551615', '+', 'COUNT', ARGV[6])
if top > seen and (not entries[1] or tonumber(string.match(entries[1][1], '%d+')) ~= seen + 1) then
  return {epoch, offset, nonce, 'hole'}
end
local out = {epoch, offset, nonce, 'stands'}
for _, entry in ipairs(entries) do
  out[#out + 1] = entry[1]
  out[#out + 1] = entry[2][2]
end
return out
",
);

/// Both keys of a channel, in the slot of the channel's own name.
pub(super) fn keys(prefix: &str, channel: &str) -> [Bytes; 2] {
    let tagged = if has_hash_tag(channel) { channel.to_owned() } else { format!("{{{channel}}}") };
    [Bytes::from(format!("{prefix}:s:{tagged}")), Bytes::from(format!("{prefix}:m:{tagged}"))]
}

/// Both keys of a channel's members, in the slot of the channel's own name.
pub(super) fn presence_keys(prefix: &str, channel: &str) -> [Bytes; 2] {
    let tagged = if has_hash_tag(channel) { channel.to_owned() } else { format!("{{{channel}}}") };
    [Bytes::from(format!("{prefix}:p:{tagged}")), Bytes::from(format!("{prefix}:e:{tagged}"))]
}

/// Whether a channel's keys are in the slot that the channel itself has as a shard channel.
pub(super) fn share_the_slot(channel: &str) -> bool {
    // In the braces that the keys put around it, such a name would end too soon.
    has_hash_tag(channel) || !channel.contains('}')
}

fn has_hash_tag(name: &str) -> bool {
    let Some((_, rest)) = name.split_once('{') else { return false };
    rest.find('}').is_some_and(|at| at > 0)
}

/// Milliseconds as an argument, at least 1.
pub(super) fn millis(duration: Duration) -> Bytes {
    Bytes::from(duration.as_millis().max(1).to_string())
}

/// The life of a channel's hash.
pub(super) fn meta_life(history: Duration) -> Bytes {
    millis(META_TTL.max(history * 2))
}

/// The reply of [`APPEND`]: epoch and offsets.
pub(super) fn appended(reply: &LinkReply) -> Option<(String, Vec<u64>)> {
    let LinkReply::Array(items) = reply else { return None };
    let (epoch, offsets) = items.split_first()?;
    let offsets = offsets.iter().map(number).collect::<Option<Vec<_>>>()?;
    Some((text(epoch)?.to_owned(), offsets))
}

/// The reply of [`READ`]: the newest entry's mark, and the entries.
pub(super) fn read(reply: &LinkReply) -> Option<(Mark, Vec<(Mark, Bytes)>)> {
    let LinkReply::Array(items) = reply else { return None };
    let [epoch, offset, nonce, entries @ ..] = &items[..] else { return None };
    let top = Mark { epoch: text(epoch)?.into(), offset: number(offset)?, nonce: number(nonce)? };
    let entries = entries_of(&top, entries)?;
    Some((top, entries))
}

/// The reply of [`CHECK`].
pub(super) fn checked(reply: &LinkReply) -> Option<Checked> {
    let LinkReply::Array(items) = reply else { return None };
    let [epoch, offset, nonce, verdict, entries @ ..] = &items[..] else { return None };
    let top = Mark { epoch: text(epoch)?.into(), offset: number(offset)?, nonce: number(nonce)? };
    let verdict = match text(verdict)? {
        "hole" => Verdict::Hole,
        "new" => Verdict::New,
        "stands" => Verdict::Stands,
        _ => return None,
    };
    let entries = entries_of(&top, entries)?;
    Some(Checked { top, verdict, entries })
}

fn entries_of(top: &Mark, items: &[LinkReply]) -> Option<Vec<(Mark, Bytes)>> {
    let mut entries = Vec::with_capacity(items.len() / 2);
    for pair in items.chunks(2) {
        let [id, LinkReply::Bytes(data)] = pair else { return None };
        let (offset, nonce) = text(id)?.split_once('-')?;
        let (offset, nonce) = (offset.parse().ok()?, nonce.parse().ok()?);
        entries.push((Mark { epoch: top.epoch.clone(), offset, nonce }, data.clone()));
    }
    Some(entries)
}

fn text(reply: &LinkReply) -> Option<&str> {
    match reply {
        LinkReply::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

fn number(reply: &LinkReply) -> Option<u64> {
    match reply {
        LinkReply::Integer(number) => u64::try_from(*number).ok(),
        reply => text(reply)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::{APPEND, keys, share_the_slot};
    use crate::broker::redis::envelope::MAGIC;

    #[test]
    fn keys_share_the_slot_of_the_channel() {
        assert_eq!(keys("ek", "news"), ["ek:s:{news}", "ek:m:{news}"]);
        assert_eq!(keys("ek", "a{b}c"), ["ek:s:a{b}c", "ek:m:a{b}c"]);
        assert_eq!(keys("ek", "a{}c"), ["ek:s:{a{}c}", "ek:m:{a{}c}"]);
    }

    #[cfg(feature = "redis")]
    #[test]
    fn channels_are_sharded_only_where_their_keys_are() {
        use evenkeel_client::Slot;
        for (channel, shared) in [
            ("news", true),
            ("room:4{2}", true),
            ("a{b", true),
            ("{", true),
            ("a{b}c}d", true),
            ("a}b", false),
            ("a{}c", false),
            ("{}", false),
        ] {
            assert_eq!(share_the_slot(channel), shared, "{channel}");
            let same = keys("ek", channel).iter().all(|key| Slot::of(key) == Slot::of(channel.as_bytes()));
            assert!(same || !shared, "{channel}");
        }
    }

    #[test]
    fn the_script_writes_what_envelopes_begin_with() {
        assert!(APPEND.text.contains(&MAGIC.replace('\u{1}', "'\\1")));
        assert_eq!(APPEND.sha().len(), 40);
    }
}
