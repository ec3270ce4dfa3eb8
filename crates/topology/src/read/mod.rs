//! Answers of servers to typed views, RESP2 and RESP3 shapes alike. Pure functions over frames; nothing is asked here.

mod cluster;
mod cluster_info;
mod events;
mod hello;
mod role;
mod sentinel;

pub use cluster::{ClusterView, NodeView, ShardView, cluster_shards, cluster_slots};
pub use cluster_info::{cluster_epoch, server_kind};
pub use events::{Instance, InstanceKind, Notification, SentinelEvent};
pub use hello::{HelloView, hello};
pub use role::{RoleView, role};
pub use sentinel::{
    PeerView, PrimaryView, ReplicaView, sentinel_address, sentinel_primary, sentinel_replicas,
    sentinel_sentinels,
};

use evenkeel_protocol::Frame;

use crate::error::ReadError;

/// The frame itself, or the error that it is.
fn not_an_error(frame: &Frame) -> Result<&Frame, ReadError> {
    match frame {
        Frame::Error(error) => Err(ReadError::Server(error.clone())),
        Frame::Attributed(_, value) => not_an_error(value),
        frame => Ok(frame),
    }
}

/// The elements of a frame that must be a list.
fn list<'a>(frame: &'a Frame, command: &'static str) -> Result<&'a [Frame], ReadError> {
    not_an_error(frame)?.elements().ok_or(ReadError::Malformed { command })
}

/// A port: a number from 1 to 65535, also as text.
fn port(frame: &Frame) -> Option<u16> {
    frame.as_integer().and_then(|port| u16::try_from(port).ok()).filter(|&port| port > 0)
}

/// Text that is there and not empty.
fn text(frame: Option<&Frame>) -> Option<&str> {
    frame.and_then(Frame::as_str).filter(|text| !text.is_empty())
}

fn natural(frame: Option<&Frame>) -> Option<u64> {
    frame.and_then(Frame::as_integer).and_then(|number| u64::try_from(number).ok())
}
