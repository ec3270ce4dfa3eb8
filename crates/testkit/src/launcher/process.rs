//! One child process: started so that it cannot outlive us, ended by pid.

use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Time that a server gets between SIGTERM and SIGKILL: five of its 100 ms cron rounds.
const TERM_ROUNDS: u32 = 100;
const TERM_ROUND: Duration = Duration::from_millis(5);

/// A running child process.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
}

impl Process {
    /// Starts `program` with `arguments`; `prepare` sets folder and output.
    pub(super) fn spawn(
        program: &std::path::Path,
        arguments: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> io::Result<Self> {
        let mut command = match setpriv() {
            // setpriv replaces itself by the program, so the pid is the server's.
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(arguments);
        prepare(&mut command);
        spawn_on_lasting_thread(command).map(|child| Self { child })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal. The child is not reaped before `self` goes, so the pid cannot be another's.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        kill_process(Pid::from_child(&self.child), signal).map_err(io::Error::from)
    }

    /// Returns how the process ended, or `None` while it runs.
    pub(super) fn exited(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Asks the process to end; does not wait. A stopped process is woken so that it can.
    pub(super) fn ask_to_end(&self) {
        // An error here means that it has ended already.
        let _ended = self.signal(Signal::TERM);
        let _ended = self.signal(Signal::CONT);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.ask_to_end();
        for _ in 0..TERM_ROUNDS {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            thread::park_timeout(TERM_ROUND);
        }
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The kernel sends the death signal when the *thread* that started a child ends, and test threads end
/// before shared servers do. So every child is started by one thread that lives as long as this process.
fn spawn_on_lasting_thread(command: Command) -> io::Result<Child> {
    struct Order {
        command: Command,
        result: SyncSender<io::Result<Child>>,
    }
    static SPAWNER: OnceLock<Option<SyncSender<Order>>> = OnceLock::new();

    let gone = || io::Error::other("the thread that starts servers is gone");
    let spawner = SPAWNER.get_or_init(|| {
        let (tx, rx) = sync_channel::<Order>(16);
        let thread = thread::Builder::new().name("evenkeel-spawner".into()).spawn(move || {
            for mut order in rx {
                let child = order.command.spawn();
                // Nobody waits for the result any more: the child, if any, is ended here.
                if let Err(unsent) = order.result.send(child)
                    && let Ok(mut child) = unsent.0
                {
                    let _ended = child.kill();
                    let _status = child.wait();
                }
            }
        });
        thread.ok().map(|_handle| tx)
    });
    let (result, child) = sync_channel(1);
    spawner.as_ref().ok_or_else(gone)?.send(Order { command, result }).map_err(|_unsent| gone())?;
    child.recv().map_err(|_disconnected| gone())?
}

fn setpriv() -> Option<&'static PathBuf> {
    static SETPRIV: OnceLock<Option<PathBuf>> = OnceLock::new();
    SETPRIV.get_or_init(|| super::kind::find_in_path("setpriv")).as_ref()
}
