//! How much of a wave goes into one write: all of it, or at most so many commands.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::{COMMAND, ROUNDS, cpu, median};

/// CPU nanoseconds of this process and wall nanoseconds, for one command.
pub(crate) struct Cost {
    pub(crate) cpu: f64,
    pub(crate) wall: f64,
}

/// Waves of `wave` commands, each written in pieces of at most `cap` commands and answered before the next.
pub(crate) fn capped(stream: &mut TcpStream, wave: usize, cap: usize) -> Cost {
    let whole = COMMAND.repeat(wave);
    let waves = (200_000 / wave).max(4);
    let mut read = vec![0; 64 * 1024];
    let (mut cpus, mut walls) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (cpu_before, start) = (cpu(), Instant::now());
        for _ in 0..waves {
            for piece in whole.chunks(cap * COMMAND.len()) {
                stream.write_all(piece).expect("the server takes it");
            }
            // The key is not there: each answer is `$-1` or, in RESP3, `_`; here it is the former.
            let mut owed = wave * b"$-1\r\n".len();
            while owed > 0 {
                let count = stream.read(&mut read).expect("the server answers");
                assert!(count > 0, "the server has closed");
                owed = owed.checked_sub(count).expect("no more than was asked for");
            }
        }
        let commands = (waves * wave) as f64;
        cpus.push((cpu() - cpu_before).as_nanos() as f64 / commands);
        walls.push(start.elapsed().as_nanos() as f64 / commands);
    }
    Cost { cpu: median(cpus), wall: median(walls) }
}
