//! `CLUSTER INFO` and `INFO server`: single facts out of `name:value` lines.

use evenkeel_protocol::Frame;

use super::not_an_error;
use crate::error::{Found, ReadError};

/// Reads the current epoch from `CLUSTER INFO`: the newest that the node has heard of.
///
/// # Errors
/// An error of the server, or another shape.
pub fn cluster_epoch(frame: &Frame) -> Result<u64, ReadError> {
    let wrong = ReadError::Malformed { command: "CLUSTER INFO" };
    let text = not_an_error(frame)?.as_str().ok_or_else(|| wrong.clone())?;
    field(text, "cluster_current_epoch").and_then(|epoch| epoch.parse().ok()).ok_or(wrong)
}

/// Reads from `INFO server` whether it is a sentinel or a cluster node; `None` for a server of neither kind.
///
/// # Errors
/// An error of the server, or another shape.
pub fn server_kind(frame: &Frame) -> Result<Option<Found>, ReadError> {
    let text = not_an_error(frame)?.as_str().ok_or(ReadError::Malformed { command: "INFO" })?;
    let mode = field(text, "redis_mode").or_else(|| field(text, "server_mode"));
    Ok(mode.and_then(super::hello::kind))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
}

#[cfg(test)]
mod tests {
    use evenkeel_protocol::ServerError;

    use super::*;

    #[test]
    fn facts_are_found_in_lines() {
        let info =
            Frame::Blob("cluster_state:ok\r\ncluster_current_epoch:12\r\ncluster_my_epoch:3\r\n".into());
        assert_eq!(cluster_epoch(&info), Ok(12));
        assert!(cluster_epoch(&Frame::Blob("cluster_state:ok".into())).is_err());
        let off = Frame::Error(ServerError::parse(b"ERR This instance has cluster support disabled"));
        assert!(matches!(cluster_epoch(&off), Err(ReadError::Server(_))));
        let mode = |text: &'static str| server_kind(&Frame::Verbatim(*b"txt", text.into())).unwrap();
        assert_eq!(
            mode("# Server\r\nredis_version:7.0.15\r\nredis_mode:cluster\r\n"),
            Some(Found::ClusterNode)
        );
        assert_eq!(mode("redis_mode:sentinel"), Some(Found::Sentinel));
        assert_eq!(mode("redis_mode:standalone"), None);
    }
}
