//! Errors by operation; none of them holds a byte that a peer sent beyond the type marker.

use crate::reply::Kind;

/// Why bytes are not a reply.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// The byte that opens an element is none of RESP's markers.
    #[error("unknown type marker {marker:#04x} at byte {at} of the reply")]
    BadMarker {
        /// The byte found.
        marker: u8,
        /// Where in the reply.
        at: usize,
    },
    /// A length or a count is not a number that the protocol allows there.
    #[error("malformed length at byte {at} of the reply")]
    BadLength {
        /// Where in the reply.
        at: usize,
    },
    /// A string does not end with CR LF where its length says.
    #[error("missing line end at byte {at} of the reply")]
    MissingLineEnd {
        /// Where in the reply.
        at: usize,
    },
    /// An end marker, a chunk or a push stands where the protocol does not allow it.
    #[error("misplaced marker {marker:#04x} at byte {at} of the reply")]
    Misplaced {
        /// The byte found.
        marker: u8,
        /// Where in the reply.
        at: usize,
    },
    /// Aggregates are nested deeper than [`Limits::max_depth`](crate::Limits::max_depth).
    #[error("reply nested deeper than {limit}")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// A string or line is longer than [`Limits::max_bulk`](crate::Limits::max_bulk).
    #[error("string longer than {limit} bytes")]
    BulkTooLong {
        /// The limit.
        limit: usize,
    },
    /// More elements than [`Limits::max_elements`](crate::Limits::max_elements).
    #[error("reply of more than {limit} elements")]
    TooManyElements {
        /// The limit.
        limit: usize,
    },
    /// A reply longer than [`Limits::max_reply`](crate::Limits::max_reply).
    #[error("reply longer than {limit} bytes")]
    ReplyTooLong {
        /// The limit.
        limit: usize,
    },
}

/// Why whole bytes are not a frame.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The bytes end before the frame does.
    #[error("the frame is not complete")]
    Incomplete,
    /// Bytes are left over behind the frame.
    #[error("{extra} bytes behind the frame")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// The frame's outline is wrong.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// A scalar is not what its marker says.
    #[error("malformed {kind} at byte {at}")]
    Malformed {
        /// What it should have been.
        kind: &'static str,
        /// Where in the frame.
        at: usize,
    },
}

/// Why a reply does not become the type that was asked for.
///
/// It names kinds, never contents.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The reply is of another kind.
    #[error("expected {expected}, found {found}")]
    Kind {
        /// What the type needs.
        expected: &'static str,
        /// What the server sent.
        found: Kind,
    },
    /// A number does not fit, text is not UTF-8, or the like.
    #[error("the {found} is not a valid {expected}")]
    Value {
        /// What the type needs.
        expected: &'static str,
        /// What the server sent.
        found: Kind,
    },
    /// An aggregate has another number of elements.
    #[error("expected {expected} elements, found {found}")]
    Count {
        /// What the type needs.
        expected: usize,
        /// What the server sent.
        found: usize,
    },
    /// A field that the type needs is not in the reply.
    #[error("the reply has no field `{field}`")]
    MissingField {
        /// Its name.
        field: &'static str,
    },
    /// The type itself refused a value; what it said is dropped, since it may quote the value.
    #[error("the type refused a value")]
    Refused,
    /// The reply, or an element of it, is an error of the server.
    #[error("the server answered an error")]
    Server(#[source] crate::ServerError),
    /// The bytes are no whole frame.
    #[error(transparent)]
    Parse(#[from] ParseError),
}
