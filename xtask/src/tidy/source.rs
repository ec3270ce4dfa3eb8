//! Rust source with what is not code blanked out.
//!
//! Not a parser: it knows comments, strings, characters and braces, which is enough to look for words.

/// Returns `text` with comments, the content of strings and character literals replaced by spaces; lines stay where they are.
pub(super) fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out: Vec<u8> = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        let len = match rest {
            [b'/', b'/', ..] => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
            [b'/', b'*', ..] => block_comment(rest),
            [b'"', ..] => string(rest, 1),
            [b'r' | b'b' | b'c', ..] if !out.last().copied().is_some_and(is_word) => raw_or_bytes(rest),
            [b'\'', ..] => character(rest),
            _ => 0,
        };
        if len == 0 {
            out.extend(rest.first());
            at += 1;
        } else {
            out.extend(rest.iter().take(len).map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
            at += len;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(pair) = rest.get(at..at + 2) {
        match pair {
            b"/*" => {
                depth += 1;
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

/// Returns the length of a string whose quote stands before `at`.
fn string(rest: &[u8], mut at: usize) -> usize {
    while let Some(byte) = rest.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Returns the length of `r"..."`, `r#"..."#`, `b"..."`, `br"..."`, `c"..."`; 0 for a word that only begins like one.
fn raw_or_bytes(rest: &[u8]) -> usize {
    let prefix = rest.iter().take_while(|byte| matches!(byte, b'r' | b'b' | b'c')).count();
    let is_raw = rest.iter().take(prefix).any(|byte| *byte == b'r');
    let marks = rest.iter().skip(prefix).take_while(|byte| **byte == b'#').count();
    let quote = prefix + marks;
    if prefix > 2 || rest.get(quote) != Some(&b'"') || (marks > 0 && !is_raw) {
        return 0;
    }
    if !is_raw {
        return string(rest, quote + 1);
    }
    let mut end = vec![b'"'];
    end.resize(marks + 1, b'#');
    let body = rest.get(quote + 1..).unwrap_or_default();
    let length = body.windows(end.len()).position(|window| window == end);
    length.map_or(rest.len(), |length| quote + 1 + length + end.len())
}

/// Returns the length of a character literal; 0 for a lifetime.
fn character(rest: &[u8]) -> usize {
    match rest {
        [_, b'\\', _, tail @ ..] => tail.iter().position(|byte| *byte == b'\'').map_or(0, |end| end + 4),
        // One character may be up to four bytes long.
        [_, first, ..] if *first != b'\'' => {
            let width = match first {
                0..0x80 => 1,
                0x80..0xe0 => 2,
                0xe0..0xf0 => 3,
                0xf0.. => 4,
            };
            if rest.get(width + 1) == Some(&b'\'') { width + 2 } else { 0 }
        }
        _ => 0,
    }
}

/// Blanks out what stands under `#[cfg(test)]`, given code without comments and strings.
pub(super) fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(start) = out.find("#[cfg(test)]") {
        let rest = out.get(start..).unwrap_or_default();
        let open = rest.find('{').unwrap_or(rest.len());
        let semicolon = rest.find(';').unwrap_or(rest.len());
        let end = if semicolon < open {
            semicolon + 1
        } else {
            open + braces(rest.get(open..).unwrap_or_default())
        };
        let end = start + end;
        let blank: String = out
            .get(start..end)
            .unwrap_or_default()
            .chars()
            .map(|c| if c == '\n' { '\n' } else { ' ' })
            .collect();
        let tail = out.get(end..).unwrap_or_default();
        out = [out.get(..start).unwrap_or_default(), &blank, tail].concat();
    }
    out
}

/// Returns the length up to the brace that closes the first one.
fn braces(rest: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in rest.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    rest.len()
}

/// Returns the numbers of the lines, from 1, that hold `word` as a word of its own.
pub(super) fn lines_with(code: &str, word: &str) -> Vec<usize> {
    let holds = |line: &str| {
        line.match_indices(word).any(|(at, _)| {
            let before = at.checked_sub(1).and_then(|at| line.as_bytes().get(at)).copied();
            let after = line.as_bytes().get(at + word.len()).copied();
            let starts = word.bytes().next().is_some_and(is_word);
            let ends = word.bytes().last().is_some_and(is_word);
            !(starts && before.is_some_and(is_word) || ends && after.is_some_and(is_word))
        })
    };
    code.lines().enumerate().filter(|(_, line)| holds(line)).map(|(n, _)| n + 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_blank_and_code_stays() {
        let code = code_only(
            "a(\"tokio \\\" x\"); // tokio\nb(r#\"tokio \" y\"#, 'x', '\\'', b\"tokio\"); /* tokio /* in */ tokio */ fn c<'t>() {}",
        );
        assert!(!code.contains("tokio"), "{code}");
        assert!(code.contains("a(") && code.contains("b(") && code.contains("fn c<'t>() {}"), "{code}");
        assert_eq!(code.lines().count(), 2);
    }

    #[test]
    fn words_that_begin_like_raw_strings_stay() {
        assert_eq!(code_only("return br; crate::b"), "return br; crate::b");
    }

    #[test]
    fn tests_are_cut_out_and_what_follows_stays() {
        let code = without_tests(
            "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { tokio } }\nfn c() {}\n#[cfg(test)]\nmod d;\n",
        );
        assert!(!code.contains("tokio") && !code.contains("mod d"), "{code}");
        assert!(code.contains("fn c()"));
        assert_eq!(lines_with(&code, "c"), [4]);
    }

    #[test]
    fn a_word_is_found_only_whole() {
        assert_eq!(lines_with("async fn\nasynchronous\nuse x::async_;\n", "async"), [1]);
        assert_eq!(lines_with("a.await?\n", ".await"), [1]);
    }
}
