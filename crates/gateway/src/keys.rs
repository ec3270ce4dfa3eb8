//! Keys that tokens are checked with: shared secrets, and public keys of a JWKS document.
//!
//! A key decides its algorithm, never the token's header: a token is refused when its `alg` is not the key's, so that
//! a public key is never taken for a shared secret.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use ring::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::Deserialize;
use sha2::{Sha256, Sha384, Sha512};

/// Keys of one document.
const MAX_KEYS: usize = 64;

/// One key.
#[derive(Clone)]
pub(crate) struct Key {
    /// The name that a token's `kid` may give.
    id: Option<String>,
    /// The one algorithm that the document allows it for.
    algorithm: Option<String>,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Ed25519(Vec<u8>),
    Hmac(Vec<u8>),
    P256(Vec<u8>),
    P384(Vec<u8>),
    Rsa { n: Vec<u8>, e: Vec<u8> },
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Key {
    /// A shared secret, for HS256, HS384 and HS512.
    pub(crate) fn secret(secret: &str) -> Self {
        Self { id: None, algorithm: None, kind: Kind::Hmac(secret.as_bytes().to_vec()) }
    }

    /// Whether the document gives it this name.
    pub(crate) fn is_named(&self, id: &str) -> bool {
        self.id.as_deref() == Some(id)
    }

    /// Whether `signature` signs `message` in the way that the token's header names.
    pub(crate) fn signs(&self, algorithm: &str, id: Option<&str>, message: &[u8], signature: &[u8]) -> bool {
        if self.algorithm.as_deref().is_some_and(|own| own != algorithm) {
            return false;
        }
        if let (Some(own), Some(id)) = (self.id.as_deref(), id)
            && own != id
        {
            return false;
        }
        match (&self.kind, algorithm) {
            (Kind::Hmac(secret), "HS256") => is_mac::<Hmac<Sha256>>(secret, message, signature),
            (Kind::Hmac(secret), "HS384") => is_mac::<Hmac<Sha384>>(secret, message, signature),
            (Kind::Hmac(secret), "HS512") => is_mac::<Hmac<Sha512>>(secret, message, signature),
            (Kind::Rsa { n, e }, _) => {
                let scheme = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    _ => return false,
                };
                RsaPublicKeyComponents { n, e }.verify(scheme, message, signature).is_ok()
            }
            (Kind::P256(point), "ES256") => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            (Kind::P384(point), "ES384") => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(message, signature).is_ok()
            }
            (Kind::Ed25519(point), "EdDSA") => {
                UnparsedPublicKey::new(&ED25519, point).verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

/// Compares in constant time, and the whole signature.
fn is_mac<M: Mac + KeyInit>(secret: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(secret) else { return false };
    mac.update(message);
    mac.verify_slice(signature).is_ok()
}

/// Reads a JWKS document. Keys of kinds that are not known here are passed over, as the format wants it; shared
/// secrets among them too, as what is published is no secret. `None` when it is no such document, or has no key for us.
pub(crate) fn read(document: &[u8]) -> Option<Vec<Key>> {
    let document: Document = serde_json::from_slice(document).ok()?;
    if document.keys.len() > MAX_KEYS {
        return None;
    }
    let keys: Vec<Key> = document.keys.into_iter().filter_map(key).collect();
    (!keys.is_empty()).then_some(keys)
}

fn key(jwk: Jwk) -> Option<Key> {
    if jwk.usage.as_deref().is_some_and(|usage| usage != "sig") {
        return None;
    }
    let part = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
    let point = |len: usize| {
        let (x, y) = (part(&jwk.x)?, part(&jwk.y)?);
        (x.len() == len && y.len() == len).then(|| [&[4][..], &x, &y].concat())
    };
    let kind = match (&*jwk.kty, jwk.crv.as_deref()) {
        ("RSA", _) => Kind::Rsa { n: part(&jwk.n)?, e: part(&jwk.e)? },
        ("EC", Some("P-256")) => Kind::P256(point(32)?),
        ("EC", Some("P-384")) => Kind::P384(point(48)?),
        ("OKP", Some("Ed25519")) => Kind::Ed25519(part(&jwk.x)?),
        _ => return None,
    };
    Some(Key { id: jwk.kid, algorithm: jwk.alg, kind })
}

#[cfg(test)]
mod tests {
    use super::{Key, read};
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

    fn b64(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    #[test]
    fn keys_sign_in_their_own_way_alone() {
        let random = ring::rand::SystemRandom::new();
        let pair =
            Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&random).unwrap().as_ref()).unwrap();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let point = ec.public_key().as_ref();
        let document = serde_json::json!({"keys":[
            {"kty":"oct","k":"AAAA"},
            {"kty":"OKP","crv":"Ed25519","kid":"ed","x":b64(pair.public_key().as_ref())},
            {"kty":"EC","crv":"P-256","kid":"ec","alg":"ES256","x":b64(&point[1..33]),"y":b64(&point[33..])},
            {"kty":"EC","crv":"P-256","use":"enc","x":b64(&point[1..33]),"y":b64(&point[33..])},
        ]});
        let keys = read(document.to_string().as_bytes()).unwrap();
        assert_eq!(keys.len(), 2, "neither secrets nor keys for encryption");
        let by = |keys: &[Key], alg: &str, id: Option<&str>, signature: &[u8]| {
            keys.iter().any(|key| key.signs(alg, id, b"message", signature))
        };
        let ed = pair.sign(b"message");
        let es = ec.sign(&random, b"message").unwrap();
        assert!(by(&keys, "EdDSA", None, ed.as_ref()) && by(&keys, "EdDSA", Some("ed"), ed.as_ref()));
        assert!(by(&keys, "ES256", Some("ec"), es.as_ref()));
        for (alg, id, signature) in [
            ("EdDSA", Some("ec"), ed.as_ref()),
            ("ES256", Some("ed"), es.as_ref()),
            ("ES384", None, es.as_ref()),
            ("HS256", None, es.as_ref()),
            ("none", None, b"".as_slice()),
            ("EdDSA", None, &ed.as_ref()[1..]),
            ("EdDSA", None, b"".as_slice()),
        ] {
            assert!(!by(&keys, alg, id, signature), "{alg} {id:?}");
        }
        assert!(!keys.iter().any(|key| key.signs("EdDSA", None, b"another", ed.as_ref())));
    }

    /// A key made by openssl for this test alone, and what it signed.
    const MODULUS: &str = "2oFuVjzB_hwv00sT1Tie5U9XvRzYPwwYamsR7e_5IIPIRbwgh7cEda4bLfsIMZu1TlI0WuSqvGBIAMkJLcXoBSFK\
             kDxSozjCKTjO-1D69_zdoPxChiJP3d0uZwMqw8etQH0BxMHWULiGsNZPxUHOEgivjlUkvT3CgjyLPG4a29cjzQY1\
             4QQ09YcmxtXpVm2RiGRX_WO4-cWplL9LQl6F4NC9xxu2XfFbhprcy2gK98GyXw89wYES68n-eMuZhRBr8lc-6CwE\
             8onkzZySQxQIP93yUA2z6HjXVkoZJtgBTpg4rgOKH9hCtMkOAurN1NXPhBrhrRUiai3-FcKmO5k84Q";
    const SIGNATURE: &str = "wjwko97hcX3ZWu5iIPK5nO3DR8WcD2Hvi3KFnOlH2c4sG6YYb3RV42eQF1PRHHRz320HxRkI7qYQdIag3cNgQ_ew\
             lAdmGudJDEg8MIw9ZFJX16KWSdBuk3SWA89jU4QDsr2YR_C4a9rXXaKO5xuHUgM_ic6ZQzHaRpZ6qWVl5uZgc4Pi\
             CB5WE6sr_ApQ3-LDrhllLHgr2VNgKcvt0KuZvV8Oxy88PZ6UcrBQfBsuaERNTjf9x3BGIgreeV1TOwjB7Zv_-yiG\
             twkfdWYyoxlQOArh6Sg4vlH6pXjEi0Jn03PqZavvjG80t0nqbdihMukdMBAmGRUXv6ltUsdZkDmMBQ";

    #[test]
    fn a_signature_by_openssl_is_right_for_its_own_algorithm_alone() {
        let document = format!(r#"{{"keys":[{{"kty":"RSA","e":"AQAB","n":"{MODULUS}"}}]}}"#);
        let keys = read(document.as_bytes()).unwrap();
        let signature = URL_SAFE_NO_PAD.decode(SIGNATURE).unwrap();
        assert!(keys[0].signs("RS256", None, b"a message", &signature));
        for algorithm in ["RS384", "RS512", "PS256", "HS256", "none", ""] {
            assert!(!keys[0].signs(algorithm, None, b"a message", &signature), "{algorithm}");
        }
        assert!(!keys[0].signs("RS256", None, b"another", &signature));
        // The public key as a shared secret, the classic confusion.
        assert!(!keys[0].signs("HS256", None, b"a message", MODULUS.as_bytes()));
    }

    #[test]
    fn what_is_no_document_of_keys_is_refused() {
        for document in [
            "",
            "{}",
            "[]",
            r#"{"keys":[]}"#,
            r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#,
            r#"{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}"#,
        ] {
            assert!(read(document.as_bytes()).is_none(), "{document}");
        }
    }
}
