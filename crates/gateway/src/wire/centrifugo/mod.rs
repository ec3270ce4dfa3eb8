//! Centrifugo's client protocol, version 2, in JSON: the native protocol of the gateway.
//!
//! Commands come as JSON objects, several to a frame; replies go back in the same order, those to one frame of
//! commands in one frame. `{}` is a heartbeat either way.

pub(crate) mod command;
pub(crate) mod encode;
pub(crate) mod session;

/// Errors in replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplyError {
    pub(crate) code: u32,
    pub(crate) message: &'static str,
    /// Whether the client may try again.
    pub(crate) temporary: bool,
}

impl ReplyError {
    pub(crate) const ALREADY_SUBSCRIBED: Self = Self::new(105, "already subscribed");
    pub(crate) const BAD_REQUEST: Self = Self::new(107, "bad request");
    pub(crate) const INTERNAL: Self = Self { code: 100, message: "internal server error", temporary: true };
    pub(crate) const LIMIT_EXCEEDED: Self = Self::new(106, "limit exceeded");
    pub(crate) const METHOD_NOT_FOUND: Self = Self::new(104, "method not found");
    pub(crate) const NOT_AVAILABLE: Self = Self::new(108, "not available");
    pub(crate) const PERMISSION_DENIED: Self = Self::new(103, "permission denied");
    pub(crate) const TOKEN_EXPIRED: Self = Self::new(109, "token expired");
    pub(crate) const TOO_MANY: Self = Self { code: 111, message: "too many requests", temporary: true };
    pub(crate) const UNKNOWN_CHANNEL: Self = Self::new(102, "unknown channel");
    pub(crate) const UNRECOVERABLE: Self = Self::new(112, "unrecoverable position");

    const fn new(code: u32, message: &'static str) -> Self {
        Self { code, message, temporary: false }
    }
}
