//! The feature table in a crate's documentation against its manifest.

use cargo_metadata::MetadataCommand;

use super::{File, Finding};
use crate::failure::{Failure, Outcome};
use crate::process::root;

pub(super) fn check(files: &[File]) -> Outcome<Vec<Finding>> {
    let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec();
    let metadata = metadata.map_err(Failure::of("cargo metadata"))?;
    let mut findings = Vec::new();
    for package in &metadata.packages {
        let Some(folder) = package.manifest_path.parent() else { continue };
        let folder = folder.strip_prefix(root()).map_or(folder.as_str(), |folder| folder.as_str());
        let library = format!("{folder}/src/lib.rs");
        let Some(file) = files.iter().find(|file| file.path == library) else { continue };
        let declared: Vec<&str> =
            package.features.keys().map(String::as_str).filter(|feature| *feature != "default").collect();
        findings.extend(compare(&library, &file.text, &declared));
    }
    Ok(findings)
}

/// The table's rows read ``//! | `name` | ... |`` and stand under a header whose first cell is `feature`.
fn compare(path: &str, text: &str, declared: &[&str]) -> Vec<Finding> {
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("//! |"))
        .skip_while(|row| !row.trim().starts_with("feature"));
    // Words may stand behind the name: "`tokio` (default)".
    let described: Vec<&str> =
        rows.filter_map(|row| row.trim().strip_prefix('`')?.split('`').next()).collect();
    let missing = declared.iter().filter(|feature| !described.contains(feature));
    let missing =
        missing.map(|feature| Finding::remark(path, format!("the feature table does not have `{feature}`")));
    let unknown = described.iter().filter(|feature| !declared.contains(feature));
    let unknown = unknown.map(|feature| {
        Finding::remark(path, format!("the feature table has `{feature}`, Cargo.toml does not"))
    });
    missing.chain(unknown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCS: &str = "//! Words.\n//!\n//! | feature | what |\n//! |---|---|\n//! | `tokio` (default) | drivers |\n//! | `old` | gone |\n";

    #[test]
    fn the_table_has_every_feature_and_no_other() {
        let words: Vec<_> =
            compare("x", DOCS, &["tokio", "tls"]).into_iter().map(|finding| finding.words).collect();
        assert_eq!(
            words,
            ["the feature table does not have `tls`", "the feature table has `old`, Cargo.toml does not"]
        );
        assert_eq!(compare("x", DOCS, &["old", "tokio"]), []);
        assert_eq!(compare("x", "//! No features, no table.\n", &[]), []);
    }
}
