//! Scripts for the queue: who gets what, and in which order.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use evenkeel_protocol::Command;

use super::*;

#[derive(Default)]
struct Count(AtomicUsize);

impl std::task::Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct Bench {
    queue: Queue,
    waker: Waker,
    batch: Batch,
    fifo: VecDeque<Sent>,
    wakers: Vec<Waker>,
}

impl Bench {
    fn new(bytes: usize) -> Self {
        Self {
            queue: Queue::new(QueueLimits { bytes }),
            waker: Arc::new(Count::default()).into(),
            batch: Batch::default(),
            fifo: VecDeque::new(),
            wakers: Vec::new(),
        }
    }

    fn append(&mut self, command: &Command) -> Ticket {
        match self.queue.append(&Unit::of(std::slice::from_ref(command)), 1000, None, self.waker.clone()).0 {
            Append::Queued(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    /// Takes a batch and gives its text.
    fn take(&mut self) -> String {
        self.batch.bytes.clear();
        self.batch.shared.clear();
        self.queue.take_batch(&mut self.batch, &mut self.fifo);
        String::from_utf8_lossy(&self.batch.bytes).into_owned()
    }

    fn reply(&mut self, text: &str) {
        let sent = self.fifo.pop_front().unwrap();
        self.queue.complete(std::iter::once((sent, Reply::new(text.to_owned().into()))), &mut self.wakers);
    }

    fn lose(&mut self, written: u64) {
        let fifo: Vec<Sent> = self.fifo.drain(..).collect();
        self.queue.lose(fifo.into_iter(), written, &mut self.batch, &mut self.wakers);
        self.batch = Batch::default();
    }

    fn outcome(&mut self, ticket: &Ticket) -> String {
        let waker = self.waker.clone();
        match self.queue.poll(*ticket, &mut Context::from_waker(&waker)) {
            Poll::Pending => "pending".into(),
            Poll::Ready(Outcome::Reply(reply)) => reply.decode::<String>().unwrap(),
            Poll::Ready(Outcome::Replies(replies)) => {
                replies.iter().map(|reply| reply.decode::<String>().unwrap()).collect::<Vec<_>>().join(" ")
            }
            Poll::Ready(Outcome::Failed(failure)) => format!("{failure:?}"),
            Poll::Ready(Outcome::MayResend) => "MayResend".into(),
        }
    }
}

fn get(key: &str) -> Command {
    Command::new("GET").key(key)
}

fn incr(key: &str) -> Command {
    Command::new("INCR").key(key)
}

fn order(wire: &str) -> Vec<&str> {
    wire.split("\r\n").filter(|part| part.chars().next().is_some_and(char::is_lowercase)).collect()
}

#[test]
fn replies_go_to_their_callers_in_order() {
    let mut bench = Bench::new(1 << 20);
    let (a, b) = (bench.append(&get("a")), bench.append(&get("b")));
    assert_eq!(order(&bench.take()), ["a", "b"]);
    assert_eq!(bench.outcome(&a), "pending");
    bench.reply("+A\r\n");
    bench.reply("+B\r\n");
    assert_eq!((bench.outcome(&a), bench.outcome(&b)), ("A".into(), "B".into()));
    assert_eq!((bench.queue.bytes(), bench.queue.in_order()), (0, 0));
}

#[test]
fn a_caller_that_goes_away_keeps_its_place() {
    let mut bench = Bench::new(1 << 20);
    let (a, b) = (bench.append(&get("a")), bench.append(&get("b")));
    bench.take();
    bench.queue.cancel(a);
    bench.reply("+A\r\n");
    bench.reply("+B\r\n");
    assert_eq!(bench.outcome(&b), "B");
    assert_eq!(bench.queue.in_order(), 0);
}

#[test]
fn a_loss_tells_writes_apart_from_reads_and_from_what_never_left() {
    let mut bench = Bench::new(1 << 20);
    let read = bench.append(&get("a"));
    let write = bench.append(&incr("b"));
    let first = bench.take().len() as u64;
    let unsent = bench.append(&incr("c"));
    bench.batch.bytes.clear();
    bench.queue.take_batch(&mut bench.batch, &mut bench.fifo);
    // One byte short of the third command.
    let written = bench.batch.end - 1;
    assert!(written > first);
    let queued = bench.append(&incr("d"));
    bench.lose(written);
    assert_eq!(bench.outcome(&write), "Lost");
    assert_eq!(bench.outcome(&read), "MayResend");
    assert_eq!(order(&bench.take()), ["c", "d"]);
    bench.reply("+C\r\n");
    bench.reply("+D\r\n");
    assert_eq!((bench.outcome(&unsent), bench.outcome(&queued)), ("C".into(), "D".into()));
}

#[test]
fn what_is_sent_again_goes_before_what_came_later_on_its_slot() {
    let mut bench = Bench::new(1 << 20);
    let (first, second) = (bench.append(&get("a")), bench.append(&get("a")));
    let written = bench.take().len() as u64;
    bench.lose(written);
    let later = bench.append(&incr("a"));
    let other = bench.append(&incr("b"));
    assert_eq!(order(&bench.take()), ["b"]);
    let waker = bench.waker.clone();
    bench.queue.resend(second, &[get("a")], &waker);
    assert_eq!(order(&bench.take()), [""; 0]);
    bench.queue.resend(first, &[get("a")], &waker);
    let wire = bench.take();
    assert_eq!(order(&wire), ["a", "a", "a"]);
    assert!(wire.ends_with("INCR\r\n$1\r\na\r\n"));
    bench.fifo.make_contiguous();
    for text in ["+b\r\n", "+1\r\n", "+2\r\n", "+3\r\n"] {
        bench.reply(text);
    }
    for (ticket, text) in [(&other, "b"), (&first, "1"), (&second, "2"), (&later, "3")] {
        assert_eq!(bench.outcome(ticket), text);
    }
}

#[test]
fn a_caller_that_does_not_send_again_lets_the_others_go() {
    let mut bench = Bench::new(1 << 20);
    let first = bench.append(&get("a"));
    let written = bench.take().len() as u64;
    bench.lose(written);
    let later = bench.append(&incr("a"));
    assert_eq!(bench.take(), "");
    bench.queue.cancel(first);
    assert_eq!(order(&bench.take()), ["a"]);
    bench.reply("+1\r\n");
    assert_eq!(bench.outcome(&later), "1");
}

#[test]
fn after_a_switch_only_slots_that_are_owed_wait() {
    let mut bench = Bench::new(1 << 20);
    let a = bench.append(&incr("a"));
    bench.take();
    // Queued before the switch, and taken after it.
    let again = bench.append(&incr("a"));
    bench.queue.leave(bench.fifo.iter().copied());
    let b = bench.append(&incr("b"));
    let mut old = std::mem::take(&mut bench.fifo);
    assert_eq!(order(&bench.take()), ["b"]);
    let sent = old.pop_front().unwrap();
    bench.queue.complete(std::iter::once((sent, Reply::new("+1\r\n".into()))), &mut bench.wakers);
    assert_eq!(order(&bench.take()), ["a"]);
    bench.reply("+b\r\n");
    bench.reply("+2\r\n");
    for (ticket, text) in [(&a, "1"), (&again, "2"), (&b, "b")] {
        assert_eq!(bench.outcome(ticket), text);
    }
}

#[test]
fn a_hold_keeps_writes_and_the_reads_behind_them() {
    let mut bench = Bench::new(1 << 20);
    let queued = bench.append(&incr("a"));
    bench.queue.hold();
    let behind = bench.append(&get("a"));
    let free = bench.append(&get("b"));
    let held = bench.append(&incr("b"));
    let publish = bench.append(&Command::new("PUBLISH").arg("ch").arg("x"));
    assert_eq!(order(&bench.take()), ["b"]);
    bench.reply("+free\r\n");
    assert_eq!(bench.outcome(&free), "free");
    bench.queue.release();
    assert_eq!(order(&bench.take()), ["a", "a", "b", "ch", "x"]);
    for text in ["+1\r\n", "+2\r\n", "+3\r\n", "+4\r\n"] {
        bench.reply(text);
    }
    for (ticket, text) in [(&queued, "1"), (&behind, "2"), (&held, "3"), (&publish, "4")] {
        assert_eq!(bench.outcome(ticket), text);
    }
}

#[test]
fn deadlines_tell_whether_the_command_left() {
    let mut bench = Bench::new(1 << 20);
    #[expect(clippy::disallowed_methods, reason = "origin of virtual time")]
    let origin = Instant::now();
    let at = |ms: u64| origin + Duration::from_millis(ms);
    let sent = bench.append(&incr("a"));
    bench.take();
    let queued = bench.append(&incr("b"));
    bench.queue.hold();
    let held = bench.append(&incr("c"));
    bench.queue.expire(at(10), None, &mut bench.wakers);
    bench.queue.expire(at(1000), None, &mut bench.wakers);
    assert_eq!(bench.outcome(&sent), "pending");
    bench.queue.expire(at(1011), Some(Duration::from_secs(10)), &mut bench.wakers);
    assert_eq!(bench.outcome(&sent), "pending");
    bench.queue.expire(at(1011), None, &mut bench.wakers);
    assert_eq!(bench.outcome(&sent), "TimedOutSent");
    assert_eq!(bench.outcome(&queued), "TimedOutUnsent");
    assert_eq!(bench.outcome(&held), "TimedOutUnsent");
    bench.queue.release();
    assert_eq!(bench.take(), "");
    bench.reply("+late\r\n");
    assert_eq!((bench.queue.bytes(), bench.queue.in_order()), (0, 0));
}

#[test]
fn a_full_queue_serves_its_line_in_order() {
    let mut bench = Bench::new(40);
    let a = bench.append(&get("a"));
    let waker = bench.waker.clone();
    let second = 1000;
    let Append::Full(one) =
        bench.queue.append(&Unit::of(&[get("long-enough-to-fill")]), second, None, waker.clone()).0
    else {
        panic!()
    };
    let Append::Full(two) = bench.queue.append(&Unit::of(&[get("b")]), second, None, waker.clone()).0 else {
        panic!()
    };
    bench.take();
    bench.reply("+A\r\n");
    assert_eq!(bench.outcome(&a), "A");
    assert!(
        matches!(bench.queue.append(&Unit::of(&[get("b")]), second, Some(two), waker.clone()).0, Append::Full(place) if place == two)
    );
    assert!(matches!(
        bench.queue.append(&Unit::of(&[get("long")]), second, Some(one), waker).0,
        Append::Queued(_)
    ));
    bench.queue.leave_line(two);
    assert!(bench.queue.line.is_empty());
}

#[test]
fn closing_tells_everybody_the_truth() {
    let mut bench = Bench::new(1 << 20);
    let sent = bench.append(&incr("a"));
    bench.take();
    let queued = bench.append(&incr("b"));
    bench.queue.close(&mut bench.wakers);
    assert_eq!(bench.outcome(&queued), "Closed");
    assert_eq!(bench.outcome(&sent), "pending");
    bench.queue.abandon(&mut bench.wakers);
    assert_eq!(bench.outcome(&sent), "Lost");
    assert!(matches!(
        bench.queue.append(&Unit::of(&[get("x")]), 0, None, bench.waker.clone()).0,
        Append::Closed
    ));
}

#[test]
fn a_unit_stays_together_and_nothing_passes_it() {
    let mut bench = Bench::new(1 << 20);
    let held = bench.append(&incr("a"));
    bench.take();
    bench.queue.leave(bench.fifo.iter().copied());
    let waker = bench.waker.clone();
    let unit = [incr("a"), incr("b")];
    let Append::Queued(unit) = bench.queue.append(&Unit::of(&unit), 1000, None, waker).0 else { panic!() };
    let later = bench.append(&incr("c"));
    assert_eq!(bench.take(), "");
    bench.reply("+1\r\n");
    assert_eq!(order(&bench.take()), ["a", "b", "c"]);
    for text in ["+2\r\n", "+3\r\n", "+4\r\n"] {
        bench.reply(text);
    }
    for (ticket, text) in [(&held, "1"), (&unit, "2 3"), (&later, "4")] {
        assert_eq!(bench.outcome(ticket), text);
    }
    assert_eq!((bench.queue.bytes(), bench.queue.in_order()), (0, 0));
}

#[test]
fn a_lost_unit_is_unknown_as_a_whole() {
    let mut bench = Bench::new(1 << 20);
    let waker = bench.waker.clone();
    let unit = [incr("a"), incr("b")];
    let Append::Queued(written) = bench.queue.append(&Unit::of(&unit), 1000, None, waker).0 else { panic!() };
    bench.take();
    bench.reply("+1\r\n");
    let end = bench.batch.end;
    bench.lose(end);
    assert_eq!(bench.outcome(&written), "Lost");
    assert_eq!((bench.queue.bytes(), bench.queue.in_order()), (0, 0));
}

#[test]
fn a_unit_that_was_cut_is_sent_again_whole_and_gets_the_new_replies() {
    let mut bench = Bench::new(1 << 20);
    let waker = bench.waker.clone();
    let unit = [Command::new("MULTI"), incr("a"), Command::new("EXEC")];
    let Append::Queued(cut) = bench.queue.append(&Unit::of(&unit), 1000, None, waker).0 else { panic!() };
    let wire = bench.take();
    bench.reply("+OK\r\n");
    let end = bench.batch.end;
    bench.lose(end - 1);
    let later = bench.append(&incr("b"));
    assert!(bench.take().starts_with(&wire));
    for text in ["+ok\r\n", "+queued\r\n", "+executed\r\n", "+1\r\n"] {
        bench.reply(text);
    }
    assert_eq!((bench.outcome(&cut), bench.outcome(&later)), ("ok queued executed".into(), "1".into()));
    assert_eq!((bench.queue.bytes(), bench.queue.in_order()), (0, 0));
}

#[test]
fn a_token_of_a_command_that_is_gone_answers_nobody() {
    let mut bench = Bench::new(1 << 20);
    let first = bench.append(&get("a"));
    bench.take();
    let late = *bench.fifo.front().unwrap();
    bench.reply("+A\r\n");
    assert_eq!(bench.outcome(&first), "A");
    let second = bench.append(&get("b"));
    bench.take();
    bench.queue.complete(std::iter::once((late, Reply::new("+A\r\n".into()))), &mut bench.wakers);
    assert_eq!(bench.outcome(&second), "pending");
    bench.reply("+B\r\n");
    assert_eq!(bench.outcome(&second), "B");
}

#[test]
fn what_a_command_in_flight_costs_the_queue_stays_small() {
    assert_eq!((size_of::<Sent>(), size_of::<Completion>()), (8, 72));
}

#[test]
fn the_short_way_takes_replies_and_leaves_everything_else_to_the_long_one() {
    let mut bench = Bench::new(1000);
    let (first, second, late) =
        (bench.append(&get("a")), bench.append(&get("b")), bench.append(&Command::new("GET").key("c")));
    assert_eq!(bench.queue.take_reply(first), None);
    bench.take();
    assert_eq!(bench.queue.take_reply(first), None);
    bench.reply("+A\r\n");
    bench.reply("-LOADING\r\n");
    assert_eq!(bench.queue.take_reply(first), Some(Reply::new((&b"+A\r\n"[..]).into())));
    assert_eq!(bench.queue.take_reply(first), None, "a ticket is spent");
    assert_eq!(bench.queue.take_reply(second), None, "an error keeps its place");
    assert!(
        matches!(bench.queue.poll(second, &mut Context::from_waker(&bench.waker)), Poll::Ready(Outcome::Reply(reply)) if reply.error().is_some())
    );
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    let now = Instant::now();
    for seconds in [0, 2] {
        bench.queue.expire(now + Duration::from_secs(seconds), None, &mut bench.wakers);
    }
    assert_eq!(bench.queue.take_reply(late), None, "told of its deadline, owed still");
    assert_eq!(bench.outcome(&late), "TimedOutSent");
    bench.reply("+C\r\n");
    assert!(bench.queue.slots.iter().all(|(_, place)| place.seq == second.seq));
}
