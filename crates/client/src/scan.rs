//! `Scan`: every key of a deployment, a handful at a time.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use crate::{
    core::{Core, Scanning},
    error::Error,
};

/// A scan of every key, whatever the deployment; made by [`Client::scan_all`](crate::Client::scan_all).
///
/// Its place lives in this handle and survives failovers and moving slots: a key that stays from the first call to the last
/// is given at least once. As with `SCAN` itself, a key may come twice, and one that comes or goes meanwhile may come or not.
///
/// ```no_run
/// # async fn run(client: &evenkeel_client::Client) -> Result<(), evenkeel_client::Error> {
/// let mut scan = client.scan_all().matching("user:*").count(500);
/// while let Some(keys) = scan.next().await? {
///     println!("{} more", keys.len());
/// }
/// # Ok(()) }
/// ```
#[must_use = "a scan gives keys when `next` is called"]
pub struct Scan {
    scanning: Scanning,
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan").finish_non_exhaustive()
    }
}

impl Scan {
    pub(crate) fn new(core: &Arc<Core>) -> Self {
        Self { scanning: Scanning::new(Arc::clone(core)) }
    }

    /// Only keys that match a pattern. Default: all.
    pub fn matching(mut self, pattern: impl AsRef<[u8]>) -> Self {
        self.scanning.option("MATCH", Bytes::copy_from_slice(pattern.as_ref()));
        self
    }

    /// About how many keys each step looks at. Default: the server's, 10.
    pub fn count(mut self, count: u64) -> Self {
        self.scanning.option("COUNT", count.to_string().into());
        self
    }

    /// Only keys that hold a type, such as `list`. Default: all.
    pub fn of_type(mut self, name: &str) -> Self {
        self.scanning.option("TYPE", Bytes::copy_from_slice(name.as_bytes()));
        self
    }

    /// Returns the next keys; `None` when every key was given.
    ///
    /// # Errors
    /// When a node refuses to be scanned, or when no progress was made for the configuration's `command_timeout`. The scan may
    /// be gone on with all the same.
    ///
    /// # Cancel safety
    /// A dropped future loses no keys: the node that was asked is passed over anew.
    pub async fn next(&mut self) -> Result<Option<Vec<Bytes>>, Error> {
        self.scanning.next().await
    }
}
