//! The server itself: who it is, how it does, what it holds.

macro_rules! server {
    ($emit:ident) => { $emit! {
        /// Returns the name of the user that the connection logged in as.
        ["ACL WHOAMI" since "6.0.0", "O(1)", example "let user = client.acl_whoami().await?;"]
        fn acl_whoami() -> String = command!("ACL").arg("WHOAMI");

        /// Returns settings whose names match a pattern.
        ["CONFIG GET" since "2.0.0", "O(N) in settings", example "use std::collections::HashMap;\nlet found: HashMap<String, String> = client.config_get(\"maxmemory*\").await?;"]
        fn config_get<T>(pattern: impl ToArg) -> T = command!("CONFIG").arg("GET").arg(pattern);

        /// Changes a setting of the server.
        ["CONFIG SET" since "2.0.0", "O(1)", example "client.config_set(\"maxmemory-policy\", \"allkeys-lru\").await?;"]
        fn config_set(name: impl ToArg, value: impl ToArg) -> () = command!("CONFIG").arg("SET").arg(name).arg(value);

        /// Counts the keys of the database. In a cluster it is the sum of all primaries.
        ["DBSIZE" since "1.0.0", "O(1)", example "let keys = client.dbsize().await?;"]
        fn dbsize() -> i64 = command!("DBSIZE");

        /// Returns what it is given.
        ["ECHO" since "1.0.0", "O(1)", example "let back: String = client.echo(\"hello\").await?;"]
        fn echo<T>(message: impl ToArg) -> T = command!("ECHO").arg(message);

        /// Deletes every key of every database. In a cluster it runs on all primaries.
        ["FLUSHALL" since "1.0.0", "O(N) in keys", example "client.flushall().await?;"]
        fn flushall() -> () = command!("FLUSHALL");

        /// Deletes every key of the database. In a cluster it runs on all primaries.
        ["FLUSHDB" since "1.0.0", "O(N) in keys", example "client.flushdb().await?;"]
        fn flushdb() -> () = command!("FLUSHDB");

        /// Returns a section of the server's facts and figures, such as `server`, `memory` or `replication`.
        ["INFO" since "1.0.0", "O(1)", example "let memory = client.info(\"memory\").await?;"]
        fn info(section: impl ToArg) -> String = command!("INFO").arg(section);

        /// Returns the bytes that a key takes; null when it is missing.
        ["MEMORY USAGE" since "4.0.0", "O(N) in samples", example "let bytes = client.memory_usage(\"k\").await?;"]
        fn memory_usage(key: impl ToArg) -> Option<i64> = command!("MEMORY").arg("USAGE").key(key);

        /// Asks for a sign of life.
        ["PING" since "1.0.0", "O(1)", example "client.ping().await?;"]
        fn ping() -> () = command!("PING");

        /// Returns whether the server is a primary, a replica or a sentinel, and with whom it replicates.
        ["ROLE" since "2.8.12", "O(1)", example "use evenkeel_client::Frame;\nlet role: Frame = client.role().await?;"]
        fn role<T>() -> T = command!("ROLE");

        /// Returns the server's time: seconds since 1970 and microseconds.
        ["TIME" since "2.6.0", "O(1)", example "let (seconds, micros) = client.time().await?;"]
        fn time() -> (i64, i64) = command!("TIME");

        /// Waits until earlier writes of the same connection have reached replicas; gives how many have them.
        ///
        /// It speaks of one connection, so it runs in a pipeline behind those writes or on a lease, and is refused alone.
        ["WAIT" since "3.0.0", "O(1)", example "use std::time::Duration;\nlet (_, copies) = client.pipeline().set(\"k\", \"v\").wait(1, Duration::from_millis(100)).await?;"]
        fn wait(replicas: u32, wait: Duration) -> i64 = command!("WAIT").arg(replicas).arg(millis(wait));
    } };
}

pub(super) use server;
