//! A resolver's questions as commands, and their replies as inputs.

use evenkeel_protocol::{Command, Endpoint, Frame, Reply};

use super::ask::NodeRole;
use crate::{
    error::{AskFailure, ReadError},
    machine::{Action, Input, SentinelAnswer, SentinelQuestion, ViewCommand},
    read,
};

/// What is asked of whom.
#[derive(Clone, Debug)]
pub(super) enum Question {
    Kind(Endpoint),
    Role(Endpoint),
    /// For users who may not ask `ROLE`, which counts as dangerous; everybody may ask `HELLO`.
    RoleByHello(Endpoint),
    Sentinel(Endpoint, SentinelQuestion),
    View(Endpoint, ViewCommand),
}

impl Question {
    /// The question in an action, or the action back.
    pub(super) fn of(action: Action) -> Result<Self, Action> {
        Ok(match action {
            Action::AskKind { endpoint } => Self::Kind(endpoint),
            Action::AskRole { endpoint } => Self::Role(endpoint),
            Action::AskSentinel { sentinel, question } => Self::Sentinel(sentinel, question),
            Action::AskView { endpoint, by } => Self::View(endpoint, by),
            other => return Err(other),
        })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        match self {
            Self::Kind(endpoint)
            | Self::Role(endpoint)
            | Self::RoleByHello(endpoint)
            | Self::Sentinel(endpoint, _)
            | Self::View(endpoint, _) => endpoint,
        }
    }

    pub(super) fn role(&self) -> NodeRole {
        match self {
            Self::Sentinel(..) => NodeRole::Sentinel,
            Self::Kind(_) | Self::Role(_) | Self::RoleByHello(_) | Self::View(..) => NodeRole::Data,
        }
    }

    pub(super) fn commands(&self, name: &str) -> Vec<Command> {
        let sentinel = |sub: &str| Command::new("SENTINEL").arg(sub);
        match self {
            // `HELLO` from 6.0 on, `INFO` before.
            Self::Kind(_) => vec![Command::new("HELLO"), Command::new("INFO").arg("server")],
            Self::RoleByHello(_) => vec![Command::new("HELLO")],
            Self::Role(_) => vec![Command::new("ROLE")],
            Self::Sentinel(_, SentinelQuestion::Primary) => {
                vec![sentinel("MASTER").arg(name), sentinel("GET-MASTER-ADDR-BY-NAME").arg(name)]
            }
            // `SLAVES` is known to every version; `REPLICAS` only from 5.0 on.
            Self::Sentinel(_, SentinelQuestion::Members) => {
                vec![sentinel("MYID"), sentinel("SLAVES").arg(name), sentinel("SENTINELS").arg(name)]
            }
            Self::View(_, by) => {
                let map = match by {
                    ViewCommand::Shards => "SHARDS",
                    ViewCommand::Slots => "SLOTS",
                };
                vec![Command::new("CLUSTER").arg(map), Command::new("CLUSTER").arg("INFO")]
            }
        }
    }

    /// Another way to ask the same, when the replies forbid this one.
    pub(super) fn instead(&self, replies: &[Reply]) -> Option<Self> {
        let error = replies.first()?.error()?;
        match self {
            Self::Role(endpoint) if error.code() == "NOPERM" => Some(Self::RoleByHello(endpoint.clone())),
            _ => None,
        }
    }

    /// The input that the replies make.
    pub(super) fn answered(self, replies: &[Reply], tls: bool) -> Input {
        match self.read(replies, tls) {
            Ok(input) => input,
            Err(ReadError::Server(error)) => self.failed(AskFailure::Server(error)),
            Err(_) => self.failed(AskFailure::Malformed),
        }
    }

    fn read(&self, replies: &[Reply], tls: bool) -> Result<Input, ReadError> {
        let frame = |place: usize| -> Result<Frame, ReadError> {
            let reply = replies.get(place).ok_or(ReadError::Malformed { command: "a pipeline" })?;
            Ok(reply.frame()?)
        };
        Ok(match self {
            Self::Kind(endpoint) => {
                let hello = read::hello(&frame(0)?).ok();
                let kind = match &hello {
                    Some(hello) => hello.kind,
                    None => read::server_kind(&frame(1)?)?,
                };
                let zone = hello.and_then(|hello| hello.zone);
                Input::KindAnswered { endpoint: endpoint.clone(), kind, zone }
            }
            Self::RoleByHello(endpoint) => {
                let role = read::hello(&frame(0)?)?.role.unwrap_or(read::RoleView::Sentinel);
                Input::RoleAnswered { endpoint: endpoint.clone(), role }
            }
            Self::Role(endpoint) => {
                Input::RoleAnswered { endpoint: endpoint.clone(), role: read::role(&frame(0)?)? }
            }
            Self::Sentinel(sentinel, question) => {
                let answer = match question {
                    SentinelQuestion::Primary => {
                        let view = read::sentinel_primary(&frame(0)?)?;
                        match view.zip(read::sentinel_address(&frame(1)?)?) {
                            Some((view, endpoint)) => SentinelAnswer::Primary { endpoint, view },
                            None => SentinelAnswer::UnknownName,
                        }
                    }
                    SentinelQuestion::Members => SentinelAnswer::Members {
                        // Unknown before 6.2.
                        id: frame(0)?.as_str().map(str::to_owned),
                        replicas: read::sentinel_replicas(&frame(1)?)?,
                        sentinels: read::sentinel_sentinels(&frame(2)?)?,
                    },
                };
                Input::SentinelAnswered { sentinel: sentinel.clone(), answer }
            }
            Self::View(endpoint, by) => {
                let mut view = match by {
                    ViewCommand::Shards => read::cluster_shards(&frame(0)?, endpoint, tls)?,
                    ViewCommand::Slots => read::cluster_slots(&frame(0)?, endpoint)?,
                };
                view.epoch = read::cluster_epoch(&frame(1)?).ok();
                Input::ViewAnswered { endpoint: endpoint.clone(), view }
            }
        })
    }

    pub(super) fn failed(self, failure: AskFailure) -> Input {
        match self {
            Self::Kind(endpoint) => Input::KindFailed { endpoint },
            Self::Role(endpoint) | Self::RoleByHello(endpoint) => Input::RoleFailed { endpoint, failure },
            Self::Sentinel(sentinel, question) => Input::SentinelFailed { sentinel, question, failure },
            Self::View(endpoint, _) => Input::ViewFailed { endpoint, failure },
        }
    }
}
