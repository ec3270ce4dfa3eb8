//! The publisher of the pub/sub row: a process of its own, beside the server, so that its CPU time is nobody's.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

/// Messages in one write.
const WRITE: u64 = 512;

/// Starts this program again as the publisher.
pub(crate) fn start(address: &str, channel: &str, messages: u64) -> Child {
    let program = std::env::current_exe().expect("a program knows its own path");
    let mut command = Command::new(program);
    command.args(["publish", address, channel, &messages.to_string()]).stdout(Stdio::null());
    command.spawn().expect("the publisher starts")
}

/// Publishes, as fast as the server takes it. On the server's core, where `EVENKEEL_BENCH_SERVER_CORE` names one.
pub(crate) fn run(address: &str, channel: &str, messages: u64) -> std::io::Result<()> {
    if let Some(core) = std::env::var("EVENKEEL_BENCH_SERVER_CORE").ok().and_then(|core| core.parse().ok()) {
        let mut set = rustix::thread::CpuSet::new();
        set.set(core);
        // Where it is not allowed the scheduler decides, as it does for everybody then.
        let _refused = rustix::thread::sched_setaffinity(None, &set);
    }
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let one =
        format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n$64\r\n{}\r\n", channel.len(), "x".repeat(64));
    let mut left = messages;
    let mut replies = vec![0u8; 4 * WRITE as usize];
    while left > 0 {
        let now = left.min(WRITE);
        stream.write_all(one.repeat(now as usize).as_bytes())?;
        // `:1\r\n` for each.
        stream.read_exact(&mut replies[..4 * now as usize])?;
        left -= now;
    }
    Ok(())
}
