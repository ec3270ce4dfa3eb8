//! Where a request goes, by its path: to a session of one of the protocols, or to plain HTTP.
//!
//! Origin, handshake, channel and permission are checked here, so that a client that may not come in is told so
//! in HTTP, where it can be read.

use super::shared::Shared;
use crate::hooks::Headers;
use crate::namespace::{Access, ChannelOptions};
use crate::publication::Channel;
use crate::wire::machine::Machine;
use crate::wire::pusher::session::Session as PusherSession;
use crate::wire::{Protocol, centrifugo, pusher, raw, sse};
use crate::ws::close::CloseCode;
use crate::ws::deflate::Agreed;
use crate::ws::encode;
use crate::ws::handshake::{self, Head, Refusal};
use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderValue;
use percent_encoding::percent_decode_str;
use std::sync::Arc;

/// Where a request goes.
pub(super) enum Route {
    Http,
    Refused(Bytes),
    Session(Box<Admitted>),
}

/// A session that may begin.
pub(super) struct Admitted {
    /// What opens it.
    pub(super) answer: Bytes,
    pub(super) protocol: Protocol,
    pub(super) machine: Box<dyn Machine>,
    /// How messages may be compressed, if at all.
    pub(super) deflate: Option<Agreed>,
}

/// The answer in place of a session.
type Refused = Bytes;

/// Finds where a request goes.
pub(super) fn route(shared: &Arc<Shared>, head: &Head<'_>) -> Route {
    let path = head.path();
    let admitted = if path == "/connection/websocket" {
        centrifugo_session(shared, head)
    } else if let Some(key) = path.strip_prefix("/app/") {
        pusher_session(shared, head, key)
    } else if let Some(channel) = path.strip_prefix("/ws/") {
        raw_session(shared, head, channel)
    } else if let Some(channel) = path.strip_prefix("/sse/") {
        sse_session(shared, head, channel)
    } else {
        return Route::Http;
    };
    admitted.map_or_else(Route::Refused, |session| Route::Session(Box::new(session)))
}

fn centrifugo_session(shared: &Arc<Shared>, head: &Head<'_>) -> Result<Admitted, Refused> {
    check_origin(shared, head)?;
    let (answer, deflate) = websocket(shared, head)?;
    let client = format!("{:032x}", fastrand::u128(..)).into_boxed_str();
    let machine = centrifugo::session::Session::new(shared.rules.clone(), client, hook_headers(shared, head));
    Ok(Admitted { answer, protocol: Protocol::Centrifugo, machine: Box::new(machine), deflate })
}

fn pusher_session(shared: &Arc<Shared>, head: &Head<'_>, key: &str) -> Result<Admitted, Refused> {
    let Some(app) = &shared.pusher else { return Err(not_found()) };
    check_origin(shared, head)?;
    let (answer, deflate) = websocket(shared, head)?;
    let protocol = query(head, "protocol").and_then(|text| text.parse::<u32>().ok());
    let wrong = if key != app.key {
        Some(CloseCode::new(4001, "the application does not exist"))
    } else if !protocol.is_none_or(|protocol| (5..=7).contains(&protocol)) {
        Some(CloseCode::new(4007, "protocol 7 is spoken here"))
    } else {
        None
    };
    if let Some(code) = wrong {
        // The client library reads the reason from the socket alone, so it is opened to say it.
        let error = serde_json::json!({ "event": "pusher:error", "data": { "code": code.code, "message": code.reason } });
        let mut answer = BytesMut::from(&answer[..]);
        answer.put(pusher::encode::frame(&error));
        answer.put(encode::close(Some(code)));
        return Err(answer.freeze());
    }
    let socket = format!("{}.{}", fastrand::u32(1..), fastrand::u32(1..)).into_boxed_str();
    let machine = PusherSession::new(shared.rules.clone(), app.clone(), socket, hook_headers(shared, head));
    Ok(Admitted { answer, protocol: Protocol::Pusher, machine: Box::new(machine), deflate })
}

fn raw_session(shared: &Arc<Shared>, head: &Head<'_>, channel: &str) -> Result<Admitted, Refused> {
    check_origin(shared, head)?;
    let (channel, options) = open_channel(shared, channel)?;
    let (answer, deflate) = websocket(shared, head)?;
    let machine = raw::Session::new(shared.rules.clone(), channel, options, hook_headers(shared, head));
    Ok(Admitted { answer, protocol: Protocol::Raw, machine: Box::new(machine), deflate })
}

fn sse_session(shared: &Arc<Shared>, head: &Head<'_>, channel: &str) -> Result<Admitted, Refused> {
    check_origin(shared, head)?;
    if head.method != "GET" {
        return Err(refusal(405, "Method Not Allowed", "events are read with GET"));
    }
    let (channel, options) = open_channel(shared, channel)?;
    let since = head.header("last-event-id").map(str::to_owned).or_else(|| query(head, "last-event-id"));
    let since = since.as_deref().and_then(sse::last_event);
    let machine = raw::Session::new(shared.rules.clone(), channel, options, hook_headers(shared, head));
    let machine = machine.events(since);
    let mut answer = sse::HEAD.to_owned();
    if let Some(origin) = head.header("origin") {
        // It was checked above, and is echoed rather than `*` so that it stays as exact.
        answer.extend(["Access-Control-Allow-Origin: ", origin, "\r\nVary: Origin\r\n"]);
    }
    answer.push_str("\r\n");
    Ok(Admitted {
        answer: Bytes::from(answer),
        protocol: Protocol::Sse,
        machine: Box::new(machine),
        deflate: None,
    })
}

/// What hooks get of a client's request.
fn hook_headers(shared: &Shared, head: &Head<'_>) -> Headers {
    let passed = shared.hooks.headers.iter().flat_map(|name| {
        let same = head.headers.iter().filter(|header| name.as_str().eq_ignore_ascii_case(header.name));
        same.filter_map(|header| Some((name.clone(), HeaderValue::from_bytes(header.value).ok()?)))
    });
    passed.collect()
}

/// The channel of a path, if anybody may hear it, or a hook says who may.
fn open_channel(shared: &Shared, encoded: &str) -> Result<(Channel, Arc<ChannelOptions>), Refused> {
    let bad = || refusal(400, "Bad Request", "the channel's name is missing, too long or no text");
    let name = percent_decode_str(encoded).decode_utf8().map_err(|_no_text| bad())?;
    if name.is_empty() || name.len() > shared.rules.limits.max_channel_name {
        return Err(bad());
    }
    let options = shared.rules.namespaces.options(&name).cloned().ok_or_else(not_found)?;
    let open = options.subscribe.allows("") || options.subscribe == Access::Hook;
    if shared.rules.is_reserved(&name) || !open {
        return Err(refusal(403, "Forbidden", "this channel is not open to everybody"));
    }
    Ok((Channel::from(&*name), options))
}

fn check_origin(shared: &Shared, head: &Head<'_>) -> Result<(), Refused> {
    let origin = head.header("origin");
    let clear = origin.is_some() || !head.has("origin");
    if clear && shared.origins.allows(origin, head.header("host").unwrap_or_default()) {
        return Ok(());
    }
    Err(refusal(403, "Forbidden", "this origin is not among the allowed ones"))
}

/// The answer that opens a WebSocket, and how its messages may be compressed.
fn websocket(shared: &Shared, head: &Head<'_>) -> Result<(Bytes, Option<Agreed>), Refused> {
    let offered = || handshake::offered_deflate(head);
    let deflate = shared.config.session.compression.then(offered).flatten();
    handshake::accept(head, deflate).map(|answer| (answer, deflate)).map_err(|why| match why {
        Refusal::BadKey | Refusal::BadRequest | Refusal::NoUpgrade => {
            refusal(400, "Bad Request", &why.to_string())
        }
        Refusal::BadVersion => {
            let text = why.to_string();
            Bytes::from(format!(
                "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n\
                 Connection: close\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            ))
        }
    })
}

/// A field of the query.
fn query(head: &Head<'_>, name: &str) -> Option<String> {
    let (_, query) = head.target.split_once('?')?;
    let (_, value) =
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?;
    percent_decode_str(value).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

fn not_found() -> Bytes {
    refusal(404, "Not Found", "there is nothing here")
}

/// An answer that ends the connection.
pub(super) fn refusal(status: u16, name: &str, text: &str) -> Bytes {
    Bytes::from(format!(
        "HTTP/1.1 {status} {name}\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    ))
}
