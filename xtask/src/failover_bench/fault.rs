//! What is done to a deployment, and which deployments and servers it can be done to.

use std::fmt;

use clap::ValueEnum;
use evenkeel_testkit::launcher::{Feature, ServerKind};

/// A deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Three sentinels, a primary, two replicas
    Sentinel,
    /// Three primaries with a replica each
    Cluster,
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// The primary is killed
    Sigkill,
    /// The primary crashes by DEBUG SEGFAULT
    Segfault,
    /// The primary is stopped: connections stay open, nothing answers
    Sigstop,
    /// The primary pauses all clients for 3 s (CLIENT PAUSE), and is in order
    Pause,
    /// SENTINEL FAILOVER, or CLUSTER FAILOVER
    PlannedFailover,
    /// SENTINEL FAILOVER ... COORDINATED
    PlannedCoordinated,
    /// FAILOVER, by the server itself
    PlannedServer,
    /// Slots are moved one by one, as redis-cli does
    Reshard,
    /// CLUSTER MIGRATESLOTS
    Migrateslots,
    /// CLUSTER MIGRATION IMPORT
    MigrationImport,
}

impl Fault {
    pub(crate) fn all_of(mode: Mode) -> Vec<Self> {
        Self::value_variants().iter().copied().filter(|fault| fault.is_of(mode)).collect()
    }

    fn is_of(self, mode: Mode) -> bool {
        match self {
            Self::Sigkill | Self::Segfault | Self::Sigstop | Self::Pause | Self::PlannedFailover => true,
            Self::PlannedCoordinated | Self::PlannedServer => mode == Mode::Sentinel,
            Self::Reshard | Self::Migrateslots | Self::MigrationImport => mode == Mode::Cluster,
        }
    }

    /// Whether this server can do it.
    pub(crate) fn is_in(self, mode: Mode, kind: &ServerKind) -> bool {
        let server = match self {
            Self::PlannedCoordinated => kind.has(Feature::CoordinatedFailover),
            Self::Migrateslots => kind.has(Feature::AtomicSlotMigration),
            Self::MigrationImport => kind.has(Feature::SlotImport),
            _ => true,
        };
        self.is_of(mode) && server && (mode == Mode::Cluster || kind.has(Feature::Sentinel))
    }

    /// Whether a deployment stands it several times in a row.
    pub(crate) fn is_repeatable(self, mode: Mode) -> bool {
        mode == Mode::Cluster && matches!(self, Self::PlannedFailover | Self::Pause) || self == Self::Pause
    }

    /// Whether another server takes the writes afterwards.
    pub(crate) fn changes_primary(self) -> bool {
        self != Self::Pause
    }

    /// Milliseconds after which a primary counts as down. One that pauses for 3 s is in order.
    pub(crate) fn timeout(self, mode: Mode) -> u64 {
        match (self, mode) {
            (Self::Pause, _) => 15_000,
            (_, Mode::Sentinel) => 500,
            (_, Mode::Cluster) => 1000,
        }
    }
}

fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name(self))
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name(self))
    }
}
