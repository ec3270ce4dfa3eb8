//! The client against real servers that are really killed, failed over and resharded.

mod cluster;
mod load;
mod pubsub;
mod sentinel;
mod single;
