//! Replies, byte for byte, beside those of real servers.

use evenkeel_testkit::{
    launcher::{Single, SingleOptions, for_each_server, skip},
    server::EmbeddedServer,
};

use super::peer::Peer;

/// Lines of commands, in order; each line is split at spaces, quotes as in a shell.
const COMMON: &str = r#"
SET s hello
GET s
GET none
SET s v NX
SET s2 v NX
SET s v2 XX GET
SET none v XX
SET none v XX GET
SET s v EX 100
TTL s
SET s w KEEPTTL
TTL s
SET s w
TTL s
SET s v EX 0
SET s v EX -1
SET s v EX x
SET s v PX 100 EX 1
SET s v NX XX
SET s v BAD
SET s
SET
GETSET s new
GETSET new1 x
GETDEL new1
GETDEL new1
GETEX s EX 50
TTL s
GETEX s PERSIST
TTL s
GETEX s BAD
GETEX none
APPEND s _tail
STRLEN s
STRLEN none
GETRANGE s 1 3
GETRANGE s -3 -1
GETRANGE s 5 2
GETRANGE none 0 -1
SETRANGE s 2 XY
SETRANGE padded 3 z
GET padded
SETRANGE padded -1 z
MSET a 1 b 2 c 3
MSET a 1 b
MGET a b none c
MSETNX a 1 z 2
MSETNX y 1 z 2
SETNX a 2
SETNX fresh 2
SETEX e 10 v
SETEX e 0 v
PSETEX e 10000 v
INCR a
INCR s
INCRBY a 10
INCRBY a x
DECR a
DECRBY a 5
DECRBY a -9223372036854775808
INCRBY a 9223372036854775807
INCRBYFLOAT a 1.5
INCRBYFLOAT a -3
INCRBYFLOAT a x
INCRBYFLOAT big 5.0e3
INCR a
EXISTS a b none a
DEL a none
UNLINK b none
TYPE s
TYPE none
EXPIRE s 100
EXPIRE none 100
EXPIRE s 50 GT
EXPIRE s 500 GT
EXPIRE s 50 LT
EXPIRE s 50 XX
EXPIRE s 50 NX
EXPIRE s 50 NX XX
EXPIRE s 50 GT LT
EXPIRE s 50 BAD
EXPIRE s x
PEXPIRE s 100000
EXPIREAT s 4102444800
EXPIRETIME s
PEXPIRETIME s
PERSIST s
PERSIST s
TTL none
PTTL none
EXPIRE s -1
EXISTS s
RENAME none x
SET r 1
RENAME r r2
GET r2
RENAMENX r2 c
RENAMENX r2 r3
RANDOMKEY extra
HSET h f1 v1 f2 v2
HSET h f1 again f3 v3
HSET h f1
HSET h f1 v1 f2
HGET h f1
HGET h none
HGET none f
HMGET h f1 none f3
HMGET none f
HGETALL h
HGETALL none
HKEYS h
HKEYS none
HVALS h
HLEN h
HLEN none
HEXISTS h f1
HEXISTS h none
HSTRLEN h f1
HDEL h f1 none
HDEL none f
HINCRBY h n 5
HINCRBY h n -7
HINCRBY h f2 1
HINCRBY h n x
HINCRBYFLOAT h n 0.5
HINCRBYFLOAT h f2 1
HMSET h a b
HSETNX h a c
HSETNX h new c
HSCAN h 0
HSCAN h x
GET h
INCR h
APPEND h x
LPUSH h x
SADD h x
ZADD h 1 x
XADD h * f v
HGET c f
LPUSH l a b c
RPUSH l d e
LRANGE l 0 -1
LRANGE l -2 -1
LRANGE l 5 10
LRANGE none 0 -1
LRANGE l a b
LLEN l
LINDEX l 0
LINDEX l -1
LINDEX l 99
LSET l 0 z
LSET l 99 z
LSET none 0 z
LINSERT l BEFORE b x
LINSERT l AFTER b y
LINSERT l AFTER none y
LINSERT none AFTER b y
LINSERT l MIDDLE b y
LPOP l
RPOP l
LPOP l 2
LPOP l 0
LPOP l -1
LPOP none
LPOP none 2
RPOP none 0
RPUSH l q q r q
LREM l 1 q
LREM l -1 q
LREM l 0 q
LREM none 0 q
LTRIM l 0 1
LRANGE l 0 -1
LTRIM l 5 10
EXISTS l
LPUSHX l a
RPUSHX none a
RPUSH src 1 2 3
LMOVE src dst LEFT RIGHT
LMOVE src dst UP RIGHT
LMOVE none dst LEFT RIGHT
RPOPLPUSH src dst
LRANGE dst 0 -1
LMOVE src h LEFT RIGHT
BLPOP dst 1
BRPOP none dst 1
BLPOP dst x
BLPOP dst -1
BLPOP h 1
RPUSH src 9
BLMOVE src dst LEFT LEFT 1
BRPOPLPUSH src dst 1
BLPOP
SADD ints 3 1 2
SADD ints 3
SMEMBERS ints
SMEMBERS none
SISMEMBER ints 1
SISMEMBER ints 9
SISMEMBER none 9
SMISMEMBER ints 1 9
SCARD ints
SCARD none
SREM ints 3 9
SREM none 9
SADD ints2 1 9
SINTER ints ints2
SINTER ints none
SDIFF ints ints2
SUNION none ints
SPOP none
SPOP none 2
SSCAN ints 0
ZADD z 1 one 2 two 3.5 three
ZADD z 1 one
ZADD z CH 5 one
ZADD z NX 9 one 4 four
ZADD z XX 7 four
ZADD z XX 7 none
ZADD none XX 1 a
ZADD z GT 1 four
ZADD z INCR 2 four
ZADD z NX INCR 2 four
ZADD z NX XX 1 a
ZADD z GT LT 1 a
ZADD z x a
ZADD z 1
ZADD z 1 a 2
ZSCORE z one
ZSCORE z none
ZSCORE none one
ZCARD z
ZCARD none
ZRANK z one
ZRANK z none
ZCOUNT z 2 4
ZCOUNT z (2 +inf
ZCOUNT z x y
ZINCRBY z 2.5 two
ZRANGE z 0 -1
ZRANGE z 0 -1 WITHSCORES
ZRANGE z 0 0 REV
ZRANGE z 2 5 BYSCORE
ZRANGE z +inf -inf BYSCORE REV LIMIT 0 2
ZRANGE z 0 -1 LIMIT 0 1
ZRANGE none 0 -1
ZRANGEBYSCORE z -inf +inf WITHSCORES
ZRANGEBYSCORE z (3.5 7 LIMIT 0 1
ZRANGEBYSCORE z a b
ZREM z one none
ZREMRANGEBYSCORE z 0 4
ZSCAN z 0
ZPOPMIN z
ZPOPMIN z 5
ZPOPMIN z
EXISTS z
XADD st 1-1 f v
XADD st 1-2 f v g w
XADD st 1-1 f v
XADD st 0-0 f v
XADD st 5 f v
XADD st 5-* f v
XADD st MAXLEN 3 6-1 f v
XADD st MAXLEN = 3 6-2 f v
XADD st NOMKSTREAM 7-0 f v
XADD nope NOMKSTREAM * f v
XADD st bad f v
XADD st * f
XADD st MAXLEN x * f v
XADD st MAXLEN = 3 LIMIT 5 * f v
XLEN st
XLEN none
XRANGE st - +
XRANGE st - + COUNT 1
XRANGE st 6 6
XRANGE st (6-1 +
XRANGE st x y
XRANGE none - +
XREVRANGE st + -
XREVRANGE st + - COUNT 2
XREAD STREAMS st 0
XREAD COUNT 1 STREAMS st none 0 0
XREAD COUNT 1 BLOCK 10 STREAMS st 6-1
XREAD STREAMS st 99
XREAD BLOCK 10 STREAMS st $
XREAD BLOCK -1 STREAMS st $
XREAD STREAMS st
XREAD STREAMS st bad
XREAD BOGUS STREAMS st 0
XDEL st 6-1 9-9
XTRIM st MAXLEN 1
XTRIM st BOGUS 1
XTRIM none MAXLEN 0
XINFO STREAM none
DEL st
PING
PING hello
PING a b
ECHO hello
ECHO
SELECT 1
SET k in-one
SELECT 0
GET k
SELECT 99
SELECT x
WAIT 0 10
WAIT 1 10
WAIT x 10
FLUSHDB BAD
TIME x
CLIENT SETNAME me
CLIENT GETNAME
CLIENT SETNAME "two words"
CLIENT SETNAME ""
CLIENT GETNAME
CLIENT ID x
CLIENT NOPE
CLIENT
CLIENT KILL ID x
CLIENT KILL 1.2.3.4:5
CLIENT KILL ADDR 1.2.3.4:5
CLIENT KILL TYPE bogus
CLIENT UNBLOCK 99999
CLIENT UNBLOCK x
CLIENT UNBLOCK 9 BOGUS
CLIENT NO-EVICT ON
CLIENT NO-EVICT MAYBE
CLIENT TRACKING ON PREFIX a
CLIENT TRACKING ON BCAST OPTIN
CLIENT TRACKING ON OPTIN OPTOUT
CLIENT TRACKING MAYBE
CLIENT TRACKING ON REDIRECT 999999
CLIENT CACHING YES
CLIENT GETREDIR
CLIENT PAUSE x
CLIENT PAUSE 0 BOGUS
CLIENT UNPAUSE
CLIENT REPLY MAYBE
CLIENT MAINT_NOTIFICATIONS ON moving-endpoint-type internal-ip
CLIENT TRACKINGINFO
NOSUCH
NOSUCH a "b c" d
"" x
CONFIG NOPE
COMMAND NOPE
COMMAND GETKEYS GET k
COMMAND GETKEYS MSET a 1 b 2
COMMAND INFO nope
MULTI
SET t 1
GET t
EXEC
MULTI
MULTI
SET t 2
DISCARD
DISCARD
EXEC
MULTI
NOSUCH
SET t 3
EXEC
MULTI
INCR h
SET t 4
EXEC
MULTI
GET
EXEC
WATCH t
SET t 5
MULTI
GET t
EXEC
WATCH t
MULTI
GET t
WATCH t
EXEC
UNWATCH
MULTI
BLPOP nothing 0
HGETALL h
EXEC
EVALSHA aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 0
SCRIPT EXISTS aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
SCRIPT NOPE
PUBLISH nobody x
SPUBLISH nobody x
PUBSUB CHANNELS
PUBSUB NUMSUB a b
PUBSUB NUMPAT
PUBSUB SHARDCHANNELS
PUBSUB SHARDNUMSUB a
PUBSUB NOPE
UNSUBSCRIBE
PUNSUBSCRIBE
SUNSUBSCRIBE
READONLY
ROLE
CLUSTER INFO
CLUSTER KEYSLOT x
ASKING
DEBUG SLEEP 0
DEBUG PROTOCOL string
DEBUG PROTOCOL integer
DEBUG PROTOCOL array
DEBUG PROTOCOL set
DEBUG PROTOCOL map
DEBUG PROTOCOL bignum
DEBUG PROTOCOL true
DEBUG PROTOCOL false
DEBUG PROTOCOL null
DEBUG PROTOCOL verbatim
DEBUG PROTOCOL attrib
AUTH x
AUTH default x
AUTH nobody x
AUTH a b c
HELLO 9
HELLO x
HELLO 3 BOGUS
KEYS nothing*
DBSIZE
SCAN 0 MATCH nothing* COUNT 1000
SCAN x
SCAN 0 BOGUS
FLUSHALL
DBSIZE
RANDOMKEY
"#;

/// Split as a shell would; enough for the table above.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (word, left) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap(),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = left.trim_start();
    }
    words
}

async fn compare(real: &mut Peer, ours: &mut Peer, table: &str) -> Vec<String> {
    let mut differences = Vec::new();
    for line in table.lines().filter(|line| !line.is_empty()) {
        let words = split(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (theirs, answer) = (real.ask(&words).await, ours.ask(&words).await);
        if theirs != answer {
            differences.push(format!("{line}\n  theirs {theirs:?}\n  ours   {answer:?}"));
        }
    }
    differences
}

#[tokio::test]
async fn replies_are_those_of_real_servers() {
    for_each_server("server::replies_are_those_of_real_servers", |kind| async move {
        // The words of errors differ between versions; these are the ones that the embedded server speaks.
        if (kind.name(), kind.release()) != ("redis", (7, 0)) {
            return skip("server::replies_are_those_of_real_servers", "other words than those of redis 7.0");
        }
        let real = Single::start(&kind).await.unwrap();
        for hello in ["2", "3"] {
            let ours = EmbeddedServer::start().await.unwrap();
            ours.set_maintenance(evenkeel_testkit::server::MaintenanceSupport::Unknown);
            let (mut theirs, mut peer) = (Peer::connect(real.addr()).await, Peer::connect(ours.addr()).await);
            for one in [&mut theirs, &mut peer] {
                one.ask(&["HELLO", hello]).await;
            }
            let differences = compare(&mut theirs, &mut peer, COMMON).await;
            assert!(
                differences.is_empty(),
                "RESP{hello}, {} differences:\n{}",
                differences.len(),
                differences.join("\n")
            );
        }
    })
    .await;
}

/// What a node that owns all slots answers, ids and ports made equal.
#[tokio::test]
async fn a_cluster_node_answers_as_a_real_one() {
    const TABLE: &str = "
CLUSTER SLOTS
CLUSTER SHARDS
CLUSTER KEYSLOT foo
CLUSTER COUNTKEYSINSLOT 12182
CLUSTER COUNTKEYSINSLOT 99999
CLUSTER GETKEYSINSLOT 12182 10
CLUSTER NOPE
CLUSTER
SET foo 1
CLUSTER COUNTKEYSINSLOT 12182
CLUSTER GETKEYSINSLOT 12182 10
MGET foo bar
MGET {a}b {a}c
SELECT 1
SELECT 0
ASKING
READONLY
READWRITE
DEL foo
";
    async fn id(peer: &mut Peer) -> String {
        peer.send(&["CLUSTER", "MYID"]).await;
        peer.next_frame().await.as_str().unwrap().to_owned()
    }
    for_each_server("server::a_cluster_node_answers_as_a_real_one", |kind| async move {
        if (kind.name(), kind.release()) != ("redis", (7, 0)) {
            return skip(
                "server::a_cluster_node_answers_as_a_real_one",
                "other words than those of redis 7.0",
            );
        }
        // A node that has met no other does not know its own address.
        let options =
            SingleOptions::default().config("cluster-enabled yes").config("cluster-announce-ip 127.0.0.1");
        let real = Single::start_with(&kind, options).await.unwrap();
        real.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await.unwrap();
        let ours = EmbeddedServer::builder().cluster().start().await.unwrap();
        for hello in ["2", "3"] {
            let (mut theirs, mut peer) = (Peer::connect(real.addr()).await, Peer::connect(ours.addr()).await);
            for one in [&mut theirs, &mut peer] {
                one.ask(&["HELLO", hello]).await;
            }
            // It serves as soon as it has looked at its slots.
            while !theirs.ask(&["CLUSTER", "INFO"]).await.windows(16).any(|part| part == b"cluster_state:ok")
            {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            let names = [
                (id(&mut theirs).await, real.addr().port().to_string()),
                (id(&mut peer).await, ours.addr().port().to_string()),
            ];
            for line in TABLE.lines().filter(|line| !line.is_empty()) {
                let words: Vec<&str> = line.split(' ').collect();
                let [reply, answer] = [theirs.ask(&words).await, peer.ask(&words).await].map(|b| b.to_vec());
                let equal = |reply: Vec<u8>, (id, port): &(String, String)| {
                    String::from_utf8(reply).unwrap().replace(id, "ID").replace(port, "PORT")
                };
                assert_eq!(equal(answer, &names[1]), equal(reply, &names[0]), "RESP{hello} {line}");
            }
        }
    })
    .await;
}
