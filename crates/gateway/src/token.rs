//! Tokens that say who a client is and what it may hear: JWT signed with a shared secret or by a known public key.
//!
//! A key says how it signs, whatever the token's header says, so a token without a signature or signed in another way
//! is never taken for a good one. What a header points to is never fetched.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::config::TokenConfig;
use crate::error::ConfigError;
use crate::keys::{Key, read as read_keys};
use arc_swap::ArcSwap;
use serde::Deserialize;
use std::sync::Arc;
use tokio::sync::Notify;

/// Bytes of a token; a longer one is refused unread.
const MAX_TOKEN: usize = 8 * 1024;

/// Checks clients' tokens in a way of your own, in place of the gateway's JWT.
///
/// ```
/// use evenkeel_gateway::{Authenticator, Permission, Rejected};
///
/// /// Lets in everybody who knows the word of the day.
/// #[derive(Debug)]
/// struct Word(String);
///
/// impl Authenticator for Word {
///     fn verify(&self, token: &str, _now: u64) -> Result<Permission, Rejected> {
///         let (user, word) = token.split_once(':').ok_or(Rejected::Invalid)?;
///         if word == self.0 { Ok(Permission::user(user)) } else { Err(Rejected::Invalid) }
///     }
/// }
/// ```
pub trait Authenticator: Send + Sync + std::fmt::Debug + 'static {
    /// Checks a token at `now`, in seconds since 1970: when a client connects, when it brings a fresh token, and when
    /// it brings one for a channel. Runs in the session's task, so it must not block.
    ///
    /// # Errors
    /// Why the token is not accepted.
    fn verify(&self, token: &str, now: u64) -> Result<Permission, Rejected>;
}

/// What a token permits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Permission {
    /// The user.
    pub user: String,
    /// The one channel that the token opens for its user; empty in a token that says who a client is.
    pub channel: String,
    /// The end of its life, in seconds since 1970. Default: none, for ever.
    pub expires: Option<u64>,
    /// What others may see of the client on channels with presence, JSON. Default: none; what is no JSON is left out.
    pub info: Option<String>,
}

impl Permission {
    /// Says who a client is, for ever.
    pub fn user(user: impl Into<String>) -> Self {
        Self { user: user.into(), ..Self::default() }
    }
}

/// Checks tokens.
pub(crate) struct Verifier {
    own: Option<Arc<dyn Authenticator>>,
    /// Of the settings and the files that they name.
    keys: ArcSwap<Vec<Key>>,
    /// Of the URL that they name.
    fetched: ArcSwap<Vec<Key>>,
    /// A token named a key that is not known, or the keys are wanted anew.
    missed: Notify,
    pub(crate) anonymous: bool,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("anonymous", &self.anonymous).finish_non_exhaustive()
    }
}

/// Reads the keys that the settings name.
fn keys(config: &TokenConfig) -> Result<Vec<Key>, ConfigError> {
    let mut keys = Vec::new();
    if !config.hmac_secret.is_empty() {
        keys.push(Key::secret(&config.hmac_secret));
    }
    if let Some(file) = &config.jwks_file {
        let wrong = |problem: String| ConfigError::new("token.jwks_file", problem);
        let document = std::fs::read(file).map_err(|error| wrong(format!("{}: {error}", file.display())))?;
        let read = read_keys(&document);
        keys.extend(read.ok_or_else(|| wrong(format!("{} has no key that is known here", file.display())))?);
    }
    if keys.is_empty() && config.jwks_url.is_none() {
        let problem = "must not be empty unless jwks_file or jwks_url is given";
        return Err(ConfigError::new("token.hmac_secret", problem));
    }
    Ok(keys)
}

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "clients are told of these two alone")]
pub enum Rejected {
    /// It was good once: the client is to bring a fresh one.
    Expired,
    /// It is none of ours.
    Invalid,
}

/// What a token says.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Claims {
    /// The user.
    #[serde(default)]
    pub(crate) sub: String,
    /// The channel, in a token for one.
    #[serde(default)]
    pub(crate) channel: String,
    /// What others may see of the client on channels with presence.
    #[serde(default)]
    pub(crate) info: Option<Box<serde_json::value::RawValue>>,
    /// The end of its life, in seconds since 1970; none for ever.
    pub(crate) exp: Option<u64>,
    /// The beginning of its life.
    nbf: Option<u64>,
}

impl From<Permission> for Claims {
    fn from(permission: Permission) -> Self {
        let Permission { user, channel, expires, info } = permission;
        let info = info.and_then(|info| serde_json::value::RawValue::from_string(info).ok());
        Self { sub: user, channel, info, exp: expires, nbf: None }
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood; none is.
    crit: Option<serde_json::Value>,
}

impl Verifier {
    /// Makes one of the keys that the settings name.
    pub(crate) fn new(config: &TokenConfig) -> Result<Self, ConfigError> {
        Ok(Self { keys: ArcSwap::from_pointee(keys(config)?), ..Self::empty(config.anonymous) })
    }

    /// Makes one that leaves the checks to another.
    pub(crate) fn by(own: Arc<dyn Authenticator>, anonymous: bool) -> Self {
        Self { own: Some(own), ..Self::empty(anonymous) }
    }

    fn empty(anonymous: bool) -> Self {
        Self {
            own: None,
            keys: ArcSwap::default(),
            fetched: ArcSwap::default(),
            missed: Notify::new(),
            anonymous,
        }
    }

    /// Reads the keys anew. With an error the old ones stay.
    pub(crate) fn reload(&self, config: &TokenConfig) -> Result<(), ConfigError> {
        if self.own.is_some() {
            return Ok(());
        }
        self.missed.notify_one();
        self.keys.store(Arc::new(keys(config)?));
        Ok(())
    }

    /// Takes the keys of the URL in place of those that it gave before.
    pub(crate) fn set_fetched(&self, keys: Vec<Key>) {
        self.fetched.store(Arc::new(keys));
    }

    /// Waits until the keys of the URL are worth another look.
    pub(crate) async fn missed(&self) {
        self.missed.notified().await;
    }

    /// Checks a token at `now`, in seconds since 1970.
    pub(crate) fn verify(&self, token: &str, now: u64) -> Result<Claims, Rejected> {
        let claims = match &self.own {
            Some(own) => own.verify(token, now)?.into(),
            None => self.claims(token).ok_or(Rejected::Invalid)?,
        };
        if claims.nbf.is_some_and(|begin| begin > now) {
            return Err(Rejected::Invalid);
        }
        if claims.exp.is_some_and(|end| end <= now) {
            return Err(Rejected::Expired);
        }
        Ok(claims)
    }

    fn claims(&self, token: &str) -> Option<Claims> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
        if header.crit.is_some() {
            return None;
        }
        let signature = decode(signature)?;
        let id = header.kid.as_deref();
        let (keys, fetched) = (self.keys.load(), self.fetched.load());
        let mut all = keys.iter().chain(fetched.iter());
        if !all.clone().any(|key| key.signs(&header.alg, id, signed.as_bytes(), &signature)) {
            if id.is_some_and(|id| !all.any(|key| key.is_named(id))) {
                self.missed.notify_one();
            }
            return None;
        }
        serde_json::from_slice(&decode(payload)?).ok()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Authenticator, Claims, Permission, Rejected, TokenConfig, Verifier};
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use hmac::{Hmac, KeyInit, Mac};
    use sha2::Sha256;
    use std::sync::Arc;

    pub(crate) const SECRET: &str = "a secret of servers";
    const NOW: u64 = 1_000;

    pub(crate) fn token(header: &str, payload: &str, secret: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }

    pub(crate) fn verifier(secret: &str) -> Verifier {
        let config = TokenConfig { hmac_secret: secret.to_owned(), ..TokenConfig::default() };
        Verifier::new(&config).unwrap()
    }

    fn verify(token: &str) -> Result<Claims, Rejected> {
        verifier(SECRET).verify(token, NOW)
    }

    #[test]
    fn a_good_token_says_who_and_until_when() {
        let good =
            token(r#"{"alg":"HS256","typ":"JWT"}"#, r#"{"sub":"u1","exp":1001,"iat":1,"more":{}}"#, SECRET);
        let claims = verify(&good).unwrap();
        assert_eq!((&*claims.sub, claims.exp), ("u1", Some(1_001)));
        // The example of RFC 7515, appendix A.1, has another header but the same rules.
        let known = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c";
        assert_eq!(verifier("your-256-bit-secret").verify(known, NOW).unwrap().sub, "1234567890");
    }

    #[derive(Debug)]
    struct Own;

    impl Authenticator for Own {
        fn verify(&self, token: &str, _now: u64) -> Result<Permission, Rejected> {
            let user = token.strip_prefix("own:").ok_or(Rejected::Invalid)?;
            let info = Some(if user == "u1" { "{\"a\":1}" } else { "no json" }.to_owned());
            Ok(Permission { expires: Some(NOW + 1), info, ..Permission::user(user) })
        }
    }

    #[test]
    fn checks_of_ones_own_take_the_place_of_ours() {
        let verifier = Verifier::by(Arc::new(Own), false);
        let claims = verifier.verify("own:u1", NOW).unwrap();
        assert_eq!((&*claims.sub, claims.info.unwrap().get()), ("u1", "{\"a\":1}"));
        assert!(verifier.verify("own:u2", NOW).unwrap().info.is_none());
        assert_eq!(verifier.verify("own:u1", NOW + 1).err(), Some(Rejected::Expired));
        let ours = token(r#"{"alg":"HS256"}"#, r#"{"sub":"u1"}"#, SECRET);
        assert_eq!(verifier.verify(&ours, NOW).err(), Some(Rejected::Invalid));
    }

    #[test]
    fn time_has_sharp_edges() {
        let with = |claims: &str| verify(&token(r#"{"alg":"HS256"}"#, claims, SECRET)).err();
        assert_eq!(with(r#"{"exp":1000}"#), Some(Rejected::Expired));
        assert_eq!(with(r#"{"exp":0}"#), Some(Rejected::Expired));
        assert_eq!(with(r#"{"exp":18446744073709551615}"#), None);
        assert_eq!(with(r#"{"nbf":1000}"#), None);
        assert_eq!(with(r#"{"nbf":1001}"#), Some(Rejected::Invalid));
        for odd in
            [r#"{"exp":-1}"#, r#"{"exp":"2000"}"#, r#"{"exp":18446744073709551616}"#, r#"{"exp":1e400}"#]
        {
            assert_eq!(with(odd), Some(Rejected::Invalid), "{odd}");
        }
    }

    #[test]
    fn no_forged_token_is_accepted() {
        let payload = r#"{"sub":"admin"}"#;
        let good = token(r#"{"alg":"HS256"}"#, payload, SECRET);
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let mut forged = vec![
            String::new(),
            ".".to_owned(),
            "..".to_owned(),
            "...".to_owned(),
            signed.to_owned(),
            format!("{signed}."),
            format!("{signed}.AAAA"),
            format!("{good}."),
            format!(".{good}"),
            format!("{good}A"),
            format!("{good}="),
            good[..good.len() - 1].to_owned(),
            good.replace('.', ".."),
            format!("{signed}.{}", &signature[..20]),
            format!(" {good}"),
            format!("Bearer {good}"),
            format!(
                "{}.{}.{signature}",
                URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#),
                URL_SAFE_NO_PAD.encode(r#"{"sub":"root"}"#)
            ),
            token(r#"{"alg":"HS256"}"#, payload, "another secret"),
            token(r#"{"alg":"HS256"}"#, payload, ""),
            token(r#"{"alg":"HS256"}"#, "no json", SECRET),
            token(r#"{"alg":"HS256"}"#, "[]", SECRET),
            token(r#"{"alg":"HS256"}"#, r#"{"sub":1}"#, SECRET),
            token(r#"{"alg":"HS256"}"#, r#"{"sub":"a","sub":"b"}"#, SECRET),
            token("no json", payload, SECRET),
            token("{}", payload, SECRET),
            token(r#"{"alg":"HS256","crit":["exp"]}"#, payload, SECRET),
            token(r#"{"alg":"HS256","alg":"none"}"#, payload, SECRET),
            token(r#"{"alg":["HS256"]}"#, payload, SECRET),
            format!("{}.{signature}", "A".repeat(9_000)),
            "x".repeat(1 << 20),
        ];
        for alg in [
            "none", "None", "NONE", "nOnE", "", "hs256", "HS1", "HS384", "HS512", "RS256", "ES256", "EdDSA",
            "PS256",
        ] {
            let header = format!(r#"{{"alg":"{alg}"}}"#);
            forged.push(token(&header, payload, SECRET));
            forged.push(format!("{}.{}.", URL_SAFE_NO_PAD.encode(&header), URL_SAFE_NO_PAD.encode(payload)));
        }
        for extra in [
            r#""kid":"../../dev/null""#,
            r#""kid":"' or 1=1 --""#,
            r#""jku":"http://evil""#,
            r#""x5u":"http://evil""#,
            r#""jwk":{"kty":"oct","k":"AAAA"}"#,
        ] {
            // What a header points to is never fetched nor believed.
            forged.push(token(&format!(r#"{{"alg":"HS256",{extra}}}"#), payload, "AAAA"));
        }
        assert!(forged.len() >= 40);
        for forged in forged {
            assert_eq!(verify(&forged).err(), Some(Rejected::Invalid), "{forged:.60}");
        }
    }
}
