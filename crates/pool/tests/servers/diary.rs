//! `Diary`: writes down what a link tells, and waits for it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use evenkeel_pool::{
    LinkId, LinkObserver,
    machine::{ChannelKind, EndCause, GapInfo, Report},
};
use evenkeel_protocol::{Push, ServerError};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A loaded machine is slow; an answer that is later than this does not come.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
pub(crate) struct Diary {
    entries: Mutex<Vec<String>>,
    changed: Notify,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Diary {
    fn note(&self, entry: String) {
        self.entries.lock().push(entry);
        self.changed.notify_waiters();
    }

    /// Waits for the condition; panics with the last of what was heard when it does not come.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&[String]) -> bool) {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if holds(&self.entries.lock()) {
                    return;
                }
                changed.await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        let entries = self.entries.lock();
        assert!(waited.is_ok(), "{what}: {:?}", entries.get(entries.len().saturating_sub(20)..));
    }

    pub(crate) async fn hears(&self, entry: &str) {
        self.until(entry, |entries| entries.iter().any(|known| known == entry)).await;
    }

    /// What was heard that starts so, without the start.
    pub(crate) fn with(&self, start: &str) -> Vec<String> {
        self.entries.lock().iter().filter_map(|entry| entry.strip_prefix(start)).map(str::to_owned).collect()
    }

    pub(crate) fn observer(self: &Arc<Self>) -> Arc<dyn LinkObserver> {
        let observer: Arc<Self> = Arc::clone(self);
        observer
    }
}

impl LinkObserver for Diary {
    fn message(&self, _: LinkId, message: Push) {
        self.note(match message {
            Push::Message { payload, .. } => format!("m {}", text(&payload)),
            Push::PatternMessage { channel, payload, .. } => {
                format!("p {}={}", text(&channel), text(&payload))
            }
            _ => "?".into(),
        });
    }

    fn confirmed(&self, _: LinkId, _: ChannelKind, channel: Bytes) {
        self.note(format!("confirmed {}", text(&channel)));
    }

    fn ended(&self, _: LinkId, _: ChannelKind, channel: Bytes, cause: EndCause) {
        self.note(format!("ended {} {cause:?}", text(&channel)));
    }

    fn refused(&self, _: LinkId, _: ChannelKind, channels: Vec<Bytes>, error: ServerError) {
        for channel in channels {
            self.note(format!("refused {} {}", text(&channel), error.code()));
        }
    }

    fn gap(&self, _: LinkId, gap: GapInfo) {
        self.note(format!("gap may_repeat={}", gap.may_repeat));
    }

    fn report(&self, _: LinkId, report: Report) {
        match report {
            Report::Moved(id) => self.note(format!("moved {}", id.0)),
            Report::MoveFailed(id) => self.note(format!("move failed {}", id.0)),
            _ => {}
        }
    }
}
