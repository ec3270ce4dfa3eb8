//! Keys of any type: life, names, scanning.

macro_rules! keys {
    ($emit:ident) => { $emit! {
        /// Copies a value to another key; false when the source is missing or the target exists.
        ["COPY" since "6.2.0", "O(N) in the value's size", example "let copied = client.copy(\"{x}a\", \"{x}b\").replace().await?;"]
        fn copy(from: impl ToArg, to: impl ToArg) -> bool, kind::Copy = command!("COPY", from).key(to);

        /// Deletes keys; gives how many there were. In a cluster it is split by slot.
        ["DEL" since "1.0.0", "O(N) in keys and elements", example "let deleted = client.del([\"a\", \"b\"]).await?;"]
        fn del(keys: impl ToArgs) -> i64 = command!("DEL").args_from(keys);

        /// Returns a value in the server's own format, for `restore`; null when it is missing.
        ["DUMP" since "2.6.0", "O(N) in the value's size", example "let dump: Option<bytes::Bytes> = client.dump(\"k\").await?;"]
        fn dump<T>(key: impl ToArg) -> T = command!("DUMP", key);

        /// Counts keys that exist; one that is named twice counts twice. In a cluster it is split by slot.
        ["EXISTS" since "1.0.0", "O(N) in keys", example "let there = client.exists([\"a\", \"b\"]).await? == 2;"]
        fn exists(keys: impl ToArgs) -> i64 = command!("EXISTS").args_from(keys);

        /// Lets a key live for some seconds more; false when it is missing or an option forbids it.
        ["EXPIRE" since "1.0.0", "O(1)", example "let set = client.expire(\"session\", 600).gt().await?;"]
        fn expire(key: impl ToArg, seconds: i64) -> bool, kind::Expire = command!("EXPIRE", key).arg(seconds);

        /// Lets a key live until a time, in seconds since 1970; false when it is missing or an option forbids it.
        ["EXPIREAT" since "1.2.0", "O(1)", example "let set = client.expireat(\"offer\", 1_893_456_000).await?;"]
        fn expireat(key: impl ToArg, time: i64) -> bool, kind::Expire = command!("EXPIREAT", key).arg(time);

        /// Returns when a key expires, in seconds since 1970; -1 for never, -2 when it is missing.
        ["EXPIRETIME" since "7.0.0", "O(1)", example "let time = client.expiretime(\"offer\").await?;"]
        fn expiretime(key: impl ToArg) -> i64 = command!("EXPIRETIME", key);

        /// Returns every key that matches a pattern. It stops the server while it looks at all of them: use `scan`.
        ["KEYS" since "1.0.0", "O(N) in all keys", example "let names: Vec<String> = client.keys(\"user:*\").await?;"]
        fn keys<T>(pattern: impl ToArg) -> T = command!("KEYS").arg(pattern);

        /// Returns the type of a value: `string`, `list`, `set`, `zset`, `hash`, `stream` or `none`.
        ["TYPE" since "1.0.0", "O(1)", example "let kind = client.key_type(\"k\").await?;"]
        fn key_type(key: impl ToArg) -> String = command!("TYPE", key);

        /// Returns how a value is stored inside the server; null when it is missing.
        ["OBJECT ENCODING" since "2.2.3", "O(1)", example "let encoding = client.object_encoding(\"k\").await?;"]
        fn object_encoding(key: impl ToArg) -> Option<String> = command!("OBJECT").arg("ENCODING").key(key);

        /// Returns the seconds since a value was used last; null when it is missing.
        ["OBJECT IDLETIME" since "2.2.3", "O(1)", example "let idle = client.object_idletime(\"k\").await?;"]
        fn object_idletime(key: impl ToArg) -> Option<i64> = command!("OBJECT").arg("IDLETIME").key(key);

        /// Lets a key live for ever; false when it is missing or did already.
        ["PERSIST" since "2.2.0", "O(1)", example "let changed = client.persist(\"session\").await?;"]
        fn persist(key: impl ToArg) -> bool = command!("PERSIST", key);

        /// Lets a key live for some milliseconds more; false when it is missing or an option forbids it.
        ["PEXPIRE" since "2.6.0", "O(1)", example "let set = client.pexpire(\"session\", 1500).await?;"]
        fn pexpire(key: impl ToArg, millis: i64) -> bool, kind::Expire = command!("PEXPIRE", key).arg(millis);

        /// Lets a key live until a time, in milliseconds since 1970; false when it is missing or an option forbids it.
        ["PEXPIREAT" since "2.6.0", "O(1)", example "let set = client.pexpireat(\"offer\", 1_893_456_000_000).await?;"]
        fn pexpireat(key: impl ToArg, time: i64) -> bool, kind::Expire = command!("PEXPIREAT", key).arg(time);

        /// Returns when a key expires, in milliseconds since 1970; -1 for never, -2 when it is missing.
        ["PEXPIRETIME" since "7.0.0", "O(1)", example "let time = client.pexpiretime(\"offer\").await?;"]
        fn pexpiretime(key: impl ToArg) -> i64 = command!("PEXPIRETIME", key);

        /// Returns how long a key still lives, in milliseconds; -1 for ever, -2 when it is missing.
        ["PTTL" since "2.6.0", "O(1)", example "let millis = client.pttl(\"session\").await?;"]
        fn pttl(key: impl ToArg) -> i64 = command!("PTTL", key);

        /// Returns some key; null when there is none. In a cluster it is one of a node.
        ["RANDOMKEY" since "1.0.0", "O(1)", example "let key: Option<String> = client.randomkey().await?;"]
        fn randomkey<T>() -> T = command!("RANDOMKEY");

        /// Renames a key; what had the new name is overwritten. A missing key is an error.
        ["RENAME" since "1.0.0", "O(1), O(N) in what is overwritten", example "client.rename(\"{x}a\", \"{x}b\").await?;"]
        fn rename(from: impl ToArg, to: impl ToArg) -> () = command!("RENAME", from).key(to);

        /// Renames a key unless the new name exists; false when it does. A missing key is an error.
        ["RENAMENX" since "1.0.0", "O(1)", example "let renamed = client.renamenx(\"{x}a\", \"{x}b\").await?;"]
        fn renamenx(from: impl ToArg, to: impl ToArg) -> bool = command!("RENAMENX", from).key(to);

        /// Creates a key from what `dump` gave, to live for some milliseconds, for ever with 0.
        ["RESTORE" since "2.6.0", "O(N) in the value's size", example "client.restore(\"k\", 0, bytes::Bytes::new()).replace().await?;"]
        fn restore(key: impl ToArg, millis: u64, dump: impl ToArg) -> (), kind::Copy =
            command!("RESTORE", key).arg(millis).arg(dump);

        /// Returns the next cursor and some keys; the scan begins with cursor 0 and ends when 0 comes back.
        ["SCAN" since "2.8.0", "O(1) each, O(N) in all", example "let (next, names): (u64, Vec<String>) = client.scan(0).matching(\"user:*\").count(500).await?;"]
        fn scan<T>(cursor: u64) -> T, kind::Scan = command!("SCAN").arg(cursor);

        /// Marks keys as used now; gives how many exist. In a cluster it is split by slot.
        ["TOUCH" since "3.2.1", "O(N) in keys", example "let there = client.touch([\"a\", \"b\"]).await?;"]
        fn touch(keys: impl ToArgs) -> i64 = command!("TOUCH").args_from(keys);

        /// Returns how long a key still lives, in seconds; -1 for ever, -2 when it is missing.
        ["TTL" since "1.0.0", "O(1)", example "let seconds = client.ttl(\"session\").await?;"]
        fn ttl(key: impl ToArg) -> i64 = command!("TTL", key);

        /// Deletes keys and frees their memory in the background; gives how many there were. In a cluster it is split.
        ["UNLINK" since "4.0.0", "O(1) each", example "let deleted = client.unlink([\"a\", \"b\"]).await?;"]
        fn unlink(keys: impl ToArgs) -> i64 = command!("UNLINK").args_from(keys);
    } };
}

pub(super) use keys;
