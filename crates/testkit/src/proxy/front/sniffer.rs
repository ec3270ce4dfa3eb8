//! Reads the first words of each command that goes by, and keeps nothing else.

/// Words kept of each command: enough for `CLIENT MAINT_NOTIFICATIONS ON moving-endpoint-type internal-ip`.
const WORDS: usize = 5;
/// Bytes kept of each word.
const WORD: usize = 32;
/// Longest header that is believed.
const HEADER: usize = 32;

/// Follows the commands of one connection.
#[derive(Debug, Default)]
pub(super) struct Sniffer {
    state: State,
    header: Vec<u8>,
    words: Vec<Vec<u8>>,
    /// Arguments that the command begun still lacks.
    missing: u64,
}

/// ```text
///  Count -- *n --> Length -- $len --> Body -- its end, more to come --> Length
///    ^                                  |
///    +---------- its end, the last -----+        any -- not RESP --> Lost
/// ```
#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    /// Bytes left, the line end among them.
    Body(u64),
    #[default]
    Count,
    Length,
    Lost,
}

impl Sniffer {
    /// Reads a chunk and calls `found` with the first words of each command that ends in it, in upper case.
    pub(super) fn feed(&mut self, chunk: &[u8], mut found: impl FnMut(&[String])) {
        let mut rest = chunk;
        while let Some(first) = rest.first() {
            match self.state {
                State::Lost => return,
                State::Body(left) => {
                    let taken = left.min(rest.len() as u64) as usize;
                    if let Some(word) = self.words.last_mut().filter(|_| self.missing > 0) {
                        let room = WORD.saturating_sub(word.len());
                        word.extend(rest.iter().take(taken.min(room)));
                    }
                    rest = rest.get(taken..).unwrap_or_default();
                    self.state = State::Body(left - taken as u64);
                    if left == taken as u64 {
                        self.end_argument(&mut found);
                    }
                }
                State::Count | State::Length => {
                    self.header.push(*first);
                    rest = rest.get(1..).unwrap_or_default();
                    if *first == b'\n' {
                        self.end_header();
                    } else if self.header.len() > HEADER {
                        self.state = State::Lost;
                    }
                }
            }
        }
    }

    fn end_header(&mut self) {
        let header = std::mem::take(&mut self.header);
        let number = std::str::from_utf8(header.get(1..).unwrap_or_default())
            .ok()
            .and_then(|number| number.trim_end().parse::<u64>().ok());
        self.state = match (&self.state, header.first(), number) {
            (State::Count, Some(b'*'), Some(0)) => State::Count,
            (State::Count, Some(b'*'), Some(count)) => {
                self.missing = count;
                self.words.clear();
                State::Length
            }
            (State::Length, Some(b'$'), Some(len)) => {
                if self.words.len() < WORDS {
                    self.words.push(Vec::new());
                }
                State::Body(len.saturating_add(2))
            }
            _ => State::Lost,
        };
    }

    fn end_argument(&mut self, found: &mut impl FnMut(&[String])) {
        self.missing -= 1;
        self.state = if self.missing == 0 { State::Count } else { State::Length };
        if self.missing == 0 {
            let text = |word: &Vec<u8>| String::from_utf8_lossy(word).trim_end().to_ascii_uppercase();
            let words: Vec<String> = self.words.iter().map(text).collect();
            found(&words);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_words_are_found_whatever_the_chunks() {
        let text = "*2\r\n$4\r\nECHO\r\n$40\r\n*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\nabcdefghijkl\r\n*0\r\n\
                    *7\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n$1\r\ne\r\n$1\r\nf\r\n$1\r\ng\r\n*1\r\n$4\r\nquit\r\n";
        for size in 1..=text.len() {
            let mut sniffer = Sniffer::default();
            let mut seen = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                sniffer.feed(chunk, |words| seen.push(words.join(" ")));
            }
            assert_eq!(seen.len(), 3, "in chunks of {size}: {seen:?}");
            assert!(seen[0].starts_with("ECHO *1"), "{seen:?}");
            assert_eq!(seen[2], "QUIT");
        }
    }

    #[test]
    fn what_is_not_a_command_is_not_read() {
        let mut sniffer = Sniffer::default();
        sniffer.feed(b"GET / HTTP/1.1\r\n*1\r\n$4\r\nPING\r\n", |words| panic!("{words:?}"));
    }
}
