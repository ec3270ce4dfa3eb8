//! What the documents call shown must be there: everything in a column `shown by`.

use super::{File, Finding, links::has};

/// The heading of a column that names what shows the row.
const COLUMN: &str = "shown by";

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let documents = files.iter().filter(|file| file.path.starts_with("docs/") && has(&file.path, "md"));
    documents.flat_map(|document| check_document(document, files)).collect()
}

fn check_document(document: &File, files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut column = None;
    for (at, line) in document.text.lines().enumerate() {
        let place = format!("{}:{}", document.path, at + 1);
        let Some(cells) = cells(line) else {
            column = None;
            continue;
        };
        let Some(shown) = column else {
            column = cells.iter().position(|cell| *cell == COLUMN);
            continue;
        };
        let cell = cells.get(shown).copied().unwrap_or_default();
        let claims: Vec<_> = ticked(cell).filter_map(|word| Some((word, claimed(word)?))).collect();
        let said = shown.checked_sub(1).and_then(|at| cells.get(at)).copied().unwrap_or_default();
        if said.starts_with("yes") && claims.is_empty() {
            findings.push(Finding::failure(&*place, "says yes, and nothing shows it"));
        }
        for (word, _) in claims.iter().filter(|(_, claim)| !claim.is_there(files)) {
            findings.push(Finding::failure(&*place, format!("nothing here is called `{word}`")));
        }
    }
    findings
}

/// The cells of a table's row; `None` for any other line.
fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(row.split('|').map(str::trim).collect())
}

/// What stands between backticks.
fn ticked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Tests have names of several words; one word is a type or a module.
fn is_test_name(name: &str) -> bool {
    name.contains('_') && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn has_function(file: &File, name: &str) -> bool {
    let begins = format!("fn {name}");
    file.text.match_indices(&begins).any(|(at, _)| {
        let rest = file.text.get(at + begins.len()..).unwrap_or_default();
        // A number stands for all that begins with it.
        rest.starts_with(['(', '<'])
            || (name.ends_with(|last: char| last.is_ascii_digit()) && rest.starts_with('_'))
    })
}

/// What a word in the column claims to be; others, such as the names of figures, are no claims.
fn claimed(word: &str) -> Option<Claim<'_>> {
    if let Some(command) = word.strip_prefix("cargo xtask ") {
        return command.split(' ').next().map(Claim::Command);
    }
    let path = word.contains('/') || has(word, "rs");
    if path && !word.contains(' ') {
        return Some(Claim::Path(word));
    }
    if let Some((_, last)) = word.rsplit_once("::") {
        return Some(if is_test_name(last) { Claim::Test(last) } else { Claim::Module(word) });
    }
    (is_test_name(word) && word.matches('_').count() >= 2).then_some(Claim::Test(word))
}

/// What shows something.
enum Claim<'a> {
    /// A command of `cargo xtask`.
    Command(&'a str),
    /// A module, by its path or the end of it; its last part may be one of tests within its file.
    Module(&'a str),
    /// A file or folder, by its path or the end of it.
    Path(&'a str),
    Test(&'a str),
}

impl Claim<'_> {
    fn is_there(&self, files: &[File]) -> bool {
        match *self {
            Self::Command(name) => {
                let name = name.replace('-', "_");
                let (file, folder) = (format!("xtask/src/{name}.rs"), format!("xtask/src/{name}/"));
                files.iter().any(|other| other.path == file || other.path.starts_with(&folder))
            }
            Self::Module(path) => {
                let path = path.replace("::", "/");
                let within = path.strip_suffix("/tests").unwrap_or(&path);
                let (file, folder) = (format!("/{within}.rs"), format!("/{within}/"));
                let is_it = |other: &File| other.path.ends_with(&file) || other.path.contains(&folder);
                files.iter().any(|other| other.is_rust() && is_it(other))
            }
            Self::Path(path) => {
                let path = path.trim_end_matches('/');
                let (end, folder) = (format!("/{path}"), format!("/{path}/"));
                files
                    .iter()
                    .map(|other| format!("/{}", other.path))
                    .any(|other| other.ends_with(&end) || other.contains(&folder))
            }
            Self::Test(name) => files.iter().any(|other| other.is_rust() && has_function(other, name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{File, check};

    fn words(table: &str) -> Vec<String> {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let files = [
            file("docs/a.md", table),
            file("crates/g/tests/driver/hostile.rs", "#[test]\nfn a_flood_is_stopped() {}\n"),
            file("crates/g/src/ws/mod.rs", ""),
            file("xtask/src/soak.rs", ""),
        ];
        check(&files).into_iter().map(|finding| finding.words).collect()
    }

    #[test]
    fn what_is_shown_must_be_there() {
        let head = "| feature | ours | shown by | theirs |\n|---|---|---|---|\n";
        for good in [
            "| a | yes | `a_flood_is_stopped`, `tests/driver/hostile.rs` | yes |",
            "| a | yes | `cargo xtask soak --long`, `ws::tests`, `0 wrong` | no |",
            "| a | yes | `hostile::a_flood_is_stopped`, `crates/g/tests` | no |",
            "| a | no | | yes |",
        ] {
            assert_eq!(words(&format!("{head}{good}\n")), Vec::<String>::new(), "{good}");
        }
        for bad in [
            "| a | yes | | yes |",
            "| a | yes | `a_flood_is` | yes |",
            "| a | yes | `tests/driver/kind.rs` | yes |",
            "| a | yes | `cargo xtask rest` | yes |",
            "| a | yes | `wss::tests` | yes |",
            "| a | yes | `hostile::a_flood_is_big` | yes |",
            "| a | yes | `flood` | yes |",
        ] {
            assert_eq!(words(&format!("{head}{bad}\n")).len(), 1, "{bad}");
        }
    }
}
