//! Subscribers that were sent away by a gap that nothing can repair, until they come back.
//!
//! Their client subscribes again at once, and what is published on its way back is held for it: after an outage everything
//! that waited for Redis goes out in that very moment.

use super::{MAX_HELD, Sink};
use crate::publication::{Channel, Publication};
use std::collections::HashMap;
use std::sync::Arc;

/// Ticks that a subscriber is waited for. Whoever comes later has been told of the gap, and begins anew.
const PATIENCE: u32 = 5;

/// Who is waited for, channel by channel.
#[derive(Debug)]
pub(super) struct Away<S> {
    channels: HashMap<Channel, Vec<Awaited<S>>>,
}

#[derive(Debug)]
struct Awaited<S> {
    sink: Arc<S>,
    held: Vec<Arc<Publication>>,
    ticks: u32,
}

impl<S> Default for Away<S> {
    fn default() -> Self {
        Self { channels: HashMap::new() }
    }
}

impl<S: Sink> Away<S> {
    /// Waits for a subscriber from now on.
    pub(super) fn wait(&mut self, sink: Arc<S>, channel: &Channel) {
        let awaited = Awaited { sink, held: Vec::new(), ticks: 0 };
        self.channels.entry(channel.clone()).or_default().push(awaited);
    }

    /// Holds a publication for those who are waited for; whoever would have too much begins anew.
    pub(super) fn hold(&mut self, publication: &Arc<Publication>) {
        if self.channels.is_empty() {
            return;
        }
        self.retain(Some(publication.channel()), |awaited| {
            awaited.held.push(publication.clone());
            awaited.held.len() < MAX_HELD
        });
    }

    /// Takes another gap: what was held lies before it, and nobody was told that there are two.
    pub(super) fn gap(&mut self, channel: &Channel) {
        self.retain(Some(channel), |awaited| {
            awaited.held.clear();
            true
        });
    }

    /// What was held for a subscriber that has come back.
    pub(super) fn take(&mut self, sink: &Arc<S>, channel: &Channel) -> Vec<Arc<Publication>> {
        let mut held = Vec::new();
        if !self.channels.is_empty() {
            self.retain(Some(channel), |awaited| {
                let back = Arc::ptr_eq(&awaited.sink, sink);
                if back {
                    held = std::mem::take(&mut awaited.held);
                }
                !back
            });
        }
        held
    }

    /// Waits no more for those whom `chosen` picks, on one channel or on all.
    pub(super) fn give_up(&mut self, channel: Option<&Channel>, chosen: impl Fn(&S) -> bool) {
        self.retain(channel, |awaited| !chosen(&awaited.sink));
    }

    /// A while has passed.
    pub(super) fn tick(&mut self) {
        self.retain(None, |awaited| {
            awaited.ticks += 1;
            awaited.ticks <= PATIENCE
        });
    }

    fn retain(&mut self, channel: Option<&Channel>, mut keep: impl FnMut(&mut Awaited<S>) -> bool) {
        match channel {
            Some(channel) => {
                let Some(awaited) = self.channels.get_mut(channel) else { return };
                awaited.retain_mut(keep);
                if awaited.is_empty() {
                    self.channels.remove(channel);
                }
            }
            None => self.channels.retain(|_, awaited| {
                awaited.retain_mut(&mut keep);
                !awaited.is_empty()
            }),
        }
    }
}
