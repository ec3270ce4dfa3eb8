//! `Side`: what one connection was asked to subscribe, and what it has confirmed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

use bytes::Bytes;
use evenkeel_protocol::{Command, ServerError};

use super::{
    super::DialId,
    name::{ChannelKind, Name},
};

/// Names in one command: a server works on a command as a whole, and others wait meanwhile.
const BATCH: usize = 512;

/// Commands that may wait for their answers, so that a million names do not lie in a write buffer.
const MAX_ASKED: usize = 128;

/// ```text
///  (none) -- asked --> Asked -- confirmed --> On -- asked --> Ending -- confirmed --> (none)
///    ^                   |                    |
///    +---- refused ------+                    +-- the server ends it --> (none)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Asked,
    Ending,
    On,
}

/// A command whose answer is owed.
#[derive(Debug)]
enum Asked {
    /// The cut channel begins or ends.
    Cut {
        begins: bool,
    },
    /// Subscriptions begin or end; those that were not confirmed yet.
    Names {
        begins: bool,
        left: VecDeque<Name>,
    },
    Ping,
    Publish,
}

/// What a confirmation means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It stands.
    Began(Name),
    /// The cut channel stands.
    CutBegan,
    /// It has ended, as asked.
    Ended(Name),
    /// The server has ended it unasked.
    EndedByServer(Name),
    /// Nothing that anybody waits for.
    Nothing,
}

/// What an answer means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The cut channel may not be subscribed.
    CutRefused,
    /// Nothing to act on.
    Nothing,
    /// The marker went to so many subscribers; `None` when it was refused.
    Published(Option<i64>),
    /// These may not be subscribed.
    Refused { names: Vec<Name>, error: ServerError },
}

pub(super) struct Side {
    pub(super) dial: DialId,
    names: BTreeMap<Name, Stand>,
    /// Names to look at: wanted and not asked for, or the other way round.
    dirty: BTreeSet<Name>,
    /// Parts of a refused batch, to be asked for by themselves.
    parts: VecDeque<VecDeque<Name>>,
    asked: VecDeque<Asked>,
    /// What must be confirmed before the connection stands in for another.
    initial: BTreeSet<Name>,
    /// When bytes came last.
    pub(super) heard: Instant,
    /// Since when something is owed without a break.
    asked_since: Instant,
}

impl Side {
    pub(super) fn new(dial: DialId, wanted: &BTreeSet<Name>, now: Instant) -> Self {
        Self {
            dial,
            names: BTreeMap::new(),
            dirty: wanted.clone(),
            parts: VecDeque::new(),
            asked: VecDeque::new(),
            initial: wanted.clone(),
            heard: now,
            asked_since: now,
        }
    }

    /// Looks at a name again at the next [`drive`](Self::drive).
    pub(super) fn touch(&mut self, name: Name) {
        self.dirty.insert(name);
    }

    /// A name that nobody wants any more need not be waited for.
    pub(super) fn forget(&mut self, name: &Name) {
        self.initial.remove(name);
    }

    /// Everything that was wanted at the start is confirmed.
    pub(super) fn is_standing(&self) -> bool {
        self.initial.is_empty()
    }

    /// No subscription waits for its confirmation.
    pub(super) fn is_settled(&self) -> bool {
        let begins = |asked: &Asked| matches!(asked, Asked::Names { begins: true, .. });
        self.parts.is_empty() && !self.asked.iter().any(begins)
    }

    pub(super) fn is_on(&self, name: &Name) -> bool {
        self.names.get(name) == Some(&Stand::On)
    }

    pub(super) fn knows(&self, name: &Name) -> bool {
        self.names.contains_key(name)
    }

    /// What it has confirmed.
    pub(super) fn on(&self) -> impl Iterator<Item = &Name> {
        self.names.iter().filter(|(_, stand)| **stand == Stand::On).map(|(name, _)| name)
    }

    /// Everything that it was asked for and has not ended.
    pub(super) fn known(&self) -> impl Iterator<Item = &Name> {
        self.names.keys()
    }

    /// Whether an answer is owed.
    pub(super) fn owes(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Since when it owes an answer and has said nothing.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        self.owes().then(|| self.heard.max(self.asked_since))
    }

    fn ask(&mut self, asked: Asked, now: Instant) {
        if self.asked.is_empty() {
            self.asked_since = now;
        }
        self.asked.push_back(asked);
    }

    pub(super) fn ping(&mut self, now: Instant) -> Command {
        self.ask(Asked::Ping, now);
        Command::new("PING")
    }

    pub(super) fn cut(&mut self, channel: &Bytes, begins: bool, now: Instant) -> Command {
        self.ask(Asked::Cut { begins }, now);
        Command::new(ChannelKind::Channel.verb(begins)).arg(channel)
    }

    pub(super) fn publish(&mut self, channel: &Bytes, now: Instant) -> Command {
        self.ask(Asked::Publish, now);
        Command::new("PUBLISH").arg(channel).arg("cut")
    }

    /// The next command that brings the connection nearer to what is wanted; `None` when there is none to send now.
    ///
    /// Without `may_begin` names are only ended.
    pub(super) fn drive(
        &mut self,
        wanted: &BTreeSet<Name>,
        may_begin: bool,
        now: Instant,
    ) -> Option<Command> {
        if self.asked.len() >= MAX_ASKED {
            return None;
        }
        if let Some(part) = self.parts.pop_front() {
            return Some(self.send(part, true, now));
        }
        let mut batch = VecDeque::new();
        let mut begins = true;
        while let Some(name) = self.dirty.first() {
            let wants = match (self.names.get(name), wanted.contains(name)) {
                (None, true) if may_begin => Some(true),
                (Some(Stand::On), false) => Some(false),
                // As wanted already, or not to be begun here; or under way, and looked at again when the answer comes.
                (None | Some(_), _) => None,
            };
            if let (Some(wants), Some(first)) = (wants, batch.front())
                && (wants != begins || !name.goes_with(first) || batch.len() >= BATCH)
            {
                break;
            }
            let Some(name) = self.dirty.pop_first() else { break };
            if let Some(wants) = wants {
                begins = wants;
                batch.push_back(name);
            }
        }
        if batch.is_empty() { None } else { Some(self.send(batch, begins, now)) }
    }

    fn send(&mut self, batch: VecDeque<Name>, begins: bool, now: Instant) -> Command {
        let kind = batch.front().map_or(ChannelKind::Channel, |name| name.kind);
        let mut command = Command::new(kind.verb(begins));
        for name in &batch {
            command = command.arg(&name.text);
            self.names.insert(name.clone(), if begins { Stand::Asked } else { Stand::Ending });
        }
        self.ask(Asked::Names { begins, left: batch }, now);
        command
    }

    /// Takes the confirmation of a name off the oldest command that named it; false when none did.
    fn settle(&mut self, began: bool, name: &Name) -> bool {
        for index in 0..self.asked.len() {
            let Some(Asked::Names { begins, left }) = self.asked.get_mut(index) else { continue };
            if *begins != began {
                continue;
            }
            // Confirmations come in the order of the names: the front one nearly always.
            let Some(place) = left.iter().position(|known| known == name) else { continue };
            left.remove(place);
            if left.is_empty() {
                self.asked.remove(index);
            }
            return true;
        }
        false
    }

    /// A confirmation came.
    pub(super) fn confirmed(&mut self, began: bool, name: Name) -> Change {
        let asked = self.settle(began, &name);
        if began {
            if !asked {
                return Change::Nothing;
            }
            self.names.insert(name.clone(), Stand::On);
            self.initial.remove(&name);
            // It may not be wanted any more.
            self.dirty.insert(name.clone());
            return Change::Began(name);
        }
        if self.names.remove(&name).is_none() {
            return Change::Nothing;
        }
        // It may be wanted again.
        self.dirty.insert(name.clone());
        if asked {
            return Change::Ended(name);
        }
        self.initial.remove(&name);
        Change::EndedByServer(name)
    }

    /// The cut channel was confirmed.
    pub(super) fn cut_confirmed(&mut self, began: bool) -> Change {
        let cut = |asked: &Asked| matches!(asked, Asked::Cut { begins } if *begins == began);
        if let Some(index) = self.asked.iter().position(cut) {
            self.asked.remove(index);
            if began {
                return Change::CutBegan;
            }
        }
        Change::Nothing
    }

    /// A plain reply came. An answer that nobody asked for tells nothing: no caller waits on this connection.
    pub(super) fn answered(&mut self, error: Option<ServerError>, number: Option<i64>) -> Answer {
        let Some(error) = error else {
            // Only these two answer so; confirmations stand in the same queue and come as pushes.
            let plain = |asked: &Asked| matches!(asked, Asked::Ping | Asked::Publish);
            let index = self.asked.iter().position(plain);
            return match index.and_then(|index| self.asked.remove(index)) {
                Some(Asked::Publish) => Answer::Published(number),
                _ => Answer::Nothing,
            };
        };
        match self.asked.pop_front() {
            Some(Asked::Names { begins: true, left }) => self.refused(left, error),
            Some(Asked::Names { begins: false, left }) => {
                // What cannot be ended is not looked at any more.
                for name in left {
                    self.names.remove(&name);
                }
                Answer::Nothing
            }
            Some(Asked::Cut { begins: true }) => Answer::CutRefused,
            Some(Asked::Publish) => Answer::Published(None),
            Some(Asked::Cut { begins: false } | Asked::Ping) | None => Answer::Nothing,
        }
    }

    /// A server refuses a command for one name in it: halves find which.
    fn refused(&mut self, mut names: VecDeque<Name>, error: ServerError) -> Answer {
        // "... has no permissions to run the 'subscribe' command" speaks of all of them.
        let whole = error.code() != "NOPERM" || error.detail().contains("to run the");
        if !whole && names.len() > 1 {
            let second = names.split_off(names.len() / 2);
            self.parts.push_back(names);
            self.parts.push_back(second);
            return Answer::Nothing;
        }
        for name in &names {
            self.names.remove(name);
            self.initial.remove(name);
        }
        Answer::Refused { names: names.into(), error }
    }
}
