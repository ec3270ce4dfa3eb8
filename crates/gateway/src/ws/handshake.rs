//! The opening handshake (RFC 6455, section 4.2), on a request head that was read already.

use super::deflate::Agreed;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha1::{Digest, Sha1};

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The head of an HTTP/1.x request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    /// The minor version: 1 for HTTP/1.1.
    pub(crate) version: u8,
    pub(crate) headers: &'a [httparse::Header<'a>],
}

/// Why a request is no good handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("a WebSocket handshake is a GET of HTTP/1.1")]
    BadRequest,
    #[error("the header Sec-WebSocket-Key is missing or wrong")]
    BadKey,
    #[error("only version 13 of the WebSocket protocol is spoken here")]
    BadVersion,
    #[error("a WebSocket handshake is needed here")]
    NoUpgrade,
}

impl<'a> Head<'a> {
    /// The value of a header; `None` when it is absent, given twice or no text.
    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        let mut all = self.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        match (all.next(), all.next()) {
            (Some(header), None) => std::str::from_utf8(header.value).ok().map(str::trim),
            _ => None,
        }
    }

    /// Whether a header is there at all.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|header| header.name.eq_ignore_ascii_case(name))
    }

    /// Whether a header that lists tokens names `token`; it may be given several times.
    fn lists(&self, name: &str, token: &str) -> bool {
        self.headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name))
            .filter_map(|header| std::str::from_utf8(header.value).ok())
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    }

    /// The target without its query.
    pub(crate) fn path(&self) -> &'a str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Whether the client asks for a WebSocket.
    pub(crate) fn asks_for_websocket(&self) -> bool {
        self.lists("upgrade", "websocket")
    }
}

/// What can be agreed to of the compression that the client offers.
pub(crate) fn offered_deflate(head: &Head<'_>) -> Option<Agreed> {
    super::deflate::agree(head.header("sec-websocket-extensions")?)
}

/// Checks a handshake and gives the answer that opens the WebSocket; with `deflate` it agrees to compression.
pub(crate) fn accept(head: &Head<'_>, deflate: Option<Agreed>) -> Result<Bytes, Refusal> {
    if head.method != "GET" || head.version != 1 || head.header("host").is_none() {
        return Err(Refusal::BadRequest);
    }
    if !head.asks_for_websocket() || !head.lists("connection", "upgrade") {
        return Err(Refusal::NoUpgrade);
    }
    if head.header("sec-websocket-version") != Some("13") {
        return Err(Refusal::BadVersion);
    }
    let key = head.header("sec-websocket-key").ok_or(Refusal::BadKey)?;
    if STANDARD.decode(key).map(|key| key.len()) != Ok(16) {
        return Err(Refusal::BadKey);
    }
    let agreed = deflate
        .map_or_else(String::new, |agreed| format!("Sec-WebSocket-Extensions: {}\r\n", agreed.header()));
    Ok(Bytes::from(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n{agreed}\r\n",
        accept_key(key)
    )))
}

fn accept_key(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID);
    STANDARD.encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::{Head, Refusal, accept, accept_key};

    const GOOD: &[(&str, &str)] = &[
        ("Host", "here"),
        ("Upgrade", "WebSocket"),
        ("Connection", "keep-alive, Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn check(method: &str, version: u8, fields: &[(&str, &str)]) -> Result<(), Refusal> {
        let headers: Vec<_> =
            fields.iter().map(|(name, value)| httparse::Header { name, value: value.as_bytes() }).collect();
        accept(&Head { method, target: "/", version, headers: &headers }, None).map(drop)
    }

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(check("GET", 1, GOOD), Ok(()));
    }

    #[test]
    fn each_missing_or_wrong_part_is_named() {
        assert_eq!(check("POST", 1, GOOD), Err(Refusal::BadRequest));
        assert_eq!(check("GET", 0, GOOD), Err(Refusal::BadRequest));
        for (at, refusal) in [
            (0, Refusal::BadRequest),
            (1, Refusal::NoUpgrade),
            (2, Refusal::NoUpgrade),
            (3, Refusal::BadVersion),
            (4, Refusal::BadKey),
        ] {
            let mut fields = GOOD.to_vec();
            fields.remove(at);
            assert_eq!(check("GET", 1, &fields), Err(refusal), "without {}", GOOD[at].0);
            let mut fields = GOOD.to_vec();
            fields[at].1 = "12";
            if at > 0 {
                assert_eq!(check("GET", 1, &fields), Err(refusal), "wrong {}", GOOD[at].0);
            }
        }
        let mut twice = GOOD.to_vec();
        twice.push(GOOD[4]);
        assert_eq!(check("GET", 1, &twice), Err(Refusal::BadKey));
    }
}
