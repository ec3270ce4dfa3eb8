//! Why a command of the automation failed, in words for the person at the terminal.

use std::fmt;

/// A failure, already in words.
#[derive(Debug)]
pub(crate) struct Failure(String);

/// What every step returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }

    /// Puts what was attempted before an error.
    pub(crate) fn of<E: fmt::Display>(attempted: &str) -> impl FnOnce(E) -> Self {
        move |error| Self(format!("{attempted}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
