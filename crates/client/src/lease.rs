//! `Lease`: a connection of one's own.

use evenkeel_protocol::{Command, FromReply, ToArgs};

use crate::{
    batch::Batch,
    call::{Call, Target},
    client::Cmd,
    core,
    pipeline::Pipeline,
    transaction::{Transaction, Watched},
};

/// A connection that nobody else uses, until it is dropped.
///
/// ```no_run
/// # async fn run(client: &evenkeel_client::Client) -> Result<(), evenkeel_client::Error> {
/// let mut lease = client.lease().await?;
/// loop {
///     lease.watch(["stock"]).await?;
///     let stock: i64 = lease.get::<Option<i64>>("stock").await?.unwrap_or(0);
///     let sold: Option<(bool,)> = lease.transaction().set("stock", stock - 1).await?;
///     if sold.is_some() {
///         break;
///     }
/// }
/// # Ok(()) }
/// ```
///
/// A lease that is dropped while a reply is owed is drained or closed, never handed on dirty.
#[derive(Debug)]
pub struct Lease {
    conn: core::Lease,
}

impl Lease {
    pub(crate) fn new(conn: core::Lease) -> Self {
        Self { conn }
    }

    pub(crate) fn target(&mut self) -> Target<'_> {
        Target::Lease(&self.conn)
    }

    /// Any command by its name.
    pub fn cmd(&mut self, name: &str) -> Cmd<'_> {
        Cmd::new(self.target(), name)
    }

    /// Sends a command made elsewhere.
    pub fn send<T: FromReply>(&mut self, command: Command) -> Call<'_, T> {
        Call::new(self.target(), command)
    }

    /// Commands sent together, their replies as one tuple.
    pub fn pipeline(&mut self) -> Pipeline<'_> {
        Pipeline::new(self.target())
    }

    /// Commands sent together, their number known at run time only.
    pub fn batch(&mut self) -> Batch<'_> {
        Batch::new(self.target())
    }

    /// Makes the next transaction of this lease run only if none of the keys changes before it (`WATCH`).
    pub fn watch(&mut self, keys: impl ToArgs) -> Call<'_, ()> {
        Call::new(self.target(), Command::new("WATCH").args_from(keys))
    }

    /// Forgets all watched keys (`UNWATCH`).
    pub fn unwatch(&mut self) -> Call<'_, ()> {
        Call::new(self.target(), Command::new("UNWATCH"))
    }

    /// Commands that run together; `None` when a watched key has changed and nothing ran.
    pub fn transaction(&mut self) -> Transaction<'_, (), (), Watched> {
        Transaction::new(self.target())
    }
}
