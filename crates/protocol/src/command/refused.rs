//! What a shared connection must not be asked: commands that change the connection, or its count of replies.

use super::Command;

/// Why a lane refuses a command, and what to call instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{command} cannot run on a shared connection: {instead}")]
pub struct LaneRefusal {
    /// The command refused.
    pub command: &'static str,
    /// The right call.
    pub instead: &'static str,
}

const SUBSCRIBE: &str = "use `client.subscribe`, `psubscribe` or `ssubscribe`";
const LEASE: &str = "take a connection of your own with `client.lease()`";
const TRANSACTION: &str = "use `client.transaction()`, or a lease when WATCH is needed";
const CONFIGURED: &str = "set it in the URL or the builder; every connection of the client is the same";
const ROUTED: &str = "the client sends it by itself where it is needed";
const WITH_WRITES: &str =
    "it speaks of earlier writes of the same connection: put it in a pipeline behind them, or use a lease";

/// The list; a name with a space is a subcommand.
pub(super) const REFUSED: &[LaneRefusal] = &[
    refuse("ASKING", ROUTED),
    refuse("AUTH", CONFIGURED),
    refuse("CLIENT CACHING", LEASE),
    refuse("CLIENT REPLY", LEASE),
    refuse("CLIENT SETNAME", CONFIGURED),
    refuse("CLIENT TRACKING", LEASE),
    refuse("DISCARD", TRANSACTION),
    refuse("EXEC", TRANSACTION),
    refuse("HELLO", CONFIGURED),
    refuse("MONITOR", LEASE),
    refuse("MULTI", TRANSACTION),
    refuse("PSUBSCRIBE", SUBSCRIBE),
    refuse("PSYNC", LEASE),
    refuse("PUNSUBSCRIBE", SUBSCRIBE),
    refuse("QUIT", "use `client.close`"),
    refuse("READONLY", ROUTED),
    refuse("READWRITE", ROUTED),
    refuse("RESET", LEASE),
    refuse("SELECT", CONFIGURED),
    refuse("SSUBSCRIBE", SUBSCRIBE),
    refuse("SUBSCRIBE", SUBSCRIBE),
    refuse("SUNSUBSCRIBE", SUBSCRIBE),
    refuse("SYNC", LEASE),
    refuse("UNSUBSCRIBE", SUBSCRIBE),
    refuse("UNWATCH", TRANSACTION),
    refuse("WAIT", WITH_WRITES),
    refuse("WAITAOF", WITH_WRITES),
    refuse("WATCH", TRANSACTION),
];

/// Whether two names are the same, when compiling.
#[expect(clippy::indexing_slicing, reason = "the loop stays below both lengths")]
pub(super) const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut index = 0;
    while index < a.len() {
        if a[index] != b[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// Whether a name is on the list, when compiling.
#[expect(clippy::indexing_slicing, reason = "the loop stays below the length")]
pub(super) const fn is_refused(name: &str) -> bool {
    let mut index = 0;
    while index < REFUSED.len() {
        if same(REFUSED[index].command, name) {
            return true;
        }
        index += 1;
    }
    false
}

const fn refuse(command: &'static str, instead: &'static str) -> LaneRefusal {
    LaneRefusal { command, instead }
}

impl LaneRefusal {
    /// Every refusal there is.
    pub fn all() -> &'static [Self] {
        REFUSED
    }

    /// The refusal of this command, if a lane must not carry it.
    pub fn of(command: &Command) -> Option<Self> {
        // One look at the flags settles it for nearly every command.
        if command.spec.is_none_or(|spec| !spec.is_refused_on_lane() && !spec.is_container()) {
            return None;
        }
        let mut args = command.args();
        let name = args.next()?;
        let second = args.next();
        REFUSED.iter().copied().find(|refused| match refused.command.split_once(' ') {
            None => refused.command.as_bytes().eq_ignore_ascii_case(name),
            Some((container, subcommand)) => {
                container.as_bytes().eq_ignore_ascii_case(name)
                    && second.is_some_and(|second| subcommand.as_bytes().eq_ignore_ascii_case(second))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entry_is_refused_in_any_case_and_others_are_not() {
        for refused in REFUSED {
            let mut words = refused.command.split(' ');
            let mut command = Command::new(&words.next().unwrap().to_lowercase());
            for word in words {
                command = command.arg(word);
            }
            assert_eq!(LaneRefusal::of(&command.arg("x")), Some(*refused), "{}", refused.command);
        }
        assert_eq!(LaneRefusal::of(&Command::new("GET").key("MULTI")), None);
        assert_eq!(LaneRefusal::of(&Command::new("CLIENT").arg("ID")), None);
    }
}
