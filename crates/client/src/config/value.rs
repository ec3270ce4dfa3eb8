//! How settings are read from text and written back.

use std::{num::NonZeroU16, time::Duration};

use super::{ProtocolVersion, ReadPolicy};

/// A value that stands in a URL's query.
pub(super) trait Value: Sized {
    /// What is expected, for the error.
    const EXPECTED: &'static str;

    fn parse(text: &str) -> Option<Self>;

    /// `None` when there is nothing to write.
    fn print(&self) -> Option<String>;
}

/// Zero is refused: a deadline of nothing would fail everything.
impl Value for Duration {
    const EXPECTED: &'static str = "a duration with its unit, such as 500ms or 10s";

    fn parse(text: &str) -> Option<Self> {
        humantime::parse_duration(text).ok().filter(|duration| !duration.is_zero())
    }

    fn print(&self) -> Option<String> {
        Some(humantime::format_duration(*self).to_string().replace(' ', ""))
    }
}

/// Nothing is written as `never`.
impl Value for Option<Duration> {
    const EXPECTED: &'static str = "never, or a duration with its unit, such as 500ms or 10s";

    fn parse(text: &str) -> Option<Self> {
        if text == "never" { Some(None) } else { Duration::parse(text).map(Some) }
    }

    fn print(&self) -> Option<String> {
        self.as_ref().map_or_else(|| Some("never".to_owned()), Value::print)
    }
}

impl Value for NonZeroU16 {
    const EXPECTED: &'static str = "a number from 1 to 65535";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn print(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for usize {
    const EXPECTED: &'static str = "a number";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn print(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for u32 {
    const EXPECTED: &'static str = "a number";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn print(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "true" | "1" | "yes" => Some(true),
            "false" | "0" | "no" => Some(false),
            _ => None,
        }
    }

    fn print(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// Without spaces and control characters, as the server wants names; not empty.
impl Value for Option<String> {
    const EXPECTED: &'static str = "a name without spaces";

    fn parse(text: &str) -> Option<Self> {
        let plain = !text.is_empty() && text.chars().all(|c| !c.is_whitespace() && !c.is_control());
        plain.then(|| Some(text.to_owned()))
    }

    fn print(&self) -> Option<String> {
        self.clone()
    }
}

impl Value for ProtocolVersion {
    const EXPECTED: &'static str = "2, 3 or auto";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "2" | "resp2" => Some(Self::Resp2),
            "3" | "resp3" => Some(Self::Resp3),
            "auto" => Some(Self::Auto),
            _ => None,
        }
    }

    fn print(&self) -> Option<String> {
        Some(
            match self {
                Self::Auto => "auto",
                Self::Resp2 => "2",
                Self::Resp3 => "3",
            }
            .to_owned(),
        )
    }
}

impl Value for ReadPolicy {
    const EXPECTED: &'static str = "primary, prefer_replica, nearest or zone";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "nearest" => Some(Self::Nearest),
            "prefer_replica" => Some(Self::PreferReplica),
            "primary" => Some(Self::Primary),
            "zone" => Some(Self::Zone),
            _ => None,
        }
    }

    fn print(&self) -> Option<String> {
        Some(
            match self {
                Self::Nearest => "nearest",
                Self::PreferReplica => "prefer_replica",
                Self::Primary => "primary",
                Self::Zone => "zone",
            }
            .to_owned(),
        )
    }
}
