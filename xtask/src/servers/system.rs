//! Redis of the system's own packages, or the program that `EVENKEEL_REDIS_SERVER` names.

use std::env;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;

use super::check;
use crate::failure::{Failure, Outcome};
use crate::process::{is_installed, output, program};

const PACKAGE: &str = "redis-server";

/// Installs redis-server when there is none and we may; says what to do when we may not.
pub(super) fn ensure() -> Outcome {
    if let Some(named) = env::var_os("EVENKEEL_REDIS_SERVER").filter(|path| !path.is_empty()) {
        let kind = check(Path::new(&named)).map_err(Failure::of("EVENKEEL_REDIS_SERVER"))?;
        return if kind.name() == "redis" {
            Ok(())
        } else {
            Err(Failure::new(format!("EVENKEEL_REDIS_SERVER names {kind}, not a Redis")))
        };
    }
    if is_installed(PACKAGE) {
        return Ok(());
    }
    let advice = "install redis-server, or name a program with EVENKEEL_REDIS_SERVER";
    if !is_installed("apt-get") {
        return Err(Failure::new(format!("there is no apt-get here: {advice}")));
    }
    if !is_root() {
        return Err(Failure::new(format!("not root: {advice} (sudo apt-get install redis-server)")));
    }
    let was_served = is_served();
    install(&[PACKAGE])?;
    if !was_served && is_served() {
        // The package starts its service; the suites start servers of their own and want nothing else to run.
        output(program("service").args([PACKAGE, "stop"]))?;
    }
    if is_installed(PACKAGE) {
        Ok(())
    } else {
        Err(Failure::new("the package redis-server has no redis-server"))
    }
}

/// Installs packages of the system; reads its lists again once, when they are missing or too old.
/// Installs packages; speaks on stderr, since a bench keeps stdout for its figures.
pub(crate) fn install(packages: &[&str]) -> Outcome {
    eprintln!("installing {} by apt", packages.join(", "));
    let install = || {
        let mut command = program("apt-get");
        command.args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        output(&mut command)
    };
    if install().is_err() {
        eprintln!("reading the lists of packages");
        output(program("apt-get").args(["update", "-qq"]))?;
        install()?;
    }
    Ok(())
}

pub(crate) fn is_root() -> bool {
    output(program("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

fn is_served() -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, 6379)).is_ok()
}
