//! What no file of ours may say: marks of unfinished work, paths of one machine, hosts of registries.

use super::{File, Finding};

/// Written in halves, so that this file does not hold what it looks for.
const UNFINISHED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
const PLACES: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
const HOSTS: [&str; 6] = [
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("debian", ".org"),
    concat!("npmjs", ".com"),
    concat!("npmjs", ".org"),
];

pub(super) fn check(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Cargo writes the registry's name into its own lock file.
    if file.path.ends_with("Cargo.lock") || file.path.starts_with("LICENSE") {
        return findings;
    }
    for (n, line) in file.text.lines().enumerate() {
        let place = format!("{}:{}", file.path, n + 1);
        let mut fail = |words: String| findings.push(Finding::failure(place.clone(), words));
        for word in UNFINISHED.iter().filter(|word| has_word(line, word)) {
            fail(format!("{word}: unfinished work is named in an issue, not in a file"));
        }
        for path in PLACES.iter().filter(|path| line.contains(**path)) {
            fail(format!("a path of one machine: {path}"));
        }
        for host in HOSTS.iter().filter(|host| line.contains(**host)) {
            fail(format!("a registry's host: {host}"));
        }
    }
    findings
}

fn has_word(line: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|after| after.chars().next());
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> usize {
        check(&File { path: "docs/a.md".into(), text: text.into() }).len()
    }

    #[test]
    fn each_is_found_once_on_its_line() {
        let line = |halves: &[&str]| halves.concat();
        assert_eq!(found(&line(&["// TO", "DO: later"])), 1);
        assert_eq!(found(&line(&["see /ho", "me/me/x"])), 1);
        assert_eq!(found(&line(&["https://pypi", ".org/x"])), 1);
        assert_eq!(found(&line(&["a TO", "DOLIST is a word"])), 0);
        assert_eq!(found("all is well"), 0);
    }
}
