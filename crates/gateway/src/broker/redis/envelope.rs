//! What gateways publish on a channel with history: the data, with its place in the history before it.
//!
//! `\x01ek1 <epoch> <offset> <nonce> <data>`: no JSON text and no ordinary text begins like this, so payloads of
//! other programs are told apart by their first bytes.

use crate::presence::Member;
use bytes::{Buf, Bytes};

/// How an envelope begins.
pub(super) const MAGIC: &str = "\u{1}ek1 ";

/// How the news that somebody came or left begin; a `+` or a `-` and the member follow.
const PRESENCE: &[u8] = b"\x01ekp ";

/// The news that somebody came or left.
pub(super) fn presence(member: &Member, joined: bool) -> Bytes {
    let sign: &[u8] = if joined { b"+" } else { b"-" };
    Bytes::from([PRESENCE, sign, &member.to_json()].concat())
}

/// Reads such news.
pub(super) fn read_presence(payload: &[u8]) -> Option<(Member, bool)> {
    let (sign, json) = payload.strip_prefix(PRESENCE)?.split_first()?;
    let joined = match sign {
        b'+' => true,
        b'-' => false,
        _ => return None,
    };
    Some((Member::from_json(json)?, joined))
}

/// A place in a stream, with the number that tells its entry from another one of the same offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) epoch: crate::publication::Epoch,
    pub(super) offset: u64,
    pub(super) nonce: u64,
}

/// A message of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A gateway's publication.
    Kept { mark: Mark, data: Bytes },
    /// Another program's.
    Plain(Bytes),
}

impl Message {
    /// Reads a payload. One that only begins like an envelope is taken as another program's.
    pub(super) fn read(payload: Bytes) -> Self {
        match read_kept(&payload) {
            Some((mark, head)) => {
                let mut data = payload;
                data.advance(head);
                Self::Kept { mark, data }
            }
            None => Self::Plain(payload),
        }
    }
}

fn read_kept(payload: &[u8]) -> Option<(Mark, usize)> {
    let rest = payload.strip_prefix(MAGIC.as_bytes())?;
    let mut parts = rest.splitn(4, |byte| *byte == b' ');
    let epoch = std::str::from_utf8(parts.next()?).ok().filter(|epoch| !epoch.is_empty())?;
    let offset = number(parts.next()?)?;
    let nonce = number(parts.next()?)?;
    let data = parts.next()?;
    Some((Mark { epoch: epoch.into(), offset, nonce }, payload.len() - data.len()))
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Mark, Message};
    use bytes::Bytes;

    #[test]
    fn envelopes_are_told_from_other_payloads() {
        let read = |payload: &'static str| Message::read(Bytes::from_static(payload.as_bytes()));
        assert_eq!(
            read("\u{1}ek1 e9 5 77 {\"a\": 1}"),
            Message::Kept {
                mark: Mark { epoch: "e9".into(), offset: 5, nonce: 77 },
                data: Bytes::from_static(b"{\"a\": 1}"),
            }
        );
        for other in [
            "",
            "{}",
            "\u{1}ek1 ",
            "\u{1}ek1 e 5 x d",
            "\u{1}ek1 e -5 1 d",
            "\u{1}ek1  5 1 d",
            "\u{1}ek2 e 5 1 d",
        ] {
            assert_eq!(read(other), Message::Plain(Bytes::from_static(other.as_bytes())), "{other:?}");
        }
    }
}
