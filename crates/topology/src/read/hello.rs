//! `HELLO` without arguments: what a server says of itself to anybody who may connect.

use evenkeel_protocol::Frame;

use super::{not_an_error, text};
use crate::{
    error::{Found, ReadError},
    read::RoleView,
};

/// A server's own description.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloView {
    /// A sentinel, a cluster node, or neither.
    pub kind: Option<Found>,
    /// Its role, without offsets; sentinels have none.
    pub role: Option<RoleView>,
    /// Its availability zone, where it was given one (Valkey 8.1 and newer).
    pub zone: Option<String>,
}

/// Reads the answer to `HELLO`.
///
/// # Errors
/// An error of the server, or another shape.
pub fn hello(frame: &Frame) -> Result<HelloView, ReadError> {
    let frame = not_an_error(frame)?;
    let mode = text(frame.get("mode")).ok_or(ReadError::Malformed { command: "HELLO" })?;
    Ok(HelloView {
        kind: kind(mode),
        role: match text(frame.get("role")) {
            Some("master" | "primary") => Some(RoleView::Primary { offset: 0, replicas: Vec::new() }),
            Some("replica" | "slave") => {
                // It does not say whether it is in step; Sentinel and the cluster do.
                Some(RoleView::Replica { primary: None, connected: true, offset: 0 })
            }
            _ => None,
        },
        zone: text(frame.get("availability_zone")).map(str::to_owned),
    })
}

/// What the word for a server's mode means.
pub(super) fn kind(mode: &str) -> Option<Found> {
    match mode {
        "cluster" => Some(Found::ClusterNode),
        "sentinel" => Some(Found::Sentinel),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_protocols_are_read_by_name() {
        let blob = |text: &'static str| Frame::Blob(text.into());
        let fields = |mode, role: Option<&'static str>| {
            let mut list = vec![blob("server"), blob("valkey"), blob("mode"), blob(mode)];
            list.extend(role.into_iter().flat_map(|role| [blob("role"), blob(role)]));
            list.extend([blob("availability_zone"), blob("eu-1a")]);
            list
        };
        let view = hello(&Frame::Array(fields("cluster", Some("replica")).into())).unwrap();
        assert_eq!((view.kind, view.zone.as_deref()), (Some(Found::ClusterNode), Some("eu-1a")));
        assert!(matches!(view.role, Some(RoleView::Replica { .. })));
        let view = hello(&Frame::Map(fields("sentinel", None).into())).unwrap();
        assert_eq!((view.kind, view.role), (Some(Found::Sentinel), None));
        assert!(hello(&Frame::Simple("OK".into())).is_err());
    }
}
