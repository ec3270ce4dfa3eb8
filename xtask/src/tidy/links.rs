//! What a page says about the source must be there: files that it links to, and the tests and types that it names.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::{File, Finding};

/// Checks the relative links of each page.
///
/// A link to a Rust file whose label is one word in code marks names something in it: a function of that name, or
/// one whose name begins with it and an underscore (`defect_01` for `defect_01_a_result_that..`), or a type.
pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let by_path: HashMap<&str, &File> = files.iter().map(|file| (file.path.as_str(), file)).collect();
    let pages = files.iter().filter(|file| has(&file.path, "md"));
    let mut findings = Vec::new();
    for page in pages {
        for (n, line) in page.text.lines().enumerate() {
            let mut fail = |words| findings.push(Finding::failure(format!("{}:{}", page.path, n + 1), words));
            for (label, target) in links(line) {
                let Some(path) = resolve(&page.path, target).filter(|path| has(path, "rs")) else { continue };
                match (by_path.get(path.as_str()), named(label)) {
                    (None, _) => fail(format!("there is no file {path}")),
                    (Some(file), Some(name)) if !holds(&file.text, name) => {
                        fail(format!("{name} is not in {path}"));
                    }
                    _ => {}
                }
            }
        }
    }
    findings
}

pub(super) fn has(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

/// Label and target of each `[label](target)`.
fn links(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.match_indices("](").filter_map(move |(at, _)| {
        let label = line.get(..at)?.rsplit_once('[')?.1;
        let target = line.get(at + 2..)?.split_once(')')?.0;
        Some((label, target))
    })
}

/// The path from the root that a page's relative link leads to; `None` when it leads elsewhere.
fn resolve(page: &str, target: &str) -> Option<String> {
    let target = target.split('#').next().unwrap_or_default();
    if target.is_empty() || target.contains("://") {
        return None;
    }
    let mut path = PathBuf::new();
    for part in Path::new(page).parent()?.join(target).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => _ = path.pop(),
            _ => {}
        }
    }
    path.to_str().map(str::to_owned)
}

/// The name that a label in code marks gives; a file's name is none.
fn named(label: &str) -> Option<&str> {
    let name = label.strip_prefix('`')?.strip_suffix('`')?;
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_').then_some(name)
}

fn holds(text: &str, name: &str) -> bool {
    let item = |kind: &str| {
        let start = format!("{kind} {name}");
        text.match_indices(&start).any(|(at, _)| {
            let next = text.get(at + start.len()..).and_then(|rest| rest.chars().next());
            next.is_some_and(|next| !next.is_ascii_alphanumeric() && (next != '_' || kind == "fn"))
        })
    };
    ["fn", "struct", "enum", "trait", "type", "const", "static", "macro_rules!"].into_iter().any(item)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(page: &str) -> Vec<String> {
        let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
        let source = "fn defect_01_a_result() {}\npub struct Sizes {}\nasync fn whole() {}\n";
        let files = [file("docs/a.md", page), file("crates/a/src/lib.rs", source)];
        check(&files).into_iter().map(|finding| finding.words).collect()
    }

    #[test]
    fn what_is_there_is_found() {
        let names = ["`defect_01`", "`defect_01_a_result`", "`Sizes`", "`whole`", "`lib.rs`", "the source"];
        for name in names {
            assert_eq!(found(&format!("| x | [{name}](../crates/a/src/lib.rs) |")), Vec::<String>::new());
        }
        assert_eq!(found("[`whole`](https://example.com/lib.rs), [`whole`](#whole)"), Vec::<String>::new());
    }

    #[test]
    fn what_is_gone_is_named() {
        for name in ["defect_0", "defect_02", "defect_01_a_resul", "Size", "hole"] {
            let words =
                found(&format!("[`whole`](../crates/a/src/lib.rs), [`{name}`](../crates/a/src/lib.rs)"));
            assert_eq!(words, [format!("{name} is not in crates/a/src/lib.rs")]);
        }
        assert_eq!(found("[x](../crates/a/src/gone.rs)"), ["there is no file crates/a/src/gone.rs"]);
    }
}
