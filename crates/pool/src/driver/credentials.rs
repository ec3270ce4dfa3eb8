//! Credentials that change while connections live: tokens that expire, passwords that are rotated.

use std::{fmt, pin::Pin, sync::Arc};

use evenkeel_protocol::conn::Credentials;
use tokio::sync::watch;

/// A wait for other credentials.
pub type Renewed<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Says who we are to the servers, at each dial, and when that has changed.
///
/// Asking must not wait: whoever fetches tokens does so beside, ahead of their end, and keeps the last one here.
/// [`LiveCredentials`] is such a place.
pub trait CredentialsProvider: Send + Sync + fmt::Debug {
    /// The credentials of the moment, with a number that grows whenever they change.
    fn current(&self) -> (u64, Option<Credentials>);

    /// Ends once the number is higher than `generation`.
    fn newer_than(&self, generation: u64) -> Renewed<'_>;
}

/// Credentials that the program sets when it has others. Cheap to clone; clones share them.
///
/// ```
/// use evenkeel_pool::{CredentialsProvider, LiveCredentials};
/// use evenkeel_protocol::conn::Credentials;
/// let live = LiveCredentials::new(Credentials::user("app", "token 1"));
/// let (before, _) = live.current();
/// live.set(Credentials::user("app", "token 2"));
/// assert!(live.current().0 > before);
/// ```
#[derive(Clone)]
pub struct LiveCredentials(Arc<watch::Sender<(u64, Credentials)>>);

impl fmt::Debug for LiveCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveCredentials").field("generation", &self.0.borrow().0).finish_non_exhaustive()
    }
}

impl LiveCredentials {
    /// Begins with these.
    pub fn new(first: Credentials) -> Self {
        Self(Arc::new(watch::Sender::new((0, first))))
    }

    /// From now on these: every dial uses them, and a client logs its living connections in again.
    pub fn set(&self, next: Credentials) {
        self.0.send_modify(|(generation, credentials)| {
            *generation += 1;
            *credentials = next;
        });
    }
}

impl CredentialsProvider for LiveCredentials {
    fn current(&self) -> (u64, Option<Credentials>) {
        let (generation, credentials) = self.0.borrow().clone();
        (generation, Some(credentials))
    }

    fn newer_than(&self, generation: u64) -> Renewed<'_> {
        let mut changes = self.0.subscribe();
        Box::pin(async move {
            // The sender lives as long as we do.
            let _newer = changes.wait_for(|(now, _)| *now > generation).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_is_heard_also_by_those_who_ask_later() {
        let live = LiveCredentials::new(Credentials::password("a"));
        let (seen, _) = live.current();
        live.clone().set(Credentials::password("secret"));
        live.newer_than(seen).await;
        assert_eq!(live.current().1, Some(Credentials::password("secret")));
        assert!(!format!("{live:?}").contains("secret"));
    }
}
