//! Who writes a lone caller's command: the task that reads too, or the caller itself.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::{COMMAND, ROUNDS, cpu, median};

const COMMANDS: usize = 10_000;

/// What caller and task share.
struct Line {
    stream: TcpStream,
    queue: Mutex<Vec<u8>>,
    queued: Notify,
    answered: Notify,
}

/// CPU and wall microseconds for one command of one caller at a time.
pub(crate) async fn lone_caller(address: &str, by_caller: bool) -> (f64, f64) {
    let stream = TcpStream::connect(address).await.expect("the server listens");
    stream.set_nodelay(true).expect("a socket");
    let line =
        Arc::new(Line { stream, queue: Mutex::default(), queued: Notify::new(), answered: Notify::new() });
    let task = tokio::spawn(serve(Arc::clone(&line)));
    // As callers do, on a worker of the runtime.
    let caller = tokio::spawn(async move {
        let (mut cpus, mut walls) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (cpu_before, start) = (cpu(), Instant::now());
            for _ in 0..COMMANDS {
                let written =
                    by_caller && line.stream.try_write(COMMAND).is_ok_and(|count| count == COMMAND.len());
                if !written {
                    line.queue.lock().extend_from_slice(COMMAND);
                    line.queued.notify_one();
                }
                line.answered.notified().await;
            }
            cpus.push((cpu() - cpu_before).as_nanos() as f64 / 1e3 / COMMANDS as f64);
            walls.push(start.elapsed().as_nanos() as f64 / 1e3 / COMMANDS as f64);
        }
        (median(cpus), median(walls))
    });
    let figures = caller.await.expect("the caller does not panic");
    task.abort();
    figures
}

/// Writes what is queued, reads what comes, and wakes the caller.
async fn serve(line: Arc<Line>) {
    let mut read = [0; 4096];
    loop {
        tokio::select! {
            biased;
            () = line.queued.notified() => {
                let bytes = std::mem::take(&mut *line.queue.lock());
                let written = line.stream.try_write(&bytes).expect("one command always fits");
                assert_eq!(written, bytes.len());
            }
            ready = line.stream.readable() => {
                ready.expect("a socket");
                match line.stream.try_read(&mut read) {
                    Ok(0) => return,
                    Ok(_) => line.answered.notify_one(),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => panic!("the server answers: {error}"),
                }
            }
        }
    }
}
