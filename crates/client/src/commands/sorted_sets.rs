//! Sorted sets, and places on earth, which are kept in them.

macro_rules! sorted_sets {
    ($emit:ident) => { $emit! {
        /// Takes the member with the highest score, waiting for one; null when the wait is over. Waits on a lease.
        ["BZPOPMAX" since "5.0.0", "O(log N)", example "let top: Option<(String, String, f64)> = client.bzpopmax([\"board\"], std::time::Duration::from_secs(5)).await?;"]
        fn bzpopmax<T>(keys: impl ToArgs, wait: Duration) -> T =
            command!("BZPOPMAX").args_from(keys).arg(seconds(wait));

        /// Takes the member with the lowest score, waiting for one; null when the wait is over. Waits on a lease.
        ["BZPOPMIN" since "5.0.0", "O(log N)", example "let next: Option<(String, String, f64)> = client.bzpopmin([\"due\"], std::time::Duration::from_secs(5)).await?;"]
        fn bzpopmin<T>(keys: impl ToArgs, wait: Duration) -> T =
            command!("BZPOPMIN").args_from(keys).arg(seconds(wait));

        /// Adds a place by longitude and latitude; gives how many are new.
        ["GEOADD" since "3.2.0", "O(log N)", example "let new = client.geoadd(\"cities\", 2.3522, 48.8566, \"Paris\").await?;"]
        fn geoadd(key: impl ToArg, longitude: f64, latitude: f64, member: impl ToArg) -> i64 =
            command!("GEOADD", key).arg(longitude).arg(latitude).arg(member);

        /// Returns the distance of two places in a unit (`m`, `km`, `mi`, `ft`); null when one is missing.
        ["GEODIST" since "3.2.0", "O(1)", example "let km = client.geodist(\"cities\", \"Paris\", \"Rome\", \"km\").await?;"]
        fn geodist(key: impl ToArg, from: impl ToArg, to: impl ToArg, unit: &str) -> Option<f64> =
            command!("GEODIST", key).arg(from).arg(to).arg(unit);

        /// Returns longitude and latitude of places, null for each that is missing.
        ["GEOPOS" since "3.2.0", "O(N) in members", example "let at: Vec<Option<(f64, f64)>> = client.geopos(\"cities\", [\"Paris\"]).await?;"]
        fn geopos<T>(key: impl ToArg, members: impl ToArgs) -> T = command!("GEOPOS", key).args_from(members);

        /// Returns the places within `radius` of a point, nearest first.
        ["GEOSEARCH" since "6.2.0", "O(N+log M) in places near and found", example "let near: Vec<String> = client.geosearch(\"cities\", 2.35, 48.85, 100.0, \"km\").await?;"]
        fn geosearch<T>(key: impl ToArg, longitude: f64, latitude: f64, radius: f64, unit: &str) -> T =
            command!("GEOSEARCH", key).arg("FROMLONLAT").arg(longitude).arg(latitude)
                .arg("BYRADIUS").arg(radius).arg(unit).arg("ASC");

        /// Adds members with their scores, or changes the scores; gives how many are new.
        ["ZADD" since "1.2.0", "O(log N) for each", example "let new = client.zadd(\"board\", [(10.0, \"ada\"), (7.5, \"bob\")]).await?;"]
        fn zadd(key: impl ToArg, members: impl ToPairs) -> i64 = command!("ZADD", key).pairs(members);

        /// As `zadd`, under conditions; gives how many are new, or changed with [`ZaddOptions::changed`].
        ["ZADD" since "3.0.2", "O(log N) for each", example "use evenkeel_client::ZaddOptions;\nlet changed = client.zadd_with(\"board\", ZaddOptions::new().only_greater().changed(), [(11.0, \"ada\")]).await?;"]
        fn zadd_with(key: impl ToArg, options: ZaddOptions, members: impl ToPairs) -> i64 =
            command!("ZADD", key).args_from(options).pairs(members);

        /// Counts the members.
        ["ZCARD" since "1.2.0", "O(1)", example "let count = client.zcard(\"board\").await?;"]
        fn zcard(key: impl ToArg) -> i64 = command!("ZCARD", key);

        /// Counts the members with scores from `min` to `max`; `(5` leaves 5 out, `-inf` and `+inf` are the ends.
        ["ZCOUNT" since "2.0.0", "O(log N)", example "let count = client.zcount(\"board\", 5, \"+inf\").await?;"]
        fn zcount(key: impl ToArg, min: impl ToArg, max: impl ToArg) -> i64 =
            command!("ZCOUNT", key).arg(min).arg(max);

        /// Returns the members of the first set that are in none of the others.
        ["ZDIFF" since "6.2.0", "O(L+N log N)", example "let only: Vec<String> = client.zdiff([\"{b}a\", \"{b}b\"]).await?;"]
        fn zdiff<T>(keys: impl ToArgs) -> T, kind::Scores = command!("ZDIFF").counted(keys);

        /// Adds to a member's score, which starts at 0; gives the new score.
        ["ZINCRBY" since "1.2.0", "O(log N)", example "let score = client.zincrby(\"board\", 1.5, \"ada\").await?;"]
        fn zincrby(key: impl ToArg, by: f64, member: impl ToArg) -> f64 =
            command!("ZINCRBY", key).arg(by).arg(member);

        /// Returns the members that are in every set, with the sum of their scores as order.
        ["ZINTER" since "6.2.0", "O(N*K+M log M)", example "let both: Vec<String> = client.zinter([\"{b}a\", \"{b}b\"]).await?;"]
        fn zinter<T>(keys: impl ToArgs) -> T, kind::Scores = command!("ZINTER").counted(keys);

        /// Stores the members that are in every set; gives how many.
        ["ZINTERSTORE" since "2.0.0", "O(N*K+M log M)", example "let count = client.zinterstore(\"{b}i\", [\"{b}a\", \"{b}b\"]).await?;"]
        fn zinterstore(to: impl ToArg, keys: impl ToArgs) -> i64 = command!("ZINTERSTORE", to).counted(keys);

        /// Counts the members from `min` to `max` by name, where all scores are the same; `[a`, `(a`, `-` and `+`.
        ["ZLEXCOUNT" since "2.8.9", "O(log N)", example "let count = client.zlexcount(\"names\", \"[a\", \"(c\").await?;"]
        fn zlexcount(key: impl ToArg, min: impl ToArg, max: impl ToArg) -> i64 =
            command!("ZLEXCOUNT", key).arg(min).arg(max);

        /// Returns the scores of several members, null for each that is missing.
        ["ZMSCORE" since "6.2.0", "O(N) in members", example "let scores = client.zmscore(\"board\", [\"ada\", \"bob\"]).await?;"]
        fn zmscore(key: impl ToArg, members: impl ToArgs) -> Vec<Option<f64>> =
            command!("ZMSCORE", key).args_from(members);

        /// Takes up to `count` members with the highest scores; gives members and scores by turns.
        ["ZPOPMAX" since "5.0.0", "O(log N) for each", example "let top: Vec<(String, f64)> = client.zpopmax(\"board\", 3).await?;"]
        fn zpopmax<T>(key: impl ToArg, count: u64) -> T = command!("ZPOPMAX", key).arg(count);

        /// Takes up to `count` members with the lowest scores; gives members and scores by turns.
        ["ZPOPMIN" since "5.0.0", "O(log N) for each", example "let due: Vec<(String, f64)> = client.zpopmin(\"due\", 3).await?;"]
        fn zpopmin<T>(key: impl ToArg, count: u64) -> T = command!("ZPOPMIN", key).arg(count);

        /// Returns some member; null when the set is empty.
        ["ZRANDMEMBER" since "6.2.0", "O(1)", example "let one: Option<String> = client.zrandmember(\"board\").await?;"]
        fn zrandmember<T>(key: impl ToArg) -> T = command!("ZRANDMEMBER", key);

        /// Returns members from `start` to `stop`: by rank, or with an option by score or by name.
        ["ZRANGE" since "6.2.0", "O(log N+M) in members returned", example "let high: Vec<String> = client.zrange(\"board\", 5, \"+inf\").byscore().limit(0, 10).await?;\nlet last: Vec<String> = client.zrange(\"board\", 0, 9).rev().await?;"]
        fn zrange<T>(key: impl ToArg, start: impl ToArg, stop: impl ToArg) -> T, kind::Range =
            command!("ZRANGE", key).arg(start).arg(stop);

        /// Returns the rank of a member, 0 for the lowest score; null when it is missing.
        ["ZRANK" since "2.0.0", "O(log N)", example "let rank = client.zrank(\"board\", \"ada\").await?;"]
        fn zrank(key: impl ToArg, member: impl ToArg) -> Option<i64> = command!("ZRANK", key).arg(member);

        /// Removes members; gives how many there were.
        ["ZREM" since "1.2.0", "O(log N) for each", example "let removed = client.zrem(\"board\", [\"ada\"]).await?;"]
        fn zrem(key: impl ToArg, members: impl ToArgs) -> i64 = command!("ZREM", key).args_from(members);

        /// Removes the members from `min` to `max` by name; gives how many there were.
        ["ZREMRANGEBYLEX" since "2.8.9", "O(log N+M) in members removed", example "let removed = client.zremrangebylex(\"names\", \"[a\", \"(c\").await?;"]
        fn zremrangebylex(key: impl ToArg, min: impl ToArg, max: impl ToArg) -> i64 =
            command!("ZREMRANGEBYLEX", key).arg(min).arg(max);

        /// Removes the members from `start` to `stop` by rank; gives how many there were.
        ["ZREMRANGEBYRANK" since "2.0.0", "O(log N+M) in members removed", example "let removed = client.zremrangebyrank(\"board\", 0, -101).await?;"]
        fn zremrangebyrank(key: impl ToArg, start: i64, stop: i64) -> i64 =
            command!("ZREMRANGEBYRANK", key).arg(start).arg(stop);

        /// Removes the members with scores from `min` to `max`; gives how many there were.
        ["ZREMRANGEBYSCORE" since "1.2.0", "O(log N+M) in members removed", example "let removed = client.zremrangebyscore(\"due\", \"-inf\", 100).await?;"]
        fn zremrangebyscore(key: impl ToArg, min: impl ToArg, max: impl ToArg) -> i64 =
            command!("ZREMRANGEBYSCORE", key).arg(min).arg(max);

        /// Returns the rank of a member, 0 for the highest score; null when it is missing.
        ["ZREVRANK" since "2.0.0", "O(log N)", example "let rank = client.zrevrank(\"board\", \"ada\").await?;"]
        fn zrevrank(key: impl ToArg, member: impl ToArg) -> Option<i64> = command!("ZREVRANK", key).arg(member);

        /// Returns the next cursor and some members with their scores; it begins with 0 and ends when 0 comes back.
        ["ZSCAN" since "2.8.0", "O(1) each, O(N) in all", example "let (next, flat): (u64, Vec<String>) = client.zscan(\"board\", 0).await?;"]
        fn zscan<T>(key: impl ToArg, cursor: u64) -> T, kind::Scan = command!("ZSCAN", key).arg(cursor);

        /// Returns the score of a member; null when it is missing.
        ["ZSCORE" since "1.2.0", "O(1)", example "let score = client.zscore(\"board\", \"ada\").await?;"]
        fn zscore(key: impl ToArg, member: impl ToArg) -> Option<f64> = command!("ZSCORE", key).arg(member);

        /// Returns the members of all sets, with the sum of their scores as order.
        ["ZUNION" since "6.2.0", "O(N+M log M)", example "let any: Vec<String> = client.zunion([\"{b}a\", \"{b}b\"]).await?;"]
        fn zunion<T>(keys: impl ToArgs) -> T, kind::Scores = command!("ZUNION").counted(keys);

        /// Stores the members of all sets; gives how many.
        ["ZUNIONSTORE" since "2.0.0", "O(N+M log M)", example "let count = client.zunionstore(\"{b}u\", [\"{b}a\", \"{b}b\"]).await?;"]
        fn zunionstore(to: impl ToArg, keys: impl ToArgs) -> i64 = command!("ZUNIONSTORE", to).counted(keys);
    } };
}

pub(super) use sorted_sets;
