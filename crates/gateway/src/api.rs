//! The server API, in the shape of Centrifugo's HTTP API: JSON in, `{"result":{}}` or `{"error":{}}` out.

use crate::broker::{HistoryQuery, Published};
use crate::driver::clock;
use crate::driver::shared::Shared;
use crate::error::BrokerError;
use crate::hub::{Order, Who, Word};
use crate::metrics::Metrics;
use crate::namespace::ChannelOptions;
use crate::publication::{Channel, json_line};
use crate::wire::centrifugo::ReplyError;
use crate::wire::centrifugo::encode::{put_position, put_presence, put_presence_stats, put_publications};
use bytes::Bytes;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Commands of one batch.
const MAX_BATCH: usize = 1_000;
/// How long an idempotency key is remembered.
const KEY_LIFE: Duration = Duration::from_secs(300);
const MAX_KEY: usize = 255;
/// Channels that one broadcast may name.
const MAX_BROADCAST: usize = 10_000;

/// Replicas that a publication may ask for.
const MAX_REPLICAS: u32 = 64;
/// Beyond the original's codes: the publication was made or will be, and less is known than was asked for.
const NOT_ON_REPLICAS: ReplyError =
    ReplyError { code: 120, message: "published, and not known to be on so many replicas", temporary: false };

#[derive(Deserialize)]
struct PublishRequest {
    #[serde(default)]
    channel: String,
    data: Option<Box<RawValue>>,
    /// A publication with a key that was used within five minutes is not published again.
    #[serde(default)]
    idempotency_key: String,
    /// `replicas(n)`: a good answer comes only once so many replicas have it.
    #[serde(default)]
    durability: String,
}

#[derive(Deserialize)]
struct BroadcastRequest {
    #[serde(default)]
    channels: Vec<String>,
    data: Option<Box<RawValue>>,
    /// A publication with a key that was used within five minutes is not published again.
    #[serde(default)]
    idempotency_key: String,
    /// `replicas(n)`: a good answer comes only once so many replicas have it.
    #[serde(default)]
    durability: String,
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
struct RefreshRequest {
    #[serde(default)]
    user: String,
    #[serde(default)]
    client: String,
    #[serde(default)]
    expired: bool,
    #[serde(default)]
    expire_at: u64,
}

#[derive(Deserialize)]
struct BatchRequest {
    commands: Vec<BTreeMap<String, Box<RawValue>>>,
    #[serde(default)]
    parallel: bool,
}

#[derive(Deserialize)]
struct Nothing {}

/// Runs one method; `None` when there is no such method.
pub(crate) async fn call(shared: &Shared, method: &str, body: &[u8]) -> Option<Vec<u8>> {
    if method == "batch" { Some(batch(shared, body).await) } else { call_one(shared, method, body).await }
}

/// Runs several commands in their order, or side by side: `{"commands":[{"publish":{}},{"history":{}}]}`.
async fn batch(shared: &Shared, body: &[u8]) -> Vec<u8> {
    let failed = |error| refusal(shared, error).to_string().into_bytes();
    let request: BatchRequest = match parse(body) {
        Ok(request) => request,
        Err(error) => return failed(error),
    };
    if request.commands.len() > MAX_BATCH {
        return failed(ReplyError::LIMIT_EXCEEDED);
    }
    let run = async |command: BTreeMap<String, Box<RawValue>>| {
        let (method, body) = command.into_iter().next().filter(|(method, _)| method != "batch")?;
        let answer = call_one(shared, &method, body.get().as_bytes()).await?;
        let mut answer: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(&answer).ok()?;
        // Within a batch a result stands under its method's name.
        if let Some(result) = answer.remove("result") {
            answer.insert(method, result);
        }
        serde_json::to_string(&answer).ok()
    };
    let replies = if request.parallel {
        futures_util::future::join_all(request.commands.into_iter().map(run)).await
    } else {
        let mut replies = Vec::with_capacity(request.commands.len());
        for command in request.commands {
            replies.push(run(command).await);
        }
        replies
    };
    let unknown = || refusal(shared, ReplyError::METHOD_NOT_FOUND).to_string();
    let replies: Vec<String> = replies.into_iter().map(|reply| reply.unwrap_or_else(unknown)).collect();
    format!("{{\"replies\":[{}]}}", replies.join(",")).into_bytes()
}

async fn call_one(shared: &Shared, method: &str, body: &[u8]) -> Option<Vec<u8>> {
    let result = match method {
        "broadcast" => broadcast(shared, body).await,
        "channels" => channels(shared, body),
        "disconnect" => disconnect(shared, body).await,
        "history" => match history(shared, body).await {
            Ok(text) => return Some(text),
            Err(error) => Err(error),
        },
        "info" => info(shared, body),
        "history_remove" => history_remove(shared, body).await,
        "presence" | "presence_stats" => match presence(shared, body, method == "presence_stats").await {
            Ok(text) => return Some(text),
            Err(error) => Err(error),
        },
        "publish" => publish(shared, body).await,
        "refresh" => refresh(shared, body).await,
        "subscribe" => subscribe(shared, body).await,
        "unsubscribe" => unsubscribe(shared, body).await,
        _ => return None,
    };
    let answer = match result {
        Ok(result) => json!({ "result": result }),
        Err(error) => refusal(shared, error),
    };
    Some(answer.to_string().into_bytes())
}

/// Answers with an error, and counts it.
fn refusal(shared: &Shared, error: ReplyError) -> Value {
    Metrics::count(&shared.metrics.api_refused);
    json!({ "error": { "code": error.code, "message": error.message } })
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ReplyError> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|_bad| ReplyError::BAD_REQUEST)
}

fn resolve(shared: &Shared, channel: &str) -> Result<(Channel, Arc<ChannelOptions>), ReplyError> {
    if channel.is_empty() || channel.len() > shared.rules.limits.max_channel_name {
        return Err(ReplyError::BAD_REQUEST);
    }
    let options = shared.rules.options(channel).ok_or(ReplyError::UNKNOWN_CHANNEL)?;
    Ok((channel.into(), options))
}

fn data(shared: &Shared, data: Option<Box<RawValue>>) -> Result<Bytes, ReplyError> {
    let data = data.ok_or(ReplyError::BAD_REQUEST)?;
    let data = json_line(Bytes::from(String::from(Box::<str>::from(data))));
    if data.len() > shared.config.limits.max_publication { Err(ReplyError::LIMIT_EXCEEDED) } else { Ok(data) }
}

async fn publish_one(
    shared: &Shared,
    channel: &str,
    data: Bytes,
    replicas: Option<u32>,
) -> Result<Value, ReplyError> {
    let (channel, options) = resolve(shared, channel)?;
    let published = match replicas {
        None => shared.publish(&channel, data, &options).await.map(|published| (published, 0)),
        Some(replicas) => shared.publish_durably(&channel, data, &options, replicas).await,
    };
    let (published, copies) = published.map_err(broker_error)?;
    if replicas.is_some_and(|wanted| copies < wanted) {
        return Err(NOT_ON_REPLICAS);
    }
    Ok(match published {
        Published::Delivered(Some(at)) => {
            let mut result = json!({ "offset": at.offset, "epoch": &*at.epoch });
            if replicas.is_some() {
                result["replicas"] = copies.into();
            }
            result
        }
        Published::Delivered(None) => json!({}),
        // Beyond the original's shape: the publication waits for the broker, in order.
        Published::Accepted => json!({ "accepted": true }),
    })
}

/// How many replicas are to have a publication; none where nothing is said of it.
fn replicas(durability: &str) -> Result<Option<u32>, ReplyError> {
    if durability.is_empty() {
        return Ok(None);
    }
    let count = durability.strip_prefix("replicas(").and_then(|rest| rest.strip_suffix(')'));
    let count = count.and_then(|count| count.parse().ok()).filter(|count| (1..=MAX_REPLICAS).contains(count));
    count.map(Some).ok_or(ReplyError::BAD_REQUEST)
}

async fn publish(shared: &Shared, body: &[u8]) -> Result<Value, ReplyError> {
    let request: PublishRequest = parse(body)?;
    let how = (&*request.idempotency_key, replicas(&request.durability)?);
    publish_once(shared, &request.channel, data(shared, request.data)?, how).await
}

async fn publish_once(
    shared: &Shared,
    channel: &str,
    data: Bytes,
    (key, replicas): (&str, Option<u32>),
) -> Result<Value, ReplyError> {
    if key.len() > MAX_KEY {
        return Err(ReplyError::BAD_REQUEST);
    }
    if !key.is_empty() {
        let (channel, _) = resolve(shared, channel)?;
        // In the slot of the channel.
        let key = format!("{{{channel}}}:{key}");
        if !shared.hub.broker().once(&key, KEY_LIFE).await.map_err(broker_error)? {
            // What became of the first one is not asked again.
            return if replicas.is_some() { Err(NOT_ON_REPLICAS) } else { Ok(json!({})) };
        }
    }
    publish_one(shared, channel, data, replicas).await
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
    let how = (&*request.idempotency_key, replicas(&request.durability)?);
    let mut responses = Vec::with_capacity(request.channels.len());
    for channel in &request.channels {
        responses.push(match publish_once(shared, channel, data.clone(), how).await {
            Ok(result) => json!({ "result": result }),
            Err(error) => refusal(shared, error),
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

async fn history_remove(shared: &Shared, body: &[u8]) -> Result<Value, ReplyError> {
    let request: HistoryRequest = parse(body)?;
    let (channel, options) = resolve(shared, &request.channel)?;
    if !options.keeps_history() {
        return Err(ReplyError::NOT_AVAILABLE);
    }
    shared.hub.broker().forget(&channel).await.map_err(broker_error)?;
    Ok(json!({}))
}

async fn presence(shared: &Shared, body: &[u8], count: bool) -> Result<Vec<u8>, ReplyError> {
    let request: WhoRequest = parse(body)?;
    let (channel, options) = resolve(shared, &request.channel)?;
    if !options.keeps_presence() {
        return Err(ReplyError::NOT_AVAILABLE);
    }
    let members = shared.hub.broker().members(&channel).await.map_err(broker_error)?;
    let mut out = b"{\"result\":{".to_vec();
    if count {
        put_presence_stats(&mut out, &members);
    } else {
        put_presence(&mut out, &members);
    }
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
    let word = Word::Disconnect { who }.write();
    shared.hub.broker().tell(word).await.map_err(broker_error)?;
    Ok(json!({}))
}

/// Says when a client's permission ends: `expire_at` in seconds since 1970, without it never, with `expired` now.
async fn refresh(shared: &Shared, body: &[u8]) -> Result<Value, ReplyError> {
    let request: RefreshRequest = parse(body)?;
    let who = who(&WhoRequest { channel: String::new(), user: request.user, client: request.client })?;
    let ended = request.expired || (request.expire_at != 0 && request.expire_at <= clock::unix_seconds());
    let word = if ended {
        Word::Expire { who }
    } else {
        Word::Order { who, order: Order::Refresh { expires: request.expire_at } }
    };
    shared.hub.broker().tell(word.write()).await.map_err(broker_error)?;
    Ok(json!({}))
}

/// Subscribes a user's or a client's sessions to a channel.
async fn subscribe(shared: &Shared, body: &[u8]) -> Result<Value, ReplyError> {
    let request: WhoRequest = parse(body)?;
    let who = who(&request)?;
    let (channel, _) = resolve(shared, &request.channel)?;
    let word = Word::Order { who, order: Order::Subscribe { channel } }.write();
    shared.hub.broker().tell(word).await.map_err(broker_error)?;
    Ok(json!({}))
}

async fn unsubscribe(shared: &Shared, body: &[u8]) -> Result<Value, ReplyError> {
    let request: WhoRequest = parse(body)?;
    let who = who(&request)?;
    let (channel, _) = resolve(shared, &request.channel)?;
    let word = Word::Unsubscribe { channel, who }.write();
    shared.hub.broker().tell(word).await.map_err(broker_error)?;
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
    use super::{matches_pattern, replicas};

    #[test]
    fn durability_is_said_in_one_way() {
        assert_eq!(replicas("").unwrap(), None);
        assert_eq!(replicas("replicas(2)").unwrap(), Some(2));
        for wrong in
            ["replicas", "replicas()", "replicas(0)", "replicas(-1)", "replicas(65)", "2", "Replicas(1)"]
        {
            assert!(replicas(wrong).is_err(), "{wrong}");
        }
    }

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
