//! Looks for hiredis: its rows are measured where the library is installed, and skipped with a reason elsewhere.

use std::path::Path;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(hiredis)");
    println!("cargo::rerun-if-changed=/usr/include/hiredis/hiredis.h");
    if Path::new("/usr/include/hiredis/hiredis.h").exists() {
        println!("cargo::rustc-cfg=hiredis");
        println!("cargo::rustc-link-lib=hiredis");
    }
}
