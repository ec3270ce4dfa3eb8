//! Tokens that say who a client is and what it may hear: JWT signed with a shared secret (HS256, HS384, HS512).
//!
//! The algorithm must be one of these three, whatever else the header says, so a token without a signature or
//! signed in another way is never taken for a good one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::{Sha256, Sha384, Sha512};

/// Bytes of a token; a longer one is refused unread.
const MAX_TOKEN: usize = 8 * 1024;

/// Checks tokens.
pub(crate) struct Verifier {
    secret: Vec<u8>,
    pub(crate) anonymous: bool,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("anonymous", &self.anonymous).finish_non_exhaustive()
    }
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
    /// Extensions that must be understood; none is.
    crit: Option<serde_json::Value>,
}

impl Verifier {
    pub(crate) fn new(secret: &str, anonymous: bool) -> Self {
        Self { secret: secret.as_bytes().to_vec(), anonymous }
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
        let signs = match &*header.alg {
            "HS256" => signs::<Hmac<Sha256>>(&self.secret, signed, &signature),
            "HS384" => signs::<Hmac<Sha384>>(&self.secret, signed, &signature),
            "HS512" => signs::<Hmac<Sha512>>(&self.secret, signed, &signature),
            _ => false,
        };
        if !signs {
            return None;
        }
        serde_json::from_slice(&decode(payload)?).ok()
    }
}

/// Compares in constant time, and the whole signature.
fn signs<M: Mac + KeyInit>(secret: &[u8], message: &str, signature: &[u8]) -> bool {
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(secret) else { return false };
    mac.update(message.as_bytes());
    mac.verify_slice(signature).is_ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Claims, Rejected, Verifier};
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

    fn verify(token: &str) -> Result<Claims, Rejected> {
        Verifier::new(SECRET, false).verify(token, NOW)
    }

    #[test]
    fn a_good_token_says_who_and_until_when() {
        let good =
            token(r#"{"alg":"HS256","typ":"JWT"}"#, r#"{"sub":"u1","exp":1001,"iat":1,"more":{}}"#, SECRET);
        let claims = verify(&good).unwrap();
        assert_eq!((&*claims.sub, claims.exp), ("u1", Some(1_001)));
        // The example of RFC 7515, appendix A.1, has another header but the same rules.
        let known = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c";
        assert_eq!(Verifier::new("your-256-bit-secret", false).verify(known, NOW).unwrap().sub, "1234567890");
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
