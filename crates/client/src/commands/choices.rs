//! Options that stand in the middle of a command, as values of their own.

use std::time::Duration;

use evenkeel_protocol::{Command, ToArg, ToArgs};

use super::args::millis;

/// An end of a list.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The front.
    Left,
    /// The back.
    Right,
}

impl ToArg for End {
    fn append_to(&self, command: &mut Command) {
        match self {
            Self::Left => "LEFT".append_to(command),
            Self::Right => "RIGHT".append_to(command),
        }
    }
}

/// Conditions of `ZADD`. Default: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct ZaddOptions {
    existing: Option<&'static str>,
    compare: Option<&'static str>,
    changed: bool,
}

impl ZaddOptions {
    /// No condition.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only adds members that are new.
    pub fn only_new(mut self) -> Self {
        self.existing = Some("NX");
        self
    }

    /// Only changes members that exist.
    pub fn only_existing(mut self) -> Self {
        self.existing = Some("XX");
        self
    }

    /// Changes a score only for a greater one; new members are added.
    pub fn only_greater(mut self) -> Self {
        self.compare = Some("GT");
        self
    }

    /// Changes a score only for a smaller one; new members are added.
    pub fn only_less(mut self) -> Self {
        self.compare = Some("LT");
        self
    }

    /// Counts members that were changed, not only new ones.
    pub fn changed(mut self) -> Self {
        self.changed = true;
        self
    }
}

impl ToArgs for ZaddOptions {
    fn append_all_to(&self, command: &mut Command) {
        for word in [self.existing, self.compare, self.changed.then_some("CH")].into_iter().flatten() {
            word.append_to(command);
        }
    }
}

/// Which entries of a stream are removed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Trim {
    by: &'static str,
    threshold: String,
    about: bool,
}

impl Trim {
    /// All but the newest `length` entries.
    pub fn max_len(length: u64) -> Self {
        Self { by: "MAXLEN", threshold: length.to_string(), about: false }
    }

    /// All entries before `id`.
    pub fn min_id(id: impl Into<String>) -> Self {
        Self { by: "MINID", threshold: id.into(), about: false }
    }

    /// A few more may stay, which costs the server much less. Default: exact.
    pub fn about(mut self) -> Self {
        self.about = true;
        self
    }
}

impl ToArgs for Trim {
    fn append_all_to(&self, command: &mut Command) {
        self.by.append_to(command);
        let sign = if self.about { "~" } else { "=" };
        sign.append_to(command);
        self.threshold.append_to(command);
    }
}

/// How many entries are read from streams, and whether to wait for them. Default: all of them, without waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct ReadOptions {
    count: Option<u64>,
    block: Option<Duration>,
    noack: bool,
}

impl ReadOptions {
    /// All entries, without waiting.
    pub fn new() -> Self {
        Self::default()
    }

    /// Entries of each stream at most. Default: all.
    pub fn count(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// Waits for entries when there are none; zero waits for ever. Default: no wait.
    pub fn block(mut self, wait: Duration) -> Self {
        self.block = Some(wait);
        self
    }

    /// Counts entries as done when they are delivered to the group. Default: they are owed until `xack`.
    pub fn noack(mut self) -> Self {
        self.noack = true;
        self
    }
}

impl ToArgs for ReadOptions {
    fn append_all_to(&self, command: &mut Command) {
        if let Some(count) = self.count {
            ("COUNT", count).append_all_to(command);
        }
        if let Some(wait) = self.block {
            ("BLOCK", millis(wait)).append_all_to(command);
        }
        if self.noack {
            "NOACK".append_to(command);
        }
    }
}
