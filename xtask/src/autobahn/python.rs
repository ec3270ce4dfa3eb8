//! The suite and a Python that runs it, in a folder of ours.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::debian::{self, files};
use crate::failure::{Failure, Outcome};
use crate::process::{output, program, target_dir};

/// Pinned: a later one may have other cases.
const SUITE: &str = "autobahntestsuite==25.10.1";

/// The last Debian that had a Python 2.7.
const SUITE_OF_PYTHON: &str = "bullseye";
/// It, what its modules load, and what pip needs to build others for it.
const PACKAGES: [&str; 14] = [
    "libbz2-1.0",
    "libdb5.3",
    "libexpat1",
    "libffi7",
    "libpython2.7-dev",
    "libpython2.7-minimal",
    "libpython2.7-stdlib",
    "libreadline8",
    "libsqlite3-0",
    "libssl1.1",
    "python-pip-whl",
    "python2.7",
    "python2.7-minimal",
    "zlib1g",
];

/// The suite, ready to run.
#[derive(Debug)]
pub(super) struct Suite {
    pub(super) python: PathBuf,
    /// Where its packages are.
    pub(super) packages: PathBuf,
    /// Where its files go.
    pub(super) folder: PathBuf,
}

/// Finds a Python 2.7 and gives it the suite, once.
pub(super) fn ensure() -> Outcome<Suite> {
    let folder = target_dir().join("autobahn");
    let python = find().map_or_else(|| unpacked(&folder.join("python")), Ok)?;
    let packages = folder.join("packages");
    let installed = folder.join("installed");
    if fs::read_to_string(&installed).is_ok_and(|suite| suite == SUITE) {
        return Ok(Suite { python, packages, folder });
    }
    println!("installing {SUITE} by pip (half a minute)");
    // Half an installation is of no use.
    let _nothing_there = fs::remove_dir_all(&packages);
    fs::create_dir_all(&packages).map_err(Failure::of("making a folder for the suite"))?;
    let mut pip = program(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]);
    output(pip.arg(&packages).arg(SUITE))?;
    fs::write(&installed, SUITE).map_err(Failure::of("noting that the suite is there"))?;
    Ok(Suite { python, packages, folder })
}

fn find() -> Option<PathBuf> {
    let named = env::var_os("EVENKEEL_PYTHON27").filter(|name| !name.is_empty()).map(PathBuf::from);
    named
        .into_iter()
        .chain(["python2.7", "python2"].map(PathBuf::from))
        .chain(managed())
        .find(|python| is_fit(python))
}

/// Those under pyenv, whose own `python2.7` answers only where a project chose it.
fn managed() -> Vec<PathBuf> {
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".pyenv"));
    let Some(root) = env::var_os("PYENV_ROOT").map(PathBuf::from).or_else(home) else { return Vec::new() };
    let versions = fs::read_dir(root.join("versions")).into_iter().flatten().flatten();
    let mut found: Vec<_> = versions.map(|version| version.path().join("bin/python2.7")).collect();
    found.retain(|python| python.is_file());
    found.sort();
    found
}

/// One from Debian packages, unpacked beside the system, whose C library is newer and serves it too.
fn unpacked(place: &Path) -> Outcome<PathBuf> {
    let python = place.join("root/usr/bin/python2.7");
    if is_fit(&python) {
        return Ok(python);
    }
    let why = "there is no Python 2.7 with pip on PATH, under pyenv or by EVENKEEL_PYTHON27, and none can be unpacked";
    debian::ensure_tools().map_err(Failure::of(why))?;
    println!("fetching Python 2.7 from {SUITE_OF_PYTHON} (10 MB)");
    let _nothing_there = fs::remove_dir_all(place);
    fetch(place).map_err(Failure::of(why))?;
    if is_fit(&python) { Ok(python) } else { Err(Failure::new(format!("{why}: it does not run here"))) }
}

fn fetch(place: &Path) -> Outcome {
    let root = debian::unpack(&[SUITE_OF_PYTHON], &PACKAGES, place)?;
    let libraries = format!("{0}/usr/lib/x86_64-linux-gnu:{0}/lib/x86_64-linux-gnu", root.display());
    let mut patch = program("patchelf");
    patch.args(["--force-rpath", "--set-rpath", &libraries]);
    output(patch.arg(root.join("usr/bin/python2.7")))?;
    // pip and what it is made of come as wheels, and build other packages only once they are unpacked.
    let packages = root.join("usr/lib/python2.7/dist-packages");
    for wheel in files(&root.join("usr/share/python-wheels"))? {
        output(program("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&packages))?;
    }
    Ok(())
}

/// Whether it is a Python 2.7 that has pip.
fn is_fit(python: &Path) -> bool {
    let check = "import sys, pip; sys.exit(sys.version_info[:2] != (2, 7))";
    output(program(python).args(["-c", check])).is_ok()
}
