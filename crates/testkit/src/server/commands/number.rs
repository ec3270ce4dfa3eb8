//! Numbers among arguments, read as strictly as real servers read them.

use crate::server::fault::Fault;

/// A whole number without sign `+`, spaces or leading zeros.
pub(in crate::server) fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [b'0'] => digits.len() == text.len(),
        [] | [b'0', ..] => false,
        _ => digits.iter().all(u8::is_ascii_digit),
    };
    if canonical { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

/// A number that may have a fraction or be infinite, never NaN.
pub(in crate::server) fn float(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    if text.is_empty() || text.starts_with(char::is_whitespace) || text.ends_with(char::is_whitespace) {
        return None;
    }
    text.parse::<f64>().ok().filter(|value| !value.is_nan())
}

pub(super) fn need_integer(text: &[u8]) -> Result<i64, Fault> {
    integer(text).ok_or(Fault::NOT_INTEGER)
}

/// A whole number from 0 on.
pub(super) fn unsigned(text: &[u8]) -> Option<u64> {
    integer(text).and_then(|value| u64::try_from(value).ok())
}

pub(super) fn need_float(text: &[u8]) -> Result<f64, Fault> {
    float(text).ok_or(Fault::NOT_FLOAT)
}

/// A whole number from 0 on.
pub(super) fn need_count(text: &[u8]) -> Result<usize, Fault> {
    usize::try_from(need_integer(text)?).map_err(|_negative| Fault::OUT_OF_RANGE)
}

/// Start and end of a range over `length` elements, negative ones from the end; nothing when it is empty.
pub(super) fn range(start: i64, end: i64, length: usize) -> Option<(usize, usize)> {
    let length = i64::try_from(length).ok()?;
    let from_end = |at: i64| if at < 0 { (length + at).max(0) } else { at };
    let start = from_end(start);
    if end < 0 && length + end < 0 {
        return None;
    }
    let end = from_end(end).min(length - 1);
    if start > end || length == 0 {
        return None;
    }
    Some((usize::try_from(start).ok()?, usize::try_from(end).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_integers_are_integers() {
        for (text, value) in
            [("0", Some(0)), ("-1", Some(-1)), ("10", Some(10)), ("9223372036854775807", Some(i64::MAX))]
        {
            assert_eq!(integer(text.as_bytes()), value, "{text}");
        }
        for text in ["", "-", "-0", "01", "+1", " 1", "1 ", "1.0", "9223372036854775808"] {
            assert_eq!(integer(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn ranges_count_from_both_ends() {
        assert_eq!(range(0, -1, 3), Some((0, 2)));
        assert_eq!(range(-2, 10, 3), Some((1, 2)));
        assert_eq!(range(2, 1, 3), None);
        assert_eq!(range(0, -5, 3), None);
        assert_eq!(range(0, -1, 0), None);
    }
}
