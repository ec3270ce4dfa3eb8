//! What is wrong with a configuration, and where each part of it came from.

use std::{borrow::Cow, fmt};

/// Where an address or a secret came from.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// An announcement of maintenance.
    Announcement,
    /// A call of the builder.
    Builder,
    /// The map of a cluster.
    ClusterMap,
    /// Nothing was said, so the default is used.
    Default,
    /// Variables of the environment, which the words beside it name.
    Environment,
    /// A redirection by another node.
    Redirection,
    /// The answer of a sentinel.
    Sentinel,
    /// A URL given by the program.
    Url,
    /// An environment variable.
    Variable(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Announcement => "an announcement of maintenance",
            Self::Builder => "the builder",
            Self::ClusterMap => "the cluster's map",
            Self::Default => "the default",
            Self::Environment => "the environment",
            Self::Redirection => "a redirection",
            Self::Sentinel => "a sentinel",
            Self::Url => "the URL",
            Self::Variable(name) => name,
        })
    }
}

/// Why a configuration is none: the place, the part of it, and what was found there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigError {
    origin: Origin,
    part: Option<Cow<'static, str>>,
    problem: Problem,
}

/// What is wrong with one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// It contradicts something else.
    Conflict { with: Cow<'static, str> },
    /// Text that does not read as what it should be; secrets never get here.
    Expected { expected: Cow<'static, str>, found: String },
    /// A setting of the handoff engine; it names the key itself.
    Maintenance(evenkeel_hitless::ConfigError),
    /// It must be there.
    Missing { hint: &'static str },
    /// It stands there twice.
    Twice,
    /// A key that nobody knows.
    Unknown,
    /// What it says cannot be, whatever the value.
    Wrong { why: &'static str },
}

impl ConfigError {
    pub(crate) fn new(origin: Origin, problem: Problem) -> Self {
        Self { origin, part: None, problem }
    }

    /// About one part of the place, such as a key of the URL's query.
    pub(crate) fn in_part(origin: Origin, part: impl Into<Cow<'static, str>>, problem: Problem) -> Self {
        Self { origin, part: Some(part.into()), problem }
    }

    /// The same error, found in the text of another place: the URL of a variable.
    pub(crate) fn at(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }
}

impl Problem {
    pub(crate) fn expected(expected: impl Into<Cow<'static, str>>, found: &str) -> Self {
        Self::Expected { expected: expected.into(), found: shown(found) }
    }
}

/// Text as an error may show it: short, on one line, and nothing in front of an `@`, where passwords stand.
fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    let (hidden, rest) = match text.rsplit_once('@') {
        Some((_, rest)) => ("***@", rest),
        None => ("", text),
    };
    let mut out = String::from(hidden);
    for (count, character) in rest.chars().enumerate() {
        if count == LONGEST {
            out.push_str("...");
            break;
        }
        out.extend(character.escape_debug());
    }
    out
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if let Some(part) = &self.part {
            write!(f, "{part}: ")?;
        }
        match &self.problem {
            Problem::Conflict { with } => write!(f, "contradicts {with}"),
            Problem::Expected { expected, found } => {
                write!(f, "expected {expected}, found \"{found}\"")
            }
            Problem::Maintenance(error) => fmt::Display::fmt(error, f),
            Problem::Missing { hint } => write!(f, "missing or empty, {hint}"),
            Problem::Twice => f.write_str("given twice"),
            Problem::Unknown => f.write_str("unknown setting"),
            Problem::Wrong { why } => f.write_str(why),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Something about a configuration that works and is probably not what was meant. The client logs each once.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A variable that the chosen mode does not use.
    OtherMode {
        /// The variable.
        variable: &'static str,
        /// The mode in force.
        mode: &'static str,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherMode { variable, mode } => {
                write!(f, "{variable} is set and not used: REDIS_MODE is {mode}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_holds_no_password_and_no_line_end() {
        assert_eq!(shown("redis://:p@ss@host"), "***@host");
        assert_eq!(shown("a\nb"), "a\\nb");
        assert_eq!(shown(&"x".repeat(500)).len(), 83);
    }

    #[test]
    fn place_part_and_problem_are_named() {
        let error = ConfigError::in_part(Origin::Url, "`lanes`", Problem::expected("a number", "x"));
        assert_eq!(error.to_string(), "the URL: `lanes`: expected a number, found \"x\"");
        assert_eq!(
            error.at(Origin::Variable("REDIS_URL")).to_string(),
            "REDIS_URL: `lanes`: expected a number, found \"x\""
        );
    }
}
