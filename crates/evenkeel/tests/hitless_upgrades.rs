//! The contract of hitless upgrades, statement by statement, as a program sees it that knows this crate alone.

use std::{sync::Arc, time::Duration};

use evenkeel::{
    Client, Config, ErrorKind, MaintenanceConfig, MetricsHook,
    hitless::{EndpointType, LogLevel, Mode, Protocol, Sizes},
};
use evenkeel_testkit::server::{EmbeddedServer, MaintenanceSupport, Move};

const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `holds`.
async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "not within {PATIENCE:?}: {what}");
}

#[test]
fn every_default() {
    let settings = MaintenanceConfig::new().build(Protocol::Resp3).unwrap();
    assert_eq!(settings.mode(), Mode::Auto);
    assert_eq!(settings.endpoint_type(), EndpointType::Auto);
    assert_eq!(settings.relaxed_timeout(), Duration::from_secs(10));
    assert_eq!(settings.handoff_timeout(), Duration::from_secs(15));
    assert_eq!(settings.max_handoff_retries(), 3);
    assert_eq!(settings.post_handoff_relaxed_duration(), 2 * settings.relaxed_timeout());
    assert_eq!(settings.log_level(), LogLevel::Error);
}

#[test]
fn workers_and_queue_follow_the_pool() {
    let computed = MaintenanceConfig::new().build(Protocol::Resp3).unwrap();
    assert_eq!(computed.sizes(100, 0), Sizes { workers: 33, queue: 500 }, "660, capped at five pools");
    assert_eq!(computed.sizes(100, 150), Sizes { workers: 33, queue: 151 }, "capped by the connections");
    for pool in 1..=400_usize {
        let workers = (pool / 2).min((pool / 3).max(10)).max(1);
        let queue = (20 * workers).max(pool);
        assert_eq!(computed.sizes(pool, 0), Sizes { workers, queue: queue.min(5 * pool).max(2) });
        assert_eq!(computed.sizes(pool, pool), Sizes { workers, queue: queue.min(pool + 1).max(2) });
    }
    let given = MaintenanceConfig::new().max_workers(50).handoff_queue_size(400);
    let given = given.build(Protocol::Resp3).unwrap();
    assert_eq!(given.sizes(100, 0), Sizes { workers: 50, queue: 400 });
}

/// Each setting by name: a value that is taken, one that is refused, and the words of the rule.
const SETTINGS: [(&str, &[&str], &str, &str); 12] = [
    ("mode", &["auto", "enabled", "disabled"], "on", "auto, enabled or disabled"),
    (
        "endpoint_type",
        &["auto", "internal-ip", "internal-fqdn", "external-ip", "external-fqdn", "none"],
        "ip",
        "internal-ip",
    ),
    ("relaxed_timeout", &["10s", "500ms"], "0s", "relaxed_timeout must be more than zero"),
    ("handoff_timeout", &["15s"], "2h", "handoff_timeout must not be longer than one hour"),
    ("max_handoff_retries", &["1", "10"], "11", "from 1 to 10"),
    ("max_workers", &["0", "50"], "-1", "expected a whole number"),
    ("handoff_queue_size", &["0", "1000"], "many", "expected a whole number"),
    ("post_handoff_relaxed_duration", &["0s", "30s"], "30", "a duration with its unit"),
    ("log_level", &["error", "warn", "info", "debug"], "loud", "error, warn, info or debug"),
    ("circuit_breaker_failure_threshold", &["1", "5"], "0", "must be more than zero"),
    ("circuit_breaker_reset_timeout", &["0s", "60s"], "soon", "a duration with its unit"),
    ("circuit_breaker_max_requests", &["1", "3"], "0", "must be more than zero"),
];

#[test]
fn every_setting_is_read_from_url_environment_and_builder_and_its_rule_is_named() {
    for (name, right, wrong, rule) in SETTINGS {
        let from_url = |value: &str| format!("redis://h?maint_{name}={value}").parse::<Config>();
        let variable = format!("EVENKEEL_MAINT_{}", name.to_ascii_uppercase());
        let from_environment = |value: &str| Config::from_vars([(variable.as_str(), value)]);
        let from_calls = |value: &str| Config::builder().url("redis://h").maintenance(name, value).build();
        for value in right {
            assert!(from_url(value).is_ok(), "{name}={value}: {:?}", from_url(value));
            assert!(from_environment(value).is_ok(), "{name}={value}");
            assert!(from_calls(value).is_ok(), "{name}={value}");
        }
        for error in [from_url(wrong), from_environment(wrong), from_calls(wrong)] {
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            let text = error.to_string();
            // Variables are named as they are written.
            assert!(text.contains(rule) && text.to_ascii_lowercase().contains(name), "{name}: {text}");
        }
    }
    assert!("redis://h?maint_worker=1".parse::<Config>().unwrap_err().to_string().contains("maint_worker"));
}

#[tokio::test]
async fn enabled_fails_where_auto_goes_on_and_disabled_never_asks() {
    let server = EmbeddedServer::builder().maintenance(MaintenanceSupport::Unknown).start().await.unwrap();
    let url = |mode: &str| format!("{}?maint_mode={mode}", server.url());
    let error = Client::connect(url("enabled")).await.unwrap_err();
    assert!(error.to_string().contains("MAINT_NOTIFICATIONS"), "{error}");
    let auto = Client::connect(url("auto")).await.unwrap();
    assert_eq!(auto.incr("n").await.unwrap(), 1);
    server.set_maintenance(MaintenanceSupport::Enabled);
    let enabled = Client::connect(url("enabled")).await.unwrap();
    assert_eq!(enabled.incr("n").await.unwrap(), 2);
    assert_eq!(server.connections().iter().filter(|conn| conn.maintenance.is_some()).count(), 1);
    let disabled = Client::connect(url("disabled")).await.unwrap();
    assert_eq!(disabled.incr("n").await.unwrap(), 3);
    assert_eq!(server.connections().iter().filter(|conn| conn.maintenance.is_some()).count(), 1);
    let error = Client::connect(format!("{}&protocol=2", url("enabled"))).await.unwrap_err();
    assert!(error.to_string().contains("RESP3"), "{error}");
}

#[tokio::test]
async fn a_metrics_hook_counts_what_a_move_came_to() {
    let server = EmbeddedServer::builder().addresses(2).start().await.unwrap();
    let client = Client::connect(server.url()).await.unwrap();
    let hook = Arc::new(MetricsHook::new());
    client.maintenance().add_hook(hook.clone());
    assert_eq!(client.incr("n").await.unwrap(), 1);
    let moving = server.move_endpoint(Move::new(0, 1, Duration::from_secs(2))).await.unwrap();
    wait_until("the handoff is over", || hook.metrics().processing_times.contains_key("MOVING")).await;
    assert_eq!(client.incr("n").await.unwrap(), 2);
    assert_eq!(moving.finished().await.unwrap().closed, 0);
    let counted = hook.metrics();
    assert_eq!(counted.notification_counts.get("MOVING"), Some(&1));
    assert_eq!(counted.processing_times["MOVING"].count(), 1);
    assert!(counted.error_counts.is_empty());
    let metrics = client.maintenance().metrics();
    assert_eq!((metrics.handoffs, metrics.moved, metrics.abandoned), (1, 1, 0));
    let samples = metrics.samples();
    for name in [
        "redis.client.maintenance.notifications",
        "redis.client.connection.relaxed_timeout",
        "redis.client.connection.handoff",
    ] {
        assert!(samples.iter().any(|sample| sample.name == name && sample.value > 0), "{name}: {samples:?}");
    }
}
