#![expect(clippy::arc_with_non_send_sync, reason = "the shard wants an `Arc`, and a test has one thread")]

use super::{Shard, Sink};
use crate::publication::{Channel, Epoch, Position, Publication};
use crate::wire::Protocol;
use bytes::Bytes;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// A sink that writes down the offsets and ends that it is given.
#[derive(Debug, Default)]
struct Ear {
    heard: RefCell<Vec<String>>,
    ended: RefCell<Vec<u32>>,
    marked: Cell<bool>,
    slot: Cell<usize>,
    name: String,
    protocol: Cell<Option<Protocol>>,
}

impl Sink for Ear {
    fn protocol(&self) -> Protocol {
        self.protocol.get().unwrap_or(Protocol::Centrifugo)
    }

    fn push(&self, frame: Bytes) {
        let text = String::from_utf8_lossy(if frame[0] < 0x80 { &frame } else { &frame[2..] }).into_owned();
        let what = match serde_json::from_str::<serde_json::Value>(&text) {
            Ok(value) if value["push"]["unsubscribe"].is_object() => {
                format!("end {}", value["push"]["unsubscribe"]["code"])
            }
            Ok(value) => value["push"]["pub"]["data"].to_string(),
            Err(_) => text,
        };
        self.heard.borrow_mut().push(what);
    }

    fn write_now(&self, frame: &Bytes) {
        self.push(frame.clone());
    }

    fn unsubscribed(&self, _channel: &Channel, serial: u32) {
        self.ended.borrow_mut().push(serial);
    }

    fn end_at_gap(&self) {
        self.push(Bytes::from_static(b"closed"));
    }

    fn is_client(&self, client: &str) -> bool {
        client == self.name
    }

    fn mark(&self) -> bool {
        !self.marked.replace(true)
    }

    fn slot(&self) -> usize {
        self.slot.get()
    }

    fn set_slot(&self, slot: usize) {
        self.slot.set(slot);
    }
}

impl Ear {
    fn taken(&self) -> Vec<String> {
        self.heard.take()
    }
}

struct Bench {
    shard: Shard<Ear>,
    dirty: Vec<Arc<Ear>>,
}

impl Bench {
    fn new() -> Self {
        Self { shard: Shard::default(), dirty: Vec::new() }
    }

    fn ear(&mut self) -> Arc<Ear> {
        let ear = Arc::new(Ear { slot: Cell::new(usize::MAX), ..Ear::default() });
        self.shard.attach(ear.clone());
        ear
    }

    fn publish(&mut self, channel: &str, epoch: &str, offset: u64) -> usize {
        let at = Position { epoch: epoch.into(), offset };
        let publication = Publication::new(channel.into(), Bytes::from(offset.to_string()), Some(at));
        self.shard.publish(&publication, false, &mut self.dirty)
    }

    fn plain(&mut self, channel: &str, data: &'static str) -> usize {
        let publication = Publication::new(channel.into(), Bytes::from_static(data.as_bytes()), None);
        self.shard.publish(&publication, false, &mut self.dirty)
    }

    fn join(&mut self, ear: &Arc<Ear>, channel: &str) {
        self.shard.subscribe(ear, &channel.into(), 1);
    }

    fn activate(&mut self, ear: &Arc<Ear>, channel: &str, epoch: &str, offset: u64) {
        self.shard.activate(ear, &channel.into(), &Epoch::from(epoch), offset, &mut self.dirty);
    }
}

#[test]
fn only_subscribers_hear() {
    let mut bench = Bench::new();
    let (a, b) = (bench.ear(), bench.ear());
    bench.shard.open(&a, &"x".into(), 1, &mut bench.dirty);
    assert_eq!(bench.plain("x", "1"), 1);
    assert_eq!(bench.plain("y", "2"), 0);
    bench.shard.unsubscribe(&a, &"x".into());
    assert_eq!(bench.plain("x", "3"), 0);
    assert_eq!((a.taken(), b.taken()), (vec!["1".to_owned()], vec![]));
    assert_eq!(bench.dirty.len(), 1, "marked once however much it got");
}

#[test]
fn what_comes_while_the_history_is_read_follows_it_once() {
    let mut bench = Bench::new();
    let ear = bench.ear();
    bench.join(&ear, "x");
    for offset in 4..=7 {
        bench.publish("x", "E", offset);
    }
    bench.plain("x", "\"raw\"");
    assert!(ear.taken().is_empty(), "nothing before the reply");
    bench.activate(&ear, "x", "E", 5);
    assert_eq!(ear.taken(), ["6", "7", "\"raw\""]);
    bench.publish("x", "E", 7);
    bench.publish("x", "E", 8);
    assert_eq!(ear.taken(), ["8"], "a repeat is dropped");
}

#[test]
fn a_hole_sends_the_client_back() {
    let mut bench = Bench::new();
    let (a, b) = (bench.ear(), bench.ear());
    for (ear, offset) in [(&a, 5), (&b, 6)] {
        bench.join(ear, "x");
        bench.activate(ear, "x", "E", offset);
    }
    assert_eq!(bench.publish("x", "E", 7), 1);
    assert_eq!((a.taken(), b.taken()), (vec!["end 2500".to_owned()], vec!["7".to_owned()]));
    assert_eq!(*a.ended.borrow(), [1]);
    bench.join(&a, "x");
    bench.activate(&a, "x", "E", 7);
    assert_eq!(bench.publish("x", "E", 8), 2);
}

#[test]
fn a_hole_in_what_was_held_sends_the_client_back() {
    let mut bench = Bench::new();
    let ear = bench.ear();
    bench.join(&ear, "x");
    bench.publish("x", "E", 9);
    bench.activate(&ear, "x", "E", 5);
    assert_eq!(ear.taken(), ["end 2500"]);
}

#[test]
fn another_epoch_ends_every_live_subscription() {
    let mut bench = Bench::new();
    let (old, joining) = (bench.ear(), bench.ear());
    bench.join(&old, "x");
    bench.activate(&old, "x", "E1", 5);
    bench.join(&joining, "x");
    bench.shard.new_epoch(&"x".into(), &Epoch::from("E1"), &mut bench.dirty);
    assert!(old.taken().is_empty(), "the same epoch changes nothing");
    assert_eq!(bench.publish("x", "E2", 1), 0);
    assert_eq!(old.taken(), ["end 2500"]);
    bench.activate(&joining, "x", "E2", 0);
    assert_eq!(joining.taken(), ["1"], "held for the one that was joining");
    bench.shard.new_epoch(&"x".into(), &Epoch::from("E3"), &mut bench.dirty);
    assert_eq!(joining.taken(), ["end 2500"]);
}

#[test]
fn a_newer_epoch_read_by_one_ends_the_others() {
    let mut bench = Bench::new();
    let (old, new) = (bench.ear(), bench.ear());
    bench.join(&old, "x");
    bench.activate(&old, "x", "E1", 5);
    bench.join(&new, "x");
    bench.activate(&new, "x", "E2", 3);
    assert_eq!(old.taken(), ["end 2500"]);
    assert_eq!(bench.publish("x", "E2", 4), 1);
    assert_eq!(new.taken(), ["4"]);
}

#[test]
fn a_gap_on_a_plain_channel_is_told() {
    let mut bench = Bench::new();
    let ear = bench.ear();
    bench.shard.open(&ear, &"x".into(), 3, &mut bench.dirty);
    bench.shard.gap(&"x".into(), &mut bench.dirty);
    assert_eq!(ear.taken(), ["end 2500"]);
    assert_eq!(*ear.ended.borrow(), [3]);
}

#[test]
fn who_is_sent_away_by_a_gap_gets_what_comes_until_it_is_back() {
    let mut bench = Bench::new();
    let (ear, other) = (bench.ear(), bench.ear());
    let x = Channel::from("x");
    for one in [&ear, &other] {
        bench.shard.open(one, &x, 1, &mut bench.dirty);
    }
    bench.shard.gap(&x, &mut bench.dirty);
    bench.plain("x", "1");
    bench.plain("y", "of another channel");
    bench.shard.open(&other, &x, 2, &mut bench.dirty);
    bench.plain("x", "2");
    // Where the session reads who is there it joins first.
    bench.join(&ear, "x");
    bench.plain("x", "3");
    bench.shard.open(&ear, &x, 1, &mut bench.dirty);
    bench.plain("x", "4");
    for one in [&ear, &other] {
        assert_eq!(one.taken(), ["end 2500", "1", "2", "3", "4"]);
    }
}

#[test]
fn nothing_is_held_across_a_second_gap() {
    let mut bench = Bench::new();
    let ear = bench.ear();
    bench.shard.open(&ear, &"x".into(), 1, &mut bench.dirty);
    for word in ["1", "2"] {
        bench.shard.gap(&"x".into(), &mut bench.dirty);
        bench.plain("x", word);
    }
    bench.shard.open(&ear, &"x".into(), 2, &mut bench.dirty);
    assert_eq!(ear.taken(), ["end 2500", "2"]);
}

#[test]
fn who_is_away_for_long_or_for_good_is_not_waited_for() {
    let leave = |what: fn(&mut Bench, &Arc<Ear>)| {
        let mut bench = Bench::new();
        let ear = bench.ear();
        bench.shard.open(&ear, &"x".into(), 1, &mut bench.dirty);
        bench.shard.gap(&"x".into(), &mut bench.dirty);
        bench.plain("x", "1");
        what(&mut bench, &ear);
        bench.shard.open(&ear, &"x".into(), 2, &mut bench.dirty);
        bench.plain("x", "9");
        ear.taken()
    };
    assert_eq!(leave(|_, _| ()), ["end 2500", "1", "9"]);
    assert_eq!(leave(|bench, _| (0..5).for_each(|_| bench.shard.tick())), ["end 2500", "1", "9"]);
    let gone: [fn(&mut Bench, &Arc<Ear>); 5] = [
        |bench, _| (0..6).for_each(|_| bench.shard.tick()),
        |bench, _| (0..super::MAX_HELD).for_each(|_| _ = bench.plain("x", "more")),
        |bench, ear| bench.shard.unsubscribe(ear, &"x".into()),
        |bench, _| bench.shard.expel(&"x".into(), |_| true, &mut bench.dirty),
        |bench, ear| {
            bench.shard.detach(ear);
            bench.shard.attach(ear.clone());
        },
    ];
    for what in gone {
        assert_eq!(leave(what), ["end 2500", "9"]);
    }
}

#[test]
fn a_plain_channel_that_is_joined_holds_what_comes_until_it_is_open() {
    let mut bench = Bench::new();
    let (ear, fresh) = (bench.ear(), bench.ear());
    bench.join(&ear, "x");
    bench.plain("x", "1");
    bench.plain("x", "2");
    assert!(ear.taken().is_empty());
    for one in [&ear, &ear, &fresh] {
        bench.shard.open(one, &"x".into(), 1, &mut bench.dirty);
    }
    assert_eq!((ear.taken(), fresh.taken()), (vec!["1".to_owned(), "2".to_owned()], vec![]));
    bench.plain("x", "3");
    assert_eq!((ear.taken(), fresh.taken()), (vec!["3".to_owned()], vec!["3".to_owned()]));
}

#[test]
fn a_plain_channel_that_missed_something_while_it_joined_is_told() {
    for held in [0, super::MAX_HELD] {
        let mut bench = Bench::new();
        let (ear, pusher) = (bench.ear(), bench.ear());
        pusher.protocol.set(Some(Protocol::Pusher));
        for one in [&ear, &pusher] {
            bench.join(one, "x");
        }
        for _ in 0..held {
            bench.plain("x", "1");
        }
        if held == 0 {
            bench.shard.gap(&"x".into(), &mut bench.dirty);
        }
        for one in [&ear, &pusher] {
            bench.shard.open(one, &"x".into(), 1, &mut bench.dirty);
        }
        assert_eq!((ear.taken(), pusher.taken().len()), (vec!["end 2500".to_owned()], 1));
        assert_eq!(bench.plain("x", "2"), 1, "the one whose protocol cannot come again is still there");
    }
}

#[test]
fn the_server_ends_what_it_chooses() {
    let mut bench = Bench::new();
    let (a, b) = (bench.ear(), bench.ear());
    bench.shard.open(&a, &"x".into(), 1, &mut bench.dirty);
    bench.shard.open(&b, &"x".into(), 2, &mut bench.dirty);
    let chosen = b.slot();
    bench.shard.expel(&"x".into(), |ear| ear.slot() == chosen, &mut bench.dirty);
    assert_eq!((a.taken(), b.taken()), (vec![], vec!["end 2000".to_owned()]));
    assert_eq!(bench.plain("x", "1"), 1);
}

#[test]
fn what_the_server_ends_while_it_is_joining_ends_when_it_stands() {
    let mut bench = Bench::new();
    let (plain, kept, spared) = (bench.ear(), bench.ear(), bench.ear());
    for one in [&plain, &kept, &spared] {
        bench.join(one, "x");
    }
    let spares = spared.slot();
    bench.shard.expel(&"x".into(), |ear| ear.slot() != spares, &mut bench.dirty);
    bench.plain("x", "1");
    assert!(plain.taken().is_empty(), "its client does not know yet that it is subscribed");
    for one in [&plain, &spared] {
        bench.shard.open(one, &"x".into(), 1, &mut bench.dirty);
    }
    bench.activate(&kept, "x", "E", 0);
    assert_eq!((plain.taken(), kept.taken()), (vec!["end 2000".to_owned()], vec!["end 2000".to_owned()]));
    assert_eq!((plain.ended.take(), kept.ended.take()), (vec![1], vec![1]));
    assert_eq!(spared.taken(), ["1"]);
    assert_eq!(bench.plain("x", "2"), 1);
}

#[test]
fn a_stranger_is_not_taken_for_the_holder_of_its_slot() {
    let mut bench = Bench::new();
    let gone = bench.ear();
    bench.shard.detach(&gone);
    let next = bench.ear();
    assert_eq!(gone.slot(), next.slot());
    bench.shard.open(&next, &"x".into(), 1, &mut bench.dirty);
    bench.shard.open(&gone, &"y".into(), 1, &mut bench.dirty);
    bench.shard.detach(&gone);
    assert_eq!((bench.plain("x", "1"), bench.plain("y", "1")), (1, 0));
}

#[test]
fn every_session_is_visited_once_a_cycle() {
    let mut bench = Bench::new();
    let ears: Vec<_> = (0..40).map(|_| bench.ear()).collect();
    let mut seen = Vec::new();
    for phase in 0..7 {
        bench.shard.visit(phase, 7, |ear| seen.push(ear.slot()));
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..ears.len()).collect::<Vec<_>>());
}

proptest! {
    /// Any order of coming and going leaves exactly those subscribed who should be.
    #[test]
    fn places_stay_true(steps in proptest::collection::vec((0_usize..6, 0_usize..4, 0_u8..4), 1..120)) {
        let names = ["a", "b", "c", "d"];
        let mut bench = Bench::new();
        let mut ears: Vec<_> = (0..6).map(|_| bench.ear()).collect();
        let mut expected = [[false; 4]; 6];
        for (who, channel, what) in steps {
            match what {
                0 | 1 => {
                    bench.shard.open(&ears[who], &names[channel].into(), 1, &mut bench.dirty);
                    expected[who][channel] = true;
                }
                2 => {
                    bench.shard.unsubscribe(&ears[who], &names[channel].into());
                    expected[who][channel] = false;
                }
                _ => {
                    bench.shard.detach(&ears[who]);
                    ears[who] = bench.ear();
                    expected[who] = [false; 4];
                }
            }
            for (channel, name) in names.iter().enumerate() {
                bench.plain(name, "1");
                for (ear, expected) in ears.iter().zip(&expected) {
                    prop_assert_eq!(ear.taken().len(), usize::from(expected[channel]));
                }
            }
        }
    }
}

#[test]
fn who_cannot_come_again_stays_and_is_told() {
    let mut bench = Bench::new();
    let (pusher, raw) = (bench.ear(), bench.ear());
    pusher.protocol.set(Some(Protocol::Sse));
    raw.protocol.set(Some(Protocol::Raw));
    for ear in [&pusher, &raw] {
        bench.shard.open(ear, &"x".into(), 1, &mut bench.dirty);
    }
    assert_eq!(bench.publish("x", "E", 5), 2, "they begin wherever the channel is");
    assert_eq!(bench.publish("x", "E", 7), 1);
    let heard = pusher.taken();
    assert!(heard[1].contains("gap") && heard[2].contains("data: 7"), "{heard:?}");
    assert_eq!(bench.publish("x", "F", 1), 1, "a new life of the channel");
    let heard = pusher.taken();
    assert!(heard[0].contains("gap") && heard[1].contains("data: 1"), "{heard:?}");
    assert_eq!(raw.taken().last().map(String::as_str), Some("closed"));
    assert!(pusher.ended.borrow().is_empty());
}

#[test]
fn the_one_who_sent_it_does_not_get_it() {
    let mut bench = Bench::new();
    let other = bench.ear();
    let sender = Arc::new(Ear { slot: Cell::new(usize::MAX), name: "1.2".to_owned(), ..Ear::default() });
    bench.shard.attach(sender.clone());
    for ear in [&sender, &other] {
        ear.protocol.set(Some(Protocol::Pusher));
        bench.shard.open(ear, &"x".into(), 1, &mut bench.dirty);
    }
    bench.plain("x", r#"{"event":"client-a","data":1,"socket":"1.2"}"#);
    assert_eq!((sender.taken().len(), other.taken().len()), (0, 1));
}
