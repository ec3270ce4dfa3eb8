//! `Server`: the other process, as the load sees it.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::{
    Failure,
    plan::{Plan, Target, Trouble},
};

/// What the server has counted since it started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: u64,
    pub(crate) open: u64,
}

/// The server's process; it ends with this.
pub(crate) struct Server {
    url: String,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Server {
    pub(crate) async fn start() -> Result<Self, Failure> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let orders = process.stdin.take().ok_or("no way to the server")?;
        let answers = BufReader::new(process.stdout.take().ok_or("no way from the server")?).lines();
        let mut server = Self { url: String::new(), orders, answers, _process: process };
        server.url = server.answer("ready").await?;
        Ok(server)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    async fn answer(&mut self, kind: &str) -> Result<String, Failure> {
        let line = self.answers.next_line().await?.ok_or("the server has ended")?;
        let rest = line.strip_prefix(kind).ok_or_else(|| format!("the server said {line:?}"))?;
        Ok(rest.trim().to_owned())
    }

    async fn order(&mut self, order: &str) -> Result<(), Failure> {
        self.orders.write_all(format!("{order}\n").as_bytes()).await?;
        Ok(self.orders.flush().await?)
    }

    /// Begins the trouble; `from` is the address that is in use.
    pub(crate) async fn begin(&mut self, plan: &Plan, from: usize) -> Result<(), Failure> {
        let grace = plan.grace.as_millis();
        match plan.trouble {
            Trouble::Move { target, flip_at, copies, withhold } => {
                let target = match target {
                    Target::Dead => "dead",
                    Target::Named => "named",
                    Target::Null => "null",
                };
                let (to, withhold) = (1 - from, withhold.as_millis());
                self.order(&format!("move {from} {to} {grace} {target} {flip_at} {copies} {withhold}")).await
            }
            Trouble::Stall => self.order(&format!("stall {grace}")).await,
            Trouble::Bad => self.order("bad").await,
        }
    }

    /// Waits for the end of the trouble; gives the connections that were closed with the address.
    pub(crate) async fn end(&mut self) -> Result<u64, Failure> {
        let answer = self.answer("done").await?;
        Ok(answer.split(' ').next().unwrap_or_default().parse()?)
    }

    pub(crate) async fn counters(&mut self) -> Result<Counters, Failure> {
        self.order("counters").await?;
        let answer = self.answer("counters").await?;
        let mut numbers = answer.split(' ').map(str::parse::<u64>);
        let mut next =
            || numbers.next().ok_or("a number is missing").map_err(Failure::from)?.map_err(Failure::from);
        Ok(Counters { accepted: next()?, open: next()? })
    }
}
