//! Newer releases, unpacked from Debian packages beside the system: nothing of the system changes.
//!
//! The packages come with the C library that they were built for, and the programs are patched to use it. Later suites move:
//! a release that is gone is skipped.

use std::fs;
use std::path::{Path, PathBuf};

use super::{check, folder};
use crate::debian::{self, files};
use crate::failure::{Failure, Outcome};
use crate::process::{output, program};

/// A release and where it comes from.
#[derive(Debug)]
pub(super) struct Release {
    /// Its folder under the folder of servers.
    pub(super) folder: &'static str,
    /// `redis` or `valkey`: the first part of the names of its programs and packages.
    family: &'static str,
    /// The suite of the server itself.
    suite: &'static str,
    /// A further suite, of the libraries.
    libraries: Option<&'static str>,
}

pub(super) const RELEASES: [Release; 3] = [
    Release { folder: "redis-8.6", family: "redis", suite: "experimental", libraries: Some("sid") },
    Release { folder: "redis-8.0", family: "redis", suite: "trixie", libraries: None },
    Release { folder: "valkey-8.1", family: "valkey", suite: "trixie", libraries: None },
];

/// All that the programs load; packages beyond a program's own needs do no harm.
const LIBRARIES: [&str; 11] = [
    "libatomic1",
    "libc6",
    "libcap2",
    "libgcc-s1",
    "libjemalloc2",
    "liblzf1",
    "libssl3t64",
    "libstdc++6",
    "libsystemd0",
    "libzstd1",
    "zlib1g",
];

pub(super) fn ensure(release: &Release) -> Outcome {
    let place = folder().join(release.folder);
    if check(&place.join("bin/server")).is_ok() {
        return Ok(());
    }
    debian::ensure_tools()?;
    println!("fetching {} from {} (8 MB)", release.folder, release.suite);
    // Programs are patched with absolute paths, so everything happens in its final place.
    let _nothing_there = fs::remove_dir_all(&place);
    let done = fetch(release, &place);
    if done.is_err() {
        let _partly_there = fs::remove_dir_all(&place);
    }
    done
}

fn fetch(release: &Release, place: &Path) -> Outcome {
    // The family's own programs are all in its tools package; the server's package is a service and its settings.
    let tools = format!("{}-tools/{}", release.family, release.suite);
    let packages: Vec<_> = std::iter::once(tools.as_str()).chain(LIBRARIES).collect();
    let suites: Vec<_> = release.libraries.into_iter().chain([release.suite]).collect();
    let root = debian::unpack(&suites, &packages, place)?;
    let programs = files(&root.join("usr/bin"))?;
    let loader = find_loader(&root).ok_or_else(|| Failure::new("the C library came without its loader"))?;
    let libraries = format!("{0}/usr/lib/x86_64-linux-gnu:{0}/lib/x86_64-linux-gnu", root.display());
    for file in programs.iter().filter(|file| !file.is_symlink()) {
        let mut patch = program("patchelf");
        patch.arg("--set-interpreter").arg(&loader).args(["--force-rpath", "--set-rpath", &libraries]);
        output(patch.arg(file))?;
    }
    let bin = place.join("bin");
    fs::create_dir_all(&bin).map_err(Failure::of("making folders"))?;
    for name in ["server", "cli"] {
        let target = root.join(format!("usr/bin/{}-{name}", release.family));
        // The tools package of some releases has the server only under the name of one of its other parts.
        let target =
            if target.exists() { target } else { root.join(format!("usr/bin/{}-check-rdb", release.family)) };
        std::os::unix::fs::symlink(target, bin.join(name)).map_err(Failure::of("linking the programs"))?;
    }
    let kind = check(&bin.join("server"))?;
    println!("got {kind}");
    Ok(())
}

fn find_loader(root: &Path) -> Option<PathBuf> {
    ["usr/lib64", "lib64", "usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]
        .iter()
        .map(|folder| root.join(folder).join("ld-linux-x86-64.so.2"))
        .find(|loader| loader.exists())
}
