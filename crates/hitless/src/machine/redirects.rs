//! Where ordinary dials are sent while a server retires; the configured endpoint stays what it is.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use evenkeel_protocol::Endpoint;

use super::HandoffEngine;
use crate::{Action, HandoffId, ids::Site};

/// A redirect of dials in force.
#[derive(Debug)]
pub(super) struct Redirect {
    pub(super) handoff: HandoffId,
    pub(super) to: Endpoint,
    pub(super) until: Instant,
}

/// The configured endpoint, and the address that it leads to if only dials to that one are meant.
pub(super) type RedirectKey = (Endpoint, Option<SocketAddr>);

impl HandoffEngine {
    /// Lets ordinary dials that would lead to a retiring server go to its target.
    pub(super) fn redirect(&mut self, id: HandoffId, site: &Site) {
        let Some(handoff) = self.handoffs.get(&id) else { return };
        let (from, until) = (handoff.plan.endpoint.clone(), handoff.at.close_at);
        let target = if handoff.target_dead { None } else { handoff.plan.target.clone() };
        // Where an older announcement sends dials to the very server that retires now, they go on to its target.
        let chained: Vec<_> = self
            .redirects
            .iter()
            .filter(|((endpoint, _), redirect)| {
                *endpoint == from && redirect.handoff != id && self.leads_to(&redirect.to, &from, site)
            })
            .map(|(key, redirect)| (key.clone(), redirect.until))
            .collect();
        let key = (from, site.peer());
        let own = target.as_ref().map(|_| (key.clone(), until));
        for (key, until) in chained.into_iter().chain(own) {
            match &target {
                Some(to) if *to != key.0 => {
                    let (from, peer) = key.clone();
                    self.redirects.insert(key, Redirect { handoff: id, to: to.clone(), until });
                    self.act(Action::RedirectDials { from, peer, to: to.clone(), until });
                }
                _ => self.end_redirect(&key),
            }
        }
    }

    /// Whether dialling `to` leads to `site`, as far as live connections show.
    pub(super) fn leads_to(&self, to: &Endpoint, endpoint: &Endpoint, site: &Site) -> bool {
        let literal = site.peer().is_some_and(|peer| {
            to.port() == peer.port() && to.host().parse::<IpAddr>().is_ok_and(|host| host == peer.ip())
        });
        literal
            || self.conns.values().any(|conn| {
                conn.origin.endpoint == *endpoint && conn.origin.dialled == *to && conn.origin.site() == *site
            })
    }

    /// The redirects of a handoff end earlier than was thought.
    pub(super) fn shorten_redirects_of(&mut self, id: HandoffId, until: Instant) {
        let mut shorter = Vec::new();
        for ((from, peer), redirect) in &mut self.redirects {
            if redirect.handoff == id && until < redirect.until {
                redirect.until = until;
                shorter.push(Action::RedirectDials {
                    from: from.clone(),
                    peer: *peer,
                    to: redirect.to.clone(),
                    until,
                });
            }
        }
        self.actions.extend(shorter);
    }

    /// Ends the redirects that a handoff set up: its target is of no use.
    pub(super) fn end_redirects_of(&mut self, id: HandoffId) {
        let keys: Vec<_> = self
            .redirects
            .iter()
            .filter(|(_, redirect)| redirect.handoff == id)
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.end_redirect(&key);
        }
    }

    pub(super) fn end_redirect(&mut self, key: &RedirectKey) {
        if self.redirects.remove(key).is_some() {
            let (from, peer) = key.clone();
            self.act(Action::EndRedirect { from, peer });
        }
    }
}
