//! `Script`: a script sent by its digest, and whole only where the server does not have it.

use std::{fmt, sync::Arc};

use evenkeel_protocol::{Command, FromReply, ToArgs};
use sha1::{Digest, Sha1};

use super::args::With as _;
use crate::{client::Client, error::Error};

/// A Lua script with its digest. Cheap to clone; make it once and run it often.
///
/// ```no_run
/// # async fn run(client: &evenkeel_client::Client) -> Result<(), evenkeel_client::Error> {
/// use evenkeel_client::Script;
///
/// let take = Script::new("local n = redis.call('INCR', KEYS[1]) return n <= tonumber(ARGV[1])");
/// let allowed: bool = take.run(client, ["limit:ada"], [10]).await?;
/// # let _ = allowed;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Script {
    code: Arc<str>,
    digest: Arc<str>,
}

impl Script {
    /// Takes the script's code.
    pub fn new(code: impl Into<Arc<str>>) -> Self {
        let code = code.into();
        let mut digest = String::with_capacity(40);
        for byte in Sha1::digest(code.as_bytes()) {
            for nibble in [byte >> 4, byte & 15] {
                digest.extend(char::from_digit(u32::from(nibble), 16));
            }
        }
        Self { code, digest: digest.into() }
    }

    /// The SHA-1 of the code, as `EVALSHA` wants it.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The command that runs it by its digest.
    pub fn by_digest(&self, keys: impl ToArgs, args: impl ToArgs) -> Command {
        Command::new("EVALSHA").arg(&*self.digest).counted(keys).args_from(args)
    }

    /// The command that runs it by its code.
    pub fn by_code(&self, keys: impl ToArgs, args: impl ToArgs) -> Command {
        Command::new("EVAL").arg(&*self.code).counted(keys).args_from(args)
    }

    /// Runs it: by its digest first, by its code when the server answers that it lacks it.
    ///
    /// # Errors
    /// As any command. A script may have written before it fails: but for `NOSCRIPT`, its errors leave open what happened.
    ///
    /// # Cancel safety
    /// As [`Call`](crate::Call).
    pub async fn run<T: FromReply>(
        &self,
        client: &Client,
        keys: impl ToArgs,
        args: impl ToArgs,
    ) -> Result<T, Error> {
        match client.send(self.by_digest(&keys, &args)).await {
            Err(error) if error.server_code() == Some("NOSCRIPT") => {
                client.send(self.by_code(keys, args)).await
            }
            other => other,
        }
    }
}

/// Shows the digest: the code is the caller's.
impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Script({})", self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_what_redis_computes() {
        // What `SCRIPT LOAD "return 1"` answers.
        let script = Script::new("return 1");
        assert_eq!(script.digest(), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        let words: Vec<Vec<u8>> = script.by_digest(["k"], ["a", "b"]).args().map(<[u8]>::to_vec).collect();
        assert_eq!(words, [&b"EVALSHA"[..], script.digest().as_bytes(), b"1", b"k", b"a", b"b"]);
    }
}
