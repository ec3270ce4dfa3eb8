//! Tests that run on every server found, and the ledger that says so.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Write};

use super::kind::{Feature, ServerKind, Servers};

/// Runs a test on every server found, one after the other.
///
/// Appends a line for each to the file that `EVENKEEL_TEST_LEDGER` names, if it names one. `test` is the test's name there.
///
/// # Panics
///
/// When no server is found and `EVENKEEL_TEST_SERVERS` does not switch servers off: a suite must not pass because it tried
/// nothing. And when the ledger cannot be written.
///
/// # Cancel safety
///
/// Safe when `body` is.
pub async fn for_each_server<F, Fut>(test: &str, body: F)
where
    F: FnMut(ServerKind) -> Fut,
    Fut: Future<Output = ()>,
{
    for_each_server_with(test, &[], body).await;
}

/// Runs a test on every server found that has all of `features`; the others are counted as skipped.
///
/// # Panics
///
/// As [`for_each_server`].
///
/// # Cancel safety
///
/// Safe when `body` is.
#[expect(clippy::expect_used, reason = "tests report by panicking; passing in silence would be a lie")]
#[expect(clippy::print_stderr, reason = "a failed test must say on which server it failed")]
pub async fn for_each_server_with<F, Fut>(test: &str, features: &[Feature], mut body: F)
where
    F: FnMut(ServerKind) -> Fut,
    Fut: Future<Output = ()>,
{
    let servers = Servers::discover();
    if servers.are_switched_off() {
        record("skipped", None, test, "EVENKEEL_TEST_SERVERS is empty").expect("the ledger can be written");
        return;
    }
    for skipped in servers.skipped() {
        eprintln!("{test}: {}", skipped.reason);
    }
    assert!(
        !servers.kinds().is_empty(),
        "{test} needs a Redis server and none was found: install redis-server, or name a program with EVENKEEL_REDIS_SERVER, \
         or do without by setting EVENKEEL_TEST_SERVERS to nothing"
    );
    for kind in servers.kinds() {
        let missing = features.iter().find(|feature| !kind.has(**feature));
        if let Some(feature) = missing {
            let reason = format!("the server does not have {feature:?}");
            record("skipped", Some(kind), test, &reason).expect("the ledger can be written");
            continue;
        }
        eprintln!("{test}: on {kind}");
        body(kind.clone()).await;
        record("ran", Some(kind), test, "").expect("the ledger can be written");
    }
}

/// Says in the ledger that a test was skipped on every server, and why: a tool is missing, for one.
///
/// # Panics
///
/// When the ledger cannot be written.
#[expect(clippy::expect_used, reason = "tests report by panicking; passing in silence would be a lie")]
#[expect(clippy::print_stderr, reason = "a skipped test must say so")]
pub fn skip(test: &str, reason: &str) {
    eprintln!("{test}: skipped: {reason}");
    record("skipped", None, test, reason).expect("the ledger can be written");
}

/// Appends one line: what happened, server, version, test, reason.
fn record(what: &str, kind: Option<&ServerKind>, test: &str, reason: &str) -> io::Result<()> {
    let Some(ledger) = env::var_os("EVENKEEL_TEST_LEDGER").filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    let (name, version) = kind.map_or(("-", "-"), |kind| (kind.name(), kind.version()));
    let line = format!("{what}\t{name}\t{version}\t{test}\t{reason}\n");
    // One write of one line: tests of several processes append at the same time.
    OpenOptions::new().create(true).append(true).open(ledger)?.write_all(line.as_bytes())
}
