//! Hashes.

macro_rules! hashes {
    ($emit:ident) => { $emit! {
        /// Deletes fields; gives how many there were.
        ["HDEL" since "2.0.0", "O(N) in fields", example "let deleted = client.hdel(\"user:1\", [\"mail\"]).await?;"]
        fn hdel(key: impl ToArg, fields: impl ToArgs) -> i64 = command!("HDEL", key).args_from(fields);

        /// Tells whether a field exists.
        ["HEXISTS" since "2.0.0", "O(1)", example "let there = client.hexists(\"user:1\", \"mail\").await?;"]
        fn hexists(key: impl ToArg, field: impl ToArg) -> bool = command!("HEXISTS", key).arg(field);

        /// Lets fields live for some seconds more; for each field 1 when set, 0 when not, -2 when missing.
        ["HEXPIRE" since "7.4.0", "O(N) in fields", example "let set = client.hexpire(\"user:1\", 60, [\"code\"]).await?;"]
        fn hexpire(key: impl ToArg, seconds: i64, fields: impl ToArgs) -> Vec<i64> =
            command!("HEXPIRE", key).arg(seconds).arg("FIELDS").counted(fields);

        /// Returns the value of a field; null when it is missing.
        ["HGET" since "2.0.0", "O(1)", example "let mail: Option<String> = client.hget(\"user:1\", \"mail\").await?;"]
        fn hget<T>(key: impl ToArg, field: impl ToArg) -> T = command!("HGET", key).arg(field);

        /// Returns all fields with their values; empty when the key is missing.
        ["HGETALL" since "2.0.0", "O(N) in fields", example "let user: std::collections::HashMap<String, String> = client.hgetall(\"user:1\").await?;"]
        fn hgetall<T>(key: impl ToArg) -> T = command!("HGETALL", key);

        /// Adds a number to a field, which starts at 0; gives the new value.
        ["HINCRBY" since "2.0.0", "O(1)", example "let visits = client.hincrby(\"user:1\", \"visits\", 1).await?;"]
        fn hincrby(key: impl ToArg, field: impl ToArg, by: i64) -> i64 =
            command!("HINCRBY", key).arg(field).arg(by);

        /// Adds a floating point number to a field, which starts at 0; gives the new value.
        ["HINCRBYFLOAT" since "2.6.0", "O(1)", example "let total = client.hincrbyfloat(\"user:1\", \"total\", 0.5).await?;"]
        fn hincrbyfloat(key: impl ToArg, field: impl ToArg, by: f64) -> f64 =
            command!("HINCRBYFLOAT", key).arg(field).arg(by);

        /// Returns the names of all fields.
        ["HKEYS" since "2.0.0", "O(N) in fields", example "let fields: Vec<String> = client.hkeys(\"user:1\").await?;"]
        fn hkeys<T>(key: impl ToArg) -> T = command!("HKEYS", key);

        /// Counts the fields.
        ["HLEN" since "2.0.0", "O(1)", example "let count = client.hlen(\"user:1\").await?;"]
        fn hlen(key: impl ToArg) -> i64 = command!("HLEN", key);

        /// Returns the values of several fields, null for each that is missing.
        ["HMGET" since "2.0.0", "O(N) in fields", example "let (name, mail): (Option<String>, Option<String>) = client.hmget(\"user:1\", [\"name\", \"mail\"]).await?;"]
        fn hmget<T>(key: impl ToArg, fields: impl ToArgs) -> T = command!("HMGET", key).args_from(fields);

        /// Lets fields live for ever; for each field 1 when changed, -1 when it did already, -2 when missing.
        ["HPERSIST" since "7.4.0", "O(N) in fields", example "let changed = client.hpersist(\"user:1\", [\"code\"]).await?;"]
        fn hpersist(key: impl ToArg, fields: impl ToArgs) -> Vec<i64> =
            command!("HPERSIST", key).arg("FIELDS").counted(fields);

        /// Returns some field; null when the key is missing.
        ["HRANDFIELD" since "6.2.0", "O(1)", example "let field: Option<String> = client.hrandfield(\"user:1\").await?;"]
        fn hrandfield<T>(key: impl ToArg) -> T = command!("HRANDFIELD", key);

        /// Returns the next cursor and some fields with their values; it begins with cursor 0 and ends when 0 comes back.
        ["HSCAN" since "2.8.0", "O(1) each, O(N) in all", example "let (next, flat): (u64, Vec<String>) = client.hscan(\"user:1\", 0).await?;"]
        fn hscan<T>(key: impl ToArg, cursor: u64) -> T, kind::Scan = command!("HSCAN", key).arg(cursor);

        /// Sets fields; gives how many are new.
        ["HSET" since "2.0.0", "O(N) in fields", example "let new = client.hset(\"user:1\", [(\"name\", \"Ada\"), (\"mail\", \"ada@example.org\")]).await?;"]
        fn hset(key: impl ToArg, fields: impl ToPairs) -> i64 = command!("HSET", key).pairs(fields);

        /// Sets a field unless it exists; false when it does.
        ["HSETNX" since "2.0.0", "O(1)", example "let set = client.hsetnx(\"user:1\", \"name\", \"Ada\").await?;"]
        fn hsetnx(key: impl ToArg, field: impl ToArg, value: impl ToArg) -> bool =
            command!("HSETNX", key).arg(field).arg(value);

        /// Returns the length of a field's value in bytes; 0 when it is missing.
        ["HSTRLEN" since "3.2.0", "O(1)", example "let length = client.hstrlen(\"user:1\", \"name\").await?;"]
        fn hstrlen(key: impl ToArg, field: impl ToArg) -> i64 = command!("HSTRLEN", key).arg(field);

        /// Returns how long fields still live, in seconds; -1 for ever, -2 when missing.
        ["HTTL" since "7.4.0", "O(N) in fields", example "let seconds = client.httl(\"user:1\", [\"code\"]).await?;"]
        fn httl(key: impl ToArg, fields: impl ToArgs) -> Vec<i64> =
            command!("HTTL", key).arg("FIELDS").counted(fields);

        /// Returns the values of all fields.
        ["HVALS" since "2.0.0", "O(N) in fields", example "let values: Vec<String> = client.hvals(\"user:1\").await?;"]
        fn hvals<T>(key: impl ToArg) -> T = command!("HVALS", key);
    } };
}

pub(super) use hashes;
