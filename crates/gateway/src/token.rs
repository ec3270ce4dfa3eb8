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

/// Bytes of a token; a longer one is refused unread.
const MAX_TOKEN: usize = 8 * 1024;

/// Checks tokens.
pub(crate) struct Verifier {
    keys: ArcSwap<Vec<Key>>,
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
    if keys.is_empty() {
        return Err(ConfigError::new("token.hmac_secret", "must not be empty unless jwks_file is given"));
    }
    Ok(keys)
}

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    Expired,
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
        Ok(Self { keys: ArcSwap::from_pointee(keys(config)?), anonymous: config.anonymous })
    }

    /// Reads the keys anew. With an error the old ones stay.
    pub(crate) fn reload(&self, config: &TokenConfig) -> Result<(), ConfigError> {
        self.keys.store(Arc::new(keys(config)?));
        Ok(())
    }

    /// Checks a token at `now`, in seconds since 1970.
    pub(crate) fn verify(&self, token: &str, now: u64) -> Result<Claims, Rejected> {
        let claims = self.claims(token).ok_or(Rejected::Invalid)?;
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
        let signs =
            self.keys.load().iter().any(|key| key.signs(&header.alg, id, signed.as_bytes(), &signature));
        if !signs {
            return None;
        }
        serde_json::from_slice(&decode(payload)?).ok()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Claims, Rejected, TokenConfig, Verifier};
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use hmac::{Hmac, KeyInit, Mac};
    use sha2::Sha256;

    pub(crate) const SECRET: &str = "a secret of servers";
    const NOW: u64 = 1_000;

    pub(crate) fn token(header: &str, payload: &str, secret: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }

    pub(crate) fn verifier(secret: &str) -> Verifier {
        let config = TokenConfig { hmac_secret: secret.to_owned(), jwks_file: None, anonymous: false };
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
