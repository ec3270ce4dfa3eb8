//! A bounded record of the commands that came, in the order of each connection.

use std::{collections::VecDeque, fmt};

use bytes::Bytes;

use super::{conn::Conn, request::Args};

/// One command as it came. `Debug` shows its name and size, never its arguments.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recorded {
    /// The id of the connection.
    pub connection: u64,
    /// The address of the connection.
    pub address: usize,
    /// The how-manieth command of the connection it is, from 1.
    pub order: u64,
    /// Name and arguments. The arguments of AUTH and HELLO are left out.
    pub args: Vec<Bytes>,
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.args.first().map(|name| String::from_utf8_lossy(name));
        f.debug_struct("Recorded")
            .field("connection", &self.connection)
            .field("address", &self.address)
            .field("order", &self.order)
            .field("name", &name)
            .field("args", &self.args.len())
            .finish()
    }
}

#[derive(Debug, Default)]
pub(super) struct Record {
    /// 0 while nothing is recorded.
    capacity: usize,
    commands: VecDeque<Recorded>,
}

impl Record {
    /// Begins anew; the oldest commands go when more than `capacity` have come.
    pub(super) fn start(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.commands.clear();
    }

    pub(super) fn note(&mut self, conn: &Conn, args: Args<'_>) {
        if self.capacity == 0 {
            return;
        }
        if self.commands.len() == self.capacity {
            self.commands.pop_front();
        }
        let secret = args.is(0, "AUTH") || args.is(0, "HELLO");
        let shown = if secret { 1 } else { args.len() };
        self.commands.push_back(Recorded {
            connection: conn.id,
            address: conn.address,
            order: conn.commands,
            args: args.from(0).take(shown).map(Bytes::copy_from_slice).collect(),
        });
    }

    pub(super) fn commands(&self) -> Vec<Recorded> {
        self.commands.iter().cloned().collect()
    }
}
