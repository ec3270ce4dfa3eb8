//! Files whose name says nothing, and attributes that hide something.

use super::source::{code_only, lines_with};
use super::{File, Finding};

const EMPTY_NAMES: [&str; 4] = ["common.rs", "helpers.rs", "types.rs", "utils.rs"];
const ATTRIBUTES: [(&str, &str); 4] = [
    ("#[allow(", "`expect` tells when its reason is gone; `allow` does not"),
    ("#![allow(", "`expect` tells when its reason is gone; `allow` does not"),
    ("#[ignore", "a test that does not run is not a test"),
    ("#[should_panic", "look at what failed, not that something did"),
];

pub(super) fn check(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let name = file.path.rsplit('/').next().unwrap_or_default();
    if EMPTY_NAMES.contains(&name) {
        findings.push(Finding::failure(&file.path, "the name does not say what is in it"));
    }
    let code = code_only(&file.text);
    for (attribute, words) in ATTRIBUTES {
        for line in lines_with(&code, attribute) {
            findings.push(Finding::failure(format!("{}:{line}", file.path), words));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_in_code_and_not_in_comments() {
        let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
        assert_eq!(check(&file("a.rs", "// #[allow(x)]\n\"#[ignore]\"\n")), []);
        assert_eq!(check(&file("a.rs", "#[allow(dead_code)]\n#[ignore]\nfn a() {}\n")).len(), 2);
        assert_eq!(check(&file("a/utils.rs", "")).len(), 1);
    }
}
