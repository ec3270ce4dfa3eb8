//! `cargo xtask tidy`: the rules of the house that a program can check.
//!
//! A *failure* breaks the build; a *remark* is printed for a person to judge.

mod edges;
mod evidence;
mod features;
mod links;
mod names;
mod shape;
mod source;
mod text;

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};
use crate::process::{output, program, root};

/// Arguments of `tidy`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Prints only what fails
    #[arg(long)]
    quiet: bool,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    place: String,
    words: String,
    fails: bool,
}

impl Finding {
    fn failure(place: impl Into<String>, words: impl Into<String>) -> Self {
        Self { place: place.into(), words: words.into(), fails: true }
    }

    fn remark(place: impl Into<String>, words: impl Into<String>) -> Self {
        Self { fails: false, ..Self::failure(place, words) }
    }
}

/// A file of ours.
#[derive(Debug)]
struct File {
    /// Relative to the root, with forward slashes.
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|extension| extension == "rs")
    }

    /// Whether it ships, or drives the workspace: tests, benches and examples have fewer rules.
    fn is_source(&self) -> bool {
        self.is_rust()
            && (self.path.starts_with("crates/") || self.path.starts_with("xtask/"))
            && self.path.contains("/src/")
    }

    fn is_generated(&self) -> bool {
        self.text.lines().take(3).any(|line| line.contains(concat!("@", "generated")))
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let files = files()?;
    let mut findings = edges::check()?;
    findings.extend(features::check(&files)?);
    findings.extend(evidence::check(&files));
    findings.extend(links::check(&files));
    for file in &files {
        findings.extend(text::check(file));
        if file.is_rust() {
            findings.extend(shape::check(file));
            findings.extend(names::check(file));
        }
    }
    let failures = findings.iter().filter(|finding| finding.fails).count();
    for finding in findings.iter().filter(|finding| finding.fails || !args.quiet) {
        let word = if finding.fails { "tidy" } else { "tidy remarks" };
        println!("{word}: {}: {}", finding.place, finding.words);
    }
    println!("tidy: {} files, {failures} failures, {} remarks", files.len(), findings.len() - failures);
    if failures == 0 { Ok(()) } else { Err(Failure::new(format!("{failures} failures"))) }
}

/// Returns the text files of the repository, those not yet committed too.
fn files() -> Outcome<Vec<File>> {
    let list = output(program("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    let mut files = Vec::new();
    for path in list.lines() {
        let full: PathBuf = root().join(path);
        // Deleted but not yet committed, a picture, or a link to a folder: nothing to read.
        if let Ok(text) = fs::read_to_string(&full) {
            files.push(File { path: path.to_owned(), text });
        }
    }
    Ok(files)
}
