//! Pusher's REST API over HTTP: `/apps/<id>/events`, `batch_events` and `channels`.

use super::clock;
use super::shared::Shared;
use crate::publication::{Channel, json_line};
use crate::wire::pusher::rest::{self, Refusal, ToPublish};
use bytes::Bytes;
use serde_json::{Map, Value, json};

/// What to answer: the status and JSON, or words when it was refused.
pub(super) type Answer = Result<Value, Refusal>;

/// Answers a request; `rest` is the path after `/apps/`.
pub(super) async fn call(
    shared: &Shared,
    (method, path, query): (&str, &str, &str),
    rest: &str,
    body: &[u8],
) -> Answer {
    let Some(app) = &shared.pusher else { return Err((404, "there is nothing here")) };
    let Some((id, what)) = rest.split_once('/') else { return Err((404, "there is nothing here")) };
    if id != app.app_id {
        return Err((404, "there is no such application"));
    }
    rest::check(app, (method, path, query), body, clock::unix_seconds())?;
    match (method, what) {
        ("POST", "events") => publish(shared, rest::event(body)?).await,
        ("POST", "batch_events") => publish(shared, rest::batch(body)?).await,
        ("GET", "channels") => {
            let channels: Map<String, Value> = shared
                .hub
                .channels()
                .into_iter()
                .map(|(channel, _)| (channel.to_string(), json!({})))
                .collect();
            Ok(json!({ "channels": channels }))
        }
        ("GET", what) if what.starts_with("channels/") => {
            let name = what.trim_start_matches("channels/");
            let count = shared.hub.channels().into_iter().find(|(channel, _)| **channel == *name);
            let count = count.map_or(0, |(_, count)| count);
            Ok(json!({ "occupied": count > 0, "subscription_count": count }))
        }
        _ => Err((404, "there is nothing here")),
    }
}

async fn publish(shared: &Shared, events: Vec<ToPublish>) -> Answer {
    for event in events {
        let data = json_line(Bytes::from(event.data));
        if data.len() > shared.config.limits.max_publication {
            return Err((413, "the event is too long"));
        }
        for name in event.channels {
            if name.is_empty() || name.len() > shared.rules.limits.max_channel_name {
                return Err((400, "a channel's name is missing or too long"));
            }
            let Some(options) = shared.rules.namespaces.options(&name) else {
                return Err((400, "a channel's namespace is not known here"));
            };
            if shared.publish(&Channel::from(name), data.clone(), options).await.is_err() {
                return Err((503, "the broker cannot take it now"));
            }
        }
    }
    Ok(json!({}))
}
