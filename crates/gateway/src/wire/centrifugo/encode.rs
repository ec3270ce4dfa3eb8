//! What the server says: replies into a buffer, pushes as whole frames.

use super::ReplyError;
use crate::broker::History;
use crate::hooks::Refused;
use crate::hub::shard::Ended;
use crate::presence::Member;
use crate::publication::{Channel, Position, Publication};
use crate::ws;
use bytes::Bytes;
use serde_json::value::RawValue;
use std::io::Write;

/// The version that clients are told.
const VERSION: &str = concat!("evenkeel ", env!("CARGO_PKG_VERSION"));

/// Encodes a publication's push.
pub(crate) fn publication(publication: &Publication) -> Bytes {
    let mut out = Vec::with_capacity(64 + publication.channel().len() + publication.data().len());
    out.extend_from_slice(b"{\"push\":{\"channel\":");
    put_string(&mut out, publication.channel());
    out.extend_from_slice(b",\"pub\":");
    put_publication(&mut out, publication.data(), publication.offset());
    out.extend_from_slice(b"}}");
    ws::encode::text(&out)
}

/// Encodes the push of somebody who came or left.
pub(crate) fn presence(channel: &Channel, member: &Member, joined: bool) -> Bytes {
    let mut out = Vec::with_capacity(160 + channel.len());
    out.extend_from_slice(b"{\"push\":{\"channel\":");
    put_string(&mut out, channel);
    out.extend_from_slice(if joined { b",\"join\":{\"info\":" } else { b",\"leave\":{\"info\":" });
    put_member(&mut out, member);
    out.extend_from_slice(b"}}}");
    ws::encode::text(&out)
}

/// Appends a member, as replies and the server API have it.
pub(crate) fn put_member(out: &mut Vec<u8>, member: &Member) {
    out.extend_from_slice(b"{\"client\":");
    put_string(out, &member.client);
    out.extend_from_slice(b",\"user\":");
    put_string(out, &member.user);
    if let Some(info) = &member.info {
        put(out, format_args!(",\"conn_info\":{}", info.get()));
    }
    out.push(b'}');
}

/// Appends all members by their clients.
pub(crate) fn put_presence(out: &mut Vec<u8>, members: &[Member]) {
    out.extend_from_slice(b"\"presence\":{");
    for (at, member) in members.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        put_string(out, &member.client);
        out.push(b':');
        put_member(out, member);
    }
    out.push(b'}');
}

/// Appends how many sessions and users there are.
pub(crate) fn put_presence_stats(out: &mut Vec<u8>, members: &[Member]) {
    let users: std::collections::BTreeSet<&str> = members.iter().map(|member| &*member.user).collect();
    put(out, format_args!("\"num_clients\":{},\"num_users\":{}", members.len(), users.len()));
}

/// Encodes the push of a subscription that the server ended. Codes from 2500 on make the client come again.
pub(crate) fn unsubscribed(channel: &Channel, why: Ended) -> Bytes {
    let (code, reason) = match why {
        Ended::ByServer => (2000, "server unsubscribe"),
        Ended::Insufficient => (2500, "insufficient state"),
    };
    let mut out = Vec::with_capacity(96 + channel.len());
    out.extend_from_slice(b"{\"push\":{\"channel\":");
    put_string(&mut out, channel);
    put(&mut out, format_args!(",\"unsubscribe\":{{\"code\":{code},\"reason\":\"{reason}\"}}}}}}"));
    ws::encode::text(&out)
}

/// Replies to one frame of commands, one a line.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    out: Vec<u8>,
    /// How many of them are errors.
    pub(crate) errors: usize,
}

impl Replies {
    /// The frame to send; `None` when there is nothing to say.
    pub(crate) fn into_frame(self) -> Option<Bytes> {
        (!self.out.is_empty()).then(|| ws::encode::text(&self.out))
    }

    pub(crate) fn error(&mut self, id: u32, error: ReplyError) {
        self.errors += 1;
        let out = self.begin(id);
        put(out, format_args!("\"error\":{{\"code\":{},\"message\":\"{}\"", error.code, error.message));
        out.extend_from_slice(if error.temporary { b",\"temporary\":true}}" } else { b"}}" });
    }

    /// The error that a hook gave.
    pub(crate) fn refused(&mut self, id: u32, refused: &Refused) {
        self.errors += 1;
        let out = self.begin(id);
        put(out, format_args!("\"error\":{{\"code\":{},\"message\":", refused.code));
        put_string(out, &refused.message);
        out.extend_from_slice(if refused.temporary { b",\"temporary\":true}}" } else { b"}}" });
    }

    /// `ttl` is how many seconds the client's token is good for, `data` what a hook has for the client.
    pub(crate) fn connected(
        &mut self,
        id: u32,
        client: &str,
        ping_seconds: u64,
        ttl: Option<u64>,
        data: Option<&RawValue>,
    ) {
        let expires = ttl.map_or_else(String::new, |ttl| format!(",\"expires\":true,\"ttl\":{ttl}"));
        let data = data.map_or_else(String::new, |data| format!(",\"data\":{}", one_line(data)));
        let out = self.begin(id);
        put(
            out,
            format_args!(
                "\"connect\":{{\"client\":\"{client}\",\"version\":\"{VERSION}\",\"ping\":{ping_seconds},\"pong\":true{expires}{data}}}}}"
            ),
        );
    }

    /// A fresh token was taken.
    pub(crate) fn refreshed(&mut self, id: u32, client: &str, ttl: Option<u64>) {
        let expires = ttl.map_or_else(String::new, |ttl| format!(",\"expires\":true,\"ttl\":{ttl}"));
        let out = self.begin(id);
        put(
            out,
            format_args!("\"refresh\":{{\"client\":\"{client}\",\"version\":\"{VERSION}\"{expires}}}}}"),
        );
    }

    /// A subscription of a channel without history.
    pub(crate) fn subscribed(&mut self, id: u32) {
        self.empty(id, "subscribe");
    }

    /// A subscription of a channel with history; `recovered` is `None` when the client did not ask for it.
    pub(crate) fn subscribed_at(
        &mut self,
        id: u32,
        recoverable: bool,
        history: &History,
        recovered: Option<bool>,
    ) {
        let out = self.begin(id);
        out.extend_from_slice(b"\"subscribe\":{");
        put_place(out, recoverable, history);
        if recovered == Some(true) {
            out.extend_from_slice(b",\"recovered\":true,");
            put_publications(out, history);
        }
        if recovered.is_some() {
            out.extend_from_slice(b",\"was_recovering\":true");
        }
        out.extend_from_slice(b"}}");
    }

    /// A subscription that the server API wants.
    pub(crate) fn enlisted(&mut self, channel: &Channel, recoverable: bool, history: Option<&History>) {
        let out = self.line();
        out.extend_from_slice(b"{\"push\":{\"channel\":");
        put_string(out, channel);
        out.extend_from_slice(b",\"subscribe\":{");
        if let Some(history) = history {
            put_place(out, recoverable, history);
        }
        out.extend_from_slice(b"}}}");
    }

    /// The permission for a channel has ended: the client may subscribe again.
    pub(crate) fn ended(&mut self, channel: &Channel) {
        let out = self.line();
        out.extend_from_slice(b"{\"push\":{\"channel\":");
        put_string(out, channel);
        out.extend_from_slice(b",\"unsubscribe\":{\"code\":2501,\"reason\":\"expired\"}}}");
    }

    /// The server API says when the client's permission ends: in so many seconds, or never.
    pub(crate) fn expires(&mut self, ttl: Option<u64>) {
        let expires = ttl.map_or_else(String::new, |ttl| format!("\"expires\":true,\"ttl\":{ttl}"));
        put(self.line(), format_args!("{{\"push\":{{\"refresh\":{{{expires}}}}}}}"));
    }

    pub(crate) fn history(&mut self, id: u32, history: &History) {
        let out = self.begin(id);
        out.extend_from_slice(b"\"history\":{");
        put_publications(out, history);
        out.push(b',');
        put_position(out, &history.top);
        out.extend_from_slice(b"}}");
    }

    /// Who is on a channel; with `count` how many only.
    pub(crate) fn presence(&mut self, id: u32, members: &[Member], count: bool) {
        let out = self.begin(id);
        if count {
            out.extend_from_slice(b"\"presence_stats\":{");
            put_presence_stats(out, members);
        } else {
            out.extend_from_slice(b"\"presence\":{");
            put_presence(out, members);
        }
        out.extend_from_slice(b"}}");
    }

    /// A result without content.
    pub(crate) fn empty(&mut self, id: u32, method: &str) {
        let out = self.begin(id);
        put(out, format_args!("\"{method}\":{{}}}}"));
    }

    fn begin(&mut self, id: u32) -> &mut Vec<u8> {
        let out = self.line();
        put(out, format_args!("{{\"id\":{id},"));
        out
    }

    fn line(&mut self) -> &mut Vec<u8> {
        if !self.out.is_empty() {
            self.out.push(b'\n');
        }
        &mut self.out
    }
}

/// Appends where a subscription of a channel with history begins.
fn put_place(out: &mut Vec<u8>, recoverable: bool, history: &History) {
    if recoverable {
        out.extend_from_slice(b"\"recoverable\":true,");
    }
    out.extend_from_slice(b"\"positioned\":true,");
    put_position(out, &history.top);
}

/// JSON without the line breaks that end an object here; within it they can only stand between tokens.
fn one_line(json: &RawValue) -> String {
    json.get().replace(['\r', '\n'], "")
}

/// Appends the publications of a history answer, as the server API has them too.
pub(crate) fn put_publications(out: &mut Vec<u8>, history: &History) {
    out.extend_from_slice(b"\"publications\":[");
    for (at, publication) in history.publications.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        put_publication(out, publication.data(), publication.offset());
    }
    out.push(b']');
}

/// Appends epoch and offset.
pub(crate) fn put_position(out: &mut Vec<u8>, position: &Position) {
    out.extend_from_slice(b"\"epoch\":");
    put_string(out, &position.epoch);
    put(out, format_args!(",\"offset\":{}", position.offset));
}

fn put_publication(out: &mut Vec<u8>, data: &[u8], offset: Option<u64>) {
    out.extend_from_slice(b"{\"data\":");
    out.extend_from_slice(data);
    if let Some(offset) = offset {
        put(out, format_args!(",\"offset\":{offset}"));
    }
    out.push(b'}');
}

/// Appends a JSON string.
pub(crate) fn put_string(out: &mut Vec<u8>, text: &str) {
    #[expect(clippy::expect_used, reason = "a string always serializes, and a vector takes every byte")]
    serde_json::to_writer(out, text).expect("a string into a vector");
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    #[expect(clippy::expect_used, reason = "a vector takes every byte")]
    out.write_fmt(text).expect("text into a vector");
}

#[cfg(test)]
mod tests {
    use super::{Replies, ReplyError, publication, unsubscribed};
    use crate::broker::History;
    use crate::hub::shard::Ended;
    use crate::publication::{Channel, Position, Publication};
    use bytes::Bytes;

    fn body(frame: &Bytes) -> &str {
        let head = if frame[1] == 126 { 4 } else { 2 };
        std::str::from_utf8(&frame[head..]).unwrap()
    }

    fn at(offset: u64) -> Position {
        Position { epoch: "E1".into(), offset }
    }

    #[test]
    fn pushes() {
        let channel = Channel::from("ne\"ws");
        let plain = Publication::new(channel.clone(), Bytes::from_static(b"{\"n\":1}"), None);
        assert_eq!(body(&publication(&plain)), r#"{"push":{"channel":"ne\"ws","pub":{"data":{"n":1}}}}"#);
        let kept = Publication::new(channel, Bytes::from_static(b"1"), Some(at(5)));
        assert_eq!(body(&publication(&kept)), r#"{"push":{"channel":"ne\"ws","pub":{"data":1,"offset":5}}}"#);
        assert_eq!(
            body(&unsubscribed(&"a".into(), Ended::Insufficient)),
            r#"{"push":{"channel":"a","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#
        );
    }

    #[test]
    fn replies_share_a_frame() {
        let channel = Channel::from("news");
        let history = History {
            top: at(7),
            publications: vec![Publication::new(channel, Bytes::from_static(b"{\"n\":7}"), Some(at(7)))],
            complete: true,
        };
        let mut replies = Replies::default();
        replies.connected(1, "c1", 25, None, None);
        replies.subscribed_at(2, true, &history, Some(true));
        replies.subscribed_at(3, true, &history, Some(false));
        replies.error(4, ReplyError::INTERNAL);
        let frame = replies.into_frame().unwrap();
        let lines: Vec<serde_json::Value> =
            body(&frame).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["connect"]["client"], "c1");
        assert_eq!(
            lines[1],
            serde_json::json!({"id":2,"subscribe":{"recoverable":true,"positioned":true,"epoch":"E1","offset":7,
                "recovered":true,"was_recovering":true,"publications":[{"data":{"n":7},"offset":7}]}})
        );
        assert_eq!(lines[2]["subscribe"]["was_recovering"], true);
        assert!(lines[2]["subscribe"].get("recovered").is_none());
        assert_eq!(lines[3]["error"]["temporary"], true);
        assert!(Replies::default().into_frame().is_none());
    }
}
