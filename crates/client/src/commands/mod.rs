//! The commands: each is written once, with its name, since-version, cost and an example, and becomes a method of
//! [`Client`], [`Lease`], [`Pipeline`], [`Transaction`] and [`Batch`].
//!
//! A method whose reply the caller names has a type parameter: `client.get::<Option<Bytes>>("k")`, or by inference.

mod args;
mod choices;
mod emit;
mod hashes;
mod head;
mod keys;
pub mod kind;
mod lists;
mod pairs;
mod publish;
mod script;
mod scripts;
mod server;
mod sets;
mod sorted_sets;
mod streams;
mod strings;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use args::ToPairs;
pub use choices::{End, ReadOptions, Trim, ZaddOptions};
use emit::{
    batch_methods, client_methods, kind_or_none, lease_methods, options, pipeline_methods,
    transaction_methods,
};
use evenkeel_protocol::{FromReply, ToArg, ToArgs};
use hashes::hashes;
use keys::keys;
use lists::lists;
pub use pairs::Pairs;
use publish::publish;
pub use script::Script;
use scripts::scripts;
use server::server;
use sets::sets;
use sorted_sets::sorted_sets;
use streams::streams;
use strings::strings;

use crate::{
    batch::Batch, call::Call, client::Client, lease::Lease, pipeline::Pipeline, replies::Append,
    transaction::Transaction,
};

macro_rules! every_group {
    ($emit:ident) => {
        hashes!($emit);
        keys!($emit);
        lists!($emit);
        publish!($emit);
        scripts!($emit);
        server!($emit);
        sets!($emit);
        sorted_sets!($emit);
        streams!($emit);
        strings!($emit);
    };
}

/// The commands themselves, before anybody says where they go.
mod build {
    use std::time::Duration;

    use evenkeel_protocol::{Command, ToArg, ToArgs};

    use super::{
        End, ReadOptions, ToPairs, Trim, ZaddOptions,
        args::{With as _, millis, seconds},
        emit::builders,
        hashes,
        head::command,
        keys, lists, publish, scripts, server, sets, sorted_sets, streams, strings,
    };

    every_group!(builders);
}

every_group!(client_methods);
every_group!(lease_methods);
every_group!(pipeline_methods);
every_group!(transaction_methods);
every_group!(batch_methods);

options! {
    Copy {
        /// Overwrites what is there.
        fn replace() = "REPLACE";
    }
    Count {
        /// Entries at most. Default: all.
        fn count(count: u64) = "COUNT", count;
    }
    Expire {
        /// Only when the new time is later; a key that lives for ever counts as later.
        fn gt() = "GT";
        /// Only when the new time is earlier.
        fn lt() = "LT";
        /// Only when the key lives for ever.
        fn nx() = "NX";
        /// Only when the key has a time to live.
        fn xx() = "XX";
    }
    GetEx {
        /// Lives for some seconds more.
        fn ex(seconds: u64) = "EX", seconds;
        /// Lives until a time, in seconds since 1970.
        fn exat(time: u64) = "EXAT", time;
        /// Lives for ever.
        fn persist_key() = "PERSIST";
        /// Lives for some milliseconds more.
        fn px(millis: u64) = "PX", millis;
        /// Lives until a time, in milliseconds since 1970.
        fn pxat(time: u64) = "PXAT", time;
    }
    Group {
        /// Creates the stream when it is missing.
        fn mkstream() = "MKSTREAM";
    }
    Range {
        /// `start` and `stop` are names, as `[a`, `(a`, `-` and `+`.
        fn bylex() = "BYLEX";
        /// `start` and `stop` are scores, as `5`, `(5`, `-inf` and `+inf`.
        fn byscore() = "BYSCORE";
        /// Skips `offset` members and gives `count` at most; with `byscore` or `bylex` only.
        fn limit(offset: i64, count: i64) = "LIMIT", offset, count;
        /// From the highest to the lowest; by score or name, `start` is then the higher end.
        fn rev() = "REV";
        /// Members with their scores: read them as [`Pairs`].
        fn withscores() = "WITHSCORES";
    }
    Scan {
        /// About how many elements each call looks at. Default: 10.
        fn count(count: u64) = "COUNT", count;
        /// Only what matches a pattern.
        fn matching(pattern: impl ToArg) = "MATCH", pattern;
        /// Only keys of a type (`SCAN` alone).
        fn of_type(name: &str) = "TYPE", name;
    }
    Scores {
        /// Members with their scores: read them as [`Pairs`].
        fn withscores() = "WITHSCORES";
    }
    Set {
        /// Lives for some seconds. Default: for ever.
        fn ex(seconds: u64) = "EX", seconds;
        /// Lives until a time, in seconds since 1970.
        fn exat(time: u64) = "EXAT", time;
        /// Keeps the time to live that it has. Default: a new value lives for ever.
        fn keepttl() = "KEEPTTL";
        /// Only when the key is missing.
        fn nx() = "NX";
        /// Lives for some milliseconds.
        fn px(millis: u64) = "PX", millis;
        /// Lives until a time, in milliseconds since 1970.
        fn pxat(time: u64) = "PXAT", time;
        /// Only when the key exists.
        fn xx() = "XX";
    }
}

impl<'a> Call<'a, bool, kind::Set> {
    /// Returns what the key held before; null when it was missing. Whether it was set is not told then.
    ///
    /// ```no_run
    /// # async fn run(client: &evenkeel_client::Client) -> Result<(), evenkeel_client::Error> {
    /// let before: Option<String> = client.set("state", "done").get().await?;
    /// # let _ = before;
    /// # Ok(()) }
    /// ```
    pub fn get<T: FromReply>(mut self) -> Call<'a, T, kind::Set> {
        self.amend("GET");
        self.typed()
    }

    /// Lives for a while, to the millisecond.
    pub fn expire_in(mut self, life: Duration) -> Self {
        self.amend("PX");
        self.amend(args::millis(life));
        self
    }
}
