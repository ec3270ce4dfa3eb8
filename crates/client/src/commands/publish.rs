//! Publishing, and asking who listens. Subscribing is [`Client::subscribe`](crate::Client::subscribe).

macro_rules! publish {
    ($emit:ident) => { $emit! {
        /// Publishes a message; gives how many received it at the node asked.
        ["PUBLISH" since "2.0.0", "O(N+M) in subscribers and patterns", example "let receivers = client.publish(\"news\", \"hello\").await?;"]
        fn publish(channel: impl ToArg, message: impl ToArg) -> i64 = command!("PUBLISH").arg(channel).arg(message);

        /// Returns the channels with subscribers that match a pattern, at the node asked.
        ["PUBSUB CHANNELS" since "2.8.0", "O(N) in channels", example "let channels: Vec<String> = client.pubsub_channels(\"news.*\").await?;"]
        fn pubsub_channels<T>(pattern: impl ToArg) -> T = command!("PUBSUB").arg("CHANNELS").arg(pattern);

        /// Counts the patterns that anybody subscribes to, at the node asked.
        ["PUBSUB NUMPAT" since "2.8.0", "O(1)", example "let patterns = client.pubsub_numpat().await?;"]
        fn pubsub_numpat() -> i64 = command!("PUBSUB").arg("NUMPAT");

        /// Counts the subscribers of channels, at the node asked.
        ["PUBSUB NUMSUB" since "2.8.0", "O(N) in channels", example "use evenkeel_client::Pairs;\nlet counts: Pairs<String, i64> = client.pubsub_numsub([\"news\"]).await?;"]
        fn pubsub_numsub<T>(channels: impl ToArgs) -> T = command!("PUBSUB").arg("NUMSUB").args_from(channels);

        /// Counts the subscribers of shard channels, at the node asked.
        ["PUBSUB SHARDNUMSUB" since "7.0.0", "O(N) in channels", example "use evenkeel_client::Pairs;\nlet counts: Pairs<String, i64> = client.pubsub_shardnumsub([\"news\"]).await?;"]
        fn pubsub_shardnumsub<T>(channels: impl ToArgs) -> T =
            command!("PUBSUB").arg("SHARDNUMSUB").args_from(channels);

        /// Publishes a message on a shard channel; gives how many received it.
        ["SPUBLISH" since "7.0.0", "O(N) in subscribers", example "let receivers = client.spublish(\"news\", \"hello\").await?;"]
        fn spublish(channel: impl ToArg, message: impl ToArg) -> i64 = command!("SPUBLISH", channel).arg(message);
    } };
}

pub(super) use publish;
