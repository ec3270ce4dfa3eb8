//! The pool against real servers, and against the embedded one that announces maintenance.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails by panicking")]

mod diary;
mod link;
mod sentry;
