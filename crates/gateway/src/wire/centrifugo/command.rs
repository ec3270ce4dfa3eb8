//! What a client asks for.

use serde::Deserialize;
use serde_json::value::RawValue;

/// Commands taken from one frame; libraries send one for each of their subscriptions at most.
const MAX_COMMANDS: usize = 1_024;

/// One command: an id and one of the requests. Fields that are not known here are passed over, as the
/// protocol grows by adding them.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Command {
    #[serde(default)]
    pub(crate) id: u32,
    pub(crate) connect: Option<Connect>,
    pub(crate) subscribe: Option<Subscribe>,
    pub(crate) unsubscribe: Option<OnChannel>,
    pub(crate) publish: Option<Publish>,
    pub(crate) history: Option<History>,
    pub(crate) presence: Option<OnChannel>,
    pub(crate) presence_stats: Option<OnChannel>,
    pub(crate) ping: Option<Empty>,
    pub(crate) rpc: Option<Empty>,
    pub(crate) send: Option<Empty>,
    pub(crate) refresh: Option<Connect>,
    pub(crate) sub_refresh: Option<Empty>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Empty {}

#[derive(Deserialize)]
pub(crate) struct Connect {
    #[serde(default)]
    pub(crate) token: String,
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) version: String,
    pub(crate) data: Option<Box<RawValue>>,
}

impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect").field("token", &!self.token.is_empty()).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
pub(crate) struct Subscribe {
    #[serde(default)]
    pub(crate) token: String,
    #[serde(default)]
    pub(crate) channel: String,
    pub(crate) data: Option<Box<RawValue>>,
    #[serde(default)]
    pub(crate) recover: bool,
    #[serde(default)]
    pub(crate) offset: u64,
    #[serde(default)]
    pub(crate) epoch: String,
    /// 0 is the stream subscription, the only one here.
    #[serde(default, rename = "type")]
    pub(crate) kind: u32,
}

impl std::fmt::Debug for Subscribe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscribe").field("channel", &self.channel).finish_non_exhaustive()
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct OnChannel {
    #[serde(default)]
    pub(crate) channel: String,
}

#[derive(Deserialize)]
pub(crate) struct Publish {
    #[serde(default)]
    pub(crate) channel: String,
    pub(crate) data: Option<Box<RawValue>>,
}

impl std::fmt::Debug for Publish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publish").field("channel", &self.channel).finish_non_exhaustive()
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct History {
    #[serde(default)]
    pub(crate) channel: String,
    #[serde(default)]
    pub(crate) limit: i64,
    pub(crate) since: Option<Since>,
    #[serde(default)]
    pub(crate) reverse: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Since {
    #[serde(default)]
    pub(crate) offset: u64,
    #[serde(default)]
    pub(crate) epoch: String,
}

/// A frame that is no list of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadFrame;

/// Reads the commands of one frame. An empty object, the answer to a heartbeat, gives none.
pub(crate) fn parse(text: &str) -> Result<Vec<Command>, BadFrame> {
    let mut commands = Vec::new();
    if text == "{}" {
        return Ok(commands);
    }
    let mut objects = 0;
    for command in serde_json::Deserializer::from_str(text).into_iter::<Command>() {
        let Ok(command) = command else { return Err(BadFrame) };
        objects += 1;
        if objects > MAX_COMMANDS {
            return Err(BadFrame);
        }
        if !command.is_pong() {
            commands.push(command);
        }
    }
    if objects == 0 { Err(BadFrame) } else { Ok(commands) }
}

impl Command {
    fn is_pong(&self) -> bool {
        self.id == 0
            && self.connect.is_none()
            && self.subscribe.is_none()
            && self.unsubscribe.is_none()
            && self.publish.is_none()
            && self.history.is_none()
            && self.presence.is_none()
            && self.presence_stats.is_none()
            && self.ping.is_none()
            && self.rpc.is_none()
            && self.send.is_none()
            && self.refresh.is_none()
            && self.sub_refresh.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn commands_are_read_one_a_line() {
        let frame = "{\"connect\":{\"name\":\"js\"},\"id\":1}\n{\"subscribe\":{\"channel\":\"news\",\"flag\":1},\"id\":2}";
        let commands = parse(frame).unwrap();
        assert_eq!(commands.len(), 2);
        assert!(commands[0].connect.is_some());
        assert_eq!(commands[1].subscribe.as_ref().unwrap().channel, "news");
    }

    #[test]
    fn heartbeats_are_no_commands() {
        assert!(parse("{}").unwrap().is_empty());
        assert!(parse("{}\n{}\n").unwrap().is_empty());
    }

    #[test]
    fn anything_else_is_refused() {
        for frame in ["", "x", "[]", "1", "{\"id\":-1}", "{\"id\":1,\"connect\":7}", "{\"id\":1", "{}{"] {
            assert!(parse(frame).is_err(), "{frame}");
        }
        assert!(parse(&"{}".repeat(1_024)).is_ok());
        assert!(parse(&"{}".repeat(1_025)).is_err());
    }

    #[test]
    fn nothing_secret_is_shown() {
        let commands =
            parse("{\"id\":1,\"connect\":{\"token\":\"hush\"},\"publish\":{\"data\":\"hush\"}}").unwrap();
        assert!(!format!("{commands:?}").contains("hush"));
    }
}
