//! Asks each server for maintenance notifications as the settings say, and remembers who refused.

use std::net::SocketAddr;

use evenkeel_hitless::{OptIn as Decision, OptInReply, Protocol, Refusals, Settings};
use evenkeel_pool::driver::dial::OptInPolicy;
use evenkeel_protocol::{
    Endpoint,
    conn::{OptIn, OptInOutcome},
};
use parking_lot::Mutex;

use super::clock;

/// The decision of one client over all its connections.
#[derive(Debug)]
pub(crate) struct Asking {
    settings: Settings,
    tls: bool,
    refusals: Mutex<Refusals>,
}

impl Asking {
    pub(crate) fn new(settings: Settings, tls: bool) -> Self {
        Self { settings, tls, refusals: Mutex::new(Refusals::default()) }
    }

    fn is_required(&self) -> bool {
        self.settings.mode() == evenkeel_hitless::Mode::Enabled
    }
}

impl OptInPolicy for Asking {
    fn ask(&self, endpoint: &Endpoint, peer: Option<SocketAddr>) -> Option<OptIn> {
        if endpoint.is_unix() && !self.is_required() {
            return None;
        }
        match self.refusals.lock().decide(clock::now(), self.settings.mode(), endpoint) {
            Decision::Ask => {
                let address = peer.map(|peer| peer.ip());
                let kind = self.settings.endpoint_type().resolve(endpoint.host(), address, self.tls);
                Some(OptIn::new(self.is_required(), kind.wire()))
            }
            _ => None,
        }
    }

    fn answered(&self, endpoint: &Endpoint, resp3: bool, outcome: &OptInOutcome) {
        let words;
        let reply = match outcome {
            OptInOutcome::Accepted => OptInReply::Accepted,
            OptInOutcome::Refused(error) => {
                words = error.to_string();
                OptInReply::Refused(&words)
            }
            _ => return,
        };
        let protocol = if resp3 { Protocol::Resp3 } else { Protocol::Resp2 };
        // In the mode that requires it the handshake has failed already.
        let _verdict =
            self.refusals.lock().judge(clock::now(), self.settings.mode(), endpoint, protocol, reply);
    }
}
