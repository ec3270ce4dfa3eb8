//! Order (P7) under any schedule: whatever happens to the connections, a command of a slot is handed to one only when every
//! earlier one of that slot is done, or stands before it on the same one.

use std::collections::HashMap;

use evenkeel_protocol::Command;
use proptest::{prelude::*, sample::Index};

use super::*;

/// What one step does to the queue.
#[derive(Clone, Copy, Debug)]
enum Step {
    Read(u8),
    Write(u8),
    /// A transaction; of two slots when they differ.
    Unit(u8, u8),
    Take,
    Flush(Index),
    /// The oldest reply that some connection owes.
    Reply(Index),
    /// The server of the connection in use refuses everything from here on.
    Demote,
    Switch,
    /// Some connection is lost.
    Lose(Index),
    Hold,
    Release,
    Cancel(Index),
    Withdraw(Index),
    /// Somebody whose command was given back sends it again.
    Resend(Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let slot = || 0..3u8;
    let step = prop_oneof![
        4 => slot().prop_map(Step::Read),
        6 => slot().prop_map(Step::Write),
        1 => (slot(), slot()).prop_map(|(one, two)| Step::Unit(one, two)),
        5 => Just(Step::Take),
        5 => any::<Index>().prop_map(Step::Flush),
        6 => any::<Index>().prop_map(Step::Reply),
        1 => Just(Step::Demote),
        2 => Just(Step::Switch),
        1 => any::<Index>().prop_map(Step::Lose),
        1 => Just(Step::Hold),
        2 => Just(Step::Release),
        1 => any::<Index>().prop_map(Step::Cancel),
        1 => any::<Index>().prop_map(Step::Withdraw),
        3 => any::<Index>().prop_map(Step::Resend),
    ];
    prop::collection::vec(step, 1..120)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    /// In the queue, wherever there.
    Queued,
    /// Handed to this connection.
    On(usize),
    /// Given back to its caller, who may send it again.
    GivenBack,
    Done,
}

#[derive(Debug)]
struct Placed {
    unit: Vec<Command>,
    ticket: Ticket,
    slots: [u8; 2],
    stands: Stands,
    cancelled: bool,
}

/// A connection: what was handed to it, and how many bytes of that have left.
#[derive(Debug, Default)]
struct Socket {
    number: usize,
    fifo: VecDeque<Sent>,
    /// Where each command that is owed ends in the stream of bytes.
    ends: VecDeque<(usize, u64)>,
    batch: Batch,
    written: u64,
    refuses: bool,
}

struct World {
    queue: Queue,
    waker: Waker,
    wakers: Vec<Waker>,
    placed: Vec<Placed>,
    by_token: HashMap<(u32, u32), usize>,
    /// The last is in use, the others were left and still owe.
    sockets: Vec<Socket>,
    made: usize,
}

impl World {
    fn new() -> Self {
        let mut queue = Queue::new(QueueLimits { bytes: 1 << 20 });
        queue.keep_refused();
        Self {
            queue,
            waker: Waker::noop().clone(),
            wakers: Vec::new(),
            placed: Vec::new(),
            by_token: HashMap::new(),
            sockets: vec![Socket::default()],
            made: 1,
        }
    }

    fn append(&mut self, unit: Vec<Command>, slots: [u8; 2]) {
        let Append::Queued(ticket) = self.queue.append(&Unit::of(&unit), 1000, None, self.waker.clone()).0
        else {
            panic!("no room");
        };
        self.by_token.insert((ticket.index, ticket.seq as u32), self.placed.len());
        self.placed.push(Placed { unit, ticket, slots, stands: Stands::Queued, cancelled: false });
    }

    /// Its caller has left, and so it was let go before it was handed over.
    fn is_gone(&self, number: usize) -> bool {
        let Placed { ticket, cancelled, .. } = &self.placed[number];
        let place = self.queue.slots.get(ticket.index as usize).filter(|place| place.seq == ticket.seq);
        *cancelled && place.is_none()
    }

    fn number(&self, sent: Sent) -> usize {
        self.by_token[&(sent.index, sent.mark)]
    }

    fn socket(&mut self) -> &mut Socket {
        self.sockets.last_mut().unwrap()
    }

    fn take(&mut self) {
        let Some(mut socket) = self.sockets.pop() else { return };
        if socket.written == socket.batch.end {
            socket.batch.bytes.clear();
            let known = socket.fifo.len();
            self.queue.take_batch(&mut socket.batch, &mut socket.fifo);
            let mut end = socket.batch.base.max(socket.written);
            let fresh: Vec<usize> = socket.fifo.range(known..).map(|sent| self.number(*sent)).collect();
            let mut last = None;
            for number in fresh {
                if last.replace(number) == Some(number) {
                    continue;
                }
                self.check(number, socket.number);
                self.placed[number].stands = Stands::On(socket.number);
                end += self.placed[number].unit.iter().map(Command::encoded_len).sum::<usize>() as u64;
                socket.ends.push_back((number, end));
            }
            assert_eq!(end, socket.batch.end, "bytes and tokens agree");
        }
        self.sockets.push(socket);
    }

    /// What is handed over now has nothing earlier of its slot anywhere else.
    fn check(&self, number: usize, socket: usize) {
        let this = &self.placed[number];
        for (place, earlier) in self.placed[..number].iter().enumerate() {
            let shares = earlier.slots.iter().any(|slot| this.slots.contains(slot));
            let done = matches!(earlier.stands, Stands::Done) || self.is_gone(place);
            let passed = !done && earlier.stands != Stands::On(socket);
            assert!(
                !(shares && passed),
                "{:?} goes to {socket} before {:?}, which stands {:?}",
                this.unit,
                earlier.unit,
                earlier.stands
            );
        }
    }

    fn flush(&mut self, amount: Index) {
        for socket in &mut self.sockets {
            let left = socket.batch.end - socket.written;
            if left > 0 {
                socket.written += amount.index(left as usize) as u64 + 1;
                return;
            }
        }
    }

    fn reply(&mut self, at: usize) {
        let Some(&(number, end)) = self.sockets[at].ends.front() else { return };
        if end > self.sockets[at].written {
            return;
        }
        for _ in 0..self.placed[number].unit.len() {
            let sent = self.sockets[at].fifo.pop_front().unwrap();
            assert_eq!(self.number(sent), number);
            let words = if self.sockets[at].refuses { "-READONLY no\r\n" } else { "+ok\r\n" };
            let reply = Reply::new(words.to_owned().into());
            self.queue.complete(std::iter::once((sent, reply)), &mut self.wakers);
        }
        self.sockets[at].ends.pop_front();
        self.placed[number].stands = Stands::Done;
        if !self.placed[number].cancelled {
            assert!(matches!(self.poll(number), Poll::Ready(Outcome::Reply(_) | Outcome::Replies(_))));
            if self.sockets[at].refuses {
                self.placed[number].stands = Stands::GivenBack;
                return;
            }
            self.queue.cancel(self.placed[number].ticket);
        }
    }

    fn poll(&mut self, number: usize) -> Poll<Outcome> {
        let waker = self.waker.clone();
        self.queue.poll(self.placed[number].ticket, &mut Context::from_waker(&waker))
    }

    fn switch(&mut self) {
        let fifo: Vec<Sent> = self.socket().fifo.iter().copied().collect();
        self.queue.leave(fifo.into_iter());
        self.open();
    }

    fn open(&mut self) {
        let number = self.made;
        self.made += 1;
        self.sockets.push(Socket { number, ..Socket::default() });
    }

    fn lose(&mut self, at: usize) {
        let in_use = at + 1 == self.sockets.len();
        let mut socket = self.sockets.remove(at);
        self.queue.lose(socket.fifo.drain(..), socket.written, &mut socket.batch, &mut self.wakers);
        for (number, end) in socket.ends {
            let unsent = end > socket.written;
            let stands = match self.poll(number) {
                _ if self.placed[number].cancelled => Stands::Done,
                Poll::Pending => Stands::Queued,
                Poll::Ready(Outcome::MayResend) => Stands::GivenBack,
                Poll::Ready(Outcome::Failed(Failure::Lost)) => Stands::Done,
                other @ Poll::Ready(_) => panic!("{other:?}"),
            };
            self.placed[number].stands = stands;
            let cancelled = self.placed[number].cancelled;
            assert!(!unsent || cancelled || stands == Stands::Queued, "it has not run, and waits");
        }
        if in_use {
            self.open();
        }
    }

    fn pick(&self, which: Index, wanted: impl Fn(&Placed) -> bool) -> Option<usize> {
        let fitting: Vec<usize> =
            (0..self.placed.len()).filter(|number| wanted(&self.placed[*number])).collect();
        (!fitting.is_empty()).then(|| *which.get(&fitting))
    }

    fn cancel(&mut self, which: Index) {
        let Some(number) = self.pick(which, |placed| !placed.cancelled && placed.stands != Stands::Done)
        else {
            return;
        };
        self.queue.cancel(self.placed[number].ticket);
        self.placed[number].cancelled = true;
        if self.placed[number].stands == Stands::GivenBack {
            self.placed[number].stands = Stands::Done;
        }
    }

    fn withdraw(&mut self, which: Index) {
        let Some(number) = self.pick(which, |placed| !placed.cancelled && placed.stands != Stands::Done)
        else {
            return;
        };
        let queued = self.placed[number].stands == Stands::Queued;
        // One that is sent again after a loss waits with what it blocks, and keeps its place.
        if self.queue.withdraw(self.placed[number].ticket, &mut self.wakers) {
            assert!(queued, "what was handed over is not taken back");
            self.placed[number].stands = Stands::Done;
            self.placed[number].cancelled = true;
        }
    }

    fn resend(&mut self, number: usize) {
        let unit = self.placed[number].unit.clone();
        let waker = self.waker.clone();
        self.queue.resend(self.placed[number].ticket, &unit, &waker);
        self.placed[number].stands = Stands::Queued;
    }

    fn step(&mut self, step: Step) {
        let key = |slot: u8| ["{a}", "{b}", "{c}"][slot as usize];
        match step {
            Step::Read(slot) => self.append(vec![Command::new("GET").key(key(slot))], [slot; 2]),
            Step::Write(slot) => self.append(vec![Command::new("INCR").key(key(slot))], [slot; 2]),
            Step::Unit(one, two) => {
                let incr = |slot| Command::new("INCR").key(key(slot));
                let unit = vec![Command::new("MULTI"), incr(one), incr(two), Command::new("EXEC")];
                // One of several slots stands in the way of everything.
                self.append(unit, [one, two]);
            }
            Step::Take => self.take(),
            Step::Flush(amount) => self.flush(amount),
            Step::Reply(which) => self.reply(which.index(self.sockets.len())),
            Step::Demote => self.socket().refuses = true,
            Step::Switch => self.switch(),
            Step::Lose(which) => self.lose(which.index(self.sockets.len())),
            Step::Hold => self.queue.hold(),
            Step::Release => drop(self.queue.release()),
            Step::Cancel(which) => self.cancel(which),
            Step::Withdraw(which) => self.withdraw(which),
            Step::Resend(which) => {
                if let Some(number) = self.pick(which, |placed| placed.stands == Stands::GivenBack) {
                    self.resend(number);
                }
            }
        }
    }

    /// Everything comes to its end once nothing stands in its way.
    fn finish(&mut self) {
        drop(self.queue.release());
        self.switch();
        for _ in 0..=self.placed.len() {
            for number in 0..self.placed.len() {
                if self.placed[number].stands == Stands::GivenBack {
                    self.resend(number);
                }
            }
            self.take();
            for socket in &mut self.sockets {
                socket.written = socket.batch.end;
            }
            for at in 0..self.sockets.len() {
                while !self.sockets[at].ends.is_empty() {
                    self.reply(at);
                }
            }
        }
        for number in 0..self.placed.len() {
            let done = self.placed[number].stands == Stands::Done || self.is_gone(number);
            assert!(done, "{:?}", self.placed[number]);
        }
        assert_eq!((self.queue.bytes(), self.queue.in_order()), (0, 0));
    }
}

proptest! {
    #[test]
    fn order_holds_whatever_happens_to_connections(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.finish();
    }
}
