//! The shape of source files: length, first line, purity of machines, diagrams of states, bounds, fairness.

use super::source::{code_only, lines_with, without_tests};
use super::{File, Finding};

const LISTED: usize = 500;
const TOO_LONG: usize = 900;
const LIBRARY: usize = 120;
/// What a machine never does: wait, read a clock, draw, lock, spawn.
const IMPURE: [&str; 11] = [
    ".await",
    "Instant::now",
    "Mutex",
    "RwLock",
    "SystemTime::now",
    "async",
    "fastrand",
    "rand::",
    "spawn",
    "thread::",
    "tokio",
];
const UNBOUNDED: [&str; 2] = ["unbounded", "unbounded_channel"];

pub(super) fn check(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = file.text.lines().count();
    if lines > TOO_LONG && !file.is_generated() {
        findings.push(Finding::failure(
            &file.path,
            format!("{lines} lines, more than {TOO_LONG}: two subjects at least"),
        ));
    } else if lines > LISTED && !file.is_generated() {
        findings.push(Finding::remark(&file.path, format!("{lines} lines")));
    }
    if !file.is_source() {
        return findings;
    }
    if file.path.ends_with("/src/lib.rs") && lines > LIBRARY {
        findings
            .push(Finding::failure(&file.path, format!("{lines} lines: a lib.rs is a table of contents")));
    }
    let is_tests = file.path.ends_with("/tests.rs")
        || file.path.ends_with("_tests.rs")
        || file.path.ends_with("_tests.rs")
        || file.path.contains("/tests/");
    if is_tests {
        return findings;
    }
    if !file.text.lines().find(|line| !line.trim().is_empty()).is_some_and(|line| line.starts_with("//!")) {
        findings.push(Finding::failure(
            &file.path,
            "does not begin with `//!`: what it is, and what it does not know",
        ));
    }
    let code = without_tests(&code_only(&file.text));
    if is_machine(&file.path) {
        for word in IMPURE {
            for line in lines_with(&code, word) {
                findings.push(Finding::failure(
                    format!("{}:{line}", file.path),
                    format!("`{word}` in a machine"),
                ));
            }
        }
    }
    for word in UNBOUNDED {
        for line in lines_with(&code, word) {
            findings.push(Finding::failure(format!("{}:{line}", file.path), "a queue without a bound"));
        }
    }
    findings.extend(states_without_diagram(file));
    findings.extend(unfair_selects(file, &code));
    findings.extend(waits_without_word(file, &code));
    findings
}

/// Machines are the whole of `protocol` but its codec, and every `machine` elsewhere.
fn is_machine(path: &str) -> bool {
    (path.starts_with("crates/protocol/src/") && !path.ends_with("/codec.rs"))
        || path.contains("/machine/")
        || path.ends_with("/machine.rs")
}

/// A `State` is understood by its picture, above it or elsewhere in its file.
fn states_without_diagram(file: &File) -> Vec<Finding> {
    let is_picture = |line: &str| {
        let line = line.trim_start();
        (line.starts_with("///") || line.starts_with("//!"))
            && (line.contains("->") || line.contains("```text"))
    };
    if file.text.lines().any(is_picture) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (n, line) in file.text.lines().enumerate() {
        let line = line.trim_start();
        let Some((before, name)) = line.split_once("enum ") else { continue };
        let name: String = name.chars().take_while(|c| c.is_alphanumeric()).collect();
        if (before.is_empty() || before.starts_with("pub")) && name.ends_with("State") {
            findings.push(Finding::remark(
                format!("{}:{}", file.path, n + 1),
                format!("`{name}` has no diagram"),
            ));
        }
    }
    findings
}

/// A `select!` says `biased;`, or why it is fair.
fn unfair_selects(file: &File, code: &str) -> Vec<Finding> {
    let lines: Vec<&str> = file.text.lines().collect();
    let says = |n: usize| {
        let next = lines.get(n..).unwrap_or_default();
        let before =
            n.checked_sub(2).and_then(|n| lines.get(n)).is_some_and(|line| line.trim().starts_with("// "));
        before || next.iter().take(3).any(|line| line.contains("biased;") || line.trim().starts_with("// "))
    };
    lines_with(code, "select!")
        .into_iter()
        .filter(|line| !says(*line))
        .map(|line| {
            Finding::failure(
                format!("{}:{line}", file.path),
                "`select!` without `biased;` or a word on fairness",
            )
        })
        .collect()
}

/// Every public async function says what happens when it is dropped.
fn waits_without_word(file: &File, code: &str) -> Vec<Finding> {
    let lines: Vec<&str> = file.text.lines().collect();
    let says = |line: usize| {
        let above = lines.get(..line.saturating_sub(1)).unwrap_or_default();
        above
            .iter()
            .rev()
            .take_while(|line| line.trim_start().starts_with("///") || line.trim_start().starts_with("#["))
            .any(|line| line.to_lowercase().contains("cancel"))
    };
    if !file.path.starts_with("crates/") {
        return Vec::new();
    }
    lines_with(code, "pub async fn")
        .into_iter()
        .filter(|line| !says(*line))
        .map(|line| {
            Finding::remark(
                format!("{}:{line}", file.path),
                "a public async fn without a word on cancel safety",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(path: &str, text: &str) -> Vec<String> {
        let file = File { path: path.into(), text: text.into() };
        check(&file).into_iter().map(|finding| finding.words).collect()
    }

    #[test]
    fn a_machine_is_pure_and_its_tests_need_not_be() {
        let text = "//! A machine; no tokio.\nuse std::time::Instant;\n#[cfg(test)]\nmod tests { fn now() { Instant::now() } }\n";
        assert_eq!(words("crates/pool/src/machine/mod.rs", text), [""; 0]);
        let text = "//! A machine.\nasync fn a() { tokio::x().await }\n";
        assert_eq!(words("crates/pool/src/machine/mod.rs", text).len(), 3);
        assert_eq!(words("crates/protocol/src/conn/mod.rs", text).len(), 3);
        assert_eq!(words("crates/protocol/src/codec.rs", text), [""; 0]);
        assert_eq!(words("crates/pool/src/driver/run.rs", text), [""; 0]);
    }

    #[test]
    fn files_have_a_first_line_and_an_end() {
        assert_eq!(words("crates/pool/src/a.rs", "fn a() {}\n").len(), 1);
        assert_eq!(words("crates/pool/src/a.rs", &"//! A.\n".repeat(501)), ["501 lines"]);
        assert_eq!(words("crates/pool/tests/a.rs", &"\n".repeat(901)).len(), 1);
        assert_eq!(words("crates/pool/src/lib.rs", &"//! A.\n".repeat(121)).len(), 1);
        let generated = ["//! @", "generated by x\n", &"//! A.\n".repeat(2_000)].concat();
        assert_eq!(words("crates/pool/src/a.rs", &generated), [""; 0]);
    }

    #[test]
    fn a_state_has_a_picture() {
        let text = "//! A.\n/// A state.\npub(super) enum ConnState { A }\n";
        assert_eq!(words("crates/pool/src/a.rs", text), ["`ConnState` has no diagram"]);
        let text = "//! A.\n/// ```text\n/// A -> B\n/// ```\n#[derive(Debug)]\npub enum OtherState { A }\n";
        assert_eq!(words("crates/pool/src/a.rs", text), [""; 0]);
    }

    #[test]
    fn queues_are_bounded_selects_fair_and_waits_explained() {
        assert_eq!(words("crates/pool/src/a.rs", "//! A.\nfn a() { mpsc::unbounded_channel() }\n").len(), 1);
        assert_eq!(
            words("crates/pool/src/a.rs", "//! A.\nselect! {\n    a => {}\n    b => {}\n}\n").len(),
            1
        );
        assert_eq!(
            words("crates/pool/src/a.rs", "//! A.\nselect! {\n    // Replies first.\n    biased;\n}\n"),
            [""; 0]
        );
        assert_eq!(words("crates/pool/src/a.rs", "//! A.\n/// A.\npub async fn a() {}\n").len(), 1);
        assert_eq!(words("crates/pool/src/a.rs", "//! A.\n/// Cancel safe.\npub async fn a() {}\n"), [""; 0]);
    }
}
