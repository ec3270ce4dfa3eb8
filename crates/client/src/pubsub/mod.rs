//! Publish and subscribe: who wants what, and what each subscriber has yet to read.
//!
//! The wanted set belongs to the [`Registry`], which knows no connection. The machinery takes [`Changes`] from it, sends
//! them on whichever link it likes, and hands in what the server says: confirmations, messages, losses.

mod delivery;
mod registry;
mod subscriber;
mod subscription;
mod switchboard;

pub use delivery::Delivery;
pub(crate) use registry::{Changes, Family};
pub use subscription::{Subscribing, Subscription};
pub(crate) use switchboard::PubSub;
