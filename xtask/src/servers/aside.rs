//! Newer releases, unpacked from Debian packages beside the system: nothing of the system changes.
//!
//! apt resolves and verifies, against the archive keys that the system already trusts, with a configuration whose state
//! lives in a folder of ours and whose list of installed packages is empty. The packages come with the C library that they were
//! built for, and the programs are patched to use it. Later suites move: a release that is gone is skipped.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::system::{install, is_root};
use super::{check, folder};
use crate::failure::{Failure, Outcome};
use crate::process::{is_installed, output, program};

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
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

pub(super) fn ensure(release: &Release) -> Outcome {
    let place = folder().join(release.folder);
    if check(&place.join("bin/server")).is_ok() {
        return Ok(());
    }
    if !is_installed("apt-get") || !is_root() || !Path::new(KEYS).exists() {
        return Err(Failure::new("needs root on a Debian"));
    }
    if !is_installed("patchelf") {
        install(&["patchelf"])?;
    }
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
    let io = |what: &'static str| move |error: std::io::Error| Failure::of(what)(error);
    let apt = place.join("apt");
    let packages = place.join("packages");
    let root = place.join("root");
    for folder in [&packages, &root] {
        fs::create_dir_all(folder).map_err(io("making folders"))?;
    }
    configure_apt(release, &apt)?;
    output(program("apt-get").args(["-qq", "update"]).env("APT_CONFIG", apt.join("apt.conf")))?;
    let mut download = Command::new("apt-get");
    download.current_dir(&packages).env("APT_CONFIG", apt.join("apt.conf"));
    // The family's own programs are all in its tools package; the server's package is a service and its settings.
    download.args(["-qq", "download"]).arg(format!("{}-tools/{}", release.family, release.suite));
    output(download.args(LIBRARIES))?;
    for package in files(&packages)? {
        output(program("dpkg-deb").arg("--extract").arg(&package).arg(&root))?;
    }
    let programs = files(&root.join("usr/bin"))?;
    let loader = find_loader(&root).ok_or_else(|| Failure::new("the C library came without its loader"))?;
    let libraries = format!("{0}/usr/lib/x86_64-linux-gnu:{0}/lib/x86_64-linux-gnu", root.display());
    for file in programs.iter().filter(|file| !file.is_symlink()) {
        let mut patch = program("patchelf");
        patch.arg("--set-interpreter").arg(&loader).args(["--force-rpath", "--set-rpath", &libraries]);
        output(patch.arg(file))?;
    }
    let bin = place.join("bin");
    fs::create_dir_all(&bin).map_err(io("making folders"))?;
    for name in ["server", "cli"] {
        let target = root.join(format!("usr/bin/{}-{name}", release.family));
        // The tools package of some releases has the server only under the name of one of its other parts.
        let target =
            if target.exists() { target } else { root.join(format!("usr/bin/{}-check-rdb", release.family)) };
        std::os::unix::fs::symlink(target, bin.join(name)).map_err(io("linking the programs"))?;
    }
    for folder in [&apt, &packages] {
        fs::remove_dir_all(folder).map_err(io("removing what is not needed any more"))?;
    }
    let kind = check(&bin.join("server"))?;
    println!("got {kind}");
    Ok(())
}

/// Writes a configuration under which apt uses nothing of the system but its keys and its own package source.
fn configure_apt(release: &Release, apt: &Path) -> Outcome {
    for folder in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(folder)).map_err(Failure::of("making apt's folders"))?;
    }
    let source = system_source()?;
    let mut sources = String::new();
    for suite in release.libraries.iter().chain([&release.suite]) {
        // Writing to a string does not fail.
        let _written = writeln!(sources, "deb [signed-by={KEYS}] {source} {suite} main");
    }
    let at = apt.display();
    let settings = format!(
        "Dir::State \"{at}\";\nDir::State::status \"{at}/status\";\nDir::State::lists \"{at}/lists\";\nDir::Cache \"{at}/cache\";\n\
         Dir::Etc::sourcelist \"{at}/sources.list\";\nDir::Etc::sourceparts \"/dev/null\";\n\
         Dir::Etc::preferences \"/dev/null\";\nDir::Etc::preferencesparts \"/dev/null\";\n\
         APT::Sandbox::User \"root\";\nAPT::Update::Error-Mode \"any\";\nAcquire::Languages \"none\";\nAcquire::Retries \"3\";\n"
    );
    for (name, content) in [("status", ""), ("sources.list", &sources), ("apt.conf", &settings)] {
        fs::write(apt.join(name), content).map_err(Failure::of("writing apt's configuration"))?;
    }
    Ok(())
}

/// Returns the address that the system's own packages come from: the first that is not the one of security updates.
fn system_source() -> Outcome<String> {
    let list = output(program("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(CODENAME)",
        "Created-By: Packages",
    ]))?;
    let main =
        list.lines().filter_map(|line| line.split_once(' ')).find(|(_, codename)| !codename.contains('-'));
    main.map(|(uri, _)| uri.to_owned()).ok_or_else(|| Failure::new("apt names no source of packages"))
}

fn files(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(Failure::of("reading a folder"))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    Ok(files)
}

fn find_loader(root: &Path) -> Option<PathBuf> {
    ["usr/lib64", "lib64", "usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]
        .iter()
        .map(|folder| root.join(folder).join("ld-linux-x86-64.so.2"))
        .find(|loader| loader.exists())
}
