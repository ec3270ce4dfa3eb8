//! The command table: names, arities, flags, keys, and the function that runs each.

#![expect(clippy::unnecessary_wraps, reason = "every command has one signature")]

mod client;
mod cluster;
mod connection;
mod generic;
mod hashes;
mod lists;
mod number;
pub(super) mod pubsub;
mod scan;
mod scripting;
mod server;
mod sets;
mod streams;
mod strings;
mod table;
mod tracking;
mod transactions;
mod zsets;

use std::{borrow::Cow, sync::LazyLock};

use super::{
    conn::{Conn, ConnKey},
    engine::Engine,
    fault::Fault,
    out::Out,
    request::Args,
};

pub(super) use number::integer;

/// What a command works on.
pub(super) struct Ctx<'a> {
    pub(super) engine: &'a mut Engine,
    pub(super) out: &'a mut Out,
    pub(super) key: ConnKey,
    pub(super) db: usize,
    /// It must not block: it runs inside EXEC or a script.
    pub(super) at_once: bool,
}

impl Ctx<'_> {
    /// The connection that asked.
    pub(super) fn conn(&mut self) -> &mut Conn {
        #[expect(clippy::indexing_slicing, reason = "a connection stays in the slab while its command runs")]
        &mut self.engine.conns[self.key]
    }
}

type Run = fn(&mut Ctx<'_>, Args<'_>) -> Result<(), Fault>;

pub(super) const WRITE: u16 = 1;
pub(super) const READ: u16 = 1 << 1;
pub(super) const FAST: u16 = 1 << 2;
pub(super) const ADMIN: u16 = 1 << 3;
pub(super) const PUBSUB: u16 = 1 << 4;
pub(super) const NO_AUTH: u16 = 1 << 5;
pub(super) const BLOCKING: u16 = 1 << 7;
/// It runs at once although a transaction is being queued.
pub(super) const IN_MULTI: u16 = 1 << 8;
/// It runs on a RESP2 connection that has subscribed.
pub(super) const SUBSCRIBED: u16 = 1 << 9;
pub(super) const MOVABLE: u16 = 1 << 10;
pub(super) const DENY_OOM: u16 = 1 << 11;
pub(super) const NO_SCRIPT: u16 = 1 << 12;
pub(super) const LOADING: u16 = 1 << 13;
pub(super) const STALE: u16 = 1 << 14;
/// It does not write, yet a pause of writes holds it.
pub(super) const MAY_REPLICATE: u16 = 1 << 15;

/// One row of the table.
#[derive(Debug)]
pub(super) struct Command {
    /// In upper case; a subcommand without its container.
    name: &'static str,
    container: Option<&'static str>,
    /// Arguments with the name, negative for "at least".
    arity: i16,
    flags: u16,
    /// First key, last key, step.
    keys: (i16, i16, i16),
    run: Run,
    subcommands: &'static [Self],
}

impl Command {
    pub(super) const fn new(
        name: &'static str,
        arity: i16,
        flags: u16,
        keys: (i16, i16, i16),
        run: Run,
    ) -> Self {
        Self { name, container: None, arity, flags, keys, run, subcommands: &[] }
    }

    /// A subcommand.
    pub(super) const fn sub(
        container: &'static str,
        name: &'static str,
        arity: i16,
        flags: u16,
        run: Run,
    ) -> Self {
        Self { name, container: Some(container), arity, flags, keys: (0, 0, 0), run, subcommands: &[] }
    }

    /// A command that only leads to its subcommands.
    pub(super) const fn container(name: &'static str, subcommands: &'static [Self]) -> Self {
        Self {
            name,
            container: None,
            arity: -2,
            flags: 0,
            keys: (0, 0, 0),
            run: |_, _| Err(Fault::SYNTAX),
            subcommands,
        }
    }

    pub(super) const fn on_keys(mut self, first: i16, last: i16, step: i16) -> Self {
        self.keys = (first, last, step);
        self
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn run(&self) -> Run {
        self.run
    }

    /// As in `client|id`, in upper case.
    pub(super) fn full_name(&self) -> Cow<'static, str> {
        match self.container {
            Some(container) => format!("{container}|{}", self.name).into(),
            None => self.name.into(),
        }
    }

    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn needs_no_auth(&self) -> bool {
        self.has(NO_AUTH)
    }

    pub(super) fn runs_in_multi(&self) -> bool {
        self.has(IN_MULTI)
    }

    pub(super) fn runs_while_subscribed(&self) -> bool {
        self.has(SUBSCRIBED)
    }

    pub(super) fn is_barred_in_scripts(&self) -> bool {
        self.has(NO_SCRIPT)
    }

    /// A pause of writes holds it.
    pub(super) fn writes(&self) -> bool {
        self.has(WRITE | MAY_REPLICATE)
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.has(READ)
    }

    /// The keys among the arguments.
    pub(super) fn keys_of<'a>(&self, args: Args<'a>) -> Vec<&'a [u8]> {
        if self.has(MOVABLE) {
            let counted = |at: usize| {
                let count = integer(args.at(at)).and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
                args.from(at + 1).take(count).collect()
            };
            return match self.name {
                "EVAL" | "EVALSHA" => counted(2),
                _ => match args.from(0).position(|arg| arg.eq_ignore_ascii_case(b"STREAMS")) {
                    Some(at) => args.from(at + 1).take((args.len() - at - 1) / 2).collect(),
                    None => Vec::new(),
                },
            };
        }
        let (first, last, step) = self.keys;
        let (Ok(first), Ok(step)) = (usize::try_from(first), usize::try_from(step)) else {
            return Vec::new();
        };
        if first == 0 || step == 0 {
            return Vec::new();
        }
        let last = match usize::try_from(last) {
            Ok(last) => last,
            Err(_negative) => args.len().saturating_sub(usize::from(last.unsigned_abs())),
        };
        (first..=last).step_by(step).filter_map(|at| args.get(at)).collect()
    }

    fn fits(&self, count: usize) -> bool {
        let least = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { count >= least } else { count == least }
    }
}

/// All commands, by name.
static TABLE: LazyLock<Vec<&'static Command>> = LazyLock::new(|| {
    let mut table: Vec<&Command> = [
        client::COMMANDS,
        cluster::COMMANDS,
        connection::COMMANDS,
        generic::COMMANDS,
        hashes::COMMANDS,
        lists::COMMANDS,
        pubsub::COMMANDS,
        scan::COMMANDS,
        scripting::COMMANDS,
        server::COMMANDS,
        sets::COMMANDS,
        streams::COMMANDS,
        strings::COMMANDS,
        table::COMMANDS,
        transactions::COMMANDS,
        zsets::COMMANDS,
    ]
    .into_iter()
    .flatten()
    .collect();
    table.sort_by_key(|command| command.name);
    table
});

/// What the table says of a command.
#[derive(Debug)]
pub(super) enum Lookup {
    Found(&'static Command),
    Refused(Fault),
}

impl Lookup {
    pub(super) fn of(args: Args<'_>) -> Self {
        let name = args.at(0);
        let mut upper = [0_u8; 24];
        let found = upper.get_mut(..name.len()).and_then(|upper| {
            upper.copy_from_slice(name);
            upper.make_ascii_uppercase();
            let upper: &[u8] = upper;
            let at = TABLE.binary_search_by(|command| command.name.as_bytes().cmp(upper)).ok()?;
            TABLE.get(at).copied()
        });
        let Some(command) = found else { return Self::Refused(unknown(args)) };
        if !command.fits(args.len()) {
            return Self::Refused(Fault::arity(command.name));
        }
        if command.subcommands.is_empty() || args.len() == 1 {
            return Self::Found(command);
        }
        let Some(sub) = command.subcommands.iter().find(|sub| args.is(1, sub.name)) else {
            return Self::Refused(unknown_subcommand(args));
        };
        if sub.fits(args.len()) { Self::Found(sub) } else { Self::Refused(Fault::arity(&sub.full_name())) }
    }

    pub(super) fn command(&self) -> Option<&'static Command> {
        match self {
            Self::Found(command) => Some(command),
            Self::Refused(_) => None,
        }
    }
}

/// The words of real servers; they cut names and arguments at 128 bytes.
fn unknown(args: Args<'_>) -> Fault {
    let cut = |arg: &[u8]| String::from_utf8_lossy(arg.get(..128).unwrap_or(arg)).into_owned();
    let mut list = String::new();
    for arg in args.from(1) {
        if list.len() >= 128 {
            break;
        }
        list.extend(["'", &cut(arg), "' "]);
    }
    format!("ERR unknown command '{}', with args beginning with: {list}", cut(args.at(0))).into()
}

pub(super) fn unknown_subcommand(args: Args<'_>) -> Fault {
    let container = args.text(0).to_ascii_uppercase();
    let name: String = args.text(1).chars().take(128).collect();
    format!("ERR unknown subcommand '{name}'. Try {container} HELP.").into()
}
