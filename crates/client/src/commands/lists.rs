//! Lists, the commands that wait for an element included.

macro_rules! lists {
    ($emit:ident) => { $emit! {
        /// Moves an element between two lists, waiting for one; null when the wait is over. Waits on a lease.
        ["BLMOVE" since "6.2.0", "O(1)", example "use evenkeel_client::End;\nlet job: Option<String> = client.blmove(\"{q}in\", \"{q}busy\", End::Left, End::Right, std::time::Duration::from_secs(5)).await?;"]
        fn blmove<T>(from: impl ToArg, to: impl ToArg, take: End, put: End, wait: Duration) -> T =
            command!("BLMOVE", from).key(to).arg(take).arg(put).arg(seconds(wait));

        /// Takes the first element of the first list that has one, waiting for it; null when the wait is over.
        ///
        /// It waits on a lease, so that nobody else waits with it. A wait of zero lasts for ever.
        ["BLPOP" since "2.0.0", "O(N) in keys", example "let job: Option<(String, String)> = client.blpop([\"jobs\"], std::time::Duration::from_secs(5)).await?;"]
        fn blpop<T>(keys: impl ToArgs, wait: Duration) -> T = command!("BLPOP").args_from(keys).arg(seconds(wait));

        /// Takes the last element of the first list that has one, waiting for it; null when the wait is over.
        ///
        /// It waits on a lease, so that nobody else waits with it. A wait of zero lasts for ever.
        ["BRPOP" since "2.0.0", "O(N) in keys", example "let job: Option<(String, String)> = client.brpop([\"jobs\"], std::time::Duration::from_secs(5)).await?;"]
        fn brpop<T>(keys: impl ToArgs, wait: Duration) -> T = command!("BRPOP").args_from(keys).arg(seconds(wait));

        /// Returns the element at an index; negative ones count from the end. Null when there is none.
        ["LINDEX" since "1.0.0", "O(N) in elements passed", example "let first: Option<String> = client.lindex(\"l\", 0).await?;"]
        fn lindex<T>(key: impl ToArg, index: i64) -> T = command!("LINDEX", key).arg(index);

        /// Inserts an element behind another; gives the new length, -1 when that other is missing.
        ["LINSERT" since "2.2.0", "O(N) in elements passed", example "let length = client.linsert_after(\"l\", \"b\", \"c\").await?;"]
        fn linsert_after(key: impl ToArg, pivot: impl ToArg, element: impl ToArg) -> i64 =
            command!("LINSERT", key).arg("AFTER").arg(pivot).arg(element);

        /// Inserts an element in front of another; gives the new length, -1 when that other is missing.
        ["LINSERT" since "2.2.0", "O(N) in elements passed", example "let length = client.linsert_before(\"l\", \"b\", \"a\").await?;"]
        fn linsert_before(key: impl ToArg, pivot: impl ToArg, element: impl ToArg) -> i64 =
            command!("LINSERT", key).arg("BEFORE").arg(pivot).arg(element);

        /// Counts the elements.
        ["LLEN" since "1.0.0", "O(1)", example "let length = client.llen(\"l\").await?;"]
        fn llen(key: impl ToArg) -> i64 = command!("LLEN", key);

        /// Moves an element from one end of a list to one end of another; null when the first is empty.
        ["LMOVE" since "6.2.0", "O(1)", example "use evenkeel_client::End;\nlet job: Option<String> = client.lmove(\"{q}in\", \"{q}busy\", End::Left, End::Right).await?;"]
        fn lmove<T>(from: impl ToArg, to: impl ToArg, take: End, put: End) -> T =
            command!("LMOVE", from).key(to).arg(take).arg(put);

        /// Takes the first element; null when the list is empty.
        ["LPOP" since "1.0.0", "O(1)", example "let first: Option<String> = client.lpop(\"l\").await?;"]
        fn lpop<T>(key: impl ToArg) -> T = command!("LPOP", key);

        /// Takes up to `count` elements from the front; null when the list is empty.
        ["LPOP" since "6.2.0", "O(N) in elements taken", example "let some: Vec<String> = client.lpop_count(\"l\", 10).await?;"]
        fn lpop_count<T>(key: impl ToArg, count: u64) -> T = command!("LPOP", key).arg(count);

        /// Returns the index of an element; null when it is missing.
        ["LPOS" since "6.0.6", "O(N) in elements", example "let index = client.lpos(\"l\", \"b\").await?;"]
        fn lpos(key: impl ToArg, element: impl ToArg) -> Option<i64> = command!("LPOS", key).arg(element);

        /// Puts elements in front, the last one foremost; gives the new length.
        ["LPUSH" since "1.0.0", "O(N) in elements", example "let length = client.lpush(\"l\", [\"a\", \"b\"]).await?;"]
        fn lpush(key: impl ToArg, elements: impl ToArgs) -> i64 = command!("LPUSH", key).args_from(elements);

        /// Puts elements in front of a list that exists; gives the new length, 0 when it does not.
        ["LPUSHX" since "2.2.0", "O(N) in elements", example "let length = client.lpushx(\"l\", \"a\").await?;"]
        fn lpushx(key: impl ToArg, elements: impl ToArgs) -> i64 = command!("LPUSHX", key).args_from(elements);

        /// Returns the elements from `start` to `stop`, both included; negative ones count from the end.
        ["LRANGE" since "1.0.0", "O(S+N) in the start and elements returned", example "let all: Vec<String> = client.lrange(\"l\", 0, -1).await?;"]
        fn lrange<T>(key: impl ToArg, start: i64, stop: i64) -> T = command!("LRANGE", key).arg(start).arg(stop);

        /// Removes elements of a value: `count` from the front, from the back when negative, all with 0.
        ["LREM" since "1.0.0", "O(N) in elements", example "let removed = client.lrem(\"l\", 0, \"b\").await?;"]
        fn lrem(key: impl ToArg, count: i64, element: impl ToArg) -> i64 =
            command!("LREM", key).arg(count).arg(element);

        /// Replaces the element at an index; an index that is not there is an error.
        ["LSET" since "1.0.0", "O(N) in elements passed", example "client.lset(\"l\", 0, \"a\").await?;"]
        fn lset(key: impl ToArg, index: i64, element: impl ToArg) -> () =
            command!("LSET", key).arg(index).arg(element);

        /// Keeps the elements from `start` to `stop`, both included, and removes the others.
        ["LTRIM" since "1.0.0", "O(N) in elements removed", example "client.ltrim(\"l\", 0, 99).await?;"]
        fn ltrim(key: impl ToArg, start: i64, stop: i64) -> () = command!("LTRIM", key).arg(start).arg(stop);

        /// Takes the last element; null when the list is empty.
        ["RPOP" since "1.0.0", "O(1)", example "let last: Option<String> = client.rpop(\"l\").await?;"]
        fn rpop<T>(key: impl ToArg) -> T = command!("RPOP", key);

        /// Takes up to `count` elements from the back; null when the list is empty.
        ["RPOP" since "6.2.0", "O(N) in elements taken", example "let some: Vec<String> = client.rpop_count(\"l\", 10).await?;"]
        fn rpop_count<T>(key: impl ToArg, count: u64) -> T = command!("RPOP", key).arg(count);

        /// Puts elements behind; gives the new length.
        ["RPUSH" since "1.0.0", "O(N) in elements", example "let length = client.rpush(\"l\", [\"a\", \"b\"]).await?;"]
        fn rpush(key: impl ToArg, elements: impl ToArgs) -> i64 = command!("RPUSH", key).args_from(elements);

        /// Puts elements behind a list that exists; gives the new length, 0 when it does not.
        ["RPUSHX" since "2.2.0", "O(N) in elements", example "let length = client.rpushx(\"l\", \"z\").await?;"]
        fn rpushx(key: impl ToArg, elements: impl ToArgs) -> i64 = command!("RPUSHX", key).args_from(elements);
    } };
}

pub(super) use lists;
