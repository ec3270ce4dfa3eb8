//! `Connection`: who gets which reply. Bytes in, replies and pushes out; no socket, no clock.
//!
//! A token goes in for each command that is written and comes out with its reply, first in, first out. A caller that
//! has gone away keeps its place: dropping a future can never shift the replies of others (P2).

mod handshake;

use std::collections::VecDeque;

use bytes::BytesMut;

pub use handshake::{
    Credentials, Established, Handshake, HandshakeConfig, HandshakeError, OptIn, OptInOutcome, Progress,
    ProtocolChoice, ServerInfo, Step, StepError,
};

use crate::{error::ScanError, limits::Limits, reply::Reply, scan::Scanner};

/// What a peer did that ends the connection: nobody can tell any more which reply belongs to whom.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// More was pushed before the handshake was through than anybody needs to say there.
    #[error("the peer pushes without end before it has answered")]
    Flood,
    /// Bytes that are not RESP, or over a limit.
    #[error("the peer does not speak RESP")]
    NotResp(#[source] ScanError),
    /// A reply that nobody asked for.
    #[error("a reply arrived that nobody asked for")]
    Unasked,
}

/// What arrived.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming<T> {
    /// An out-of-band push; read it with [`Push::of`](crate::Push::of).
    Push(Reply),
    /// The reply to the command of this token.
    Reply(T, Reply),
}

/// Matches replies with the commands that they answer.
///
/// ```
/// use bytes::BytesMut;
/// use evenkeel_protocol::{Limits, conn::{Connection, Incoming}};
/// let mut conn = Connection::new(Limits::default());
/// conn.sent("first");
/// conn.sent("second");
/// let mut read = BytesMut::from(&b"+A\r\n>1\r\n+hello\r\n+B\r\n"[..]);
/// assert!(matches!(conn.next(&mut read), Ok(Some(Incoming::Reply("first", _)))));
/// assert!(matches!(conn.next(&mut read), Ok(Some(Incoming::Push(_)))));
/// assert!(matches!(conn.next(&mut read), Ok(Some(Incoming::Reply("second", _)))));
/// assert!(matches!(conn.next(&mut read), Ok(None)));
/// ```
#[derive(Clone, Debug)]
pub struct Connection<T> {
    scanner: Scanner,
    waiting: VecDeque<T>,
    /// RESP2 sends pub/sub messages as arrays; only a subscription link reads them so.
    arrays_are_pushes: bool,
}

impl<T> Connection<T> {
    /// A connection on which nothing is owed.
    pub fn new(limits: Limits) -> Self {
        Self { scanner: Scanner::new(limits), waiting: VecDeque::new(), arrays_are_pushes: false }
    }

    /// Reads the arrays of RESP2 pub/sub as pushes.
    pub fn treat_arrays_as_pushes(&mut self) {
        self.arrays_are_pushes = true;
    }

    /// A command was written whose one reply belongs to `token`.
    pub fn sent(&mut self, token: T) {
        self.waiting.push_back(token);
    }

    /// Replies that are owed, oldest first.
    pub fn waiting(&self) -> &VecDeque<T> {
        &self.waiting
    }

    /// Replies that are owed, oldest first, to be marked.
    pub fn waiting_mut(&mut self) -> &mut VecDeque<T> {
        &mut self.waiting
    }

    /// Takes every token that was not answered, oldest first; for a connection that has ended.
    pub fn take_waiting(&mut self) -> VecDeque<T> {
        std::mem::take(&mut self.waiting)
    }

    /// How many bytes the reply under way will have in all, once a long string in it is announced; else 0.
    pub fn known_len(&self) -> usize {
        self.scanner.known_len()
    }

    /// As [`next`](Self::next), at the end of one of two lists, without a value in between; `false` when nothing is whole.
    ///
    /// # Errors
    /// As `next`.
    #[inline]
    pub fn next_to(
        &mut self,
        buf: &mut BytesMut,
        replies: &mut Vec<(T, Reply)>,
        pushes: &mut Vec<Reply>,
    ) -> Result<bool, Violation> {
        match self.whole(buf)? {
            None => return Ok(false),
            Some((push, true)) => pushes.push(push),
            Some((reply, false)) => {
                let token = self.waiting.pop_front().ok_or(Violation::Unasked)?;
                replies.push((token, reply));
            }
        }
        Ok(true)
    }

    /// The next whole reply or push, and whether it is a push.
    #[inline]
    fn whole(&mut self, buf: &mut BytesMut) -> Result<Option<(Reply, bool)>, Violation> {
        let Some(found) = self.scanner.scan(buf).map_err(Violation::NotResp)? else { return Ok(None) };
        let reply = Reply::new(buf.split_to(found.len).freeze());
        let is_push =
            found.marker == b'>' || (self.arrays_are_pushes && found.marker == b'*' && is_pubsub(&reply));
        Ok(Some((reply, is_push)))
    }

    /// Takes the next whole reply or push off the front of `buf`.
    ///
    /// # Errors
    /// After an error the connection must be closed and every waiting token told that its fate is unknown.
    pub fn next(&mut self, buf: &mut BytesMut) -> Result<Option<Incoming<T>>, Violation> {
        match self.whole(buf)? {
            None => Ok(None),
            Some((push, true)) => Ok(Some(Incoming::Push(push))),
            Some((reply, false)) => {
                let token = self.waiting.pop_front().ok_or(Violation::Unasked)?;
                Ok(Some(Incoming::Reply(token, reply)))
            }
        }
    }
}

fn is_pubsub(reply: &Reply) -> bool {
    reply.frame().is_ok_and(|frame| crate::Push::read(&frame).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_too_many_ends_the_connection() {
        let mut conn: Connection<u8> = Connection::new(Limits::default());
        conn.sent(1);
        let mut read = BytesMut::from(&b"+A\r\n+B\r\n"[..]);
        assert!(matches!(conn.next(&mut read), Ok(Some(Incoming::Reply(1, _)))));
        assert_eq!(conn.next(&mut read), Err(Violation::Unasked));
    }

    #[test]
    fn pushes_take_no_token_in_either_order() {
        for wire in [&b">1\r\n+x\r\n$2\r\nok\r\n"[..], b"$2\r\nok\r\n>1\r\n+x\r\n"] {
            let mut conn: Connection<u8> = Connection::new(Limits::default());
            conn.sent(7);
            let mut read = BytesMut::from(wire);
            let mut replies = 0;
            while let Some(incoming) = conn.next(&mut read).unwrap() {
                if let Incoming::Reply(token, reply) = incoming {
                    assert_eq!((token, reply.decode::<String>().unwrap().as_str()), (7, "ok"));
                    replies += 1;
                }
            }
            assert_eq!(replies, 1);
        }
    }

    #[test]
    fn a_push_inside_an_array_is_a_clean_error() {
        let mut conn: Connection<u8> = Connection::new(Limits::default());
        conn.sent(1);
        let mut read = BytesMut::from(&b"*2\r\n>1\r\n+x\r\n:1\r\n"[..]);
        assert!(matches!(conn.next(&mut read), Err(Violation::NotResp(_))));
        assert_eq!(conn.take_waiting().len(), 1);
    }
}
