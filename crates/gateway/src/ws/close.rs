//! Close codes: those of RFC 6455, and what a violation of the protocol is answered with.

/// A close code with its short reason, as sent in a close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CloseCode {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
}

impl CloseCode {
    pub(crate) const PROTOCOL: Self = Self::new(1002, "protocol error");

    pub(crate) const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason }
    }
}

/// How a peer broke RFC 6455.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("bad close frame")]
    BadClose,
    #[error("control frame that is fragmented or longer than 125 bytes")]
    BadControl,
    #[error("compressed data that is none")]
    BadDeflate,
    #[error("length not in its shortest form or beyond 63 bits")]
    BadLength,
    #[error("invalid UTF-8")]
    BadUtf8,
    #[error("fragment out of order")]
    Fragmentation,
    #[error("reserved bit or opcode")]
    Reserved,
    #[error("message longer than the limit")]
    TooBig,
    #[error("unmasked frame")]
    Unmasked,
}

impl Violation {
    pub(crate) const fn close_code(self) -> CloseCode {
        match self {
            Self::BadDeflate => CloseCode::new(1007, "invalid compressed data"),
            Self::BadUtf8 => CloseCode::new(1007, "invalid utf-8"),
            Self::TooBig => CloseCode::new(1009, "message too big"),
            Self::BadClose
            | Self::BadControl
            | Self::BadLength
            | Self::Fragmentation
            | Self::Reserved
            | Self::Unmasked => CloseCode::PROTOCOL,
        }
    }
}

/// Whether a peer may put `code` into a close frame (RFC 6455, section 7.4).
pub(crate) const fn may_be_received(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
