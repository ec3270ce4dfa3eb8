use super::{Action, Checked, Mark, Tracker, Verdict};
use crate::publication::Channel;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn mark(epoch: &str, offset: u64, nonce: u64) -> Mark {
    Mark { epoch: epoch.into(), offset, nonce }
}

fn envelope(mark: &Mark, data: &str) -> Bytes {
    Bytes::from(format!("\u{1}ek1 {} {} {} {data}", mark.epoch, mark.offset, mark.nonce))
}

/// A tracker of the channel `x`, and what it asked for, in short.
struct Bench {
    tracker: Tracker,
    channel: Channel,
    ticket: u64,
}

impl Bench {
    fn new(keeps_history: bool) -> Self {
        let mut bench = Self { tracker: Tracker::default(), channel: "x".into(), ticket: 0 };
        bench.tracker.want(&bench.channel, keeps_history);
        assert_eq!(bench.did(), ["subscribe"]);
        bench.tracker.confirmed(&bench.channel.clone());
        bench
    }

    /// One that stands at offset 5 of epoch `E`.
    fn live() -> Self {
        let mut bench = Self::new(true);
        assert_eq!(bench.did(), ["check from nothing"]);
        bench.answer(Verdict::Stands, &mark("E", 5, 50), &[]);
        assert_eq!(bench.did(), ["ready"]);
        bench
    }

    fn did(&mut self) -> Vec<String> {
        let mut did = Vec::new();
        while let Some(action) = self.tracker.poll_action() {
            did.push(match action {
                Action::Check { ticket, at, retry, .. } => {
                    self.ticket = ticket;
                    let from =
                        at.map_or_else(|| "nothing".to_owned(), |at| format!("{} {}", at.epoch, at.offset));
                    format!("check from {from}{}", if retry { " later" } else { "" })
                }
                Action::Deliver { data, at, .. } => {
                    let at =
                        at.map_or_else(|| "plain".to_owned(), |at| format!("{} {}", at.epoch, at.offset));
                    format!("{at}: {}", String::from_utf8_lossy(&data))
                }
                Action::Gap(_) => "gap".to_owned(),
                Action::NewEpoch(_, epoch) => format!("epoch {epoch}"),
                Action::Ready(_) => "ready".to_owned(),
                Action::Subscribe(_) => "subscribe".to_owned(),
                Action::Unsubscribe(_) => "unsubscribe".to_owned(),
            });
        }
        did
    }

    fn hear(&mut self, epoch: &str, offset: u64, nonce: u64) {
        let payload = envelope(&mark(epoch, offset, nonce), &offset.to_string());
        self.tracker.message(&self.channel.clone(), payload);
    }

    fn answer(&mut self, verdict: Verdict, top: &Mark, entries: &[(u64, u64)]) {
        let entries = entries
            .iter()
            .map(|(offset, nonce)| (mark(&top.epoch, *offset, *nonce), Bytes::from(offset.to_string())))
            .collect();
        let answer = Checked { top: top.clone(), verdict, entries };
        self.tracker.checked(&self.channel.clone(), self.ticket, Some(answer));
    }
}

#[test]
fn a_plain_channel_is_live_at_once_and_announces_its_gaps() {
    let mut bench = Bench::new(false);
    assert_eq!(bench.did(), ["ready"]);
    bench.tracker.message(&"x".into(), Bytes::from_static(b"hello"));
    bench.tracker.gap(None);
    bench.tracker.message(&"x".into(), Bytes::from_static(b"{}"));
    assert_eq!(bench.did(), ["plain: \"hello\"", "gap", "plain: {}"]);
}

#[test]
fn what_follows_is_delivered_and_repeats_are_dropped() {
    let mut bench = Bench::live();
    for (offset, nonce) in [(5, 50), (6, 60), (6, 60), (4, 40), (7, 70)] {
        bench.hear("E", offset, nonce);
    }
    bench.tracker.message(&"x".into(), Bytes::from_static(b"1"));
    assert_eq!(bench.did(), ["E 6: 6", "E 7: 7", "plain: 1"]);
}

#[test]
fn a_hole_is_filled_from_the_stream_before_anything_goes_on() {
    let mut bench = Bench::live();
    bench.hear("E", 8, 80);
    assert_eq!(bench.did(), ["check from E 5"]);
    bench.hear("E", 9, 90);
    assert!(bench.did().is_empty());
    bench.answer(Verdict::Stands, &mark("E", 8, 80), &[(6, 60), (7, 70), (8, 80)]);
    assert_eq!(bench.did(), ["E 6: 6", "E 7: 7", "E 8: 8", "E 9: 9"]);
}

#[test]
fn a_gap_of_the_link_is_repaired_without_a_word() {
    let mut bench = Bench::live();
    bench.tracker.gap(None);
    assert_eq!(bench.did(), ["check from E 5"]);
    bench.answer(Verdict::Stands, &mark("E", 7, 70), &[(6, 60), (7, 70)]);
    assert_eq!(bench.did(), ["E 6: 6", "E 7: 7"]);
    bench.tracker.gap(Some(&"x".into()));
    assert_eq!(bench.did(), ["check from E 7"]);
    bench.answer(Verdict::Stands, &mark("E", 7, 70), &[]);
    assert!(bench.did().is_empty());
}

#[test]
fn a_check_that_reads_a_part_is_followed_by_another() {
    let mut bench = Bench::live();
    bench.tracker.gap(None);
    bench.did();
    bench.answer(Verdict::Stands, &mark("E", 8, 80), &[(6, 60), (7, 70)]);
    assert_eq!(bench.did(), ["E 6: 6", "E 7: 7", "check from E 7"]);
    bench.answer(Verdict::Stands, &mark("E", 8, 80), &[(8, 80)]);
    assert_eq!(bench.did(), ["E 8: 8"]);
}

#[test]
fn another_entry_at_a_delivered_offset_is_noticed() {
    let mut bench = Bench::live();
    bench.hear("E", 5, 51);
    assert_eq!(bench.did(), ["check from E 5"]);
    bench.answer(Verdict::New, &mark("F", 5, 51), &[]);
    assert_eq!(bench.did(), ["epoch F", "check from F 5"], "is what was held newer still?");
    bench.answer(Verdict::Stands, &mark("F", 5, 51), &[]);
    assert!(bench.did().is_empty(), "it is old");
    bench.hear("F", 6, 61);
    bench.hear("E", 6, 60);
    assert_eq!(bench.did(), ["F 6: 6", "check from F 6"], "the old epoch is asked about");
    bench.answer(Verdict::Stands, &mark("F", 6, 61), &[]);
    assert_eq!(bench.did(), ["check from F 6"], "and once more, as it was held");
    bench.answer(Verdict::Stands, &mark("F", 6, 61), &[]);
    assert!(bench.did().is_empty(), "then dropped");
    bench.hear("F", 7, 71);
    assert_eq!(bench.did(), ["F 7: 7"]);
}

#[test]
fn what_came_before_the_answer_belongs_to_the_new_epoch_or_is_dropped() {
    let mut bench = Bench::live();
    bench.tracker.gap(None);
    bench.did();
    bench.hear("F", 4, 41);
    bench.answer(Verdict::New, &mark("F", 3, 31), &[]);
    assert_eq!(bench.did(), ["epoch F", "F 4: 4"]);
}

#[test]
fn a_hole_that_cannot_be_filled_is_told() {
    let mut bench = Bench::live();
    bench.tracker.gap(None);
    bench.did();
    bench.answer(Verdict::Hole, &mark("E", 500, 1), &[]);
    bench.hear("E", 501, 2);
    assert_eq!(bench.did(), ["gap", "E 501: 501"]);
}

#[test]
fn a_check_without_an_answer_is_asked_again_and_a_late_one_is_ignored() {
    let mut bench = Bench::live();
    bench.tracker.gap(None);
    bench.did();
    bench.hear("E", 6, 60);
    let first = bench.ticket;
    bench.tracker.checked(&"x".into(), first, None);
    assert_eq!(bench.did(), ["check from E 5 later"]);
    let late = Checked { top: mark("Z", 1, 1), verdict: Verdict::New, entries: vec![] };
    bench.tracker.checked(&"x".into(), first, Some(late));
    assert!(bench.did().is_empty());
    bench.answer(Verdict::Stands, &mark("E", 6, 60), &[(6, 60)]);
    assert_eq!(bench.did(), ["E 6: 6"]);
}

#[test]
fn a_channel_wanted_again_is_ready_again() {
    let mut bench = Bench::live();
    bench.tracker.want(&"x".into(), true);
    assert_eq!(bench.did(), ["ready"]);
    bench.tracker.unwant(&"x".into());
    bench.hear("E", 6, 60);
    bench.tracker.gap(None);
    assert_eq!(bench.did(), ["unsubscribe"]);
}

/// A server with one stream that loses its tail in failovers, and a link that loses messages in gaps.
struct World {
    bench: Bench,
    epoch: u64,
    stream: Vec<(u64, u64)>,
    replicated: usize,
    nonce: u64,
    delivered: BTreeMap<String, Vec<(u64, u64)>>,
    connected: bool,
}

impl World {
    fn new() -> Self {
        let mut bench = Bench::new(true);
        bench.did();
        bench.answer(Verdict::Stands, &mark("1", 0, 0), &[]);
        bench.did();
        Self {
            bench,
            epoch: 1,
            stream: Vec::new(),
            replicated: 0,
            nonce: 0,
            delivered: BTreeMap::new(),
            connected: true,
        }
    }

    fn top(&self) -> Mark {
        let (offset, nonce) = self.stream.last().copied().unwrap_or((0, 0));
        mark(&self.epoch.to_string(), offset, nonce)
    }

    fn publish(&mut self, heard: bool) {
        self.nonce += 1;
        let entry = (self.stream.len() as u64 + 1, self.nonce);
        self.stream.push(entry);
        if heard && self.connected {
            let top = self.top();
            self.bench.tracker.message(&"x".into(), envelope(&top, &entry.1.to_string()));
        }
        self.settle();
    }

    fn failover(&mut self) {
        self.stream.truncate(self.replicated);
        self.connected = false;
        self.settle();
    }

    fn reconnect(&mut self) {
        self.connected = true;
        self.bench.tracker.gap(None);
        self.settle();
    }

    /// Answers the oldest check as the script would.
    fn answer(&mut self, at: Option<&Mark>) {
        let top = self.top();
        let Some(at) = at else { return };
        let (verdict, entries) = if *at.epoch != *top.epoch {
            (Verdict::New, Vec::new())
        } else if at.offset == 0
            || self.stream.get(at.offset as usize - 1).is_some_and(|entry| entry.1 == at.nonce)
        {
            (Verdict::Stands, self.stream[at.offset as usize..].iter().take(3).copied().collect())
        } else {
            self.epoch += 1;
            (Verdict::New, Vec::new())
        };
        let top = self.top();
        let entries = entries
            .iter()
            .map(|(offset, nonce)| (mark(&top.epoch, *offset, *nonce), Bytes::from(nonce.to_string())))
            .collect();
        let ticket = self.bench.ticket;
        self.bench.tracker.checked(&"x".into(), ticket, Some(Checked { top, verdict, entries }));
    }

    fn settle(&mut self) {
        while let Some(action) = self.bench.tracker.poll_action() {
            match action {
                Action::Check { ticket, at, .. } => {
                    self.bench.ticket = ticket;
                    self.answer(at.as_ref());
                }
                Action::Deliver { data, at, .. } => {
                    let at = at.expect("only kept messages are published");
                    let nonce = String::from_utf8_lossy(&data).parse().expect("a number");
                    self.delivered.entry(at.epoch.to_string()).or_default().push((at.offset, nonce));
                }
                _ => {}
            }
        }
    }
}

proptest! {
    /// Whatever is lost and reissued: within an epoch every offset comes once and in order, and once the link
    /// stands nothing of the surviving stream that follows is missing.
    #[test]
    fn no_gap_and_no_double_within_an_epoch(steps in proptest::collection::vec(0_u8..8, 1..200)) {
        let mut world = World::new();
        for step in steps {
            match step {
                0..=3 => world.publish(true),
                4 => world.publish(false),
                5 => world.replicated = world.stream.len(),
                6 => { world.failover(); world.publish(false); }
                _ => world.reconnect(),
            }
        }
        world.reconnect();
        let last_epoch = world.epoch.to_string();
        for (epoch, seen) in &world.delivered {
            for pair in seen.windows(2) {
                prop_assert_eq!(pair[1].0, pair[0].0 + 1, "epoch {}", epoch);
            }
        }
        if let Some(seen) = world.delivered.get(&last_epoch) {
            let first = seen[0].0 as usize;
            prop_assert_eq!(&world.stream[first - 1..], &seen[..], "what survives is what was delivered");
        }
    }
}
