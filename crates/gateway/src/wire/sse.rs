//! Server-sent events at `/sse/<channel>`: `id:` is `<epoch>:<offset>`, so that a browser that comes back says
//! with `Last-Event-ID` what it saw last. Where that cannot be continued an event `gap` comes first.

use super::Farewell;
use crate::publication::{Position, Publication};
use bytes::Bytes;

/// The head of the answer, but for the headers of cross-origin requests. The body ends with the connection.
pub(crate) const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\
                               X-Accel-Buffering: no\r\nConnection: close\r\n";

/// Encodes a publication: its data is JSON on one line, so one `data:` field holds it.
pub(super) fn publication(publication: &Publication) -> Bytes {
    let mut out = Vec::with_capacity(publication.data().len() + 64);
    if let Some(at) = publication.position() {
        out.extend_from_slice(format!("id: {}:{}\n", at.epoch, at.offset).as_bytes());
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(publication.data());
    out.extend_from_slice(b"\n\n");
    Bytes::from(out)
}

/// Says that publications may be missing before this place.
pub(super) fn gap() -> Bytes {
    Bytes::from_static(b"event: gap\ndata: {}\n\n")
}

/// The end of the stream, with the wait before the browser comes back.
pub(super) fn farewell(why: Farewell) -> Bytes {
    match why {
        // A browser gives up for good only when it is answered 204, which is too late here.
        Farewell::Disconnected => Bytes::from_static(b"retry: 60000\n: disconnected by the server\n\n"),
        Farewell::Expired | Farewell::NoPong | Farewell::Slow | Farewell::Stale => {
            Bytes::from_static(b"retry: 1000\n: slow\n\n")
        }
        Farewell::Shutdown => Bytes::from_static(b"retry: 1000\n: shutdown\n\n"),
    }
}

/// The end of a stream that could not go on, with the wait before the browser tries again.
pub(super) fn end(reason: &str) -> Bytes {
    let reason: String = reason.chars().filter(|character| !character.is_control()).collect();
    Bytes::from(format!("retry: 5000\n: {reason}\n\n"))
}

/// Reads a `Last-Event-ID`.
pub(crate) fn last_event(id: &str) -> Option<Position> {
    let (epoch, offset) = id.rsplit_once(':')?;
    Some(Position { epoch: epoch.into(), offset: offset.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::{last_event, publication};
    use crate::publication::{Position, Publication};
    use bytes::Bytes;

    #[test]
    fn an_event_carries_its_place() {
        let at = Position { epoch: "e1".into(), offset: 7 };
        let kept = Publication::new("a".into(), Bytes::from_static(b"{\"n\":1}"), Some(at.clone()));
        assert_eq!(publication(&kept), "id: e1:7\ndata: {\"n\":1}\n\n");
        let plain = Publication::new("a".into(), Bytes::from_static(b"1"), None);
        assert_eq!(publication(&plain), "data: 1\n\n");
        assert_eq!(last_event("e1:7"), Some(at));
        assert_eq!(last_event("7"), None);
        assert_eq!(last_event("e:x"), None);
    }
}
