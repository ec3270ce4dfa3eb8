//! Streams and their consumer groups.

macro_rules! streams {
    ($emit:ident) => { $emit! {
        /// Tells the group that entries are done; gives how many were owed.
        ["XACK" since "5.0.0", "O(1) for each", example "let done = client.xack(\"orders\", \"billing\", [\"1-0\"]).await?;"]
        fn xack(key: impl ToArg, group: impl ToArg, ids: impl ToArgs) -> i64 =
            command!("XACK", key).arg(group).args_from(ids);

        /// Appends an entry and gives its id; with the id `*` the server makes one.
        ["XADD" since "5.0.0", "O(1)", example "let id = client.xadd(\"orders\", \"*\", [(\"item\", \"book\"), (\"count\", \"1\")]).await?;"]
        fn xadd(key: impl ToArg, id: impl ToArg, fields: impl ToPairs) -> String =
            command!("XADD", key).arg(id).pairs(fields);

        /// Appends an entry and trims the stream; gives the entry's id.
        ["XADD" since "5.0.0", "O(1), O(N) in entries trimmed", example "use evenkeel_client::Trim;\nlet id = client.xadd_trimmed(\"orders\", Trim::max_len(1000).about(), \"*\", [(\"item\", \"book\")]).await?;"]
        fn xadd_trimmed(key: impl ToArg, trim: Trim, id: impl ToArg, fields: impl ToPairs) -> String =
            command!("XADD", key).args_from(trim).arg(id).pairs(fields);

        /// Takes over entries that were given to others and not acknowledged for `min_idle`; the next start comes first.
        ["XAUTOCLAIM" since "6.2.0", "O(1) for each", example "use evenkeel_client::Frame;\nlet claimed: Frame = client.xautoclaim(\"orders\", \"billing\", \"me\", std::time::Duration::from_secs(60), \"0\").count(10).await?;"]
        fn xautoclaim<T>(key: impl ToArg, group: impl ToArg, consumer: impl ToArg, min_idle: Duration, start: impl ToArg) -> T, kind::Count =
            command!("XAUTOCLAIM", key).arg(group).arg(consumer).arg(millis(min_idle)).arg(start);

        /// Takes over entries by id that were not acknowledged for `min_idle`.
        ["XCLAIM" since "5.0.0", "O(log N) for each", example "use evenkeel_client::Frame;\nlet claimed: Frame = client.xclaim(\"orders\", \"billing\", \"me\", std::time::Duration::from_secs(60), [\"1-0\"]).await?;"]
        fn xclaim<T>(key: impl ToArg, group: impl ToArg, consumer: impl ToArg, min_idle: Duration, ids: impl ToArgs) -> T =
            command!("XCLAIM", key).arg(group).arg(consumer).arg(millis(min_idle)).args_from(ids);

        /// Deletes entries; gives how many there were.
        ["XDEL" since "5.0.0", "O(1) for each", example "let deleted = client.xdel(\"orders\", [\"1-0\"]).await?;"]
        fn xdel(key: impl ToArg, ids: impl ToArgs) -> i64 = command!("XDEL", key).args_from(ids);

        /// Creates a group that begins behind `id`: `0` for everything, `$` for what is new.
        ["XGROUP CREATE" since "5.0.0", "O(1)", example "client.xgroup_create(\"orders\", \"billing\", \"$\").mkstream().await?;"]
        fn xgroup_create(key: impl ToArg, group: impl ToArg, id: impl ToArg) -> (), kind::Group =
            command!("XGROUP").arg("CREATE").key(key).arg(group).arg(id);

        /// Removes a consumer from a group; gives how many entries it owed.
        ["XGROUP DELCONSUMER" since "5.0.0", "O(1)", example "let owed = client.xgroup_delconsumer(\"orders\", \"billing\", \"me\").await?;"]
        fn xgroup_delconsumer(key: impl ToArg, group: impl ToArg, consumer: impl ToArg) -> i64 =
            command!("XGROUP").arg("DELCONSUMER").key(key).arg(group).arg(consumer);

        /// Removes a group; false when there is none.
        ["XGROUP DESTROY" since "5.0.0", "O(N) in entries owed", example "let destroyed = client.xgroup_destroy(\"orders\", \"billing\").await?;"]
        fn xgroup_destroy(key: impl ToArg, group: impl ToArg) -> bool =
            command!("XGROUP").arg("DESTROY").key(key).arg(group);

        /// Returns what is known of a stream.
        ["XINFO STREAM" since "5.0.0", "O(1)", example "use evenkeel_client::Frame;\nlet info: Frame = client.xinfo_stream(\"orders\").await?;"]
        fn xinfo_stream<T>(key: impl ToArg) -> T = command!("XINFO").arg("STREAM").key(key);

        /// Returns what is known of a stream's groups.
        ["XINFO GROUPS" since "5.0.0", "O(1)", example "use evenkeel_client::Frame;\nlet groups: Vec<Frame> = client.xinfo_groups(\"orders\").await?;"]
        fn xinfo_groups<T>(key: impl ToArg) -> T = command!("XINFO").arg("GROUPS").key(key);

        /// Counts the entries.
        ["XLEN" since "5.0.0", "O(1)", example "let length = client.xlen(\"orders\").await?;"]
        fn xlen(key: impl ToArg) -> i64 = command!("XLEN", key);

        /// Returns how many entries a group owes, their first and last id, and how many each consumer owes.
        ["XPENDING" since "5.0.0", "O(N) in consumers", example "use evenkeel_client::Frame;\nlet pending: Frame = client.xpending(\"orders\", \"billing\").await?;"]
        fn xpending<T>(key: impl ToArg, group: impl ToArg) -> T = command!("XPENDING", key).arg(group);

        /// Returns the entries from `start` to `end`, both included; `-` and `+` are the ends.
        ["XRANGE" since "5.0.0", "O(N) in entries returned", example "use evenkeel_client::Pairs;\nlet entries: Vec<(String, Pairs<String, String>)> = client.xrange(\"orders\", \"-\", \"+\").count(10).await?;"]
        fn xrange<T>(key: impl ToArg, start: impl ToArg, end: impl ToArg) -> T, kind::Count =
            command!("XRANGE", key).arg(start).arg(end);

        /// Returns the entries behind an id in each stream; null when there are none.
        ["XREAD" since "5.0.0", "O(N) in entries returned", example "use evenkeel_client::Frame;\nlet new: Option<Frame> = client.xread([\"orders\"], [\"0\"]).await?;"]
        fn xread<T>(keys: impl ToArgs, ids: impl ToArgs) -> T =
            command!("XREAD").arg("STREAMS").args_from(keys).args_from(ids);

        /// As `xread`, with a count, or waiting for entries; a wait runs on a lease, so that nobody else waits with it.
        ["XREAD" since "5.0.0", "O(N) in entries returned", example "use evenkeel_client::{Frame, ReadOptions};\nlet wait = ReadOptions::new().count(100).block(std::time::Duration::from_secs(5));\nlet new: Option<Frame> = client.xread_with(wait, [\"orders\"], [\"$\"]).await?;"]
        fn xread_with<T>(options: ReadOptions, keys: impl ToArgs, ids: impl ToArgs) -> T =
            command!("XREAD").args_from(options).arg("STREAMS").args_from(keys).args_from(ids);

        /// Returns entries to a consumer of a group: new ones with the id `>`, those that it owes with any other.
        ["XREADGROUP" since "5.0.0", "O(M) in entries returned", example "use evenkeel_client::{Frame, ReadOptions};\nlet wait = ReadOptions::new().count(10).block(std::time::Duration::from_secs(5));\nlet new: Option<Frame> = client.xreadgroup(\"billing\", \"me\", wait, [\"orders\"], [\">\"]).await?;"]
        fn xreadgroup<T>(group: impl ToArg, consumer: impl ToArg, options: ReadOptions, keys: impl ToArgs, ids: impl ToArgs) -> T =
            command!("XREADGROUP").arg("GROUP").arg(group).arg(consumer).args_from(options).arg("STREAMS").args_from(keys).args_from(ids);

        /// Returns the entries from `end` back to `start`, both included; `+` and `-` are the ends.
        ["XREVRANGE" since "5.0.0", "O(N) in entries returned", example "use evenkeel_client::Pairs;\nlet last: Vec<(String, Pairs<String, String>)> = client.xrevrange(\"orders\", \"+\", \"-\").count(1).await?;"]
        fn xrevrange<T>(key: impl ToArg, end: impl ToArg, start: impl ToArg) -> T, kind::Count =
            command!("XREVRANGE", key).arg(end).arg(start);

        /// Removes the oldest entries; gives how many.
        ["XTRIM" since "5.0.0", "O(N) in entries removed", example "use evenkeel_client::Trim;\nlet removed = client.xtrim(\"orders\", Trim::max_len(1000)).await?;"]
        fn xtrim(key: impl ToArg, trim: Trim) -> i64 = command!("XTRIM", key).args_from(trim);
    } };
}

pub(super) use streams;
