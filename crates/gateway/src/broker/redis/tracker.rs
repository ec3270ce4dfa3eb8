//! Which channels are heard, and whether what is heard continues what was: the broker's machine.
//!
//! Each channel with history has a mark: the place of the last publication delivered. Whatever does not follow
//! it (a hole, another epoch, another entry at the same offset, a gap of the link) makes the machine ask for a
//! check, and hold what comes until the stream itself has said what is true.
//!
//! ```text
//! waiting --confirmed--> checking --answer fits--> live --irregular or gap--> checking
//!                         |   ^                     (plain channels go from waiting to live at once)
//!                         +---+ no answer, or more to read
//! ```

use super::envelope::{Mark, Message};
use crate::publication::{Channel, Epoch, Position, json_line};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::mem;

/// Messages held for one channel while it is checked; beyond it the stream is read once more instead.
const MAX_HELD: usize = 4_096;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Ask the stream whether `at` stands, and for what follows it. `retry` says that the last try failed.
    Check {
        channel: Channel,
        ticket: u64,
        at: Option<Mark>,
        retry: bool,
    },
    /// Give a message to the hub.
    Deliver {
        channel: Channel,
        data: Bytes,
        at: Option<Position>,
    },
    /// Tell subscribers that messages may be missing.
    Gap(Channel),
    NewEpoch(Channel, Epoch),
    /// Subscriptions of the channel may begin.
    Ready(Channel),
    Subscribe(Channel),
    Unsubscribe(Channel),
}

/// What the stream says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checked {
    /// The newest entry, or offset 0 before the first.
    pub(super) top: Mark,
    pub(super) verdict: Verdict,
    /// What follows the mark, from the first on.
    pub(super) entries: Vec<(Mark, Bytes)>,
}

/// Whether the mark stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It stands, but what follows it is not there any more.
    Hole,
    /// It does not stand: the epoch of `top` is a new one.
    New,
    /// It stands, and the entries follow it without a hole.
    Stands,
}

/// The machine.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    channels: HashMap<Channel, Tracked>,
    actions: VecDeque<Action>,
    tickets: u64,
}

#[derive(Debug)]
struct Tracked {
    keeps_history: bool,
    ready: bool,
    state: State,
    mark: Option<Mark>,
}

#[derive(Debug)]
enum State {
    Checking { ticket: u64, held: Vec<Message>, overflowed: bool, again: bool },
    Live,
    Waiting,
}

impl Tracker {
    /// Wants a channel.
    pub(super) fn want(&mut self, channel: &Channel, keeps_history: bool) {
        if let Some(tracked) = self.channels.get(channel) {
            if tracked.ready {
                // Whoever wants it anew waits anew.
                self.actions.push_back(Action::Ready(channel.clone()));
            }
            return;
        }
        let tracked = Tracked { keeps_history, ready: false, state: State::Waiting, mark: None };
        self.channels.insert(channel.clone(), tracked);
        self.actions.push_back(Action::Subscribe(channel.clone()));
    }

    /// Wants a channel no more.
    pub(super) fn unwant(&mut self, channel: &Channel) {
        if self.channels.remove(channel).is_some() {
            self.actions.push_back(Action::Unsubscribe(channel.clone()));
        }
    }

    /// Takes the server's word that a channel is subscribed.
    pub(super) fn confirmed(&mut self, channel: &Channel) {
        let Some(tracked) = self.channels.get_mut(channel) else { return };
        match tracked.state {
            State::Waiting if tracked.keeps_history => self.check(channel, Vec::new(), false),
            State::Waiting => {
                tracked.state = State::Live;
                self.ready(channel);
            }
            State::Checking { .. } | State::Live => {}
        }
    }

    /// Takes a gap of the link, on one channel or on all.
    pub(super) fn gap(&mut self, channel: Option<&Channel>) {
        let mut channels: Vec<Channel> = match channel {
            Some(channel) => vec![channel.clone()],
            None => self.channels.keys().cloned().collect(),
        };
        channels.sort();
        for channel in channels {
            let Some(tracked) = self.channels.get_mut(&channel) else { continue };
            match &mut tracked.state {
                State::Waiting => {}
                _ if !tracked.keeps_history => self.actions.push_back(Action::Gap(channel)),
                State::Checking { held, .. } => {
                    let held = mem::take(held);
                    self.check(&channel, held, false);
                }
                State::Live => self.check(&channel, Vec::new(), false),
            }
        }
    }

    /// Takes a message.
    pub(super) fn message(&mut self, channel: &Channel, payload: Bytes) {
        let Some(tracked) = self.channels.get_mut(channel) else { return };
        let message = if tracked.keeps_history { Message::read(payload) } else { Message::Plain(payload) };
        match &mut tracked.state {
            State::Waiting => {}
            State::Checking { held, overflowed, .. } => {
                if held.len() < MAX_HELD {
                    held.push(message);
                } else {
                    *overflowed = true;
                }
            }
            State::Live => {
                if let Some(message) = self.take(channel, message) {
                    self.check(channel, vec![message], false);
                }
            }
        }
    }

    /// Takes the answer to a check; `None` when there was none.
    pub(super) fn checked(&mut self, channel: &Channel, ticket: u64, answer: Option<Checked>) {
        let Some(tracked) = self.channels.get_mut(channel) else { return };
        let State::Checking { ticket: current, held, overflowed, again } = &mut tracked.state else { return };
        if *current != ticket {
            return;
        }
        let (held, overflowed, again) = (mem::take(held), *overflowed, *again);
        let Some(answer) = answer else {
            self.check(channel, held, again);
            if let Some(Action::Check { retry, .. }) = self.actions.back_mut() {
                *retry = true;
            }
            return;
        };
        let first = tracked.mark.is_none();
        let complete = match answer.verdict {
            Verdict::Stands if first => true,
            Verdict::Stands => {
                let last = answer.entries.last().map(|(mark, _)| mark.offset);
                let end = last.unwrap_or_else(|| tracked.mark.as_ref().map_or(0, |mark| mark.offset));
                end >= answer.top.offset
            }
            Verdict::Hole | Verdict::New => true,
        };
        let jumped = first || answer.verdict != Verdict::Stands;
        if jumped {
            tracked.mark = Some(answer.top.clone());
        }
        tracked.state = State::Live;
        match answer.verdict {
            Verdict::Hole => self.actions.push_back(Action::Gap(channel.clone())),
            Verdict::New if !first => {
                self.actions.push_back(Action::NewEpoch(channel.clone(), answer.top.epoch));
            }
            Verdict::New => {}
            Verdict::Stands => {
                for (mark, data) in if first { Vec::new() } else { answer.entries } {
                    if let Some(Message::Kept { .. }) = self.take(channel, Message::Kept { mark, data }) {
                        // The stream itself does not continue the mark: the next check says so.
                        break;
                    }
                }
            }
        }
        self.replay(channel, held, again);
        let live = self.channels.get(channel).is_some_and(|tracked| matches!(tracked.state, State::Live));
        if live && (!complete || overflowed) {
            self.check(channel, Vec::new(), false);
        } else if live {
            self.ready(channel);
        }
    }

    /// The next thing to do.
    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Goes through what was held, and asks again when it still does not fit. What does not fit a second
    /// answer of the same epoch is old, and dropped.
    fn replay(&mut self, channel: &Channel, held: Vec<Message>, again: bool) {
        let mut held = held.into_iter();
        while let Some(message) = held.next() {
            let Some(message) = self.take(channel, message) else { continue };
            if !again {
                let rest = std::iter::once(message).chain(held).collect();
                self.check(channel, rest, true);
                return;
            }
        }
    }

    /// Delivers a message that follows the mark, drops a repeat, and gives back what does not fit.
    fn take(&mut self, channel: &Channel, message: Message) -> Option<Message> {
        let tracked = self.channels.get_mut(channel)?;
        let (mark, data) = match message {
            Message::Plain(payload) => {
                let data = json_line(payload);
                self.actions.push_back(Action::Deliver { channel: channel.clone(), data, at: None });
                return None;
            }
            Message::Kept { mark, data } => (mark, data),
        };
        let Some(known) = &tracked.mark else { return Some(Message::Kept { mark, data }) };
        let same_life = known.epoch == mark.epoch;
        if same_life && (mark.offset < known.offset || mark == *known) {
            return None;
        }
        if !same_life || mark.offset != known.offset + 1 {
            return Some(Message::Kept { mark, data });
        }
        let at = Position { epoch: mark.epoch.clone(), offset: mark.offset };
        tracked.mark = Some(mark);
        self.actions.push_back(Action::Deliver { channel: channel.clone(), data, at: Some(at) });
        None
    }

    fn check(&mut self, channel: &Channel, held: Vec<Message>, again: bool) {
        let Some(tracked) = self.channels.get_mut(channel) else { return };
        self.tickets += 1;
        let ticket = self.tickets;
        tracked.state = State::Checking { ticket, held, overflowed: false, again };
        let at = tracked.mark.clone();
        self.actions.push_back(Action::Check { channel: channel.clone(), ticket, at, retry: false });
    }

    fn ready(&mut self, channel: &Channel) {
        if let Some(tracked) = self.channels.get_mut(channel)
            && !mem::replace(&mut tracked.ready, true)
        {
            self.actions.push_back(Action::Ready(channel.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
