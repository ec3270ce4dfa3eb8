//! `ServerError`: an error reply, as data.

use std::{fmt, sync::Arc};

/// An error reply: a code such as `WRONGTYPE` and the server's own words.
///
/// The server repeats arguments of a command that it does not know; they are cut off here, so that no payload reaches a log.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ServerError {
    text: Arc<str>,
    code_len: usize,
}

/// Where the server starts to quote arguments.
const QUOTES: &str = ", with args beginning with:";

impl ServerError {
    /// Reads the text behind `-` or in a blob error.
    pub fn parse(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let text = text.split(QUOTES).next().unwrap_or_default().trim_end();
        let code = text.split(' ').next().unwrap_or_default();
        // A code is one upper-case word; text without one counts as `ERR`, as the server's own modules do.
        let is_code = !code.is_empty()
            && code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        if is_code {
            Self { code_len: code.len(), text: text.into() }
        } else {
            Self { code_len: 3, text: format!("ERR {text}").trim_end().into() }
        }
    }

    /// The first word: `ERR`, `WRONGTYPE`, `MOVED`, ...
    pub fn code(&self) -> &str {
        self.text.get(..self.code_len).unwrap_or_default()
    }

    /// What stands behind the code.
    pub fn detail(&self) -> &str {
        self.text.get(self.code_len..).unwrap_or_default().trim_start()
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerError({})", self.text)
    }
}

impl std::error::Error for ServerError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_detail_are_told_apart_and_arguments_are_cut_off() {
        let error = ServerError::parse(b"WRONGTYPE Operation against a key");
        assert_eq!((error.code(), error.detail()), ("WRONGTYPE", "Operation against a key"));
        assert_eq!(ServerError::parse(b"something odd").to_string(), "ERR something odd");
        let leak = ServerError::parse(b"ERR unknown command 'x', with args beginning with: 'secret' ");
        assert_eq!(leak.to_string(), "ERR unknown command 'x'");
        assert_eq!(ServerError::parse(b"EXECABORT").detail(), "");
        assert_eq!(ServerError::parse(b"").to_string(), "ERR");
    }
}
