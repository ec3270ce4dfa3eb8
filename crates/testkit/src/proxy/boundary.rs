//! Where RESP frames end, followed through a stream without keeping it.

/// Longest header line that is believed; beyond it the stream is taken for something else than RESP.
const MAX_HEADER: usize = 64 * 1024;

/// Follows a stream of RESP frames.
///
/// The streamed forms (`$?`, `*?`), which no server sends today, are not followed.
#[derive(Debug, Default)]
pub(super) struct Boundary {
    state: State,
    /// Elements that the frame begun still lacks.
    missing: u64,
    header: Vec<u8>,
}

/// ```text
///            header ends, no bulk          header of a bulk
///  Header <---------------------> Header ------------------> Bulk(n + 2)
///    ^                                                          |
///    +---------------------- the bulk ends ---------------------+
///  any state -- not RESP --> Lost
/// ```
#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    Bulk(u64),
    #[default]
    Header,
    Lost,
}

impl Boundary {
    /// Returns whether no frame is begun.
    pub(super) fn is_at_rest(&self) -> bool {
        self.state == State::Header && self.missing == 0 && self.header.is_empty()
    }

    /// Reads up to the next end of a frame. Returns how many bytes that took, or `None` when `bytes` ends before it
    /// or does not hold RESP.
    pub(super) fn next_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.state {
                State::Lost => return None,
                State::Bulk(left) => {
                    let taken = left.min(rest.len() as u64);
                    at += taken as usize;
                    self.state = if taken == left { State::Header } else { State::Bulk(left - taken) };
                    if taken < left {
                        continue;
                    }
                }
                State::Header => {
                    let line = rest.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
                    let taken = line.unwrap_or(rest.len());
                    self.header.extend_from_slice(rest.get(..taken).unwrap_or_default());
                    at += taken;
                    if line.is_none() {
                        if self.header.len() > MAX_HEADER {
                            self.state = State::Lost;
                        }
                        continue;
                    }
                    self.read_header();
                    if self.state != State::Header {
                        continue;
                    }
                }
            }
            if self.missing == 0 {
                return Some(at);
            }
        }
        None
    }

    /// Counts the element that a header begins. A bulk counts as had: its bytes follow in `State::Bulk`.
    fn read_header(&mut self) {
        let header = std::mem::take(&mut self.header);
        let Some((sort, rest)) = header.strip_suffix(b"\r\n").and_then(|line| line.split_first()) else {
            self.state = State::Lost;
            return;
        };
        let number = || std::str::from_utf8(rest).ok()?.parse::<i64>().ok();
        let (elements, is_attribute) = match sort {
            b'+' | b'-' | b':' | b',' | b'_' | b'#' | b'(' => (Some(0), false),
            b'$' | b'=' | b'!' => {
                if let Some(len) = number().map(u64::try_from) {
                    // A negative length is a null.
                    if let Ok(len) = len {
                        self.state = State::Bulk(len.saturating_add(2));
                    }
                    (Some(0), false)
                } else {
                    (None, false)
                }
            }
            b'*' | b'~' | b'>' => (number(), false),
            b'%' => (number().map(|pairs| pairs.saturating_mul(2)), false),
            b'|' => (number().map(|pairs| pairs.saturating_mul(2)), true),
            _ => (None, false),
        };
        let Some(elements) = elements else {
            self.state = State::Lost;
            return;
        };
        self.missing = if is_attribute {
            // It stands before the element that it is about, which is still to come.
            self.missing.max(1)
        } else {
            self.missing.saturating_sub(1)
        };
        self.missing = self.missing.saturating_add(u64::try_from(elements).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: [&str; 9] = [
        "+OK\r\n",
        "$5\r\nab\r\nc\r\n",
        "$-1\r\n",
        "*2\r\n$1\r\na\r\n*1\r\n:3\r\n",
        "%1\r\n+k\r\n%1\r\n+k\r\n_\r\n",
        ">3\r\n+message\r\n$1\r\nc\r\n$0\r\n\r\n",
        "|1\r\n+ttl\r\n:5\r\n*1\r\n#t\r\n",
        "*0\r\n",
        "*-1\r\n",
    ];

    #[test]
    fn every_end_is_found_whatever_the_chunks() {
        let text = FRAMES.concat();
        let mut expected = Vec::new();
        for frame in FRAMES {
            expected.push(expected.last().unwrap_or(&0) + frame.len());
        }
        for chunk in 1..=text.len() {
            let mut boundary = Boundary::default();
            let mut ends = Vec::new();
            for (n, piece) in text.as_bytes().chunks(chunk).enumerate() {
                let mut at = 0;
                while let Some(taken) = boundary.next_end(&piece[at..]) {
                    at += taken;
                    assert!(boundary.is_at_rest());
                    ends.push(n * chunk + at);
                }
            }
            assert_eq!(ends, expected, "in chunks of {chunk}");
        }
    }

    #[test]
    fn what_is_not_resp_has_no_ends() {
        let mut boundary = Boundary::default();
        assert_eq!(boundary.next_end(b"GET / HTTP/1.1\r\n+OK\r\n"), None);
        assert!(!boundary.is_at_rest());
    }
}
