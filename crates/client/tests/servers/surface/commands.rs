use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use bytes::Bytes;
use evenkeel_client::{End, ErrorKind, Executed, Frame, Pairs, ReadOptions, Script, Trim, ZaddOptions};
use evenkeel_testkit::launcher::for_each_server;

use super::single;

#[tokio::test]
async fn strings_and_counters() {
    for_each_server("client::strings_and_counters", |kind| async move {
        let (_server, client) = single(&kind).await;
        assert!(client.set("greeting", "hello").await.unwrap());
        assert_eq!(client.get::<Option<Bytes>>("greeting").await.unwrap().as_deref(), Some(&b"hello"[..]));
        let missing: Option<String> = client.get("missing").await.unwrap();
        assert_eq!(missing, None);
        assert!(!client.set("greeting", "x").nx().await.unwrap());
        let before: Option<String> = client.set("greeting", "hi").get().await.unwrap();
        assert_eq!(before.as_deref(), Some("hello"));
        assert!(client.set("short", 1).ex(100).await.unwrap());
        assert!((1..=100).contains(&client.ttl("short").await.unwrap()));
        assert!(client.set("short", 2).keepttl().xx().await.unwrap());
        assert!((1..=100).contains(&client.ttl("short").await.unwrap()));
        assert!(client.set("short", 3).expire_in(Duration::from_secs(5)).await.unwrap());
        assert!((1..=5000).contains(&client.pttl("short").await.unwrap()));
        assert_eq!(client.incr("n").await.unwrap(), 1);
        assert_eq!(client.incrby("n", 10).await.unwrap(), 11);
        assert_eq!(client.decr("n").await.unwrap(), 10);
        assert!((client.incrbyfloat("f", 0.25).await.unwrap() - 0.25).abs() < f64::EPSILON);
        client.mset([("a", 1), ("b", 2)]).await.unwrap();
        assert_eq!(
            client.mget::<Vec<Option<i64>>>(["a", "none", "b"]).await.unwrap(),
            [Some(1), None, Some(2)]
        );
        assert!(!client.msetnx([("a", 9), ("z", 9)]).await.unwrap());
        assert_eq!(client.append("log", "ab").await.unwrap(), 2);
        assert_eq!(client.getrange::<String>("log", 1, -1).await.unwrap(), "b");
        assert!(!client.setbit("bits", 7, true).await.unwrap());
        assert!(client.getbit("bits", 7).await.unwrap());
        assert_eq!(client.bitcount("bits").await.unwrap(), 1);
        assert_eq!(client.getex::<Option<i64>>("a").ex(10).await.unwrap(), Some(1));
        assert_eq!(client.getdel::<Option<i64>>("a").await.unwrap(), Some(1));
        assert_eq!(client.exists(["a", "b"]).await.unwrap(), 1);
    })
    .await;
}

#[tokio::test]
async fn keys_live_and_die() {
    for_each_server("client::keys_live_and_die", |kind| async move {
        let (_server, client) = single(&kind).await;
        for name in ["user:1", "user:2", "other"] {
            client.set(name, "x").await.unwrap();
        }
        assert!(client.expire("user:1", 100).nx().await.unwrap());
        assert!(!client.expire("user:1", 50).gt().await.unwrap());
        assert!(client.persist("user:1").await.unwrap());
        assert_eq!(client.ttl("user:1").await.unwrap(), -1);
        assert_eq!(client.ttl("missing").await.unwrap(), -2);
        assert_eq!(client.key_type("user:1").await.unwrap(), "string");
        assert!(client.copy("user:1", "copy").await.unwrap());
        client.rename("copy", "copied").await.unwrap();
        let error = client.rename("copy", "x").await.unwrap_err();
        assert_eq!((error.kind(), error.server_code()), (ErrorKind::Server, Some("ERR")));
        let (mut cursor, mut found) = (0u64, BTreeSet::new());
        loop {
            let (next, names): (u64, Vec<String>) =
                client.scan(cursor).matching("user:*").count(1).await.unwrap();
            found.extend(names);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["user:1", "user:2"]);
        let dump: Bytes = client.dump("other").await.unwrap();
        client.restore("restored", 0, &dump).await.unwrap();
        assert_eq!(client.get::<String>("restored").await.unwrap(), "x");
        assert_eq!(client.del(["user:1", "user:2", "none"]).await.unwrap(), 2);
        assert_eq!(client.unlink("other").await.unwrap(), 1);
    })
    .await;
}

#[tokio::test]
async fn hashes_lists_and_sets() {
    for_each_server("client::hashes_lists_and_sets", |kind| async move {
        let (_server, client) = single(&kind).await;
        assert_eq!(client.hset("h", [("name", "Ada"), ("mail", "a@b")]).await.unwrap(), 2);
        let all: HashMap<String, String> = client.hgetall("h").await.unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(client.hget::<Option<String>>("h", "name").await.unwrap().as_deref(), Some("Ada"));
        assert_eq!(client.hincrby("h", "n", 2).await.unwrap(), 2);
        let (next, fields): (u64, Pairs<String, String>) = client.hscan("h", 0).await.unwrap();
        assert_eq!((next, fields.len()), (0, 3));
        assert_eq!(client.hdel("h", ["mail", "none"]).await.unwrap(), 1);

        assert_eq!(client.rpush("l", ["a", "b", "c"]).await.unwrap(), 3);
        assert_eq!(client.lpush("l", "z").await.unwrap(), 4);
        assert_eq!(client.lrange::<Vec<String>>("l", 0, -1).await.unwrap(), ["z", "a", "b", "c"]);
        assert_eq!(client.lpos("l", "b").await.unwrap(), Some(2));
        assert_eq!(client.lpop::<Option<String>>("l").await.unwrap().as_deref(), Some("z"));
        assert_eq!(client.rpop_count::<Vec<String>>("l", 2).await.unwrap(), ["c", "b"]);
        let moved: Option<String> = client.lmove("l", "m", End::Left, End::Right).await.unwrap();
        assert_eq!(moved.as_deref(), Some("a"));
        assert_eq!(client.lpop_count::<Vec<String>>("l", 2).await.unwrap(), Vec::<String>::new());

        assert_eq!(client.sadd("s", ["a", "b"]).await.unwrap(), 2);
        assert_eq!(client.sadd("t", ["b", "c"]).await.unwrap(), 2);
        assert_eq!(client.sinter::<Vec<String>>(["s", "t"]).await.unwrap(), ["b"]);
        assert_eq!(client.sintercard(["s", "t"]).await.unwrap(), 1);
        assert_eq!(client.smismember("s", ["a", "c"]).await.unwrap(), [true, false]);
        assert_eq!(client.sunion::<BTreeSet<String>>(["s", "t"]).await.unwrap().len(), 3);
        assert!(client.pfadd("p", ["x", "y"]).await.unwrap());
        assert_eq!(client.pfcount("p").await.unwrap(), 2);
    })
    .await;
}

#[tokio::test]
async fn sorted_sets_and_places() {
    for_each_server("client::sorted_sets_and_places", |kind| async move {
        let (_server, client) = single(&kind).await;
        assert_eq!(client.zadd("z", [(1.0, "a"), (2.0, "b"), (3.5, "c")]).await.unwrap(), 3);
        let options = ZaddOptions::new().only_greater().changed();
        assert_eq!(client.zadd_with("z", options, [(0.5, "a"), (9.0, "b")]).await.unwrap(), 1);
        assert_eq!(client.zrange::<Vec<String>>("z", 0, -1).await.unwrap(), ["a", "c", "b"]);
        assert_eq!(client.zrange::<Vec<String>>("z", 0, 0).rev().await.unwrap(), ["b"]);
        let high: Pairs<String, f64> =
            client.zrange("z", 2, "+inf").byscore().limit(0, 10).withscores().await.unwrap();
        assert_eq!(*high, [("c".to_owned(), 3.5), ("b".to_owned(), 9.0)]);
        assert_eq!(client.zscore("z", "none").await.unwrap(), None);
        assert_eq!(client.zmscore("z", ["a", "none"]).await.unwrap(), [Some(1.0), None]);
        assert_eq!(client.zrank("z", "c").await.unwrap(), Some(1));
        assert_eq!(client.zcount("z", "(1", "+inf").await.unwrap(), 2);
        let lowest: Pairs<String, f64> = client.zpopmin("z", 1).await.unwrap();
        assert_eq!(*lowest, [("a".to_owned(), 1.0)]);
        assert_eq!(client.zunionstore("u", ["z", "z"]).await.unwrap(), 2);
        assert_eq!(client.geoadd("g", 2.3522, 48.8566, "Paris").await.unwrap(), 1);
        assert_eq!(client.geoadd("g", 12.4964, 41.9028, "Rome").await.unwrap(), 1);
        let km = client.geodist("g", "Paris", "Rome", "km").await.unwrap().unwrap();
        assert!((1100.0..1110.0).contains(&km), "{km}");
        assert_eq!(client.geosearch::<Vec<String>>("g", 2.0, 48.0, 200.0, "km").await.unwrap(), ["Paris"]);
    })
    .await;
}

type Entries = Vec<(String, Pairs<String, String>)>;

#[tokio::test]
async fn streams_and_their_groups() {
    for_each_server("client::streams_and_their_groups", |kind| async move {
        let (_server, client) = single(&kind).await;
        let first = client.xadd("s", "*", [("item", "book")]).await.unwrap();
        client.xadd_trimmed("s", Trim::max_len(10), "*", [("item", "pen")]).await.unwrap();
        assert_eq!(client.xlen("s").await.unwrap(), 2);
        let entries: Entries = client.xrange("s", "-", "+").count(1).await.unwrap();
        assert_eq!(entries.len(), 1);
        let (id, fields) = entries.first().unwrap();
        assert_eq!((id, fields.first()), (&first, Some(&("item".to_owned(), "book".to_owned()))));
        client.xgroup_create("s", "g", "0").await.unwrap();
        client.xgroup_create("new", "g", "$").mkstream().await.unwrap();
        let read: Option<Pairs<String, Entries>> =
            client.xreadgroup("g", "me", ReadOptions::new().count(1), "s", ">").await.unwrap();
        assert_eq!(read.unwrap().first().unwrap().1.len(), 1);
        assert_eq!(client.xack("s", "g", [&first]).await.unwrap(), 1);
        let wait = ReadOptions::new().block(Duration::from_millis(10));
        let nothing: Option<Frame> = client.xread_with(wait, "s", "$").await.unwrap();
        assert!(nothing.is_none());
        assert_eq!(client.xtrim("s", Trim::max_len(0)).await.unwrap(), 2);
    })
    .await;
}

#[tokio::test]
async fn scripts_run_by_digest_and_are_sent_when_missing() {
    for_each_server("client::scripts_run_by_digest", |kind| async move {
        let (_server, client) = single(&kind).await;
        let script = Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
        assert_eq!(client.script_exists(script.digest()).await.unwrap(), [false]);
        for expected in [5, 10] {
            let n: i64 = script.run(&client, "n", 5).await.unwrap();
            assert_eq!(n, expected);
        }
        assert_eq!(client.script_exists(script.digest()).await.unwrap(), [true]);
        let error = client.evalsha::<i64>("0".repeat(40), "n", ()).await.unwrap_err();
        assert_eq!((error.server_code(), error.executed()), (Some("NOSCRIPT"), Executed::No));
        let forged = "redis.call('INCR', KEYS[1]) return redis.error_reply('READONLY no')";
        let error = client.eval::<()>(forged, "n", ()).await.unwrap_err();
        assert_eq!((error.server_code(), error.executed()), (Some("READONLY"), Executed::Maybe));
        assert_eq!(client.get::<i64>("n").await.unwrap(), 11, "it ran once");
    })
    .await;
}

#[tokio::test]
async fn any_command_by_its_name_and_what_the_server_tells_of_itself() {
    for_each_server("client::any_command_by_its_name", |kind| async move {
        let (_server, client) = single(&kind).await;
        client.ping().await.unwrap();
        assert_eq!(client.cmd("ECHO").arg("x").query::<String>().await.unwrap(), "x");
        let info = client.info("server").await.unwrap();
        assert!(info.contains("process_id"), "{info}");
        assert!(client.time().await.unwrap().0 > 1_600_000_000);
        assert_eq!(client.dbsize().await.unwrap(), 0);
        let found: HashMap<String, String> = client.config_get("maxmemory-policy").await.unwrap();
        assert_eq!(found.len(), 1);
        let role: Frame = client.role().await.unwrap();
        assert_eq!(role.elements().unwrap().first().and_then(Frame::as_str), Some("master"));
        let error = client.cmd("NOSUCHCOMMAND").arg("hunter2").query::<Frame>().await.unwrap_err();
        assert_eq!(error.server_code(), Some("ERR"));
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn errors_say_what_happened() {
    for_each_server("client::errors_say_what_happened", |kind| async move {
        let (_server, client) = single(&kind).await;
        client.set("text", "hello").await.unwrap();
        let error = client.lpush("text", "x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Server);
        assert_eq!((error.server_code(), error.is_timeout()), (Some("WRONGTYPE"), false));
        let error = client.get::<i64>("text").await.unwrap_err();
        assert_eq!((error.kind(), error.executed()), (ErrorKind::Decode, Executed::Yes));
        assert!(!error.is_safe_to_retry());
    })
    .await;
}
