//! Scripts for the link machine, in virtual time.

mod world;

use evenkeel_protocol::{Command, Push, ServerError, SubscriptionKind};

use super::{super::*, *};

fn origin() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "origin of virtual time")]
    Instant::now()
}

const RESP3: Peer = Peer { resp3: true, cluster: false };

/// A command as text, arguments divided by spaces.
fn words(command: &Command) -> Vec<String> {
    let mut wire = bytes::BytesMut::new();
    command.encode(&mut wire);
    let text = String::from_utf8(wire.to_vec()).unwrap();
    text.split("\r\n").skip(2).step_by(2).map(str::to_owned).collect()
}

fn message(channel: &str, payload: &str) -> Push {
    Push::Message {
        sharded: false,
        channel: Bytes::copy_from_slice(channel.as_bytes()),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

struct Script {
    machine: LinkMachine,
    origin: Instant,
    /// The channel of the newest cut.
    cut: String,
}

impl Script {
    fn new() -> Self {
        Self::with(LinkSettings::default())
    }

    fn with(settings: LinkSettings) -> Self {
        let home = Endpoint::new("a", 1);
        let machine = LinkMachine::new(home, Backoff::default(), settings, Seed::new(1), Seed::new(2));
        let mut script = Self { machine, origin: origin(), cut: String::new() };
        assert_eq!(script.actions(), ["dial 0 a:1"]);
        script
    }

    /// Connected, with these channels confirmed.
    fn standing(channels: &[&'static str]) -> Self {
        Self::standing_with(channels, LinkSettings::default())
    }

    fn standing_with(channels: &[&'static str], settings: LinkSettings) -> Self {
        let mut script = Self::with(settings);
        script.input(0, LinkInput::Dialed(DialId(0), RESP3));
        for channel in channels {
            script.subscribe(0, ChannelKind::Channel, &[channel]);
            assert_eq!(
                script.confirm(0, 0, SubscriptionKind::Subscribed, channel),
                [format!("confirmed {channel}")]
            );
        }
        script
    }

    fn at(&self, ms: u64) -> Instant {
        self.origin + Duration::from_millis(ms)
    }

    fn input(&mut self, ms: u64, input: LinkInput) -> Vec<String> {
        self.machine.handle_input(self.at(ms), input);
        self.actions()
    }

    fn timeout(&mut self, ms: u64) -> Vec<String> {
        self.machine.handle_timeout(self.at(ms));
        self.actions()
    }

    fn next(&self) -> Option<u128> {
        self.machine.poll_timeout().map(|at| at.duration_since(self.origin).as_millis())
    }

    fn subscribe(&mut self, ms: u64, kind: ChannelKind, names: &[&'static str]) -> Vec<String> {
        let names = names.iter().map(|name| Bytes::from(*name)).collect();
        self.input(ms, LinkInput::Subscribe(kind, names))
    }

    fn unsubscribe(&mut self, ms: u64, names: &[&'static str]) -> Vec<String> {
        let names = names.iter().map(|name| Bytes::from(*name)).collect();
        self.input(ms, LinkInput::Unsubscribe(ChannelKind::Channel, names))
    }

    fn confirm(&mut self, ms: u64, dial: u64, kind: SubscriptionKind, channel: &str) -> Vec<String> {
        self.input(ms, LinkInput::Heard(DialId(dial)));
        let channel = Some(Bytes::copy_from_slice(channel.as_bytes()));
        self.input(ms, LinkInput::Push(DialId(dial), Push::Subscription { kind, channel, count: 1 }))
    }

    fn hear(&mut self, ms: u64, dial: u64, channel: &str, payload: &str) -> Vec<String> {
        self.input(ms, LinkInput::Heard(DialId(dial)));
        self.input(ms, LinkInput::Push(DialId(dial), message(channel, payload)))
    }

    fn refuse(&mut self, ms: u64, dial: u64, error: &str) -> Vec<String> {
        let error = Some(ServerError::parse(error.as_bytes()));
        self.input(ms, LinkInput::Reply { dial: DialId(dial), error, number: None })
    }

    fn answer(&mut self, ms: u64, dial: u64, number: i64) -> Vec<String> {
        self.input(ms, LinkInput::Reply { dial: DialId(dial), error: None, number: Some(number) })
    }

    /// A move of this link whose new connection is dial 1 and has the cut channel and `n`; the marker is published.
    fn marked() -> Self {
        Self::marked_with(LinkSettings::default())
    }

    fn marked_with(settings: LinkSettings) -> Self {
        let mut script = Self::standing_with(&["n"], settings);
        script.start_move(0);
        assert_eq!(
            script.input(0, LinkInput::Dialed(DialId(1), RESP3)),
            ["0: SUBSCRIBE cut", "1: SUBSCRIBE cut", "1: SUBSCRIBE n"]
        );
        let cut = script.cut.clone();
        assert!(script.confirm(1, 0, SubscriptionKind::Subscribed, &cut).is_empty());
        assert!(script.confirm(1, 1, SubscriptionKind::Subscribed, &cut).is_empty());
        let done = script.confirm(2, 1, SubscriptionKind::Subscribed, "n");
        assert_eq!(done, ["1: PUBLISH cut cut"]);
        script
    }

    fn start_move(&mut self, ms: u64) {
        let request = MoveRequest::new(MoveId(7), Endpoint::new("b", 1), self.at(ms), self.at(ms + 5000));
        assert_eq!(self.input(ms, LinkInput::Move(request)), ["dial 1 b:1"]);
    }

    fn actions(&mut self) -> Vec<String> {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let mut list = Vec::new();
        while let Some(action) = self.machine.poll_action() {
            list.push(match action {
                LinkAction::Confirmed(_, channel) => format!("confirmed {}", text(&channel)),
                LinkAction::Deliver(Push::Message { payload, .. }) => format!("deliver {}", text(&payload)),
                LinkAction::Deliver(_) => "deliver".into(),
                LinkAction::Dial { dial, endpoint, .. } => format!("dial {} {endpoint}", dial.0),
                LinkAction::Discard(dial) => format!("discard {}", dial.0),
                LinkAction::Ended(_, channel, cause) => format!("ended {} {cause:?}", text(&channel)),
                LinkAction::Gap(gap) => format!(
                    "gap since={} may_repeat={}",
                    gap.since.duration_since(self.origin).as_millis(),
                    gap.may_repeat
                ),
                LinkAction::Refused(_, channels, error) => {
                    let channels: Vec<String> = channels.iter().map(text).collect();
                    format!("refused {} {}", channels.join(" "), error.code())
                }
                LinkAction::Report(Report::Moved(_)) => "moved".into(),
                LinkAction::Report(Report::MoveFailed(_)) => "move failed".into(),
                LinkAction::Report(Report::Connected { again, .. }) => format!("connected again={again}"),
                LinkAction::Report(Report::Reconnecting { attempt, .. }) => format!("reconnecting {attempt}"),
                LinkAction::Report(Report::Suspect(_)) => "suspect".into(),
                LinkAction::Report(Report::Mute(_)) => "mute".into(),
                LinkAction::Use(dial) => format!("use {}", dial.0),
                LinkAction::Write(dial, command) => {
                    let mut words = words(&command);
                    for word in &mut words {
                        if word.starts_with(CUT_CHANNEL) {
                            self.cut.clone_from(word);
                            *word = "cut".into();
                        }
                    }
                    format!("{}: {}", dial.0, words.join(" "))
                }
            });
        }
        list
    }
}

#[test]
fn what_is_wanted_before_there_is_a_connection_is_asked_for_in_batches_of_one_slot() {
    let mut script = Script::new();
    assert!(script.subscribe(0, ChannelKind::Channel, &["b", "a"]).is_empty());
    assert!(script.subscribe(0, ChannelKind::Pattern, &["p*"]).is_empty());
    assert!(script.subscribe(0, ChannelKind::Shard, &["{1}x", "{2}x", "{1}y"]).is_empty());
    assert_eq!(
        script.input(1, LinkInput::Dialed(DialId(0), RESP3)),
        [
            "use 0",
            "connected again=false",
            "0: SUBSCRIBE a b",
            "0: PSUBSCRIBE p*",
            "0: SSUBSCRIBE {2}x",
            "0: SSUBSCRIBE {1}x {1}y",
        ]
    );
    assert_eq!(script.confirm(2, 0, SubscriptionKind::PatternSubscribed, "p*"), ["confirmed p*"]);
}

#[test]
fn a_million_names_do_not_lie_in_the_write_buffer_at_once() {
    let mut script = Script::new();
    let names: Vec<Bytes> = (0..70_000).map(|number| Bytes::from(format!("{number:06}"))).collect();
    script.input(0, LinkInput::Subscribe(ChannelKind::Channel, names));
    let writes = script.input(1, LinkInput::Dialed(DialId(0), RESP3));
    let sizes: Vec<usize> = writes.iter().skip(2).map(|write| write.split(' ').count() - 2).collect();
    assert_eq!((sizes.len(), sizes.iter().sum::<usize>()), (128, 128 * 512));
    for number in 0..511 {
        assert_eq!(script.confirm(2, 0, SubscriptionKind::Subscribed, &format!("{number:06}")).len(), 1);
    }
    let next = script.confirm(2, 0, SubscriptionKind::Subscribed, "000511");
    assert!(next.len() == 2 && next[1].starts_with("0: SUBSCRIBE 065536 "), "{}", next.len());
}

#[test]
fn changes_of_mind_while_a_confirmation_is_owed_are_not_lost() {
    let mut script = Script::standing(&[]);
    assert_eq!(script.subscribe(0, ChannelKind::Channel, &["n"]), ["0: SUBSCRIBE n"]);
    assert!(script.unsubscribe(0, &["n"]).is_empty());
    assert_eq!(script.confirm(1, 0, SubscriptionKind::Subscribed, "n"), ["0: UNSUBSCRIBE n"]);
    assert!(script.subscribe(1, ChannelKind::Channel, &["n"]).is_empty());
    assert_eq!(script.confirm(2, 0, SubscriptionKind::Unsubscribed, "n"), ["0: SUBSCRIBE n"]);
    assert_eq!(script.confirm(3, 0, SubscriptionKind::Subscribed, "n"), ["confirmed n"]);
    assert_eq!(script.subscribe(4, ChannelKind::Channel, &["n"]), ["confirmed n"]);
    assert_eq!(script.unsubscribe(4, &["n"]), ["0: UNSUBSCRIBE n"]);
    assert_eq!(script.confirm(5, 0, SubscriptionKind::Unsubscribed, "n"), ["ended n Asked"]);
}

#[test]
fn after_a_loss_the_gap_waits_for_the_last_confirmation() {
    let mut script = Script::standing(&["a", "b"]);
    script.input(50, LinkInput::Heard(DialId(0)));
    assert_eq!(script.input(70, LinkInput::Lost(DialId(0))), ["reconnecting 0", "dial 1 a:1"]);
    assert_eq!(script.subscribe(71, ChannelKind::Channel, &["c"]), [""; 0]);
    assert_eq!(
        script.input(80, LinkInput::Dialed(DialId(1), RESP3)),
        ["use 1", "connected again=true", "1: SUBSCRIBE a b c"]
    );
    assert_eq!(script.confirm(81, 1, SubscriptionKind::Subscribed, "a"), ["confirmed a"]);
    assert_eq!(script.hear(81, 1, "a", "x"), ["deliver x"]);
    assert_eq!(script.confirm(82, 1, SubscriptionKind::Subscribed, "b"), ["confirmed b"]);
    assert_eq!(
        script.confirm(82, 1, SubscriptionKind::Subscribed, "c"),
        ["confirmed c", "gap since=50 may_repeat=false"]
    );
}

#[test]
fn a_link_that_had_nothing_lost_nothing() {
    let mut script = Script::standing(&[]);
    script.input(70, LinkInput::Lost(DialId(0)));
    script.input(80, LinkInput::Dialed(DialId(1), RESP3));
    script.subscribe(81, ChannelKind::Channel, &["c"]);
    assert_eq!(script.confirm(82, 1, SubscriptionKind::Subscribed, "c"), ["confirmed c"]);
}

#[test]
fn the_new_side_hears_the_marker_first_and_what_follows_waits() {
    let mut script = Script::marked();
    let cut = script.cut.clone();
    assert_eq!(script.hear(3, 1, "n", "1"), [""; 0]);
    assert_eq!(script.hear(3, 1, &cut, "cut"), [""; 0]);
    assert_eq!(script.hear(3, 1, "n", "2"), [""; 0]);
    assert_eq!(script.answer(3, 1, 2), [""; 0]);
    assert_eq!(script.hear(4, 0, "n", "1"), ["deliver 1"]);
    assert_eq!(
        script.hear(5, 0, &cut, "cut"),
        ["1: UNSUBSCRIBE cut", "use 1", "discard 0", "deliver 2", "moved"]
    );
    assert_eq!(script.hear(6, 0, "n", "2"), [""; 0]);
    assert_eq!(script.hear(6, 1, "n", "3"), ["deliver 3"]);
    assert_eq!(script.machine.endpoint(), &Endpoint::new("b", 1));
}

#[test]
fn the_old_side_hears_the_marker_first_and_what_the_new_one_hears_before_it_is_known() {
    let mut script = Script::marked();
    let cut = script.cut.clone();
    assert_eq!(script.hear(3, 0, "n", "1"), ["deliver 1"]);
    assert_eq!(script.hear(3, 0, &cut, "cut"), ["use 1", "discard 0", "moved"]);
    assert_eq!(script.hear(4, 1, "n", "1"), [""; 0]);
    assert_eq!(script.hear(5, 1, &cut, "cut"), ["1: UNSUBSCRIBE cut"]);
    assert_eq!(script.hear(6, 1, "n", "2"), ["deliver 2"]);
}

#[test]
fn a_marker_that_never_comes_is_waited_for_so_long_and_the_gap_told() {
    // On the old side.
    let mut script = Script::marked();
    let cut = script.cut.clone();
    script.hear(3, 1, &cut, "cut");
    script.hear(3, 1, "n", "2");
    assert_eq!(script.next(), Some(1002));
    assert_eq!(
        script.timeout(1002),
        ["1: UNSUBSCRIBE cut", "use 1", "discard 0", "gap since=1 may_repeat=true", "deliver 2", "moved"]
    );
    // On the new side.
    let mut script = Script::marked();
    let cut = script.cut.clone();
    script.hear(3, 0, &cut, "cut");
    script.input(900, LinkInput::Heard(DialId(1)));
    assert_eq!(script.next(), Some(1002));
    assert_eq!(script.timeout(1002), ["1: UNSUBSCRIBE cut", "gap since=3 may_repeat=true"]);
    assert_eq!(script.hear(1003, 1, "n", "2"), ["deliver 2"]);
}

#[test]
fn what_waits_for_the_marker_is_bounded() {
    let mut script = Script::marked_with(LinkSettings::default().hold(3, 1 << 20));
    let cut = script.cut.clone();
    script.hear(3, 1, &cut, "cut");
    assert_eq!(script.hear(3, 1, "n", "1"), [""; 0]);
    assert_eq!(script.hear(3, 1, "n", "2"), [""; 0]);
    let all = script.hear(3, 1, "n", "3");
    assert_eq!(all[3..], ["gap since=1 may_repeat=true", "deliver 1", "deliver 2", "deliver 3", "moved"]);
}

#[test]
fn an_old_side_that_dies_in_the_cut_leaves_what_the_new_one_holds_and_a_gap() {
    let mut script = Script::marked();
    let cut = script.cut.clone();
    script.hear(3, 1, &cut, "cut");
    script.hear(3, 1, "n", "2");
    assert_eq!(
        script.input(4, LinkInput::Lost(DialId(0))),
        [
            "reconnecting 0",
            "1: UNSUBSCRIBE cut",
            "use 1",
            "confirmed n",
            "gap since=1 may_repeat=true",
            "deliver 2",
            "connected again=true",
            "moved"
        ]
    );
}

#[test]
fn a_new_side_that_dies_in_the_cut_costs_nothing() {
    let mut script = Script::marked();
    let cut = script.cut.clone();
    script.hear(3, 1, &cut, "cut");
    script.hear(3, 1, "n", "2");
    // What is subscribed meanwhile goes to the new side alone; without it to the old one.
    assert_eq!(script.subscribe(3, ChannelKind::Channel, &["m"]), ["1: SUBSCRIBE m"]);
    let lost = script.input(4, LinkInput::Lost(DialId(1)));
    assert_eq!(lost, ["0: UNSUBSCRIBE cut", "discard 1", "0: SUBSCRIBE m"]);
    assert_eq!(script.hear(5, 0, &cut, "cut"), [""; 0]);
    assert_eq!(script.hear(5, 0, "n", "2"), ["deliver 2"]);
    assert_eq!(script.timeout(50), ["dial 2 b:1"]);
}

#[test]
fn what_is_subscribed_during_the_cut_is_confirmed_with_it() {
    let mut script = Script::marked();
    let cut = script.cut.clone();
    assert_eq!(script.subscribe(3, ChannelKind::Channel, &["m"]), ["1: SUBSCRIBE m"]);
    assert_eq!(script.confirm(4, 1, SubscriptionKind::Subscribed, "m"), [""; 0]);
    let over = script.hear(5, 0, &cut, "cut");
    assert_eq!(over, ["use 1", "discard 0", "confirmed m", "moved"]);
}

#[test]
fn a_refused_marker_takes_over_with_a_gap() {
    for error in ["NOPERM no", "READONLY no"] {
        let mut script = Script::marked();
        let over = script.refuse(3, 1, error);
        let gap = ["1: UNSUBSCRIBE cut", "use 1", "discard 0", "gap since=1 may_repeat=true", "moved"];
        assert_eq!(over, gap);
    }
    // It was heard by one connection only: two servers.
    let mut script = Script::marked();
    assert!(script.answer(3, 1, 1).contains(&"gap since=1 may_repeat=true".to_owned()));
}

#[test]
fn a_new_side_that_refuses_what_the_old_one_has_is_not_taken() {
    let mut script = Script::standing(&["n"]);
    script.start_move(0);
    script.input(0, LinkInput::Dialed(DialId(1), Peer { resp3: false, cluster: false }));
    assert_eq!(script.refuse(1, 1, "NOPERM no channel"), ["discard 1"]);
    assert_eq!(script.hear(1, 0, "n", "1"), ["deliver 1"]);
    assert_eq!(script.timeout(5000), ["move failed"]);
}

#[test]
fn a_refusal_finds_the_one_that_is_meant() {
    let mut script = Script::standing(&[]);
    assert_eq!(script.subscribe(0, ChannelKind::Channel, &["a", "b", "c"]), ["0: SUBSCRIBE a b c"]);
    let noperm = "NOPERM No permissions to access a channel";
    assert_eq!(script.refuse(1, 0, noperm), ["0: SUBSCRIBE a", "0: SUBSCRIBE b c"]);
    assert_eq!(script.confirm(2, 0, SubscriptionKind::Subscribed, "a"), ["confirmed a"]);
    assert_eq!(script.refuse(2, 0, noperm), ["0: SUBSCRIBE b", "0: SUBSCRIBE c"]);
    assert_eq!(script.refuse(3, 0, noperm), ["refused b NOPERM"]);
    assert_eq!(script.confirm(3, 0, SubscriptionKind::Subscribed, "c"), ["confirmed c"]);
    // The command itself is forbidden: all of them.
    script.subscribe(4, ChannelKind::Shard, &["{1}a", "{1}b"]);
    let whole = "NOPERM User x has no permissions to run the 'ssubscribe' command";
    assert_eq!(script.refuse(4, 0, whole), ["refused {1}a {1}b NOPERM"]);
    script.subscribe(5, ChannelKind::Shard, &["{1}a", "{1}b"]);
    assert_eq!(script.refuse(5, 0, "MOVED 9842 h:1"), ["refused {1}a {1}b MOVED"]);
    assert_eq!(script.machine.wanted(), 2);
}

#[test]
fn a_slot_that_moves_ends_its_channels_and_a_late_error_hurts_nobody() {
    let mut script = Script::standing(&[]);
    script.subscribe(0, ChannelKind::Shard, &["s"]);
    script.confirm(1, 0, SubscriptionKind::ShardSubscribed, "s");
    assert_eq!(script.confirm(2, 0, SubscriptionKind::ShardUnsubscribed, "s"), ["ended s ByServer"]);
    assert_eq!(script.refuse(3, 0, "MOVED 1 h:1"), [""; 0]);
    assert_eq!(script.machine.wanted(), 0);
}

#[test]
fn an_idle_link_is_asked_and_a_silent_one_probed_and_given_up() {
    let mut script = Script::standing(&["n"]);
    assert_eq!(script.next(), Some(10_000));
    script.input(500, LinkInput::Heard(DialId(0)));
    assert_eq!(script.timeout(10_000), [""; 0]);
    assert_eq!(script.timeout(10_500), ["0: PING"]);
    assert_eq!(script.next(), Some(11_500));
    assert_eq!(script.timeout(11_500), ["suspect", "dial 1 a:1"]);
    // Somebody listens: the server is slow, not gone.
    assert_eq!(script.input(11_600, LinkInput::Dialed(DialId(1), RESP3)), ["discard 1"]);
    assert_eq!(script.timeout(11_750), ["dial 2 a:1"]);
    script.input(11_800, LinkInput::Heard(DialId(0)));
    assert_eq!(script.input(11_800, LinkInput::DialFailed { dial: DialId(2), refused: true }), [""; 0]);
    // It answers, and later falls silent for good.
    script.answer(11_800, 0, 0);
    assert_eq!(script.timeout(21_800), ["0: PING"]);
    assert_eq!(script.timeout(22_800), ["suspect", "dial 3 a:1"]);
    let refused = LinkInput::DialFailed { dial: DialId(3), refused: true };
    assert_eq!(script.input(22_900, refused), ["discard 0", "reconnecting 0", "dial 4 a:1"]);
}

#[test]
fn a_relaxed_link_is_not_suspect_and_has_its_time() {
    let mut script = Script::standing(&["n"]);
    script.input(0, LinkInput::Relax(Some(Duration::from_secs(15))));
    assert_eq!(script.timeout(10_000), ["0: PING"]);
    assert_eq!(script.next(), Some(25_000));
    assert_eq!(script.timeout(24_000), [""; 0]);
    script.input(24_000, LinkInput::Relax(None));
    assert_eq!(script.timeout(24_000), ["discard 0", "reconnecting 0", "dial 1 a:1"]);
}

#[test]
fn markers_are_hidden_from_patterns() {
    let mut script = Script::standing(&[]);
    let pattern = Bytes::from("*");
    for (channel, heard) in [(format!("{CUT_CHANNEL}9"), 0), ("n".to_owned(), 1)] {
        let push = Push::PatternMessage {
            pattern: pattern.clone(),
            channel: Bytes::from(channel),
            payload: Bytes::new(),
        };
        assert_eq!(script.input(1, LinkInput::Push(DialId(0), push)).len(), heard);
    }
}

#[test]
fn a_closed_link_lets_everything_go() {
    let mut script = Script::marked();
    let mut closed = script.input(3, LinkInput::Close);
    closed.sort();
    assert_eq!(closed, ["discard 0", "discard 1", "discard 1", "move failed"]);
    assert_eq!(script.next(), None);
}
