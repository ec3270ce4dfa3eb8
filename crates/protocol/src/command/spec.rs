//! `Spec`: what is known of a command before it is sent.

use super::generated::SPECS;

pub(super) const WRITE: u16 = 1;
pub(super) const READ_ONLY: u16 = 1 << 1;
pub(super) const BLOCKING: u16 = 1 << 2;
pub(super) const MOVABLE_KEYS: u16 = 1 << 3;
pub(super) const PUBSUB: u16 = 1 << 4;
pub(super) const ADMIN: u16 = 1 << 5;
pub(super) const CONTAINER: u16 = 1 << 6;
pub(super) const MAY_REPLICATE: u16 = 1 << 7;
/// A lane refuses it by its name alone.
const REFUSED_ON_LANE: u16 = 1 << 8;
/// It runs a script or a function that may write.
const SCRIPT: u16 = 1 << 9;

/// Which nodes of a cluster a command without keys goes to (command tips, `request_policy`).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Every node, replicas included.
    AllNodes,
    /// Every primary.
    AllShards,
    /// Any node, or the one that owns the keys.
    Default,
    /// Split by slot.
    MultiShard,
    /// As its own page says.
    Special,
}

/// How answers of several nodes become one (command tips, `response_policy`).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// True when all are.
    AggLogicalAnd,
    /// True when one is.
    AggLogicalOr,
    /// The largest.
    AggMax,
    /// The smallest.
    AggMin,
    /// The sum.
    AggSum,
    /// The first error, or one answer.
    AllSucceeded,
    /// All answers joined.
    Default,
    /// The first that succeeds.
    OneSucceeded,
    /// As its own page says.
    Special,
}

/// What the servers' `COMMAND` output says of one command.
#[derive(Debug, PartialEq, Eq)]
pub struct Spec {
    name: &'static str,
    flags: u16,
    keys: (i16, i16, i16),
    request: Request,
    response: Response,
}

impl Spec {
    pub(super) const fn new(
        name: &'static str,
        flags: u16,
        keys: (i16, i16, i16),
        request: Request,
        response: Response,
    ) -> Self {
        let refused = if super::refused::is_refused(name) { REFUSED_ON_LANE } else { 0 };
        let same = super::refused::same;
        let script = same(name, "EVAL") || same(name, "EVALSHA") || same(name, "FCALL");
        let script = if script { SCRIPT } else { 0 };
        Self { name, flags: flags | refused | script, keys, request, response }
    }

    /// The command by its upper-case name, when compiling.
    ///
    /// # Panics
    /// When there is none: the build fails.
    #[doc(hidden)]
    pub const fn known(name: &str) -> &'static Self {
        let mut index = 0;
        while index < SPECS.len() {
            #[expect(clippy::indexing_slicing, reason = "the loop stays below the length")]
            let spec = &SPECS[index];
            if super::refused::same(spec.name, name) {
                return spec;
            }
            index += 1;
        }
        #[expect(
            clippy::panic,
            reason = "evaluated when compiling: a name that the table does not have fails the build"
        )]
        {
            panic!("no such command in the table")
        }
    }

    /// A lane refuses it by its name alone; of containers some subcommands are refused too.
    pub fn is_refused_on_lane(&self) -> bool {
        self.flags & REFUSED_ON_LANE != 0
    }

    /// It runs a script or a function that may write before it fails.
    pub fn is_script(&self) -> bool {
        self.flags & SCRIPT != 0
    }

    /// A lane takes it as it is, whatever its arguments say.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.flags & (REFUSED_ON_LANE | BLOCKING | CONTAINER | SCRIPT) == 0
    }

    /// The command by name, in whatever case; a subcommand as `CLIENT ID`.
    pub fn find(name: &str) -> Option<&'static Self> {
        SPECS.binary_search_by(|spec| compare(spec.name, name)).ok().and_then(|index| SPECS.get(index))
    }

    /// Its name in upper case.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// It only reads: running it twice harms nobody.
    pub fn is_read_only(&self) -> bool {
        self.flags & READ_ONLY != 0
    }

    /// It may change data or tell subscribers: a failover's hold stops it.
    pub fn may_write(&self) -> bool {
        self.flags & (WRITE | MAY_REPLICATE) != 0
    }

    /// It may wait on the server; it runs on a lease.
    pub fn is_blocking(&self) -> bool {
        self.flags & BLOCKING != 0
    }

    /// It has subcommands.
    pub fn is_container(&self) -> bool {
        self.flags & CONTAINER != 0
    }

    /// Where its keys stand depends on other arguments.
    pub fn has_movable_keys(&self) -> bool {
        self.flags & MOVABLE_KEYS != 0
    }

    /// It belongs to publish and subscribe.
    pub fn is_pubsub(&self) -> bool {
        self.flags & PUBSUB != 0
    }

    /// It administers the server.
    pub fn is_admin(&self) -> bool {
        self.flags & ADMIN != 0
    }

    /// First key, last key (negative from the end) and step, as `COMMAND` gives them; 0 first means none.
    pub fn keys(&self) -> (i16, i16, i16) {
        self.keys
    }

    /// Which nodes it goes to.
    pub fn request(&self) -> Request {
        self.request
    }

    /// How several answers become one.
    pub fn response(&self) -> Response {
        self.response
    }
}

/// Orders an upper-case name against one of any case.
fn compare(known: &str, asked: &str) -> std::cmp::Ordering {
    known.bytes().cmp(asked.bytes().map(|byte| byte.to_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_found_in_any_case() {
        assert!(SPECS.is_sorted_by(|a, b| a.name < b.name));
        assert_eq!(Spec::find("get").unwrap().name(), "GET");
        assert!(Spec::find("client id").is_some());
        assert!(Spec::find("BLPOP").unwrap().is_blocking());
        assert!(Spec::find("GET").unwrap().is_read_only());
        assert!(Spec::find("SET").unwrap().may_write());
        assert!(Spec::find("PUBLISH").unwrap().may_write());
        assert!(Spec::find("NO SUCH").is_none());
    }
}
