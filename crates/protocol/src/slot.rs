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
        Self(short(key).unwrap_or_else(|| crc16(hash_tag(key))) % Self::COUNT)
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// The part of a key that is hashed: between the first `{` and the next `}`, unless that is empty.
pub fn hash_tag(key: &[u8]) -> &[u8] {
    // Nearly every key is short and without a brace; a search routine costs more to call than to look eight bytes at once.
    let without = match key.last_chunk::<STRIDE>() {
        // The last eight cover what the others leave.
        Some(last) => !has_brace(*last) && !key.as_chunks::<STRIDE>().0.iter().any(|bytes| has_brace(*bytes)),
        None => !key.contains(&b'{'),
    };
    if without {
        return key;
    }
    let Some(open) = memchr::memchr(b'{', key) else { return key };
    let rest = key.get(open + 1..).unwrap_or_default();
    match memchr::memchr(b'}', rest) {
        Some(close) if close > 0 => rest.get(..close).unwrap_or(key),
        _ => key,
    }
}

/// Whether one of eight bytes is `{`: after the XOR it alone is zero, and only a zero borrows into its top bit.
const fn has_brace(bytes: [u8; 8]) -> bool {
    let bytes = u64::from_ne_bytes(bytes) ^ u64::from_ne_bytes([b'{'; 8]);
    bytes.wrapping_sub(u64::from_ne_bytes([1; 8])) & !bytes & u64::from_ne_bytes([0x80; 8]) != 0
}

/// Bytes that are taken at once: each has a table that says what it becomes behind the others.
const STRIDE: usize = 8;

type Tables = [[u16; 256]; STRIDE];

/// For the last eight bytes, the last one first.
static NEAR: Tables = tables(0);

/// For the eight in front of them.
static FAR: Tables = tables(STRIDE);

/// CRC16 XMODEM: polynomial 0x1021, starting at 0. The first table is for a byte with so many behind it.
const fn tables(behind: usize) -> Tables {
    let mut tables = [[0u16; 256]; STRIDE];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = step((byte as u16) << 8);
        let mut at = 0;
        while at < behind + STRIDE {
            if at >= behind {
                tables[at - behind][byte] = crc;
            }
            crc = step(crc);
            at += 1;
        }
        byte += 1;
    }
    tables
}

/// Takes a byte of zeros on.
const fn step(mut crc: u16) -> u16 {
    let mut bit = 0;
    while bit < 8 {
        crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        bit += 1;
    }
    crc
}

/// The sum of a key of 8 to 16 bytes without a brace, as most are: two numbers and no loop, since every command on a lane is
/// ordered by its slot.
#[inline]
fn short(key: &[u8]) -> Option<u16> {
    let (first, last) = (*key.first_chunk::<STRIDE>()?, *key.last_chunk::<STRIDE>()?);
    let missing = (2 * STRIDE).checked_sub(key.len())?;
    if has_brace(first) || has_brace(last) {
        return None;
    }
    // Zeros in front change nothing, since the sum begins at 0; what both numbers cover counts once.
    let front = u64::from_be_bytes(first).checked_shr(8 * missing as u32).unwrap_or(0);
    Some(eight(front, &FAR) ^ eight(u64::from_be_bytes(last), &NEAR))
}

fn crc16(bytes: &[u8]) -> u16 {
    let (odd, eights) = bytes.as_rchunks::<STRIDE>();
    let first = odd.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    // Behind eight bytes of zeros a sum is what its own two bytes become there.
    let next =
        |sum: u16, bytes: &[u8; STRIDE]| eight(u64::from_be_bytes(*bytes) ^ u64::from(sum) << 48, &NEAR);
    eights.iter().fold(eight(first, &NEAR), next)
}

/// The sum of eight bytes.
fn eight(bytes: u64, tables: &Tables) -> u16 {
    let [t0, t1, t2, t3, t4, t5, t6, t7] = tables;
    let at = |shift: u32| usize::from((bytes >> shift) as u8);
    let near = t0[at(0)] ^ t1[at(8)] ^ t2[at(16)] ^ t3[at(24)];
    near ^ t4[at(32)] ^ t5[at(40)] ^ t6[at(48)] ^ t7[at(56)]
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

    #[test]
    fn a_brace_is_seen_wherever_it_stands_and_nothing_is_taken_for_one() {
        for length in 1..40 {
            for at in 0..length {
                let mut key = vec![b'k'; length];
                key[at] = b'{';
                key.extend_from_slice(b"tag}");
                let found = hash_tag(&key);
                assert!(found.ends_with(b"tag") && !found.contains(&b'{'), "{at} of {length}");
            }
        }
        for byte in (0..=u8::MAX).filter(|&byte| byte != b'{') {
            assert!(!has_brace([byte; 8]), "{byte}");
        }
    }

    #[test]
    fn many_bytes_at_once_give_what_one_at_a_time_gives() {
        let slow = |bytes: &[u8]| {
            bytes.iter().fold(0u16, |crc, &byte| {
                (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _bit| {
                    if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
                })
            })
        };
        let bytes: Vec<u8> = (0..100u8).map(|n| n.wrapping_mul(167)).collect();
        for end in 0..bytes.len() {
            assert_eq!(crc16(&bytes[..end]), slow(&bytes[..end]), "{end} bytes");
        }
        for (from, to) in (0..bytes.len()).flat_map(|from| (from..=bytes.len()).map(move |to| (from, to))) {
            let key = &bytes[from..to];
            assert_eq!(Slot::of(key).number(), slow(hash_tag(key)) % Slot::COUNT, "{from} to {to}");
        }
    }
}
