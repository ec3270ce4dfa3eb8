//! Links against a broker on loopback that gives all its ports one order of messages.

mod broker;

use std::sync::atomic::Ordering;

use self::broker::Broker;
use super::*;
use crate::{driver::clock, machine::MoveId};

/// Writes down what it hears.
#[derive(Default)]
struct Diary {
    entries: Mutex<Vec<String>>,
    changed: tokio::sync::Notify,
}

impl Diary {
    fn note(&self, entry: String) {
        self.entries.lock().push(entry);
        self.changed.notify_waiters();
    }

    /// Waits for the condition; panics with what was heard when it does not come.
    async fn until(&self, what: &str, holds: impl Fn(&[String]) -> bool) {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if holds(&self.entries.lock()) {
                    return;
                }
                changed.await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(10), wait).await;
        assert!(waited.is_ok(), "{what}: {:?}", self.entries.lock());
    }

    async fn hears(&self, entry: &str) {
        self.until(entry, |entries| entries.iter().any(|known| known == entry)).await;
    }

    fn count(&self, entry: &str) -> usize {
        self.entries.lock().iter().filter(|known| *known == entry).count()
    }

    fn messages(&self) -> Vec<String> {
        self.entries.lock().iter().filter_map(|entry| entry.strip_prefix("m ")).map(str::to_owned).collect()
    }

    fn forget(&self) {
        self.entries.lock().clear();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl LinkObserver for Diary {
    fn message(&self, _: LinkId, message: Push) {
        self.note(match message {
            Push::Message { channel, payload, .. } => format!("m {}={}", text(&channel), text(&payload)),
            Push::PatternMessage { channel, payload, .. } => {
                format!("p {}={}", text(&channel), text(&payload))
            }
            other => format!("{other:?}"),
        });
    }

    fn confirmed(&self, _: LinkId, kind: ChannelKind, channel: Bytes) {
        self.note(format!("confirmed {kind:?} {}", text(&channel)));
    }

    fn ended(&self, _: LinkId, _: ChannelKind, channel: Bytes, cause: EndCause) {
        self.note(format!("ended {} {cause:?}", text(&channel)));
    }

    fn refused(&self, _: LinkId, _: ChannelKind, channels: Vec<Bytes>, error: ServerError) {
        for channel in channels {
            self.note(format!("refused {} {}", text(&channel), error.code()));
        }
    }

    fn gap(&self, _: LinkId, gap: GapInfo) {
        self.note(format!("gap may_repeat={}", gap.may_repeat));
    }

    fn report(&self, _: LinkId, report: Report) {
        self.note(match report {
            Report::Moved(id) => format!("moved {}", id.0),
            Report::MoveFailed(id) => format!("move failed {}", id.0),
            Report::Connected { .. } => "connected".into(),
            Report::Reconnecting { .. } => "reconnecting".into(),
            Report::Suspect(_) => "suspect".into(),
            Report::Mute(_) => "mute".into(),
        });
    }

    fn closed(&self, _: LinkId, _: &Arc<ConnInfo>, by_peer: bool) {
        self.note(format!("closed by_peer={by_peer}"));
    }
}

fn start(endpoint: &Endpoint, config: LinkConfig) -> (Link, Arc<Diary>) {
    let diary = Arc::new(Diary::default());
    let link = Link::start(LinkId(1), endpoint.clone(), config, Arc::clone(&diary) as Arc<dyn LinkObserver>);
    (link, diary)
}

fn request(id: u64, target: &Endpoint) -> MoveRequest {
    let now = clock::now();
    MoveRequest::new(MoveId(id), target.clone(), now, now + Duration::from_secs(5))
}

/// Publishes numbers on `n`, one each 2 ms, until told to stop; gives how many.
fn publish_numbers(
    broker: &Arc<Broker>,
) -> (Arc<std::sync::atomic::AtomicBool>, tokio::task::JoinHandle<usize>) {
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (flag, broker) = (Arc::clone(&stop), Arc::clone(broker));
    let task = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(2));
        let mut sent = 0usize;
        while !flag.load(Ordering::SeqCst) {
            ticks.tick().await;
            broker.publish(b"n", sent.to_string().as_bytes());
            sent += 1;
        }
        sent
    });
    (stop, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_moves_under_load_lose_nothing_and_double_nothing() {
    let broker = Arc::new(Broker::default());
    // Sides of different speed: the marker comes first now on the old one, now on the new one.
    let sides = [broker.listen(Duration::ZERO).await, broker.listen(Duration::from_millis(15)).await];
    let (link, diary) = start(&sides[0], LinkConfig::default());
    link.subscribe(ChannelKind::Channel, ["n"]);
    link.subscribe(ChannelKind::Pattern, ["*"]);
    diary.hears("confirmed Channel n").await;
    diary.hears("confirmed Pattern *").await;
    let (stop, publisher) = publish_numbers(&broker);
    for round in 1..=20 {
        let heard = diary.messages().len();
        diary.until("messages go on", |entries| entries.len() >= heard + 20).await;
        assert!(link.move_to(request(round, &sides[usize::try_from(round % 2).unwrap()])));
        diary.hears(&format!("moved {round}")).await;
    }
    stop.store(true, Ordering::SeqCst);
    let sent = publisher.await.unwrap();
    diary.hears(&format!("m n={}", sent - 1)).await;
    diary.hears(&format!("p n={}", sent - 1)).await;
    let wanted: Vec<String> = (0..sent).map(|number| format!("n={number}")).collect();
    assert_eq!(diary.messages(), wanted);
    let patterns: Vec<String> =
        diary.entries.lock().iter().filter_map(|entry| entry.strip_prefix("p ")).map(str::to_owned).collect();
    assert_eq!(patterns, wanted, "the pattern hears each number once, and no marker");
    assert!(diary.entries.lock().iter().all(|entry| !entry.starts_with("gap")));
    assert_eq!((broker.accepted.load(Ordering::SeqCst), diary.count("connected")), (21, 1));
    tokio::time::timeout(Duration::from_secs(5), async {
        while broker.connections() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn everything_is_subscribed_again_after_a_loss_and_then_the_gap_is_told() {
    let broker = Arc::new(Broker::default());
    let endpoint = broker.listen(Duration::ZERO).await;
    let (link, diary) = start(&endpoint, LinkConfig::default());
    let names: Vec<String> = (0..1300).map(|number| format!("c{number}")).collect();
    link.subscribe(ChannelKind::Channel, names);
    diary.hears("confirmed Channel c1299").await;
    diary.until("all", |entries| entries.iter().filter(|e| e.starts_with("confirmed")).count() == 1300).await;
    assert_eq!(diary.count("gap may_repeat=false"), 0);
    diary.forget();
    broker.cut_all();
    diary.hears("gap may_repeat=false").await;
    let entries = diary.entries.lock().clone();
    let gap = entries.iter().position(|entry| entry.starts_with("gap")).unwrap();
    let before = entries[..gap].iter().filter(|entry| entry.starts_with("confirmed")).count();
    assert_eq!(before, 1300);
    assert_eq!(diary.count("closed by_peer=true"), 1);
    broker.publish(b"c77", b"x");
    diary.hears("m c77=x").await;
}

#[tokio::test]
async fn a_push_that_cannot_be_read_costs_the_connection_only_where_it_may_be_a_message() {
    let broker = Arc::new(Broker::default());
    let endpoint = broker.listen(Duration::ZERO).await;
    let (link, diary) = start(&endpoint, LinkConfig::default());
    link.subscribe(ChannelKind::Channel, ["n"]);
    diary.hears("confirmed Channel n").await;
    broker.say(b">4\r\n+MIGRATING\r\n:x\r\n_\r\n_\r\n>2\r\n+NEWS\r\n#x\r\n");
    broker.publish(b"n", b"after");
    diary.hears("m n=after").await;
    assert_eq!((diary.count("gap may_repeat=false"), broker.accepted.load(Ordering::SeqCst)), (0, 1));
    broker.say(b">3\r\n+message\r\n+n\r\n:x\r\n");
    diary.hears("gap may_repeat=false").await;
    assert_eq!(broker.accepted.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn where_the_cut_cannot_be_made_the_gap_is_told() {
    for trouble in ["off", "publish", "subscribe", "resp2", "for good"] {
        let broker = Arc::new(Broker::default());
        broker.no_publish.store(trouble == "publish", Ordering::SeqCst);
        broker.resp2.store(trouble == "resp2", Ordering::SeqCst);
        let sides = [broker.listen(Duration::ZERO).await, broker.listen(Duration::ZERO).await];
        let front = (trouble != "off").then_some(CUT);
        let (link, diary) = start(&sides[0], LinkConfig::default().cut_channel(front));
        link.subscribe(ChannelKind::Channel, ["n"]);
        diary.hears("confirmed Channel n").await;
        if trouble == "subscribe" {
            broker.deny_front(CUT);
        }
        let mut request = request(1, &sides[1]);
        request.for_good = trouble == "for good";
        link.move_to(request);
        diary.hears("moved 1").await;
        assert_eq!(diary.count("gap may_repeat=true"), 1, "{trouble}");
        broker.publish(b"n", b"after");
        diary.hears("m n=after").await;
        assert_eq!(diary.count("m n=after"), 1, "{trouble}");
    }
}

const CUT: &str = "__evenkeel:cut:";

#[tokio::test]
async fn a_target_of_another_server_takes_over_with_a_gap() {
    // Two servers: nobody orders both, and the count of the marker's hearers says so.
    let (here, there) = (Arc::new(Broker::default()), Arc::new(Broker::default()));
    let sides = [here.listen(Duration::ZERO).await, there.listen(Duration::ZERO).await];
    let (link, diary) = start(&sides[0], LinkConfig::default());
    link.subscribe(ChannelKind::Channel, ["n"]);
    diary.hears("confirmed Channel n").await;
    link.move_to(request(1, &sides[1]));
    diary.hears("moved 1").await;
    diary.hears("gap may_repeat=true").await;
    there.publish(b"n", b"x");
    diary.hears("m n=x").await;
    assert_eq!(link.endpoint(), sides[1]);
}

#[tokio::test]
async fn one_forbidden_channel_does_not_take_others_with_it() {
    let broker = Arc::new(Broker::default());
    broker.deny("c3");
    let endpoint = broker.listen(Duration::ZERO).await;
    let (link, diary) = start(&endpoint, LinkConfig::default());
    link.subscribe(ChannelKind::Channel, (0..8).map(|number| format!("c{number}")));
    diary.until("answers", |entries| entries.iter().filter(|e| !e.starts_with("conn")).count() == 8).await;
    assert_eq!((diary.count("refused c3 NOPERM"), diary.count("confirmed Channel c4")), (1, 1));
}

#[tokio::test]
async fn subscriptions_come_and_go_and_a_moved_slot_ends_them() {
    for resp2 in [false, true] {
        let broker = Arc::new(Broker::default());
        broker.resp2.store(resp2, Ordering::SeqCst);
        let endpoint = broker.listen(Duration::ZERO).await;
        let config = LinkConfig::default().ping_after(Duration::from_millis(20));
        let (link, diary) = start(&endpoint, config);
        // Before there is a connection.
        link.subscribe(ChannelKind::Shard, ["s{1}", "t{1}", "u{2}"]);
        link.subscribe(ChannelKind::Channel, ["a", "b"]);
        for name in ["Shard s{1}", "Shard t{1}", "Shard u{2}", "Channel a", "Channel b"] {
            diary.hears(&format!("confirmed {name}")).await;
        }
        broker.publish(b"t{1}", b"x");
        diary.hears("m t{1}=x").await;
        broker.end_shard("s{1}");
        diary.hears("ended s{1} ByServer").await;
        link.unsubscribe(ChannelKind::Channel, ["a"]);
        diary.hears("ended a Asked").await;
        link.unsubscribe(ChannelKind::Channel, ["never"]);
        diary.hears("ended never Asked").await;
        link.subscribe(ChannelKind::Channel, ["a"]);
        diary
            .until("again", |entries| {
                entries.iter().filter(|entry| *entry == "confirmed Channel a").count() == 2
            })
            .await;
        // Answers to PING, an array in RESP2, are taken for what they are.
        tokio::time::timeout(Duration::from_secs(5), async {
            while broker.pings.load(Ordering::SeqCst) < 5 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        assert_eq!((diary.count("reconnecting"), diary.count("suspect")), (0, 0));
    }
}

#[tokio::test]
async fn a_mute_server_is_suspect_and_given_up() {
    let broker = Arc::new(Broker::default());
    let endpoint = broker.listen(Duration::ZERO).await;
    let config = LinkConfig::default()
        .ping_after(Duration::from_millis(20))
        .suspect_after(Duration::from_millis(40))
        .answer_timeout(Duration::from_millis(200));
    let (link, diary) = start(&endpoint, config);
    link.subscribe(ChannelKind::Channel, ["n"]);
    diary.hears("confirmed Channel n").await;
    broker.mute.store(true, Ordering::SeqCst);
    diary.hears("suspect").await;
    diary.hears("reconnecting").await;
    broker.mute.store(false, Ordering::SeqCst);
    diary.hears("gap may_repeat=false").await;
}

#[tokio::test]
async fn a_link_ends_with_its_last_handle_or_when_closed() {
    let broker = Arc::new(Broker::default());
    let endpoint = broker.listen(Duration::ZERO).await;
    let (link, diary) = start(&endpoint, LinkConfig::default());
    assert!(link.ready().await);
    let other = link.clone();
    drop(link);
    assert_eq!(other.readiness(), Readiness::Ready);
    drop(other);
    diary.hears("closed by_peer=false").await;
    let (link, _) = start(&endpoint, LinkConfig::default());
    assert!(link.ready().await);
    link.close();
    link.closed().await;
    assert!(!link.subscribe(ChannelKind::Channel, ["late"]) && !link.ready().await);
    assert_eq!(link.readiness(), Readiness::Closed);
}
