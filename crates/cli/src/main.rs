//! The program `evenkeel`.

fn main() {}
