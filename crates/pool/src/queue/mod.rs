//! What callers and the I/O task of a lane share: the append buffer, the completion slots, and who must wait.
//!
//! One short lock covers taking a completion slot and appending the bytes, so the order of bytes is the order of slots.
//! Everything here is plain data: it holds wakers but never waits, and the clock comes in as an argument.

mod batch;
mod completion;
mod order;
mod outcome;
mod queue_state;
mod unit;

pub(crate) use batch::{Batch, Sent};
pub use outcome::{Failure, Outcome};
pub(crate) use queue_state::{Append, Queue, QueueLimits, Ticket};
pub(crate) use unit::Unit;
