//! `Unit`: commands that stay together, and the slot that orders them.

use evenkeel_protocol::{Command, Slot};

/// Stands for commands without a key: they keep their order among themselves.
const NO_SLOT: u16 = u16::MAX;

/// Stands for units whose commands have different slots: nothing may pass them, and they pass nothing.
pub(super) const MANY_SLOTS: u16 = u16::MAX - 1;

/// Commands that stay together on the wire, with what the queue must know of them: found out before its lock is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit<'a> {
    pub(super) commands: &'a [Command],
    pub(super) len: usize,
    pub(super) slot: u16,
    pub(super) marks: Marks,
}

impl<'a> Unit<'a> {
    #[inline]
    pub(crate) fn of(commands: &'a [Command]) -> Self {
        // Nearly all are alone.
        if let [command] = commands {
            let slot = command.slot().map_or(NO_SLOT, Slot::number);
            return Self { commands, len: command.encoded_len(), slot, marks: Marks::of(commands) };
        }
        Self {
            commands,
            len: commands.iter().map(Command::encoded_len).sum(),
            slot: slot_of(commands),
            marks: Marks::of(commands),
        }
    }
}

/// What a unit may do, and what may be done with it; one byte, so that a place is no larger than it must be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks(u8);

impl Marks {
    const WRITES: u8 = 1;
    const RESENDABLE: u8 = 1 << 1;

    fn of(commands: &[Command]) -> Self {
        let writes = if commands.iter().any(Command::may_write) { Self::WRITES } else { 0 };
        let resendable = if commands.iter().all(Command::may_run_twice) { Self::RESENDABLE } else { 0 };
        Self(writes | resendable)
    }

    pub(super) fn may_write(self) -> bool {
        self.0 & Self::WRITES != 0
    }

    pub(super) fn may_resend(self) -> bool {
        self.0 & Self::RESENDABLE != 0
    }

    pub(super) fn without_resend(self) -> Self {
        Self(self.0 & !Self::RESENDABLE)
    }
}

/// The slot that orders a unit.
fn slot_of(unit: &[Command]) -> u16 {
    // A transaction belongs to the slot of what it holds.
    let whole = unit.len() > 1;
    let mut slots = unit
        .iter()
        .filter(|command| !(whole && command.is_bracket()))
        .map(|command| command.slot().map_or(NO_SLOT, Slot::number));
    let first = slots.next().unwrap_or(NO_SLOT);
    if slots.all(|slot| slot == first) { first } else { MANY_SLOTS }
}
