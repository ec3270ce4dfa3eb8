//! `SentinelConfig`.

use std::time::Duration;

use evenkeel_protocol::Endpoint;

use crate::redirect_policy::RedirectPolicy;

/// How to find a primary by its sentinels.
#[derive(Clone, Debug)]
pub struct SentinelConfig {
    pub(super) name: String,
    pub(super) seeds: Vec<Endpoint>,
    pub(super) policy: RedirectPolicy,
    pub(super) poll_interval: Duration,
    pub(super) learn_zones: bool,
}

impl SentinelConfig {
    /// The primary known as `name` to the sentinels at `seeds`.
    pub fn new(name: impl Into<String>, seeds: impl IntoIterator<Item = Endpoint>) -> Self {
        Self {
            name: name.into(),
            seeds: seeds.into_iter().collect(),
            policy: RedirectPolicy::any(),
            poll_interval: Duration::from_secs(10),
            learn_zones: false,
        }
    }

    /// Which addresses sentinels may name. Default: any.
    #[must_use]
    pub fn redirect_policy(mut self, policy: RedirectPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Whether data nodes are asked for their availability zone. Default: no.
    ///
    /// For [`ReadPolicy::NearestByZone`](crate::ReadPolicy::NearestByZone); Valkey 8.1 and newer can tell it.
    #[must_use]
    pub fn learn_zones(mut self, learn: bool) -> Self {
        self.learn_zones = learn;
        self
    }

    /// How often sentinels are asked while nothing happens. Default: 10 s.
    ///
    /// Events tell every change at once; this is for what was missed while an event link was down.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }
}
