//! Errors inside announced maintenance say so, and those outside do not; where the inside ends.

use std::time::Duration;

use evenkeel_client::{Client, Error, MaintenanceKind};
use evenkeel_protocol::{Frame, Limits, Notice};
use evenkeel_testkit::server::{Audience, EmbeddedServer, Move};

const SHORT: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(5);

fn notice(frame: &str) -> Notice {
    let frame = Frame::parse(&frame.to_owned().into(), &Limits::default()).unwrap();
    Notice::parse(frame.elements().unwrap()).unwrap().unwrap()
}

/// Waits until the client's timeouts are relaxed, or no longer are.
async fn relaxed(client: &Client, wanted: bool) {
    let waiting = async {
        loop {
            if client.health().endpoints.iter().any(|endpoint| endpoint.relaxed) == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}

/// A command whose answer comes too late.
async fn fails(server: &EmbeddedServer, client: &Client) -> Error {
    server.hold_replies(None, Duration::from_secs(600));
    let error = client.incr("count").timeout(SHORT).await.unwrap_err();
    server.release_replies(None);
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeout_tells_the_maintenance_that_was_announced() {
    let server = EmbeddedServer::start().await.unwrap();
    let client = Client::connect(format!("{}?maint_relaxed_timeout=150ms", server.url())).await.unwrap();
    let outside = fails(&server, &client).await;
    assert!(outside.is_timeout() && outside.maintenance().is_none(), "{outside}");
    assert!(!outside.to_string().contains("maintenance"), "{outside}");
    let failover = (
        ">4\r\n+FAILING_OVER\r\n:1\r\n:3\r\n*1\r\n+1\r\n",
        ">3\r\n+FAILED_OVER\r\n:2\r\n*1\r\n+1\r\n",
        MaintenanceKind::Failover,
    );
    let migration = (
        ">4\r\n+MIGRATING\r\n:3\r\n:3\r\n*1\r\n+1\r\n",
        ">3\r\n+MIGRATED\r\n:4\r\n*1\r\n+1\r\n",
        MaintenanceKind::Migration,
    );
    for (start, end, kind) in [failover, migration] {
        server.announce(&notice(start), Audience::All);
        relaxed(&client, true).await;
        let inside = fails(&server, &client).await;
        assert!(inside.is_timeout(), "{inside}");
        assert_eq!(inside.maintenance(), Some(kind), "{inside}");
        assert!(inside.to_string().contains(kind.word()), "{inside}");
        server.announce(&notice(end), Audience::All);
        relaxed(&client, false).await;
        assert_eq!(fails(&server, &client).await.maintenance(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_lost_after_its_move_leaves_nothing_relaxed() {
    let server = EmbeddedServer::builder().addresses(2).start().await.unwrap();
    let client = Client::connect(format!("{}?maint_relaxed_timeout=1s", server.url())).await.unwrap();
    for (from, to) in [(0, 1), (1, 0)] {
        let moving = server.move_endpoint(Move::new(from, to, Duration::from_millis(500))).await.unwrap();
        moving.finished().await.unwrap();
    }
    relaxed(&client, true).await;
    // Within twice the relaxed timeout, so that nothing but the loss ends it.
    assert!(server.close(Audience::All) > 0);
    relaxed(&client, false).await;
    assert_eq!(client.incr("count").await.unwrap(), 1);
    assert_eq!(fails(&server, &client).await.maintenance(), None);
}
