//! `Slot`: which of the 16 384 hash slots a key belongs to (cluster specification, "Key distribution model").

/// A hash slot, 0 to 16383.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u16);

impl Slot {
    /// How many slots there are.
    pub const COUNT: u16 = 16384;

    /// The slot with this number, if there is one.
    pub const fn new(number: u16) -> Option<Self> {
        if number < Self::COUNT { Some(Self(number)) } else { None }
    }

    /// The slot of a key: CRC16 of its hash tag, or of the whole key when it has none.
    ///
    /// ```
    /// use evenkeel_protocol::Slot;
    /// assert_eq!(Slot::of(b"foo").number(), 12182);
    /// assert_eq!(Slot::of(b"{user1000}.following"), Slot::of(b"{user1000}.followers"));
    /// ```
    pub fn of(key: &[u8]) -> Self {
        Self(crc16(hash_tag(key)) % Self::COUNT)
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// The part of a key that is hashed: between the first `{` and the next `}`, unless that is empty.
pub fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else { return key };
    let rest = key.get(open + 1..).unwrap_or_default();
    match memchr::memchr(b'}', rest) {
        Some(close) if close > 0 => rest.get(..close).unwrap_or(key),
        _ => key,
    }
}

const CRC16: [u16; 256] = table();

/// CRC16 XMODEM: polynomial 0x1021, starting at 0.
const fn table() -> [u16; 256] {
    let mut table = [0u16; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        let index = ((crc >> 8) as u8) ^ byte;
        (crc << 8) ^ CRC16[usize::from(index)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, slot) in [
            ("foo", 12182),
            ("bar", 5061),
            ("", 0),
            ("{}foo", Slot::of(b"{}foo").number()),
            ("foo{bar}", 5061),
        ] {
            assert_eq!(Slot::of(key.as_bytes()).number(), slot, "{key}");
        }
        assert_eq!(hash_tag(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(hash_tag(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(hash_tag(b"foo{bar}{zap}"), b"bar");
        assert_eq!(Slot::new(16384), None);
    }
}
