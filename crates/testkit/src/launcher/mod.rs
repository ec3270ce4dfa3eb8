//! Starts real servers: a single one, a Sentinel trio with replicas, a Cluster with replicas.
//!
//! It speaks to them with a small client of its own, so that what is tested is never its own yardstick,
//! and it needs no `redis-cli`. Every process has its own folder with its configuration and log, listens on
//! a loopback port that stays reserved while the guard lives, and ends with the guard: by pid, SIGTERM
//! first and SIGKILL after half a second. Where `setpriv` is installed (it is part of every Debian) the kernel also
//! ends them when the test process itself is killed. The folders are removed unless the test panics;
//! then they stay, and their path is printed.
//!
//! ```no_run
//! use evenkeel_testkit::launcher::{SentinelOptions, SentinelTrio, for_each_server};
//!
//! # async fn shown() {
//! for_each_server("a_failover_elects_a_replica", |kind| async move {
//!     let trio = SentinelTrio::start(&kind, SentinelOptions::default()).await.unwrap();
//!     let old = trio.primary().await.unwrap();
//!     trio.nodes().kill(old).await.unwrap();
//!     let new = trio.wait_for_new_primary(old).await.unwrap();
//!     assert_ne!(old, new);
//! })
//! .await;
//! # }
//! ```
//!
//! # Which servers
//!
//! | variable | meaning |
//! |---|---|
//! | `EVENKEEL_TEST_SERVERS` | paths of server programs, joined by `:`; exactly these are used; set and empty means none, and tests that need one are counted as skipped |
//! | `EVENKEEL_REDIS_SERVER` | one more server program, the first one asked when the list above is unset |
//! | `EVENKEEL_SERVERS_DIR` | folder of `*/bin/server` programs; default: `target/servers` of the nearest parent folder |
//! | `EVENKEEL_TEST_LEDGER` | file to which each test appends what it ran on: `ran` or `skipped`, server, version, test, reason, separated by tabs |
//! | `EVENKEEL_TEST_DIR` | parent of the processes' folders; default: the system's folder for temporary files |

mod cluster;
mod cluster_view;
mod error;
mod kind;
mod node;
mod ports;
mod process;
mod reshard;
mod sentinel;
mod single;
mod suite;
mod wait;
mod wire;

pub use cluster::{Cluster, ClusterFailover, ClusterOptions};
pub use cluster_view::ClusterNode;
pub use error::LaunchError;
pub use kind::{Feature, ServerKind, Servers, SkippedServer};
pub use node::Nodes;
pub use ports::ReservedPort;
pub use sentinel::{SentinelFailover, SentinelOptions, SentinelTrio};
pub use single::{Single, SingleOptions};
pub use suite::{for_each_server, for_each_server_with, skip};
pub use wait::until;
pub use wire::{Control, Reply};
