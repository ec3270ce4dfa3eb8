//! Pusher's signatures: HMAC-SHA256 in hex.

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Whether `auth` (`<key>:<hex>`) signs `parts` joined with colons.
pub(crate) fn signs(key: &str, secret: &str, auth: &str, parts: &[&str]) -> bool {
    let Some((given, hex)) = auth.split_once(':') else { return false };
    given == key && is_mac(secret, parts.join(":").as_bytes(), hex)
}

/// Whether `hex` is the MAC of `message`. Compares in constant time.
pub(crate) fn is_mac(secret: &str, message: &[u8], hex: &str) -> bool {
    let Some(given) = from_hex(hex) else { return false };
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return false };
    mac.update(message);
    mac.verify_slice(&given).is_ok()
}

/// The MD5 of a body in hex; a checksum here, its signature is the MAC.
pub(crate) fn md5_hex(body: &[u8]) -> String {
    Md5::digest(body).iter().fold(String::with_capacity(32), |mut hex, byte| {
        #[expect(clippy::expect_used, reason = "a string takes every character")]
        write!(hex, "{byte:02x}").expect("text into a string");
        hex
    })
}

fn from_hex(hex: &str) -> Option<Vec<u8>> {
    if hex.len() != 64 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    hex.as_bytes()
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{is_mac, md5_hex, signs};

    const KEY: &str = "278d425bdf160c739803";
    const SECRET: &str = "7ad3773142a6692b25b8";

    #[test]
    fn the_documented_examples() {
        let auth = format!("{KEY}:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4");
        assert!(signs(KEY, SECRET, &auth, &["1234.1234", "private-foobar"]));
        let user = "{\"user_id\":10,\"user_info\":{\"name\":\"Mr. Channels\"}}";
        let auth = format!("{KEY}:31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80");
        assert!(signs(KEY, SECRET, &auth, &["1234.1234", "presence-foobar", user]));
        assert_eq!(
            md5_hex(
                b"{\"name\":\"foo\",\"channels\":[\"project-3\"],\"data\":\"{\\\"some\\\":\\\"data\\\"}\"}"
            ),
            "ec365a775a4cd0599faeb73354201b6f"
        );
    }

    #[test]
    fn anything_else_is_no_signature() {
        let right = "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4";
        for wrong in [
            String::new(),
            right.to_owned(),
            format!("other:{right}"),
            format!("{KEY}:"),
            format!("{KEY}:{}", &right[1..]),
            format!("{KEY}:{}0", &right[..63]),
            format!("{KEY}:zz{}", &right[2..]),
        ] {
            assert!(!signs(KEY, SECRET, &wrong, &["1234.1234", "private-foobar"]), "{wrong}");
        }
        assert!(!is_mac(SECRET, b"other", right));
    }
}
