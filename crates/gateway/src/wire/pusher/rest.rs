//! Pusher's REST API: which requests are signed right, and what they ask to publish.

use super::auth;
use crate::config::PusherConfig;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How far the sender's clock may be off, in seconds.
const MAX_SKEW: u64 = 600;
/// Channels that one event may name.
const MAX_CHANNELS: usize = 100;
/// Events of one batch.
const MAX_BATCH: usize = 10;

/// Why a request is refused: the status and what to say.
pub(crate) type Refusal = (u16, &'static str);

/// One event to publish.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ToPublish {
    pub(crate) channels: Vec<String>,
    /// The publication's data, wrapped with its event.
    pub(crate) data: String,
}

#[derive(Deserialize)]
struct EventRequest {
    name: String,
    channel: Option<String>,
    #[serde(default)]
    channels: Vec<String>,
    data: Value,
    socket_id: Option<String>,
}

#[derive(Deserialize)]
struct BatchRequest {
    batch: Vec<EventRequest>,
}

/// Checks the signature of a request. `path` is the whole path, `query` what follows the question mark.
pub(crate) fn check(
    app: &PusherConfig,
    (method, path, query): (&str, &str, &str),
    body: &[u8],
    unix_seconds: u64,
) -> Result<(), Refusal> {
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        fields.insert(decode(name).to_lowercase(), decode(value));
    }
    let signature = fields.remove("auth_signature").ok_or((401, "auth_signature is missing"))?;
    if fields.get("auth_key").map(String::as_str) != Some(&*app.key) {
        return Err((401, "auth_key is not known here"));
    }
    if fields.get("auth_version").map(String::as_str) != Some("1.0") {
        return Err((401, "auth_version must be 1.0"));
    }
    let stamp = fields.get("auth_timestamp").and_then(|text| text.parse::<u64>().ok());
    if stamp.is_none_or(|stamp| stamp.abs_diff(unix_seconds) > MAX_SKEW) {
        return Err((401, "auth_timestamp is missing or too far off"));
    }
    let sorted: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let message = format!("{method}\n{path}\n{}", sorted.join("&"));
    if !auth::is_mac(&app.secret, message.as_bytes(), &signature) {
        return Err((401, "auth_signature is wrong"));
    }
    // The signature covers the checksum, and so the body.
    let summed = fields.get("body_md5").is_some_and(|sum| *sum == auth::md5_hex(body));
    if !body.is_empty() && !summed {
        return Err((401, "body_md5 is missing or wrong"));
    }
    Ok(())
}

/// Reads the body of `events`.
pub(crate) fn event(body: &[u8]) -> Result<Vec<ToPublish>, Refusal> {
    let request: EventRequest = serde_json::from_slice(body).map_err(|_bad| (400, "this is no event"))?;
    Ok(vec![to_publish(request)?])
}

/// Reads the body of `batch_events`.
pub(crate) fn batch(body: &[u8]) -> Result<Vec<ToPublish>, Refusal> {
    let request: BatchRequest = serde_json::from_slice(body).map_err(|_bad| (400, "this is no batch"))?;
    if request.batch.len() > MAX_BATCH {
        return Err((400, "a batch has 10 events at most"));
    }
    request.batch.into_iter().map(to_publish).collect()
}

fn to_publish(request: EventRequest) -> Result<ToPublish, Refusal> {
    let mut channels = request.channels;
    channels.extend(request.channel);
    if channels.is_empty() || channels.len() > MAX_CHANNELS {
        return Err((400, "an event has 1 to 100 channels"));
    }
    let mut data = json!({ "event": request.name, "data": request.data });
    if let Some(socket) = request.socket_id {
        data["socket"] = Value::String(socket);
    }
    Ok(ToPublish { channels, data: data.to_string() })
}

#[cfg(test)]
mod tests {
    use super::{ToPublish, check, event};
    use crate::config::PusherConfig;

    const BODY: &[u8] =
        b"{\"name\":\"foo\",\"channels\":[\"project-3\"],\"data\":\"{\\\"some\\\":\\\"data\\\"}\"}";
    const QUERY: &str = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0&\
                         body_md5=ec365a775a4cd0599faeb73354201b6f&\
                         auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";

    fn app() -> PusherConfig {
        PusherConfig {
            app_id: "3".to_owned(),
            key: "278d425bdf160c739803".to_owned(),
            secret: "7ad3773142a6692b25b8".to_owned(),
            client_events: false,
        }
    }

    fn checked(query: &str, body: &[u8], now: u64) -> Result<(), u16> {
        check(&app(), ("POST", "/apps/3/events", query), body, now).map_err(|(status, _)| status)
    }

    #[test]
    fn the_documented_request_is_signed_right() {
        assert_eq!(checked(QUERY, BODY, 1_353_088_179), Ok(()));
        let published = event(BODY).unwrap();
        let data = r#"{"data":"{\"some\":\"data\"}","event":"foo"}"#.to_owned();
        assert_eq!(published, [ToPublish { channels: vec!["project-3".to_owned()], data }]);
    }

    #[test]
    fn anything_changed_is_refused() {
        assert_eq!(checked(QUERY, BODY, 1_353_089_000), Err(401), "too old");
        assert_eq!(checked(QUERY, b"{}", 1_353_088_179), Err(401), "another body");
        assert_eq!(checked(&QUERY.replace("da45", "da46"), BODY, 1_353_088_179), Err(401));
        assert_eq!(checked(&QUERY.replace("1353088179", "1353088180"), BODY, 1_353_088_179), Err(401));
        assert_eq!(checked(&format!("{QUERY}&more=1"), BODY, 1_353_088_179), Err(401));
        assert_eq!(checked("", BODY, 1_353_088_179), Err(401));
        assert!(event(b"{\"name\":\"a\",\"data\":1}").is_err());
    }
}
