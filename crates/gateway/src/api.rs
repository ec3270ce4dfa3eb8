//! The server API, in the shape of Centrifugo's HTTP API: JSON in, `{"result":{}}` or `{"error":{}}` out.

use crate::broker::{HistoryQuery, Published};
use crate::driver::shared::Shared;
use crate::error::BrokerError;
use crate::hub::{Command, Who};
use crate::metrics::Metrics;
use crate::namespace::ChannelOptions;
use crate::publication::{Channel, json_line};
use crate::wire::centrifugo::ReplyError;
use crate::wire::centrifugo::encode::{put_position, put_publications};
use bytes::Bytes;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::Arc;

/// Channels that one broadcast may name.
const MAX_BROADCAST: usize = 10_000;

#[derive(Deserialize)]
struct PublishRequest {
    #[serde(default)]
    channel: String,
    data: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct BroadcastRequest {
    #[serde(default)]
    channels: Vec<String>,
    data: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct HistoryRequest {
    #[serde(default)]
    channel: String,
    #[serde(default)]
    limit: i64,
    since: Option<Since>,
    #[serde(default)]
    reverse: bool,
}

#[derive(Deserialize)]
struct Since {
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    epoch: String,
}

#[derive(Deserialize)]
struct ChannelsRequest {
    /// A name, with `*` for any run of characters.
    #[serde(default)]
    pattern: String,
}

#[derive(Deserialize)]
struct WhoRequest {
    #[serde(default)]
    channel: String,
    #[serde(default)]
    user: String,
    #[serde(default)]
    client: String,
}

#[derive(Deserialize)]
struct Nothing {}

/// Runs one method; `None` when there is no such method.
pub(crate) async fn call(shared: &Shared, method: &str, body: &[u8]) -> Option<Vec<u8>> {
    let result = match method {
        "broadcast" => broadcast(shared, body).await,
        "channels" => channels(shared, body),
        "disconnect" => disconnect(shared, body).await,
        "history" => match history(shared, body).await {
            Ok(text) => return Some(text),
            Err(error) => Err(error),
        },
        "info" => info(shared, body),
        "presence" | "presence_stats" => Err(ReplyError::NOT_AVAILABLE),
        "publish" => publish(shared, body).await,
        "unsubscribe" => unsubscribe(shared, body).await,
        _ => return None,
    };
    let answer = match result {
        Ok(result) => json!({ "result": result }),
        Err(error) => json!({ "error": error_value(error) }),
    };
    Some(answer.to_string().into_bytes())
}

fn error_value(error: ReplyError) -> Value {
    json!({ "code": error.code, "message": error.message })
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ReplyError> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|_bad| ReplyError::BAD_REQUEST)
}

fn resolve(shared: &Shared, channel: &str) -> Result<(Channel, Arc<ChannelOptions>), ReplyError> {
    if channel.is_empty() || channel.len() > shared.rules.limits.max_channel_name {
        return Err(ReplyError::BAD_REQUEST);
    }
    let options = shared.rules.namespaces.options(channel).ok_or(ReplyError::UNKNOWN_CHANNEL)?;
    Ok((channel.into(), options.clone()))
}

fn data(shared: &Shared, data: Option<Box<RawValue>>) -> Result<Bytes, ReplyError> {
    let data = data.ok_or(ReplyError::BAD_REQUEST)?;
    let data = json_line(Bytes::from(String::from(Box::<str>::from(data))));
    if data.len() > shared.config.limits.max_publication { Err(ReplyError::LIMIT_EXCEEDED) } else { Ok(data) }
}

async fn publish_one(shared: &Shared, channel: &str, data: Bytes) -> Result<Value, ReplyError> {
    let (channel, options) = resolve(shared, channel)?;
    let published = shared.hub.broker().publish(&channel, data, &options).await;
    let metrics = &shared.metrics;
    Metrics::count(if published.is_ok() { &metrics.published } else { &metrics.publish_failed });
    match published {
        Ok(Published::Delivered(Some(at))) => Ok(json!({ "offset": at.offset, "epoch": &*at.epoch })),
        Ok(Published::Delivered(None)) => Ok(json!({})),
        // Beyond the original's shape: the publication waits for the broker, in order.
        Ok(Published::Accepted) => Ok(json!({ "accepted": true })),
        Err(error) => Err(broker_error(error)),
    }
}

async fn publish(shared: &Shared, body: &[u8]) -> Result<Value, ReplyError> {
    let request: PublishRequest = parse(body)?;
    publish_one(shared, &request.channel, data(shared, request.data)?).await
}

async fn broadcast(shared: &Shared, body: &[u8]) -> Result<Value, ReplyError> {
    let request: BroadcastRequest = parse(body)?;
    if request.channels.is_empty() {
        return Err(ReplyError::BAD_REQUEST);
    }
    if request.channels.len() > MAX_BROADCAST {
        return Err(ReplyError::LIMIT_EXCEEDED);
    }
    let data = data(shared, request.data)?;
    let mut responses = Vec::with_capacity(request.channels.len());
    for channel in &request.channels {
        responses.push(match publish_one(shared, channel, data.clone()).await {
            Ok(result) => json!({ "result": result }),
            Err(error) => json!({ "error": error_value(error) }),
        });
    }
    Ok(json!({ "responses": responses }))
}

async fn history(shared: &Shared, body: &[u8]) -> Result<Vec<u8>, ReplyError> {
    let request: HistoryRequest = parse(body)?;
    let (channel, options) = resolve(shared, &request.channel)?;
    if !options.keeps_history() {
        return Err(ReplyError::NOT_AVAILABLE);
    }
    let most = shared.rules.limits.max_recovered;
    let query = HistoryQuery {
        since: request.since.as_ref().map(|since| since.offset),
        limit: usize::try_from(request.limit).map_or(most, |limit| limit.min(most)),
        reverse: request.reverse,
    };
    let history = shared.hub.broker().history(&channel, &options, query).await.map_err(broker_error)?;
    if request.since.is_some_and(|since| !since.epoch.is_empty() && since.epoch != *history.top.epoch) {
        return Err(ReplyError::UNRECOVERABLE);
    }
    let mut out = b"{\"result\":{".to_vec();
    put_publications(&mut out, &history);
    out.push(b',');
    put_position(&mut out, &history.top);
    out.extend_from_slice(b"}}");
    Ok(out)
}

fn channels(shared: &Shared, body: &[u8]) -> Result<Value, ReplyError> {
    let request: ChannelsRequest = parse(body)?;
    let mut all = serde_json::Map::new();
    for (channel, clients) in shared.hub.channels() {
        if request.pattern.is_empty() || matches_pattern(&request.pattern, &channel) {
            all.insert(channel.to_string(), json!({ "num_clients": clients }));
        }
    }
    Ok(json!({ "channels": all }))
}

fn info(shared: &Shared, body: &[u8]) -> Result<Value, ReplyError> {
    let Nothing {} = parse(body)?;
    let metrics = &shared.metrics;
    let clients = metrics.sessions.load(std::sync::atomic::Ordering::Relaxed);
    Ok(json!({ "nodes": [{
        "name": "evenkeel",
        "version": env!("CARGO_PKG_VERSION"),
        "num_clients": clients,
        "num_channels": shared.hub.channels().len(),
    }] }))
}

async fn disconnect(shared: &Shared, body: &[u8]) -> Result<Value, ReplyError> {
    let request: WhoRequest = parse(body)?;
    let who = who(&request)?;
    shared.hub.tell_all(|| Command::Disconnect { who: who.clone() }).await;
    Ok(json!({}))
}

async fn unsubscribe(shared: &Shared, body: &[u8]) -> Result<Value, ReplyError> {
    let request: WhoRequest = parse(body)?;
    let who = who(&request)?;
    let (channel, _) = resolve(shared, &request.channel)?;
    shared.hub.tell_all(|| Command::Expel { channel: channel.clone(), who: who.clone() }).await;
    Ok(json!({}))
}

fn who(request: &WhoRequest) -> Result<Who, ReplyError> {
    match (&*request.client, &*request.user) {
        ("", "") => Err(ReplyError::BAD_REQUEST),
        ("", user) => Ok(Who::User(user.into())),
        (client, _) => Ok(Who::Client(client.into())),
    }
}

fn broker_error(error: BrokerError) -> ReplyError {
    match error {
        BrokerError::Full => ReplyError::TOO_MANY,
        BrokerError::Unsupported => ReplyError::NOT_AVAILABLE,
        BrokerError::Unavailable | BrokerError::Unknown => ReplyError::INTERNAL,
    }
}

/// Whether `name` matches a pattern in which `*` stands for any run of characters.
fn matches_pattern(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::matches_pattern;

    #[test]
    fn patterns() {
        for (pattern, name, matches) in [
            ("news", "news", true),
            ("news", "newsy", false),
            ("news:*", "news:sport", true),
            ("*", "", true),
            ("*:sport", "news:sport", true),
            ("n*s:*t", "news:sport", true),
            ("n*s:*t", "news:sports", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches_pattern(pattern, name), matches, "{pattern} {name}");
        }
    }
}
