//! Those who wait for something: a subscriber, a blocked consumer, and those who feed them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use evenkeel_client::{Client, Delivery, Error};

use crate::{
    ledger::{Said, add},
    workers::Shared,
};

/// What ends the wait of a consumer; nobody pushes so many.
pub(crate) const LAST: usize = u32::MAX as usize;

/// Publishes numbers to a channel at a pace.
pub(crate) async fn publisher(shared: Arc<Shared>, channel: &'static str, every: Duration) -> Vec<Said> {
    let mut said = Vec::new();
    let mut pace = tokio::time::interval(every);
    while shared.goes_on() {
        pace.tick().await;
        let result = shared.client.publish(channel, said.len()).await;
        shared.ledger.note("PUBLISH", &result);
        said.push(Said::of(&result));
    }
    // The last message of all says that it is the last.
    for _ in 0..5 {
        if shared.client.publish(channel, "end").await.is_ok() {
            break;
        }
    }
    said
}

/// Hears a channel until its end; gives how often each number came.
pub(crate) async fn subscriber(
    shared: Arc<Shared>,
    channel: &'static str,
    ready: tokio::sync::oneshot::Sender<()>,
) -> Result<BTreeMap<usize, usize>, Error> {
    let mut heard = BTreeMap::new();
    let mut subscription = shared.client.subscribe([channel]).await?;
    // Nobody waits any more: the load is ending.
    let _gone = ready.send(());
    let mut last = None;
    loop {
        let wait = if shared.goes_on() { 60 } else { 3 };
        match tokio::time::timeout(Duration::from_secs(wait), subscription.recv()).await {
            Ok(Some(Delivery::Message { payload, .. })) => {
                let Some(number) = std::str::from_utf8(&payload).ok().and_then(|text| text.parse().ok())
                else {
                    break;
                };
                if let Some(last) = last.filter(|last| number < *last) {
                    shared.ledger.disorder(format_args!("message {number} came behind {last}"));
                }
                last = Some(number);
                *heard.entry(number).or_insert(0) += 1;
            }
            Ok(Some(Delivery::Gap { .. } | Delivery::Lagged { .. })) => add(&shared.ledger.gaps, 1),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break,
        }
    }
    Ok(heard)
}

/// Compares what was published with what was heard.
pub(crate) fn compare_messages(shared: &Shared, said: &[Said], heard: &BTreeMap<usize, usize>) {
    let ledger = &shared.ledger;
    add(&ledger.published, said.len());
    for (number, said) in said.iter().enumerate() {
        let times = heard.get(&number).copied().unwrap_or(0);
        if *said == Said::Done && times == 0 {
            add(&ledger.lost, 1);
        }
        let allowed = usize::from(*said != Said::NotDone);
        add(&ledger.duplicated, times.saturating_sub(allowed));
    }
}

/// Pushes numbers to a list at a pace.
pub(crate) async fn producer(shared: Arc<Shared>, list: String, every: Duration) -> Vec<Said> {
    let mut said = Vec::new();
    let mut pace = tokio::time::interval(every);
    while shared.goes_on() {
        pace.tick().await;
        let result = shared.client.rpush(&list, said.len()).await;
        shared.ledger.note("RPUSH", &result);
        said.push(Said::of(&result));
    }
    said
}

/// Waits for numbers in a list, long enough to be blocked through many a handoff; gives those it was given.
pub(crate) async fn consumer(shared: Arc<Shared>, list: String, wait: Duration) -> Vec<usize> {
    let mut given = Vec::new();
    while shared.goes_on() {
        let result = shared.client.blpop::<Option<(String, usize)>>([&list], wait).await;
        shared.ledger.note("BLPOP", &result);
        if let Ok(Some((_, number))) = result {
            given.push(number);
        }
    }
    given
}

/// Moves numbers from one list to another, each time waiting for one.
pub(crate) async fn mover(shared: Arc<Shared>, from: String, to: String, wait: Duration) {
    while shared.goes_on() {
        let call =
            shared.client.cmd("BLMOVE").arg(&from).arg(&to).arg("LEFT").arg("RIGHT").arg(wait.as_secs_f64());
        let result = call.query::<Option<usize>>().await;
        shared.ledger.note("BLMOVE", &result);
    }
}

/// Compares what was pushed with what was popped and what still stands.
pub(crate) async fn compare_items(shared: &Shared, said: &[Said], mut seen: Vec<usize>, lists: &[String]) {
    for list in lists {
        seen.extend(shared.client.lrange::<Vec<usize>>(list, 0, -1).await.unwrap_or_default());
    }
    let ledger = &shared.ledger;
    add(&ledger.items, said.len());
    for (number, said) in said.iter().enumerate() {
        let times = seen.iter().filter(|seen| **seen == number).count();
        if *said == Said::Done && times == 0 {
            add(&ledger.items_lost, 1);
        }
        let allowed = usize::from(*said != Said::NotDone);
        add(&ledger.items_doubled, times.saturating_sub(allowed));
    }
    if seen.windows(2).any(|pair| pair.first() > pair.last()) && lists.len() == 1 {
        ledger.disorder(format_args!("elements of {lists:?}"));
    }
}

/// Wakes whoever still waits in lists when the load ends.
pub(crate) async fn end_lists(client: &Client, lists: &[&str]) {
    for list in lists {
        // What nobody takes stands in the list and is looked up there.
        let _taken = client.rpush(list, LAST).await;
    }
}
