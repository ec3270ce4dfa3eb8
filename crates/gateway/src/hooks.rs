//! Hooks: an application's own HTTP endpoints, which are asked before a client may connect, subscribe or publish,
//! and when what it may ends.
//!
//! Requests and answers have the shape of Centrifugo's proxies: a JSON object is posted, and the answer is one of
//! `{"result":{}}`, `{"error":{"code":1000,"message":"..."}}` and `{"disconnect":{"code":4500,"reason":"..."}}`. Nothing
//! but a result lets a client through: no answer in time, another status than 200 and whatever else is no result
//! refuse it.

use crate::ws::close::may_be_received;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a close frame's reason at most: a control frame has 125, and the code two of them.
const MAX_REASON: usize = 123;
/// The code of a client that is sent away for good, where the answer has none that a close frame may carry.
const SENT_AWAY: u16 = 4500;

/// Endpoints that are asked before clients may do something. Default: none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HooksConfig {
    /// Asked when a client of Centrifugo's protocol connects without a token; says who it is.
    pub connect: Option<HookConfig>,
    /// Asked for each subscription on channels whose `subscribe` is `hook`.
    pub subscribe: Option<HookConfig>,
    /// Asked for each publication of a client on channels whose `publish` is `hook`.
    pub publish: Option<HookConfig>,
    /// Asked when the permission ends that `connect` gave, instead of having the client come again; says for how long it
    /// goes on.
    pub refresh: Option<HookConfig>,
    /// Asked when the permission ends that `subscribe` gave for a channel, instead of having the client subscribe
    /// again; says for how long it goes on.
    pub sub_refresh: Option<HookConfig>,
    /// Headers of a client's request that hooks get too, such as `Cookie`. Default: none.
    pub headers: Vec<String>,
    /// The authorities, PEM, one of which must have signed the certificates of `https` endpoints. Default: the system's.
    /// Read when the gateway starts and by [`GatewayHandle::reload`](crate::GatewayHandle::reload).
    pub ca_file: Option<PathBuf>,
}

/// One endpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct HookConfig {
    /// Where requests are posted to: `http://host:port/path`, or (with the feature `tls`) `https`.
    pub url: String,
    /// From the question to the end of the answer, the wait for its turn included. Default: 1 s. Then the client is refused.
    #[serde(default = "timeout", with = "humantime_serde")]
    pub timeout: Duration,
    /// Questions under way at once; the others wait for their turn. Default: 64. At least 1.
    #[serde(default = "concurrency")]
    pub max_concurrent: usize,
}

impl HookConfig {
    /// An endpoint with the default bounds.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), timeout: timeout(), max_concurrent: concurrency() }
    }

    /// Whether its URL asks for encryption.
    pub(crate) fn is_secure(&self) -> bool {
        self.url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
    }
}

fn timeout() -> Duration {
    Duration::from_secs(1)
}

fn concurrency() -> usize {
    64
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Connect,
    Publish,
    Refresh,
    SubRefresh,
    Subscribe,
}

/// Headers that go with every question of one client.
pub(crate) type Headers = Arc<[(HeaderName, HeaderValue)]>;

/// A question, ready to be posted.
#[derive(Clone)]
pub(crate) struct Question {
    pub(crate) hook: Hook,
    pub(crate) body: Bytes,
    pub(crate) headers: Headers,
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").field("hook", &self.hook).finish_non_exhaustive()
    }
}

/// Who asks, and for what. Empty fields are left out.
#[derive(Default, Serialize)]
pub(crate) struct Asking<'a> {
    pub(crate) client: &'a str,
    pub(crate) transport: &'a str,
    pub(crate) protocol: &'a str,
    pub(crate) encoding: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) user: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<&'a RawValue>,
}

impl Asking<'_> {
    pub(crate) fn question(&self, hook: Hook, headers: &Headers) -> Question {
        // Strings, and JSON that was read already, always serialize.
        let body = serde_json::to_vec(self).unwrap_or_default();
        Question { hook, body: Bytes::from(body), headers: headers.clone() }
    }
}

/// What a hook says.
#[derive(Debug)]
pub(crate) enum Verdict {
    Allowed(Box<Allowed>),
    Disconnect {
        code: u16,
        reason: Box<str>,
    },
    /// There was no answer that could be used.
    Failed,
    Refused(Refused),
}

/// The error that a client gets.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: u32,
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) temporary: bool,
}

/// What a result says; which fields mean something depends on the hook.
#[derive(Default, Deserialize)]
pub(crate) struct Allowed {
    /// Who the client is.
    #[serde(default)]
    pub(crate) user: String,
    /// What others may see of it.
    pub(crate) info: Option<Box<RawValue>>,
    /// For the client, or in place of what it publishes.
    pub(crate) data: Option<Box<RawValue>>,
    /// When its permission ends, in seconds since 1970; 0 for never.
    #[serde(default)]
    pub(crate) expire_at: u64,
    /// Whether it has ended already.
    #[serde(default)]
    pub(crate) expired: bool,
}

impl fmt::Debug for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allowed").field("expire_at", &self.expire_at).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Answer {
    result: Option<Allowed>,
    error: Option<Refused>,
    disconnect: Option<Disconnect>,
}

#[derive(Deserialize)]
struct Disconnect {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    reason: String,
}

impl Verdict {
    /// Reads the body of an answer. Of several words the hardest counts.
    pub(crate) fn read(body: &[u8]) -> Self {
        let Ok(answer) = serde_json::from_slice::<Answer>(body) else { return Self::Failed };
        match answer {
            Answer { disconnect: Some(Disconnect { code, mut reason }), .. } => {
                while reason.len() > MAX_REASON {
                    reason.pop();
                }
                let code = if code >= 3000 && may_be_received(code) { code } else { SENT_AWAY };
                Self::Disconnect { code, reason: reason.into() }
            }
            Answer { error: Some(error), .. } => Self::Refused(error),
            Answer { result: Some(result), .. } => Self::Allowed(Box::new(result)),
            Answer { .. } => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Asking, Headers, Hook, Refused, Verdict};
    use serde_json::value::RawValue;

    #[test]
    fn questions_leave_out_what_is_empty() {
        let data = RawValue::from_string("{\"n\": 1}".to_owned()).unwrap();
        let asking = Asking {
            client: "c1",
            transport: "websocket",
            protocol: "json",
            encoding: "json",
            channel: "news",
            data: Some(&data),
            ..Asking::default()
        };
        let question = asking.question(Hook::Publish, &Headers::from([]));
        assert_eq!(
            question.body,
            r#"{"client":"c1","transport":"websocket","protocol":"json","encoding":"json","channel":"news","data":{"n": 1}}"#
        );
        assert!(!format!("{question:?}").contains("news"));
    }

    #[test]
    fn only_a_result_lets_through() {
        let read = |body: &str| Verdict::read(body.as_bytes());
        let Verdict::Allowed(allowed) =
            read(r#"{"result":{"user":"u","info":{"a":1},"expire_at":7,"more":[]}}"#)
        else {
            panic!("refused")
        };
        assert_eq!((&*allowed.user, allowed.expire_at, allowed.info.unwrap().get()), ("u", 7, r#"{"a":1}"#));
        for nothing in
            ["", "{}", "null", "[]", "true", r#"{"result":1}"#, r#"{"result":null}"#, r#"{"ok":{}}"#]
        {
            assert!(matches!(read(nothing), Verdict::Failed), "{nothing}");
        }
        let Verdict::Refused(refused) = read(r#"{"result":{},"error":{"code":1000,"message":"no"}}"#) else {
            panic!("allowed")
        };
        assert_eq!(refused, Refused { code: 1000, message: "no".to_owned(), temporary: false });
    }

    #[test]
    fn a_close_frame_takes_what_is_said() {
        for (said, code) in [(4001, 4001), (3503, 3503), (1000, 4500), (0, 4500), (5000, 4500)] {
            let body = format!("{{\"disconnect\":{{\"code\":{said},\"reason\":\"{}\"}}}}", "é".repeat(100));
            let Verdict::Disconnect { code: got, reason } = Verdict::read(body.as_bytes()) else {
                panic!("stays")
            };
            assert_eq!((got, &*reason), (code, &*"é".repeat(61)));
        }
    }
}
