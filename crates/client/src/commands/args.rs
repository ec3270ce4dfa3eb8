//! Arguments that are more than one: pairs, counted lists, times.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use evenkeel_protocol::{Command, ToArg, ToArgs};

/// Pairs of arguments: fields and values, scores and members, keys and values.
///
/// Implemented for arrays, slices and vectors of pairs, and for maps.
pub trait ToPairs {
    /// Appends the pairs to `command`.
    fn append_pairs_to(&self, command: &mut Command);
}

impl<A: ToArg, B: ToArg> ToPairs for [(A, B)] {
    fn append_pairs_to(&self, command: &mut Command) {
        for (a, b) in self {
            a.append_to(command);
            b.append_to(command);
        }
    }
}

impl<A: ToArg, B: ToArg, const N: usize> ToPairs for [(A, B); N] {
    fn append_pairs_to(&self, command: &mut Command) {
        self.as_slice().append_pairs_to(command);
    }
}

impl<A: ToArg, B: ToArg> ToPairs for Vec<(A, B)> {
    fn append_pairs_to(&self, command: &mut Command) {
        self.as_slice().append_pairs_to(command);
    }
}

impl<K: ToArg, V: ToArg> ToPairs for BTreeMap<K, V> {
    fn append_pairs_to(&self, command: &mut Command) {
        for (a, b) in self {
            a.append_to(command);
            b.append_to(command);
        }
    }
}

impl<K: ToArg, V: ToArg, S> ToPairs for HashMap<K, V, S> {
    #[expect(clippy::iter_over_hash_type, reason = "the caller chose a map without order")]
    fn append_pairs_to(&self, command: &mut Command) {
        for (a, b) in self {
            a.append_to(command);
            b.append_to(command);
        }
    }
}

/// One pair.
impl<A: ToArg, B: ToArg> ToPairs for (A, B) {
    fn append_pairs_to(&self, command: &mut Command) {
        self.0.append_to(command);
        self.1.append_to(command);
    }
}

impl<T: ToPairs + ?Sized> ToPairs for &T {
    fn append_pairs_to(&self, command: &mut Command) {
        (**self).append_pairs_to(command);
    }
}

/// What a command is given, in the order of its words.
pub(super) trait With: Sized {
    fn pairs(self, pairs: impl ToPairs) -> Self;

    /// A list with its length in front.
    fn counted(self, args: impl ToArgs) -> Self;
}

impl With for Command {
    fn pairs(mut self, pairs: impl ToPairs) -> Self {
        pairs.append_pairs_to(&mut self);
        self
    }

    fn counted(self, args: impl ToArgs) -> Self {
        // Only the list knows how long it is, so it is written once to be counted.
        let count = Self::new("").args_from(&args).args().count().saturating_sub(1);
        self.arg(count).args_from(args)
    }
}

/// A wait as the server wants it, in seconds; zero waits for ever.
pub(super) fn seconds(wait: Duration) -> f64 {
    wait.as_secs_f64()
}

/// A wait in milliseconds, rounded up so that a short one does not become zero, which waits for ever.
pub(super) fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_lists_begin_with_their_length() {
        let words = |command: Command| -> Vec<String> {
            command.args().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
        };
        assert_eq!(words(Command::new("X").counted(["a", "b"])), ["X", "2", "a", "b"]);
        assert_eq!(words(Command::new("X").counted("one")), ["X", "1", "one"]);
        assert_eq!(words(Command::new("X").counted(Vec::<String>::new())), ["X", "0"]);
        assert_eq!(words(Command::new("X").pairs([("f", 1), ("g", 2)])), ["X", "f", "1", "g", "2"]);
        assert_eq!(words(Command::new("X").pairs(("f", 1))), ["X", "f", "1"]);
    }

    #[test]
    fn a_short_wait_is_not_for_ever() {
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert_eq!(millis(Duration::from_millis(1500)), 1500);
        assert_eq!(millis(Duration::ZERO), 0);
    }
}
