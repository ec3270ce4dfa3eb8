//! What a peer may ask of our memory; it does not know where the bytes come from.

/// Caps on what one reply may hold, compared with every announced length before memory is reserved.
///
/// ```
/// use evenkeel_protocol::Limits;
/// let small = Limits::default().max_bulk(1024 * 1024);
/// assert_eq!(small.bulk(), 1024 * 1024);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    depth: usize,
    bulk: usize,
    elements: usize,
    reply: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 128, bulk: 512 << 20, elements: 1 << 24, reply: 1 << 30 }
    }
}

impl Limits {
    /// Aggregates inside aggregates, at most. Default: 128.
    #[must_use]
    pub const fn max_depth(mut self, depth: usize) -> Self {
        self.depth = depth;
        self
    }

    /// Bytes of one string or of one line, at most. Default: 512 MiB, the server's own cap.
    #[must_use]
    pub const fn max_bulk(mut self, bytes: usize) -> Self {
        self.bulk = bytes;
        self
    }

    /// Elements of one reply, nested ones included, at most. Default: 2^24.
    #[must_use]
    pub const fn max_elements(mut self, elements: usize) -> Self {
        self.elements = elements;
        self
    }

    /// Bytes of one whole reply, at most. Default: 1 GiB.
    #[must_use]
    pub const fn max_reply(mut self, bytes: usize) -> Self {
        self.reply = bytes;
        self
    }

    /// The cap on nesting.
    pub const fn depth(&self) -> usize {
        self.depth
    }

    /// The cap on one string, in bytes.
    pub const fn bulk(&self) -> usize {
        self.bulk
    }

    /// The cap on elements of one reply.
    pub const fn elements(&self) -> usize {
        self.elements
    }

    /// The cap on one whole reply, in bytes.
    pub const fn reply(&self) -> usize {
        self.reply
    }
}
