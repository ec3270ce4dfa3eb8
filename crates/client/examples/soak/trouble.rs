//! `Troublemaker`: something happens to the server or to the way to it, every few seconds.

use std::{sync::Arc, time::Duration};

use evenkeel_testkit::{
    launcher::Single,
    proxy::{Direction, ProxyHandle, Rules},
};

use crate::{Failure, tally::Tally};

/// Between two troubles.
const EVERY: Duration = Duration::from_secs(5);
/// How long a trouble lasts that has a length.
const LASTS: Duration = Duration::from_millis(1500);

const BOTH: [Direction; 2] = [Direction::ToServer, Direction::ToClient];

/// Every kind of trouble.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Blackhole,
    ClientKill,
    Close,
    Delay,
    Pause,
    Refuse,
    Reset,
    Sigkill,
    Sigstop,
    Slices,
}

const TROUBLES: [Trouble; 10] = [
    Trouble::Blackhole,
    Trouble::ClientKill,
    Trouble::Close,
    Trouble::Delay,
    Trouble::Pause,
    Trouble::Refuse,
    Trouble::Reset,
    Trouble::Sigkill,
    Trouble::Sigstop,
    Trouble::Slices,
];

impl Trouble {
    fn name(self) -> &'static str {
        match self {
            Self::Blackhole => "blackhole",
            Self::ClientKill => "client_kill",
            Self::Close => "close",
            Self::Delay => "delay",
            Self::Pause => "pause",
            Self::Refuse => "refuse",
            Self::Reset => "reset",
            Self::Sigkill => "sigkill",
            Self::Sigstop => "sigstop",
            Self::Slices => "slices",
        }
    }
}

pub(crate) struct Troublemaker {
    server: Arc<Single>,
    way: ProxyHandle,
}

impl Troublemaker {
    pub(crate) fn new(server: Arc<Single>, way: ProxyHandle) -> Self {
        Self { server, way }
    }

    /// Makes trouble until the load ends; leaves the server running and the way free.
    pub(crate) async fn run(&self, tally: &Tally) -> Result<(), Failure> {
        let mut draw = fastrand::Rng::new();
        while tally.goes_on() {
            tokio::time::sleep(EVERY).await;
            let Some(trouble) = draw.choice(TROUBLES).filter(|_| tally.goes_on()) else { break };
            tally.begins(trouble.name());
            self.make(trouble).await?;
            tally.made(trouble.name());
        }
        Ok(())
    }

    async fn make(&self, trouble: Trouble) -> Result<(), Failure> {
        let (nodes, addr) = (self.server.nodes(), self.server.addr());
        match trouble {
            Trouble::Blackhole => {
                for direction in BOTH {
                    self.way.set(direction, Rules::new().blackhole());
                }
                tokio::time::sleep(LASTS).await;
                // What was swallowed is missing: a connection that went on would be out of step through no fault of its own.
                self.way.reset_all();
                self.way.clear();
            }
            Trouble::ClientKill => {
                self.server.command(&["CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "YES"]).await?;
            }
            Trouble::Close => drop(self.way.close_all()),
            Trouble::Delay => self.under(|| Rules::new().jitter(Duration::from_millis(5))).await,
            Trouble::Pause => {
                let millis = LASTS.as_millis().to_string();
                self.server.command(&["CLIENT", "PAUSE", &millis, "ALL"]).await?;
            }
            Trouble::Refuse => {
                self.way.refuse().await?;
                self.way.reset_all();
                tokio::time::sleep(LASTS).await;
                self.way.accept().await?;
            }
            Trouble::Reset => drop(self.way.reset_all()),
            Trouble::Sigkill => {
                nodes.kill(addr).await?;
                nodes.restart(addr).await?;
            }
            Trouble::Sigstop => {
                nodes.stop(addr)?;
                tokio::time::sleep(LASTS).await;
                nodes.cont(addr)?;
            }
            Trouble::Slices => self.under(|| Rules::new().slice(7)).await,
        }
        Ok(())
    }

    async fn under(&self, rules: impl Fn() -> Rules) {
        for direction in BOTH {
            self.way.set(direction, rules());
        }
        tokio::time::sleep(LASTS).await;
        self.way.clear();
    }
}
