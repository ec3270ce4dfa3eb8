//! `Plan`: what happens in a scenario, and on which connections.

use std::time::Duration;

use crate::Failure;

/// What the announcement says of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Dead,
    Named,
    Null,
}

/// What happens, again and again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trouble {
    /// An address retires.
    Move { target: Target, flip_at: f64, copies: usize, withhold: Duration },
    /// An announced stall of all replies.
    Stall,
    /// Announcements that cannot be read.
    Bad,
}

/// The load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Commands at a pace.
    Paced,
    /// As fast as it goes, with leases, transactions, blocking commands and subscriptions at once.
    Full,
    /// None: connections that nobody uses.
    Idle,
}

/// A scenario on one kind of client.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) scenario: String,
    pub(crate) trouble: Trouble,
    pub(crate) load: Load,
    pub(crate) handoffs: usize,
    pub(crate) grace: Duration,
    /// A pool of so many connections; one lane otherwise.
    pub(crate) pool: Option<usize>,
    /// The client's own timeout.
    pub(crate) timeout: Duration,
}

/// Scenarios by name: what happens, under which load, how often, with which grace in seconds.
fn known(name: &str) -> Option<(Trouble, Load, usize, u64)> {
    let moving = |target, flip_at| Trouble::Move { target, flip_at, copies: 1, withhold: Duration::ZERO };
    let (named, null, dead) =
        (moving(Target::Named, 0.5), moving(Target::Null, 0.4), moving(Target::Dead, 0.5));
    let late = moving(Target::Null, 1.0);
    let repeated = Trouble::Move { target: Target::Named, flip_at: 0.5, copies: 5, withhold: Duration::ZERO };
    let cut = Trouble::Move {
        target: Target::Named,
        flip_at: 0.5,
        copies: 1,
        withhold: Duration::from_millis(100),
    };
    Some(match name {
        "a" => (named, Load::Paced, 20, 1),
        "b" => (null, Load::Paced, 20, 1),
        "b-late" => (late, Load::Paced, 6, 1),
        "c" => (Trouble::Stall, Load::Paced, 1, 3),
        "d" => (dead, Load::Paced, 2, 3),
        "e-dup" => (repeated, Load::Paced, 6, 1),
        "e-bad" => (Trouble::Bad, Load::Paced, 1, 1),
        "f" => (named, Load::Idle, 1, 3),
        "g" => (cut, Load::Paced, 6, 1),
        "full" => (named, Load::Full, 20, 1),
        _ => return None,
    })
}

impl Plan {
    /// Reads the arguments of `run`.
    pub(crate) fn read(arguments: &[String]) -> Result<Self, Failure> {
        let mut plan = None;
        let (mut pool, mut handoffs, mut grace) = (None, None, None);
        let mut rest = arguments.iter();
        while let (Some(name), Some(value)) = (rest.next(), rest.next()) {
            match name.as_str() {
                "--scenario" => plan = known(value).map(|known| (value.clone(), known)),
                "--on" => pool = if value == "lane" { None } else { Some(value.parse::<usize>()?) },
                "--handoffs" => handoffs = Some(value.parse()?),
                "--grace" => grace = Some(value.parse()?),
                _ => return Err(format!("unknown argument {name}").into()),
            }
        }
        let (scenario, (trouble, load, usual, seconds)) = plan.ok_or("no such scenario")?;
        let timeout = if trouble == Trouble::Stall { Duration::from_secs(1) } else { Duration::from_secs(5) };
        Ok(Self {
            scenario,
            trouble,
            load,
            handoffs: handoffs.unwrap_or(usual),
            grace: Duration::from_secs(grace.unwrap_or(seconds)),
            pool,
            timeout,
        })
    }

    /// The client's URL for a server.
    pub(crate) fn url(&self, server: &str) -> String {
        // Blocking commands and transactions under WATCH need leases beside the lanes.
        let (lanes, leases) = match (self.pool, self.load) {
            (None, Load::Idle) => (1, 20),
            (Some(size), Load::Idle) => (1, size),
            (None, _) => (1, 16),
            (Some(size), _) => (size, 16),
        };
        let millis = self.timeout.as_millis();
        format!("{server}?lanes={lanes}&max_leases={leases}&timeout={millis}ms")
    }
}
