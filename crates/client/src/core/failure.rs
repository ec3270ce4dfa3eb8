//! Turns what the layers below report into the client's errors.

use std::{io, sync::Arc, time::Duration};

use evenkeel_pool::{AcquireError, DialError, Failure, Lane, driver::dial::Phase as DialPhase};
use evenkeel_protocol::conn::{Step, StepError};

use super::{floor::maintenance, node::Node};
use crate::{
    config::Config,
    error::{Error, Executed, Phase},
};

/// Why a dial failed, with the setting that led there.
pub(crate) fn dial(error: &DialError, config: &Config) -> Error {
    let origin = config.origin();
    match error {
        DialError::Io { endpoint, phase: DialPhase::Connect | DialPhase::Resolve, cause } => {
            let cause = io::Error::new(cause.kind(), Shared(Arc::clone(cause)));
            Error::dial(endpoint.clone(), origin, cause)
        }
        DialError::TimedOut { endpoint, phase: DialPhase::Connect | DialPhase::Resolve | DialPhase::Tls } => {
            Error::silent(endpoint.clone(), origin, Phase::Dial, config.connect_timeout())
        }
        DialError::TimedOut { endpoint, .. } => {
            Error::silent(endpoint.clone(), origin, Phase::Handshake, config.handshake_timeout())
        }
        DialError::Handshake { endpoint, cause } => {
            let step = step_name(cause.step);
            match &cause.cause {
                StepError::Server(refused) => {
                    let setting = (cause.step == Step::Auth).then(|| config.password_origin());
                    Error::handshake(endpoint.clone(), step, refused.clone(), setting)
                }
                StepError::NoResp3 => Error::handshake_failed(
                    endpoint.clone(),
                    step,
                    Some("it does not speak RESP3, and protocol=3 takes nothing else"),
                    cause.cause.clone(),
                ),
                other => Error::handshake_failed(endpoint.clone(), step, None, other.clone()),
            }
        }
        DialError::Closed { endpoint, step } => Error::handshake_failed(
            endpoint.clone(),
            step.map_or("the handshake", step_name),
            Some("it closed the connection, as proxies do at a command that they do not know"),
            error.clone(),
        ),
        DialError::NotRedis { endpoint, cause } => Error::protocol(endpoint.clone(), Executed::No, *cause),
        other => Error::handshake_failed(other.endpoint().clone(), "the handshake", None, other.clone()),
    }
}

fn step_name(step: Step) -> &'static str {
    match step {
        Step::Auth => "AUTH",
        Step::Capability => "CLIENT CAPA",
        Step::Info => "CLIENT SETINFO",
        Step::MaintNotifications => "CLIENT MAINT_NOTIFICATIONS",
        Step::Name => "CLIENT SETNAME",
        Step::ReadOnly => "READONLY",
        Step::Select => "SELECT",
        _ => "HELLO",
    }
}

/// Why a command has no reply.
pub(crate) fn command(failure: Failure, lane: &Lane, after: Duration, config: &Config) -> Error {
    let endpoint = lane.endpoint();
    let error = match failure {
        Failure::Lost => Error::lost(endpoint, Executed::Maybe, None),
        Failure::TimedOutSent => Error::timeout(Phase::Reply, after, Some(endpoint), Executed::Maybe),
        Failure::TimedOutUnsent if lane.is_holding() => {
            Error::timeout(Phase::Hold, after, Some(endpoint), Executed::No)
        }
        Failure::TimedOutUnsent => match lane.last_error() {
            // The command waited for a connection that never came: that is what to tell.
            Some(error) => dial(&error, config),
            None => Error::timeout(Phase::Queue, after, Some(endpoint), Executed::No),
        },
        Failure::Full => Error::overloaded("the queue of the connection", None),
        _ => match lane.last_error() {
            Some(error) => dial(&error, config),
            None => Error::closed(Executed::No),
        },
    };
    error.during(maintenance(lane))
}

/// Why `node` lends no lease.
pub(crate) fn lease(error: AcquireError, node: &Node, config: &Config) -> Error {
    let error = match error {
        AcquireError::Dial(error) => dial(&error, config),
        AcquireError::Closed => Error::closed(Executed::No),
        other => Error::overloaded("the pool of leases", Some(Box::new(other))),
    };
    error.during(node.maintenance())
}

/// An `io::Error` that is shared with others who were told of it.
#[derive(Debug)]
struct Shared(Arc<io::Error>);

impl std::fmt::Display for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}
