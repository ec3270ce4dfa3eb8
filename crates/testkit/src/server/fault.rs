//! `Fault`: why a command is refused, in the words of real servers.

use std::borrow::Cow;

/// The text of an error reply, its code included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault(pub(super) Cow<'static, str>);

impl Fault {
    const fn of(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    pub(super) const WRONG_TYPE: Self =
        Self::of("WRONGTYPE Operation against a key holding the wrong kind of value");
    pub(super) const SYNTAX: Self = Self::of("ERR syntax error");
    pub(super) const NOT_INTEGER: Self = Self::of("ERR value is not an integer or out of range");
    pub(super) const NOT_FLOAT: Self = Self::of("ERR value is not a valid float");
    pub(super) const NO_SUCH_KEY: Self = Self::of("ERR no such key");
    pub(super) const OVERFLOW: Self = Self::of("ERR increment or decrement would overflow");
    pub(super) const NAN: Self = Self::of("ERR increment would produce NaN or Infinity");
    pub(super) const DB_INDEX: Self = Self::of("ERR DB index is out of range");
    pub(super) const NO_SCRIPT: Self = Self::of("NOSCRIPT No matching script. Please use EVAL.");
    pub(super) const OUT_OF_RANGE: Self = Self::of("ERR value is out of range, must be positive");
    pub(super) const WRONG_PASS: Self =
        Self::of("WRONGPASS invalid username-password pair or user is disabled.");

    pub(super) fn arity(name: &str) -> Self {
        Self(format!("ERR wrong number of arguments for '{}' command", name.to_ascii_lowercase()).into())
    }

    pub(super) fn invalid_expire(name: &str) -> Self {
        Self(format!("ERR invalid expire time in '{}' command", name.to_ascii_lowercase()).into())
    }
}

impl From<&'static str> for Fault {
    fn from(text: &'static str) -> Self {
        Self::of(text)
    }
}

impl From<String> for Fault {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}
