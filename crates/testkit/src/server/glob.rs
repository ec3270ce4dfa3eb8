//! Glob patterns as KEYS and PSUBSCRIBE understand them: `*`, `?`, `[a-z]`, `[^a]`, `\` quotes.

/// Whether all of `text` fits `pattern`. Takes time in proportion to the product of the lengths, at worst.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when a try fails: behind the last star, one more byte swallowed by it.
    let mut star: Option<(usize, usize)> = None;
    loop {
        let fits = match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            (Some(_), None) | (None, Some(_)) => None,
            (Some(_), Some(&byte)) => one(pattern, p, byte),
        };
        if let Some(next) = fits {
            p = next;
            t += 1;
            continue;
        }
        match star {
            Some((behind, from)) if from < text.len() => {
                star = Some((behind, from + 1));
                p = behind;
                t = from + 1;
            }
            _ => return false,
        }
    }
}

/// The place behind the pattern's element at `p` when it fits `byte`.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'\\' if pattern.len() > p + 1 => (pattern.get(p + 1) == Some(&byte)).then_some(p + 2),
        b'[' => {
            let mut at = p + 1;
            let negated = pattern.get(at) == Some(&b'^');
            at += usize::from(negated);
            let mut found = false;
            loop {
                match pattern.get(at) {
                    None => break,
                    Some(b']') => {
                        at += 1;
                        break;
                    }
                    Some(b'\\') if pattern.len() > at + 1 => {
                        found |= pattern.get(at + 1) == Some(&byte);
                        at += 2;
                    }
                    Some(&first) => {
                        if let (Some(b'-'), Some(&last)) = (pattern.get(at + 1), pattern.get(at + 2)) {
                            found |= (first.min(last)..=first.max(last)).contains(&byte);
                            at += 3;
                        } else {
                            found |= first == byte;
                            at += 1;
                        }
                    }
                }
            }
            (found != negated).then_some(at)
        }
        literal => (literal == byte).then_some(p + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_fit_as_in_redis() {
        for (pattern, text, fits) in [
            ("", "", true),
            ("*", "", true),
            ("*", "abc", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("a*b*c", "axbxbxc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("h[ae]llo", "hello", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("news.*", "news.", true),
            ("[", "[", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
    }
}
