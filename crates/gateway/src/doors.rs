//! How many connections one address may have, and how many may come in one second.

use crate::config::LimitsConfig;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Connections by address, and those of the current second.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<IpAddr, usize>,
    /// When the current second began, and how many came in it.
    second: Option<(Instant, u32)>,
}

impl Doors {
    /// Takes a connection: whether it is counted for its address, and whether it may come in.
    pub(crate) fn enter(&self, peer: IpAddr, limits: &LimitsConfig, now: Instant) -> (bool, bool) {
        let (most, rate) = (limits.max_connections_per_address, limits.max_connections_per_second);
        if most == 0 && rate == 0 {
            return (false, true);
        }
        let mut state = self.state.lock();
        let mut welcome = true;
        if rate > 0 {
            let (begun, count) = match state.second {
                Some((begun, count)) if now.saturating_duration_since(begun) < Duration::from_secs(1) => {
                    (begun, count + 1)
                }
                _ => (now, 1),
            };
            state.second = Some((begun, count));
            welcome = count <= rate;
        }
        if most == 0 {
            return (false, welcome);
        }
        let open = state.open.entry(network(peer)).or_default();
        *open += 1;
        (true, welcome && *open <= most)
    }

    /// Lets a counted connection go.
    pub(crate) fn leave(&self, peer: IpAddr) {
        let mut state = self.state.lock();
        let peer = network(peer);
        if let Some(open) = state.open.get_mut(&peer) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                state.open.remove(&peer);
            }
        }
    }
}

/// One household has a whole /64 of IPv6 addresses.
fn network(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            address.to_ipv4_mapped().map_or_else(|| Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into(), IpAddr::V4)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Doors;
    use crate::config::LimitsConfig;
    use std::net::IpAddr;
    use std::time::Duration;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_share_and_gets_it_back() {
        let limits = LimitsConfig { max_connections_per_address: 2, ..LimitsConfig::default() };
        let (doors, now) = (Doors::default(), crate::driver::clock::now());
        let enter = |peer| doors.enter(ip(peer), &limits, now).1;
        assert!(enter("10.0.0.1") && enter("10.0.0.1") && !enter("10.0.0.1"));
        assert!(enter("10.0.0.2"), "another address has its own");
        doors.leave(ip("10.0.0.1"));
        doors.leave(ip("10.0.0.1"));
        assert!(enter("10.0.0.1") && !enter("::ffff:10.0.0.1"), "the same address in other words");
        assert!(enter("2001:db8::1") && enter("2001:db8::2") && !enter("2001:db8::3"));
    }

    #[test]
    fn a_second_has_its_share() {
        let limits = LimitsConfig { max_connections_per_second: 2, ..LimitsConfig::default() };
        let (doors, now) = (Doors::default(), crate::driver::clock::now());
        let enter = |millis| doors.enter(ip("10.0.0.1"), &limits, now + Duration::from_millis(millis)).1;
        assert!(enter(0) && enter(1) && !enter(999) && enter(1_000) && enter(1_001) && !enter(1_002));
    }
}
