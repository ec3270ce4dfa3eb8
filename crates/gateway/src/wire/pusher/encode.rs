//! What the server says in Pusher's protocol: one JSON object a frame, its data a JSON string.

use crate::hub::shard::Ended;
use crate::presence::Member;
use crate::publication::{Channel, Publication};
use crate::wire::Encoded;
use crate::ws;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The event of publications that name none.
const DEFAULT_EVENT: &str = "message";

/// A publication that names its event, as this gateway and Laravel publish it.
#[derive(Deserialize)]
struct Wrapped<'a> {
    event: String,
    #[serde(borrow)]
    data: &'a RawValue,
    /// The client that sent it and does not get it.
    socket: Option<Box<str>>,
}

/// Encodes a publication.
pub(crate) fn publication(publication: &Publication) -> Encoded {
    let (name, data, except) = match serde_json::from_slice::<Wrapped<'_>>(publication.data()) {
        Ok(wrapped) => (wrapped.event, stringified(wrapped.data.get()), wrapped.socket),
        Err(_plain) => {
            let text = String::from_utf8_lossy(publication.data());
            (DEFAULT_EVENT.to_owned(), stringified(&text), None)
        }
    };
    let frame = frame(&json!({ "event": name, "channel": &**publication.channel(), "data": data }));
    Encoded::new(frame, except)
}

/// JSON text as the string that it is, or as a string that holds it.
fn stringified(text: &str) -> String {
    serde_json::from_str::<String>(text).unwrap_or_else(|_other| text.to_owned())
}

/// Tells of a gap; a subscription that the server ended has no word here.
pub(crate) fn gap(channel: &Channel, why: Ended) -> Option<Bytes> {
    match why {
        Ended::ByServer => None,
        Ended::Insufficient => {
            Some(frame(&json!({ "event": "evenkeel:gap", "channel": &**channel, "data": "{}" })))
        }
    }
}

/// Tells the others that a user came or left.
pub(crate) fn presence(channel: &Channel, member: &Member, joined: bool) -> Encoded {
    let (event, data) = if joined {
        ("pusher_internal:member_added", json!({ "user_id": member.user, "user_info": info(member) }))
    } else {
        ("pusher_internal:member_removed", json!({ "user_id": member.user }))
    };
    let frame = frame(&json!({ "event": event, "channel": &**channel, "data": data.to_string() }));
    Encoded::new(frame, Some(member.client.clone()))
}

fn info(member: &Member) -> Value {
    let info = member.info.as_ref().and_then(|info| serde_json::from_str(info.get()).ok());
    info.unwrap_or_else(|| json!({}))
}

/// What one that came learns of those who are there.
pub(crate) fn members(members: &[Member]) -> String {
    let users: BTreeMap<&str, Value> = members.iter().map(|member| (&*member.user, info(member))).collect();
    let ids: Vec<&str> = users.keys().copied().collect();
    json!({ "presence": { "count": ids.len(), "ids": ids, "hash": users } }).to_string()
}

pub(crate) fn ping() -> Bytes {
    Bytes::from_static(b"\x81\x21{\"event\":\"pusher:ping\",\"data\":{}}")
}

/// Encodes one event.
pub(crate) fn frame(event: &Value) -> Bytes {
    ws::encode::text(event.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::{ping, publication};
    use crate::publication::Publication;
    use bytes::Bytes;
    use serde_json::{Value, json};

    fn encoded(data: &'static str) -> (Value, Option<Box<str>>) {
        let encoded =
            publication(&Publication::new("room".into(), Bytes::from_static(data.as_bytes()), None));
        (serde_json::from_slice(&encoded.frame[2..]).unwrap(), encoded.except)
    }

    #[test]
    fn a_publication_names_its_event_or_is_a_message() {
        let (event, except) = encoded(r#"{"event":"tick","data":{"n":1},"socket":"1.2"}"#);
        assert_eq!(event, json!({"event":"tick","channel":"room","data":"{\"n\":1}"}));
        assert_eq!(except.as_deref(), Some("1.2"));
        assert_eq!(encoded(r#"{"event":"tick","data":"{}","socket":null}"#).0["data"], "{}");
        assert_eq!(encoded(r#"{"n":1}"#).0, json!({"event":"message","channel":"room","data":"{\"n\":1}"}));
        assert_eq!(encoded("\"words\"").0["data"], "words");
    }

    #[test]
    fn the_heartbeat_has_its_true_length() {
        assert_eq!(usize::from(ping()[1]), ping().len() - 2);
    }
}
