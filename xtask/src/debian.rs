//! Packages of other Debian releases, unpacked beside the system: nothing of the system changes.
//!
//! apt resolves and verifies, against the archive keys that the system already trusts, with a configuration whose state
//! lives in a folder of ours and whose list of installed packages is empty.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Failure, Outcome};
use crate::process::{is_installed, output, program};
use crate::servers::system::{install, is_root};

const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Fails unless packages can be unpacked here and their programs patched.
pub(crate) fn ensure_tools() -> Outcome {
    if !is_installed("apt-get") || !is_root() || !Path::new(KEYS).exists() {
        return Err(Failure::new("needs root on a Debian"));
    }
    if !is_installed("patchelf") {
        install(&["patchelf"])?;
    }
    Ok(())
}

/// Unpacks `packages` of `suites` into `place/root`, and returns that folder.
pub(crate) fn unpack(suites: &[&str], packages: &[&str], place: &Path) -> Outcome<PathBuf> {
    let (apt, archives, root) = (place.join("apt"), place.join("packages"), place.join("root"));
    for folder in [&archives, &root] {
        fs::create_dir_all(folder).map_err(Failure::of("making folders"))?;
    }
    configure_apt(suites, &apt)?;
    output(program("apt-get").args(["-qq", "update"]).env("APT_CONFIG", apt.join("apt.conf")))?;
    let mut download = Command::new("apt-get");
    download.current_dir(&archives).env("APT_CONFIG", apt.join("apt.conf"));
    output(download.args(["-qq", "download"]).args(packages))?;
    for package in files(&archives)? {
        output(program("dpkg-deb").arg("--extract").arg(&package).arg(&root))?;
    }
    for folder in [&apt, &archives] {
        fs::remove_dir_all(folder).map_err(Failure::of("removing what is not needed any more"))?;
    }
    Ok(root)
}

/// Writes a configuration under which apt uses nothing of the system but its keys and its own package source.
fn configure_apt(suites: &[&str], apt: &Path) -> Outcome {
    for folder in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(folder)).map_err(Failure::of("making apt's folders"))?;
    }
    let source = system_source()?;
    let mut sources = String::new();
    for suite in suites {
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

/// The files of a folder, in their order.
pub(crate) fn files(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(Failure::of("reading a folder"))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    Ok(files)
}
