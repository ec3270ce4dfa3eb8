//! The rows of the table and their runtimes.

use std::fmt;

use crate::failure::{Failure, Outcome};

/// Rows without their runtimes, in the order of the table.
const NAMES: [&str; 10] = [
    "get64-1",
    "get64-64",
    "get64-512",
    "set1k-64",
    "pipe100",
    "mget100",
    "hgetall1000",
    "get1m",
    "pubsub",
    "burst100k",
];

/// Which runtime of tokio a client runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runtime {
    /// Multi-thread, one worker.
    One,
    /// Multi-thread, two workers.
    Two,
    /// Current-thread.
    Current,
}

impl Runtime {
    pub(super) const ALL: [Self; 3] = [Self::One, Self::Two, Self::Current];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::One => "mt1",
            Self::Two => "mt2",
            Self::Current => "ct",
        }
    }
}

/// One row on one runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    name: &'static str,
    runtime: Runtime,
}

impl Row {
    /// Its name without the runtime.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn runtime(&self) -> Runtime {
        self.runtime
    }

    pub(super) fn is_burst(&self) -> bool {
        self.name == "burst100k"
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.name, self.runtime.name())
    }
}

/// The rows that were asked for, in the order of the table; all of them when none was named.
pub(super) fn choose(wanted: &[String]) -> Outcome<Vec<Row>> {
    let all: Vec<Row> =
        NAMES.iter().flat_map(|name| Runtime::ALL.map(|runtime| Row { name, runtime })).collect();
    if wanted.is_empty() {
        return Ok(all);
    }
    let names = |row: &Row, word: &str| row.name == word || row.to_string() == word;
    if let Some(unknown) = wanted.iter().find(|word| !all.iter().any(|row| names(row, word))) {
        let known = NAMES.join(", ");
        return Err(Failure::new(format!(
            "no row is named {unknown}; there are {known}, each alone or with -mt1, -mt2 or -ct"
        )));
    }
    Ok(all.into_iter().filter(|row| wanted.iter().any(|word| names(row, word))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(words: &[&str]) -> Vec<String> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        choose(&words).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_row_is_named_with_its_runtime_or_for_all_three() {
        assert_eq!(chosen(&["get64-64"]), ["get64-64-mt1", "get64-64-mt2", "get64-64-ct"]);
        assert_eq!(chosen(&["pubsub-ct", "get64-1-mt2"]), ["get64-1-mt2", "pubsub-ct"]);
        assert_eq!(chosen(&[]).len(), 30);
        assert!(choose(&["get64".to_owned()]).is_err());
        assert!(choose(&["get64-64-mt3".to_owned()]).is_err());
    }
}
