//! The embedded server: against real servers, and in what only it does.

mod blocking;
mod cluster;
mod connection;
mod data;
mod maintenance;
mod moves;
mod outside;
mod peer;
mod pubsub;
mod same_as_redis;
