use super::{BAD_REQUEST, Session};
use crate::broker::{History, Published};
use crate::config::LimitsConfig;
use crate::error::BrokerError;
use crate::hooks::{Headers, Hook, Question, Verdict};
use crate::hub::Order;
use crate::namespace::{Access, ChannelOptions, Namespace, Namespaces};
use crate::publication::Position;
use crate::token::Verifier;
use crate::token::tests::{SECRET, token};
use crate::wire::machine::{Effect, Machine, Outcome, Rules, Step};
use serde_json::{Value, json};
use std::sync::Arc;

const NOW: u64 = 1_000;

fn rules() -> Arc<Rules> {
    let open =
        ChannelOptions { subscribe: Access::Anyone, publish: Access::Anyone, ..ChannelOptions::default() };
    let kept = ChannelOptions { history_size: 10, recovery: true, history: Access::Anyone, ..open };
    let closed = ChannelOptions::default();
    let list = [Namespace::new("kept", kept), Namespace::new("closed", closed)];
    Arc::new(Rules {
        namespaces: Namespaces::new(&open, &list).unwrap(),
        limits: LimitsConfig { max_channels: 2, ..LimitsConfig::default() },
        ping_seconds: 25,
        pusher: true,
        asks_connect: false,
        asks_refresh: false,
        asks_sub_refresh: false,
        tokens: None,
    })
}

struct Bench {
    session: Session,
}

impl Bench {
    fn new() -> Self {
        Self { session: Session::new(rules(), "c1".into(), Headers::from([])) }
    }

    fn with_tokens(anonymous: bool) -> Self {
        let mut rules = Arc::into_inner(rules()).unwrap();
        let secret =
            crate::config::TokenConfig { hmac_secret: SECRET.to_owned(), anonymous, ..Default::default() };
        rules.tokens = Some(Verifier::new(&secret).unwrap());
        Self { session: Session::new(Arc::new(rules), "c1".into(), Headers::from([])) }
    }

    fn connect(&mut self, token: &str) -> Step {
        self.say(&json!({"id":1,"connect":{"token":token}}).to_string())
    }

    fn connected() -> Self {
        let mut bench = Self::new();
        assert!(matches!(bench.say(r#"{"id":1,"connect":{}}"#), Step::Done));
        assert_eq!(bench.heard()["connect"]["client"], "c1");
        bench
    }

    fn say(&mut self, text: &str) -> Step {
        self.session.hear(text, NOW).unwrap();
        self.session.step().unwrap()
    }

    fn heard(&mut self) -> Value {
        let frame = self.session.take_frames().unwrap();
        let head = if frame[1] == 126 { 4 } else { 2 };
        serde_json::from_slice(&frame[head..]).unwrap()
    }

    fn error(&mut self, text: &str) -> u64 {
        assert!(matches!(self.say(text), Step::Done));
        self.heard()["error"]["code"].as_u64().unwrap()
    }

    fn subscribe(&mut self, channel: &str) -> u32 {
        let Step::Run(Effect::Subscribe { serial, .. }) =
            self.say(&json!({"id":2,"subscribe":{"channel":channel}}).to_string())
        else {
            panic!("no subscription");
        };
        self.session.complete(Outcome::Subscribed(Ok(None)));
        self.heard();
        serial
    }
}

#[test]
fn nothing_comes_before_connect_and_connect_comes_once() {
    assert!(matches!(Bench::new().say(r#"{"id":1,"subscribe":{"channel":"a"}}"#), Step::Close(BAD_REQUEST)));
    assert!(matches!(Bench::connected().say(r#"{"id":2,"connect":{}}"#), Step::Close(BAD_REQUEST)));
    assert!(matches!(Bench::connected().say(r#"{"subscribe":{"channel":"a"}}"#), Step::Close(BAD_REQUEST)));
}

#[test]
fn a_token_that_cannot_be_checked_is_refused() {
    let Step::Close(code) = Bench::new().say(r#"{"id":1,"connect":{"token":"abc"}}"#) else {
        panic!("let in")
    };
    assert_eq!(code.code, 3500);
}

/// A session that hooks have let in and subscribed, both until `NOW + 10`.
fn hooked(refresh: bool, sub_refresh: bool) -> Bench {
    let asks = ChannelOptions { subscribe: Access::Hook, ..ChannelOptions::default() };
    let mut rules = Arc::into_inner(rules()).unwrap();
    rules.namespaces = Namespaces::new(&asks, &[]).unwrap();
    (rules.asks_connect, rules.asks_refresh, rules.asks_sub_refresh) = (true, refresh, sub_refresh);
    let mut bench = Bench { session: Session::new(Arc::new(rules), "c1".into(), Headers::from([])) };
    bench.asked(r#"{"id":1,"connect":{}}"#);
    bench.answer(r#"{"result":{"user":"u","expire_at":1010}}"#);
    assert_eq!(bench.heard()["connect"].get("expires"), None, "the client has nothing to refresh with");
    bench.asked(r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    bench.answer(r#"{"result":{"expire_at":1010}}"#);
    assert!(matches!(bench.session.step(), Some(Step::Run(Effect::Subscribe { .. }))));
    bench.session.complete(Outcome::Subscribed(Ok(None)));
    assert!(bench.heard()["subscribe"].is_object());
    bench
}

impl Bench {
    fn asked(&mut self, text: &str) -> Question {
        match self.say(text) {
            Step::Run(Effect::Ask(question)) => question,
            other => panic!("{other:?}"),
        }
    }

    fn renews(&mut self, now: u64) -> Option<Step> {
        self.session.obey(Order::Renew, now);
        self.session.step()
    }

    fn answer(&mut self, body: &str) {
        self.session.complete(Outcome::Asked(Verdict::read(body.as_bytes())));
    }
}

#[test]
fn hooks_say_how_long_it_goes_on() {
    let mut bench = hooked(true, true);
    assert_eq!((bench.session.expires(), bench.session.due()), (0, 1_010));
    assert!(bench.renews(1_009).is_none());
    let Some(Step::Run(Effect::Ask(question))) = bench.renews(1_010) else { panic!("not asked") };
    assert_eq!(question.hook, Hook::Refresh);
    let asked: Value = serde_json::from_slice(&question.body).unwrap();
    assert_eq!(
        asked,
        json!({"client":"c1","transport":"websocket","protocol":"json","encoding":"json","user":"u"})
    );
    bench.answer(r#"{"result":{"expire_at":1100}}"#);
    let Some(Step::Run(Effect::Ask(question))) = bench.session.step() else { panic!("not asked") };
    assert_eq!(question.hook, Hook::SubRefresh);
    let asked: Value = serde_json::from_slice(&question.body).unwrap();
    assert_eq!((&asked["channel"], &asked["user"]), (&json!("a"), &json!("u")));
    // One that is down throws nobody out, and is asked again.
    bench.answer("");
    assert!(bench.session.step().is_none());
    assert_eq!(bench.session.due(), 1_070);
    let Some(Step::Run(Effect::Ask(_))) = bench.renews(1_070) else { panic!("not asked") };
    bench.answer(r#"{"result":{}}"#);
    assert!(bench.session.step().is_none());
    assert_eq!(bench.session.due(), 1_100, "the subscription has no end any more");
}

#[test]
fn hooks_say_that_it_is_over() {
    for over in [r#"{"result":{"expired":true}}"#, r#"{"result":{"expire_at":9}}"#, r#"{"error":{"code":1}}"#]
    {
        let mut bench = hooked(false, true);
        assert_eq!(bench.session.expires(), 1_010, "without a hook the client comes again");
        assert!(matches!(bench.renews(1_010), Some(Step::Run(Effect::Ask(_)))));
        bench.answer(over);
        assert!(matches!(bench.session.step(), Some(Step::Run(Effect::Unsubscribe { .. }))));
        bench.session.complete(Outcome::Unsubscribed);
        assert_eq!(
            bench.heard(),
            json!({"push":{"channel":"a","unsubscribe":{"code":2501,"reason":"expired"}}})
        );
        assert!(bench.session.step().is_none() && bench.session.channels().is_empty());
        let mut bench = hooked(true, true);
        assert!(matches!(bench.renews(1_010), Some(Step::Run(Effect::Ask(_)))));
        bench.answer(over);
        assert!(matches!(bench.session.step(), Some(Step::End(_))));
    }
    // Without that hook a subscription ends by itself, and the first hook is asked when the client comes again.
    let mut bench = hooked(true, false);
    bench.renews(1_010);
    bench.answer(r#"{"result":{}}"#);
    assert!(matches!(bench.session.step(), Some(Step::Run(Effect::Unsubscribe { .. }))));
}

#[test]
fn a_plain_subscription() {
    let mut bench = Bench::connected();
    let step = bench.say(r#"{"id":2,"subscribe":{"channel":"a","recover":true,"flag":1}}"#);
    let Step::Run(Effect::Subscribe { channel, since, .. }) = step else { panic!("{step:?}") };
    assert_eq!((&*channel, since), ("a", None));
    bench.session.complete(Outcome::Subscribed(Ok(None)));
    assert_eq!(bench.heard(), json!({"id":2,"subscribe":{}}));
    assert_eq!(bench.error(r#"{"id":3,"subscribe":{"channel":"a"}}"#), 105);
    let step = bench.say(r#"{"id":4,"unsubscribe":{"channel":"a"}}"#);
    assert!(matches!(step, Step::Run(Effect::Unsubscribe { .. })));
    bench.session.complete(Outcome::Unsubscribed);
    assert_eq!(bench.heard(), json!({"id":4,"unsubscribe":{}}));
    assert!(matches!(bench.say(r#"{"id":5,"unsubscribe":{"channel":"a"}}"#), Step::Done));
    assert_eq!(bench.heard(), json!({"id":5,"unsubscribe":{}}));
}

#[test]
fn recovery_says_what_it_did() {
    for (epoch, offset, complete, recovered) in
        [("E", 5, true, true), ("E", 5, false, false), ("F", 5, true, false), ("E", 9, true, false)]
    {
        let mut bench = Bench::connected();
        let request =
            json!({"id":2,"subscribe":{"channel":"kept:a","recover":true,"epoch":epoch,"offset":offset}});
        let step = bench.say(&request.to_string());
        let Step::Run(Effect::Subscribe { since: Some(since), .. }) = step else { panic!("{step:?}") };
        assert_eq!(since, Position { epoch: epoch.into(), offset });
        let history =
            History { top: Position { epoch: "E".into(), offset: 7 }, publications: vec![], complete };
        bench.session.complete(Outcome::Subscribed(Ok(Some(history))));
        let reply = bench.heard();
        assert_eq!(reply["subscribe"]["was_recovering"], true);
        assert_eq!(reply["subscribe"].get("recovered").is_some(), recovered, "{epoch} {offset} {complete}");
        assert_eq!(reply["subscribe"]["epoch"], "E");
        assert_eq!(reply["subscribe"]["offset"], 7);
    }
}

#[test]
fn errors_have_their_codes() {
    let mut bench = Bench::connected();
    assert_eq!(bench.error(r#"{"id":2,"subscribe":{"channel":"closed:a"}}"#), 103);
    assert_eq!(bench.error(r#"{"id":2,"subscribe":{"channel":"nowhere:a"}}"#), 102);
    assert_eq!(bench.error(r#"{"id":2,"subscribe":{"channel":""}}"#), 107);
    assert_eq!(bench.error(r#"{"id":2,"subscribe":{"channel":"a","type":1}}"#), 108);
    let long = json!({"id":2,"subscribe":{"channel":"a".repeat(256)}}).to_string();
    assert_eq!(bench.error(&long), 107);
    assert_eq!(bench.error(r#"{"id":2,"publish":{"channel":"closed:a","data":1}}"#), 103);
    assert_eq!(bench.error(r#"{"id":2,"publish":{"channel":"a"}}"#), 107);
    assert_eq!(bench.error(r#"{"id":2,"history":{"channel":"kept:a"}}"#), 103);
    assert_eq!(bench.error(r#"{"id":2,"subscribe":{"channel":"private-a"}}"#), 103);
    assert_eq!(bench.error(r#"{"id":2,"rpc":{}}"#), 108);
    assert_eq!(bench.error(r#"{"id":2,"presence":{"channel":"a"}}"#), 108);
    assert_eq!(bench.error(r#"{"id":2,"dance":{}}"#), 104);
    bench.subscribe("a");
    bench.subscribe("b");
    assert_eq!(bench.error(r#"{"id":2,"subscribe":{"channel":"c"}}"#), 106);
}

#[test]
fn a_broker_that_is_away_makes_the_client_try_again() {
    let mut bench = Bench::connected();
    assert!(matches!(bench.say(r#"{"id":2,"subscribe":{"channel":"a"}}"#), Step::Run(_)));
    bench.session.complete(Outcome::Subscribed(Err(BrokerError::Unavailable)));
    let reply = bench.heard();
    assert_eq!(
        (reply["error"]["code"].as_u64(), reply["error"]["temporary"].as_bool()),
        (Some(100), Some(true))
    );
    assert_eq!(bench.session.channels().len(), 0);
    assert!(matches!(bench.say(r#"{"id":3,"publish":{"channel":"a","data":{}}}"#), Step::Run(_)));
    bench.session.complete(Outcome::Published(Ok(Published::Accepted)));
    assert_eq!(bench.heard(), json!({"id":3,"publish":{}}));
}

#[test]
fn news_of_an_older_subscription_ends_no_newer_one() {
    let mut bench = Bench::connected();
    let first = bench.subscribe("a");
    assert!(bench.session.unsubscribed(&"a".into(), first));
    let second = bench.subscribe("a");
    assert!(!bench.session.unsubscribed(&"a".into(), first));
    assert_eq!(bench.session.channels().len(), 1);
    assert!(bench.session.unsubscribed(&"a".into(), second));
}

fn signed(claims: &str) -> String {
    token(r#"{"alg":"HS256"}"#, claims, SECRET)
}

#[test]
fn tokens_let_in_and_say_until_when() {
    let mut bench = Bench::with_tokens(false);
    assert!(matches!(bench.connect(&signed(r#"{"sub":"u1","exp":1600}"#)), Step::Done));
    let reply = bench.heard();
    assert_eq!((&reply["connect"]["expires"], &reply["connect"]["ttl"]), (&json!(true), &json!(600)));
    assert_eq!(bench.session.expires(), 1_600);
    assert_eq!(bench.session.take_identity().unwrap().1, "u1".into());
    let fresh = signed(r#"{"sub":"u1","exp":2000}"#);
    assert!(matches!(bench.say(&json!({"id":2,"refresh":{"token":fresh}}).to_string()), Step::Done));
    assert_eq!(bench.heard()["refresh"]["ttl"], 1_000);
    assert_eq!(bench.session.expires(), 2_000);
    let stale = signed(r#"{"sub":"u1","exp":999}"#);
    assert_eq!(bench.error(&json!({"id":3,"refresh":{"token":stale}}).to_string()), 109);
    let other = signed(r#"{"sub":"u2"}"#);
    assert!(matches!(bench.say(&json!({"id":4,"refresh":{"token":other}}).to_string()), Step::Close(_)));
}

#[test]
fn tokens_that_are_missing_wrong_or_old_do_not() {
    assert!(matches!(Bench::with_tokens(false).connect(""), Step::Close(code) if code.code == 3500));
    assert!(matches!(Bench::with_tokens(true).connect(""), Step::Done));
    assert!(matches!(Bench::with_tokens(true).connect("a.b.c"), Step::Close(code) if code.code == 3500));
    let mut bench = Bench::with_tokens(false);
    assert_eq!(bench.error(&json!({"id":1,"connect":{"token":signed(r#"{"exp":1}"#)}}).to_string()), 109);
    assert!(!bench.session.is_connected());
}

#[test]
fn a_channel_token_opens_its_channel_to_its_user() {
    let subscribe = |channel: &str, claims: &str| {
        json!({"id":2,"subscribe":{"channel":channel,"token":signed(claims)}}).to_string()
    };
    let mut bench = Bench::with_tokens(false);
    bench.connect(&signed(r#"{"sub":"u1"}"#));
    bench.heard();
    let right = r#"{"sub":"u1","channel":"closed:a"}"#;
    assert!(matches!(bench.say(&subscribe("closed:a", right)), Step::Run(Effect::Subscribe { .. })));
    bench.session.complete(Outcome::Subscribed(Ok(None)));
    bench.heard();
    assert_eq!(bench.error(&subscribe("closed:b", right)), 103);
    assert_eq!(bench.error(&subscribe("closed:b", r#"{"sub":"u2","channel":"closed:b"}"#)), 103);
    assert_eq!(bench.error(&subscribe("closed:b", r#"{"sub":"u1"}"#)), 103);
    assert_eq!(bench.error(&subscribe("closed:b", r#"{"sub":"u1","channel":"closed:b","exp":5}"#)), 109);
}
