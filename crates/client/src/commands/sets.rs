//! Sets, and counting distinct elements without keeping them.

macro_rules! sets {
    ($emit:ident) => { $emit! {
        /// Adds elements to a HyperLogLog; true when its estimate changed.
        ["PFADD" since "2.8.9", "O(N) in elements", example "let changed = client.pfadd(\"visitors\", [\"ada\", \"bob\"]).await?;"]
        fn pfadd(key: impl ToArg, elements: impl ToArgs) -> bool = command!("PFADD", key).args_from(elements);

        /// Estimates how many distinct elements HyperLogLogs have together, within about 1 %.
        ["PFCOUNT" since "2.8.9", "O(N) in keys", example "let about = client.pfcount([\"visitors\"]).await?;"]
        fn pfcount(keys: impl ToArgs) -> i64 = command!("PFCOUNT").args_from(keys);

        /// Joins HyperLogLogs into one.
        ["PFMERGE" since "2.8.9", "O(N) in keys", example "client.pfmerge(\"{v}all\", [\"{v}a\", \"{v}b\"]).await?;"]
        fn pfmerge(to: impl ToArg, from: impl ToArgs) -> () = command!("PFMERGE", to).args_from(from);

        /// Adds members; gives how many are new.
        ["SADD" since "1.0.0", "O(N) in members", example "let new = client.sadd(\"tags\", [\"a\", \"b\"]).await?;"]
        fn sadd(key: impl ToArg, members: impl ToArgs) -> i64 = command!("SADD", key).args_from(members);

        /// Counts the members.
        ["SCARD" since "1.0.0", "O(1)", example "let count = client.scard(\"tags\").await?;"]
        fn scard(key: impl ToArg) -> i64 = command!("SCARD", key);

        /// Returns the members of the first set that are in none of the others.
        ["SDIFF" since "1.0.0", "O(N) in all members", example "let only: Vec<String> = client.sdiff([\"{t}a\", \"{t}b\"]).await?;"]
        fn sdiff<T>(keys: impl ToArgs) -> T = command!("SDIFF").args_from(keys);

        /// Stores the members of the first set that are in none of the others; gives how many.
        ["SDIFFSTORE" since "1.0.0", "O(N) in all members", example "let count = client.sdiffstore(\"{t}d\", [\"{t}a\", \"{t}b\"]).await?;"]
        fn sdiffstore(to: impl ToArg, keys: impl ToArgs) -> i64 = command!("SDIFFSTORE", to).args_from(keys);

        /// Returns the members that are in every set.
        ["SINTER" since "1.0.0", "O(N*M) in the smallest set and sets", example "let both: Vec<String> = client.sinter([\"{t}a\", \"{t}b\"]).await?;"]
        fn sinter<T>(keys: impl ToArgs) -> T = command!("SINTER").args_from(keys);

        /// Counts the members that are in every set.
        ["SINTERCARD" since "7.0.0", "O(N*M) in the smallest set and sets", example "let count = client.sintercard([\"{t}a\", \"{t}b\"]).await?;"]
        fn sintercard(keys: impl ToArgs) -> i64 = command!("SINTERCARD").counted(keys);

        /// Stores the members that are in every set; gives how many.
        ["SINTERSTORE" since "1.0.0", "O(N*M) in the smallest set and sets", example "let count = client.sinterstore(\"{t}i\", [\"{t}a\", \"{t}b\"]).await?;"]
        fn sinterstore(to: impl ToArg, keys: impl ToArgs) -> i64 = command!("SINTERSTORE", to).args_from(keys);

        /// Tells whether a member is there.
        ["SISMEMBER" since "1.0.0", "O(1)", example "let there = client.sismember(\"tags\", \"a\").await?;"]
        fn sismember(key: impl ToArg, member: impl ToArg) -> bool = command!("SISMEMBER", key).arg(member);

        /// Returns all members.
        ["SMEMBERS" since "1.0.0", "O(N) in members", example "let tags: std::collections::HashSet<String> = client.smembers(\"tags\").await?;"]
        fn smembers<T>(key: impl ToArg) -> T = command!("SMEMBERS", key);

        /// Tells for each of several members whether it is there.
        ["SMISMEMBER" since "6.2.0", "O(N) in members", example "let there = client.smismember(\"tags\", [\"a\", \"b\"]).await?;"]
        fn smismember(key: impl ToArg, members: impl ToArgs) -> Vec<bool> =
            command!("SMISMEMBER", key).args_from(members);

        /// Moves a member to another set; false when it is not there.
        ["SMOVE" since "1.0.0", "O(1)", example "let moved = client.smove(\"{t}a\", \"{t}b\", \"x\").await?;"]
        fn smove(from: impl ToArg, to: impl ToArg, member: impl ToArg) -> bool =
            command!("SMOVE", from).key(to).arg(member);

        /// Takes some member; null when the set is empty.
        ["SPOP" since "1.0.0", "O(1)", example "let one: Option<String> = client.spop(\"tags\").await?;"]
        fn spop<T>(key: impl ToArg) -> T = command!("SPOP", key);

        /// Takes up to `count` members.
        ["SPOP" since "3.2.0", "O(N) in members taken", example "let some: Vec<String> = client.spop_count(\"tags\", 3).await?;"]
        fn spop_count<T>(key: impl ToArg, count: u64) -> T = command!("SPOP", key).arg(count);

        /// Returns some member; null when the set is empty.
        ["SRANDMEMBER" since "1.0.0", "O(1)", example "let one: Option<String> = client.srandmember(\"tags\").await?;"]
        fn srandmember<T>(key: impl ToArg) -> T = command!("SRANDMEMBER", key);

        /// Returns up to `count` members; with a negative count the same one may come more than once.
        ["SRANDMEMBER" since "2.6.0", "O(N) in members returned", example "let some: Vec<String> = client.srandmember_count(\"tags\", 3).await?;"]
        fn srandmember_count<T>(key: impl ToArg, count: i64) -> T = command!("SRANDMEMBER", key).arg(count);

        /// Removes members; gives how many there were.
        ["SREM" since "1.0.0", "O(N) in members", example "let removed = client.srem(\"tags\", [\"a\"]).await?;"]
        fn srem(key: impl ToArg, members: impl ToArgs) -> i64 = command!("SREM", key).args_from(members);

        /// Returns the next cursor and some members; it begins with cursor 0 and ends when 0 comes back.
        ["SSCAN" since "2.8.0", "O(1) each, O(N) in all", example "let (next, some): (u64, Vec<String>) = client.sscan(\"tags\", 0).await?;"]
        fn sscan<T>(key: impl ToArg, cursor: u64) -> T, kind::Scan = command!("SSCAN", key).arg(cursor);

        /// Returns the members of all sets.
        ["SUNION" since "1.0.0", "O(N) in all members", example "let any: Vec<String> = client.sunion([\"{t}a\", \"{t}b\"]).await?;"]
        fn sunion<T>(keys: impl ToArgs) -> T = command!("SUNION").args_from(keys);

        /// Stores the members of all sets; gives how many.
        ["SUNIONSTORE" since "1.0.0", "O(N) in all members", example "let count = client.sunionstore(\"{t}u\", [\"{t}a\", \"{t}b\"]).await?;"]
        fn sunionstore(to: impl ToArg, keys: impl ToArgs) -> i64 = command!("SUNIONSTORE", to).args_from(keys);
    } };
}

pub(super) use sets;
