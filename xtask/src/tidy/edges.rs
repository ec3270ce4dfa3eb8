//! Which of our crates may depend on which.

use cargo_metadata::{DependencyKind, MetadataCommand};

use super::Finding;
use crate::failure::{Failure, Outcome};
use crate::process::root;

/// Each crate with what it may depend on; the levels of ARCHITECTURE.md. Tests may use the testkit besides.
const ALLOWED: [(&str, &[&str]); 10] = [
    ("evenkeel-protocol", &[]),
    ("evenkeel-pool", &["evenkeel-protocol"]),
    ("evenkeel-topology", &["evenkeel-pool", "evenkeel-protocol"]),
    ("evenkeel-hitless", &["evenkeel-pool", "evenkeel-protocol"]),
    ("evenkeel-client", &["evenkeel-hitless", "evenkeel-pool", "evenkeel-protocol", "evenkeel-topology"]),
    ("evenkeel-gateway", &["evenkeel-client"]),
    (
        "evenkeel",
        &[
            "evenkeel-client",
            "evenkeel-gateway",
            "evenkeel-hitless",
            "evenkeel-pool",
            "evenkeel-protocol",
            "evenkeel-topology",
        ],
    ),
    ("evenkeel-cli", &["evenkeel", "evenkeel-testkit"]),
    ("evenkeel-testkit", &["evenkeel-protocol"]),
    ("xtask", &["evenkeel-protocol", "evenkeel-testkit"]),
];
const TESTKIT: &str = "evenkeel-testkit";

pub(super) fn check() -> Outcome<Vec<Finding>> {
    let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec();
    let metadata = metadata.map_err(Failure::of("cargo metadata"))?;
    let mut findings = Vec::new();
    for package in &metadata.packages {
        for dependency in package.dependencies.iter().filter(|dependency| dependency.path.is_some()) {
            let for_tests = dependency.kind == DependencyKind::Development;
            if let Some(words) = forbidden(&package.name, &dependency.name, for_tests) {
                findings.push(Finding::failure(package.manifest_path.as_str(), words));
            }
        }
    }
    Ok(findings)
}

fn forbidden(from: &str, to: &str, for_tests: bool) -> Option<String> {
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == from) else {
        return Some(format!("{from} has no place among the levels of crates (xtask/src/tidy/edges.rs)"));
    };
    let is_allowed = allowed.contains(&to) || (for_tests && (to == TESTKIT || to == from));
    (!is_allowed).then(|| format!("{from} must not depend on {to}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_go_downwards_only() {
        assert_eq!(forbidden("evenkeel-pool", "evenkeel-protocol", false), None);
        assert!(forbidden("evenkeel-protocol", "evenkeel-pool", false).is_some());
        assert!(forbidden("evenkeel-topology", "evenkeel-hitless", false).is_some());
        assert!(forbidden("evenkeel-newcomer", "evenkeel-pool", false).is_some());
    }

    #[test]
    fn the_testkit_is_for_tests() {
        assert_eq!(forbidden("evenkeel-protocol", "evenkeel-testkit", true), None);
        assert!(forbidden("evenkeel-protocol", "evenkeel-testkit", false).is_some());
    }
}
