//! `Codec`: the scanner and the encoders as a `tokio_util::codec` pair, for those who bring their own sockets.

use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

use crate::{
    command::Command, encode::encode_frame, error::ScanError, frame::Frame, limits::Limits, reply::Reply,
    scan::Scanner,
};

/// What is made room for beyond what has arrived, at most, before twice as much has.
const ROOM: usize = 64 * 1024;

/// Delimits replies and writes commands. A reply comes out lazy: its type is chosen where it is used.
///
/// Pushes come out in their place, with [`Kind::Push`](crate::Kind::Push); telling them apart from replies is the
/// business of [`conn::Connection`](crate::conn::Connection) or of the caller.
///
/// ```
/// use bytes::BytesMut;
/// use evenkeel_protocol::{Codec, Command};
/// use tokio_util::codec::{Decoder, Encoder};
///
/// let mut codec = Codec::default();
/// let mut wire = BytesMut::new();
/// codec.encode(Command::new("GET").key("k"), &mut wire).unwrap();
/// assert_eq!(&wire[..], b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
///
/// let mut read = BytesMut::from(&b"$5\r\nhello\r\n+OK"[..]);
/// let reply = codec.decode(&mut read).unwrap().expect("one whole reply");
/// assert_eq!(reply.decode::<String>().unwrap(), "hello");
/// assert!(codec.decode(&mut read).unwrap().is_none());
/// ```
#[derive(Clone, Debug)]
pub struct Codec {
    scanner: Scanner,
}

/// Why a stream of replies cannot go on.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The transport failed, or ended in the middle of a reply.
    #[error("the transport failed")]
    Io(#[from] std::io::Error),
    /// Bytes that are not RESP, or over a limit.
    #[error(transparent)]
    Scan(#[from] ScanError),
}

impl Codec {
    /// A codec that stands before a reply.
    pub const fn new(limits: Limits) -> Self {
        Self { scanner: Scanner::new(limits) }
    }
}

impl Default for Codec {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Decoder for Codec {
    type Item = Reply;
    type Error = CodecError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Reply>, CodecError> {
        if let Some(found) = self.scanner.scan(src)? {
            return Ok(Some(Reply::new(src.split_to(found.len).freeze())));
        }
        // An announced length is a promise of the peer, not memory that it has paid for.
        let missing = self.scanner.known_len().saturating_sub(src.len());
        src.reserve(missing.min(src.len().max(ROOM)));
        Ok(None)
    }
}

impl Encoder<&Command> for Codec {
    type Error = CodecError;

    fn encode(&mut self, command: &Command, dst: &mut BytesMut) -> Result<(), CodecError> {
        command.encode(dst);
        Ok(())
    }
}

impl Encoder<Command> for Codec {
    type Error = CodecError;

    fn encode(&mut self, command: Command, dst: &mut BytesMut) -> Result<(), CodecError> {
        command.encode(dst);
        Ok(())
    }
}

/// For servers and recorders.
impl Encoder<&Frame> for Codec {
    type Error = CodecError;

    fn encode(&mut self, frame: &Frame, dst: &mut BytesMut) -> Result<(), CodecError> {
        encode_frame(frame, dst);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt, StreamExt};
    use tokio_util::codec::Framed;

    use super::*;

    #[tokio::test]
    async fn commands_and_replies_pass_through_a_framed_stream_in_any_pieces() {
        // Three bytes at a time.
        let (near, far) = tokio::io::duplex(3);
        let mut client = Framed::new(near, Codec::default());
        let mut server = Framed::new(far, Codec::default());
        let serve = async move {
            let asked = server.next().await.unwrap().unwrap();
            assert_eq!(asked.decode::<Vec<String>>().unwrap(), ["GET", "key"]);
            server.send(&Frame::Blob("x".repeat(300).into())).await.unwrap();
            server.send(&Frame::Integer(7)).await.unwrap();
            server
        };
        let ask = async move {
            client.send(Command::new("GET").key("key")).await.unwrap();
            let text = client.next().await.unwrap().unwrap().decode::<String>().unwrap();
            let number = client.next().await.unwrap().unwrap().decode::<i64>().unwrap();
            (text, number, client)
        };
        let (server, (text, number, mut client)) = tokio::join!(serve, ask);
        assert_eq!((text.len(), number), (300, 7));
        drop(server);
        assert!(client.next().await.is_none());
    }

    #[tokio::test]
    async fn an_end_in_the_middle_of_a_reply_is_an_error() {
        let mut replies = Framed::new(std::io::Cursor::new(b"$5\r\nhel".to_vec()), Codec::default());
        assert!(matches!(replies.next().await, Some(Err(CodecError::Io(_)))));
        let mut replies = Framed::new(std::io::Cursor::new(b"HTTP/1.1".to_vec()), Codec::default());
        assert!(matches!(replies.next().await, Some(Err(CodecError::Scan(_)))));
    }

    #[test]
    fn an_announced_length_reserves_little() {
        let mut codec = Codec::default();
        let mut read = BytesMut::from(&b"$536870912\r\nx"[..]);
        assert!(codec.decode(&mut read).unwrap().is_none());
        assert!(read.capacity() < 2 * ROOM, "{}", read.capacity());
    }
}
