//! Strings, counters and bits.

macro_rules! strings {
    ($emit:ident) => { $emit! {
        /// Appends to the value of a key, which is created when missing; gives its new length in bytes.
        ["APPEND" since "2.0.0", "O(1)", example "let length = client.append(\"log\", \"line\\n\").await?;"]
        fn append(key: impl ToArg, value: impl ToArg) -> i64 = command!("APPEND", key).arg(value);

        /// Counts the bits that are set.
        ["BITCOUNT" since "2.6.0", "O(N) in bytes", example "let active = client.bitcount(\"active:today\").await?;"]
        fn bitcount(key: impl ToArg) -> i64 = command!("BITCOUNT", key);

        /// Takes 1 from a counter, which starts at 0; gives the new value.
        ["DECR" since "1.0.0", "O(1)", example "let left = client.decr(\"seats\").await?;"]
        fn decr(key: impl ToArg) -> i64 = command!("DECR", key);

        /// Takes a number from a counter, which starts at 0; gives the new value.
        ["DECRBY" since "1.0.0", "O(1)", example "let left = client.decrby(\"seats\", 2).await?;"]
        fn decrby(key: impl ToArg, by: i64) -> i64 = command!("DECRBY", key).arg(by);

        /// Returns the value of a key; null when it is missing.
        ["GET" since "1.0.0", "O(1)", example "let greeting: Option<String> = client.get(\"greeting\").await?;"]
        fn get<T>(key: impl ToArg) -> T = command!("GET", key);

        /// Returns one bit of a value; bits beyond its end are 0.
        ["GETBIT" since "2.2.0", "O(1)", example "let here: bool = client.getbit(\"active:today\", 7).await?;"]
        fn getbit(key: impl ToArg, offset: u64) -> bool = command!("GETBIT", key).arg(offset);

        /// Returns the value of a key and deletes it; null when it is missing.
        ["GETDEL" since "6.2.0", "O(1)", example "let token: Option<String> = client.getdel(\"token\").await?;"]
        fn getdel<T>(key: impl ToArg) -> T = command!("GETDEL", key);

        /// Returns the value of a key and, with an option behind it, changes its time to live.
        ["GETEX" since "6.2.0", "O(1)", example "let session: Option<String> = client.getex(\"session\").ex(600).await?;"]
        fn getex<T>(key: impl ToArg) -> T, kind::GetEx = command!("GETEX", key);

        /// Returns the bytes from `start` to `end`, both included; negative ones count from the end.
        ["GETRANGE" since "2.4.0", "O(N) in bytes returned", example "let head: String = client.getrange(\"text\", 0, 9).await?;"]
        fn getrange<T>(key: impl ToArg, start: i64, end: i64) -> T =
            command!("GETRANGE", key).arg(start).arg(end);

        /// Adds 1 to a counter, which starts at 0; gives the new value.
        ["INCR" since "1.0.0", "O(1)", example "let visits = client.incr(\"visits\").await?;"]
        fn incr(key: impl ToArg) -> i64 = command!("INCR", key);

        /// Adds a number to a counter, which starts at 0; gives the new value.
        ["INCRBY" since "1.0.0", "O(1)", example "let visits = client.incrby(\"visits\", 10).await?;"]
        fn incrby(key: impl ToArg, by: i64) -> i64 = command!("INCRBY", key).arg(by);

        /// Adds a floating point number to a counter, which starts at 0; gives the new value.
        ["INCRBYFLOAT" since "2.6.0", "O(1)", example "let total = client.incrbyfloat(\"total\", 0.5).await?;"]
        fn incrbyfloat(key: impl ToArg, by: f64) -> f64 = command!("INCRBYFLOAT", key).arg(by);

        /// Returns the values of several keys, null for each that is missing. In a cluster it is split by slot.
        ["MGET" since "1.0.0", "O(N) in keys", example "let both: Vec<Option<String>> = client.mget([\"a\", \"b\"]).await?;"]
        fn mget<T>(keys: impl ToArgs) -> T = command!("MGET").args_from(keys);

        /// Sets several keys. In a cluster it is split by slot, and no longer happens all at once.
        ["MSET" since "1.0.1", "O(N) in keys", example "client.mset([(\"a\", 1), (\"b\", 2)]).await?;"]
        fn mset(pairs: impl ToPairs) -> () = command!("MSET").pairs(pairs);

        /// Sets several keys if none of them exists; false when one does and nothing was set.
        ["MSETNX" since "1.0.1", "O(N) in keys", example "let all_new = client.msetnx([(\"{x}a\", 1), (\"{x}b\", 2)]).await?;"]
        fn msetnx(pairs: impl ToPairs) -> bool = command!("MSETNX").pairs(pairs);

        /// Sets a key, whatever it held; true when it was set, which only options such as `nx` can prevent.
        ["SET" since "1.0.0", "O(1)", example "let first = client.set(\"lock\", \"me\").nx().ex(30).await?;"]
        fn set(key: impl ToArg, value: impl ToArg) -> bool, kind::Set = command!("SET", key).arg(value);

        /// Sets one bit of a value, which grows as needed; gives what the bit was.
        ["SETBIT" since "2.2.0", "O(1)", example "let was = client.setbit(\"active:today\", 7, true).await?;"]
        fn setbit(key: impl ToArg, offset: u64, bit: bool) -> bool =
            command!("SETBIT", key).arg(offset).arg(bit);

        /// Writes over a value from `offset` on; gives its new length in bytes.
        ["SETRANGE" since "2.2.0", "O(N) in bytes written", example "client.setrange(\"text\", 6, \"Redis\").await?;"]
        fn setrange(key: impl ToArg, offset: u64, value: impl ToArg) -> i64 =
            command!("SETRANGE", key).arg(offset).arg(value);

        /// Returns the length of a value in bytes; 0 when it is missing.
        ["STRLEN" since "2.2.0", "O(1)", example "let length = client.strlen(\"text\").await?;"]
        fn strlen(key: impl ToArg) -> i64 = command!("STRLEN", key);
    } };
}

pub(super) use strings;
