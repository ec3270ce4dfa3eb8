//! Commands as they go on the wire, checked on the builders that every handle shares.

use std::time::Duration;

use evenkeel_protocol::{Command, Slot};

use super::{End, ReadOptions, Trim, ZaddOptions, build};

fn check(command: &Command, expected: &str) {
    let words: Vec<String> = command.args().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
    assert_eq!(words.join(" "), expected);
    assert!(command.spec().is_some(), "{expected}: not in the command table");
}

#[test]
fn words_stand_in_the_servers_order() {
    check(&build::set("k", "v"), "SET k v");
    check(&build::mset([("a", 1), ("b", 2)]), "MSET a 1 b 2");
    check(&build::hset("h", [("f", "1"), ("g", "2")]), "HSET h f 1 g 2");
    check(&build::hexpire("h", 60, ["a", "b"]), "HEXPIRE h 60 FIELDS 2 a b");
    check(&build::lmove("a", "b", End::Left, End::Right), "LMOVE a b LEFT RIGHT");
    check(&build::blpop(["a", "b"], Duration::from_millis(1500)), "BLPOP a b 1.5");
    check(&build::blmove("a", "b", End::Right, End::Left, Duration::ZERO), "BLMOVE a b RIGHT LEFT 0");
    check(&build::linsert_before("l", "p", "e"), "LINSERT l BEFORE p e");
    check(&build::sintercard(["a", "b"]), "SINTERCARD 2 a b");
    check(&build::zadd("z", [(1.5, "m"), (2.0, "n")]), "ZADD z 1.5 m 2 n");
    check(
        &build::zadd_with("z", ZaddOptions::new().only_existing().only_less().changed(), [(1.0, "m")]),
        "ZADD z XX LT CH 1 m",
    );
    check(&build::zunionstore("t", ["a", "b"]), "ZUNIONSTORE t 2 a b");
    check(&build::geosearch("g", 1.0, 2.0, 3.0, "km"), "GEOSEARCH g FROMLONLAT 1 2 BYRADIUS 3 km ASC");
    check(
        &build::xadd_trimmed("s", Trim::max_len(10).about(), "*", [("f", "v")]),
        "XADD s MAXLEN ~ 10 * f v",
    );
    check(&build::xtrim("s", Trim::min_id("5-0")), "XTRIM s MINID = 5-0");
    let wait = ReadOptions::new().count(5).block(Duration::from_millis(100)).noack();
    check(
        &build::xreadgroup("g", "c", wait, ["s", "t"], [">", ">"]),
        "XREADGROUP GROUP g c COUNT 5 BLOCK 100 NOACK STREAMS s t > >",
    );
    check(&build::xgroup_create("s", "g", "$"), "XGROUP CREATE s g $");
    check(&build::xautoclaim("s", "g", "c", Duration::from_secs(1), "0"), "XAUTOCLAIM s g c 1000 0");
    check(&build::eval("return 1", ["k"], ["a", "b"]), "EVAL return 1 1 k a b");
    check(&build::eval("return 1", (), ["a"]), "EVAL return 1 0 a");
    check(&build::publish("c", "m"), "PUBLISH c m");
    check(&build::restore("k", 0, "d"), "RESTORE k 0 d");
    check(&build::wait(2, Duration::from_millis(100)), "WAIT 2 100");
}

#[test]
fn the_routing_key_is_the_first_key() {
    let check = |command: Command, key: Option<&str>| {
        assert_eq!(command.slot(), key.map(|key| Slot::of(key.as_bytes())), "{command:?}");
    };
    check(build::get("k"), Some("k"));
    check(build::mget(["a", "b"]), Some("a"));
    check(build::mset([("a", 1)]), Some("a"));
    check(build::object_encoding("k"), Some("k"));
    check(build::memory_usage("k"), Some("k"));
    check(build::sintercard(["a", "b"]), Some("a"));
    check(build::zinterstore("t", ["a", "b"]), Some("t"));
    check(build::xread(["s", "t"], ["0", "0"]), Some("s"));
    check(build::xreadgroup("g", "c", ReadOptions::new(), ["s"], [">"]), Some("s"));
    check(build::xinfo_stream("s"), Some("s"));
    check(build::eval("return 1", ["k"], ["a"]), Some("k"));
    check(build::eval("return 1", (), ["a"]), None);
    check(build::blpop(["a", "b"], Duration::ZERO), Some("a"));
    check(build::spublish("c", "m"), Some("c"));
    check(build::publish("c", "m"), None);
    check(build::dbsize(), None);
}

#[test]
fn commands_that_wait_say_so() {
    let second = Duration::from_secs(1);
    assert_eq!(build::blpop(["a"], second).blocks_for(), Some(Some(second)));
    assert_eq!(build::bzpopmin(["a"], Duration::ZERO).blocks_for(), Some(None));
    assert_eq!(
        build::xread_with(ReadOptions::new().block(second), ["s"], ["$"]).blocks_for(),
        Some(Some(second))
    );
    assert_eq!(build::xread(["s"], ["0"]).blocks_for(), None);
    assert_eq!(build::lpop("l").blocks_for(), None);
}
