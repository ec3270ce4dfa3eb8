//! The embedded server behind proxies: it announces by itself, and they cut.

use std::net::SocketAddr;
use std::time::Duration;

use evenkeel::protocol::{Endpoint, Notice};
use evenkeel_testkit::proxy::Proxy;
use evenkeel_testkit::server::{Audience, EmbeddedServer, Move};

use super::{Outcome, Trouble, kill_clients};
use crate::demo::scripts;

/// The grace of a move.
const GRACE: Duration = Duration::from_secs(2);
/// How long the server is silent in a migration: longer than an answer may take outside of one.
const SILENCE: Duration = Duration::from_millis(2_500);

/// Two addresses over one data set, each behind a proxy, and a front door.
#[derive(Debug)]
pub(in crate::demo) struct Embedded {
    door: Proxy,
    proxies: Vec<Proxy>,
    server: EmbeddedServer,
}

impl Embedded {
    pub(super) async fn start() -> Outcome<Self> {
        let server = scripts::register(EmbeddedServer::builder().addresses(2)).start().await?;
        let mut proxies = Vec::new();
        for address in 0..server.addresses() {
            proxies.push(Proxy::start(server.address(address)).await?);
        }
        let first = proxies.first().map_or_else(|| server.addr(), Proxy::addr);
        Ok(Self { door: Proxy::start(first).await?, proxies, server })
    }

    pub(super) fn url(&self) -> String {
        format!("redis://{}", self.door.addr())
    }

    /// An address in service.
    pub(super) fn primary(&self) -> SocketAddr {
        self.server.address(self.server.front_target())
    }

    pub(super) async fn make(&self, trouble: Trouble) -> Outcome<String> {
        match trouble {
            Trouble::Moving => self.announce_move().await,
            Trouble::Migration => self.migrate().await,
            Trouble::ClientKill => {
                let killed = kill_clients(self.primary()).await?;
                Ok(format!("CLIENT KILL closed {killed} connections"))
            }
            Trouble::Cut => {
                let cut: usize =
                    self.proxies.iter().chain([&self.door]).map(|proxy| proxy.handle().reset_all()).sum();
                if cut == 0 {
                    Err("no connection to cut".into())
                } else {
                    Ok(format!("{cut} connections cut"))
                }
            }
            other => Err(format!("the embedded server has no {}", other.name()).into()),
        }
    }

    async fn announce_move(&self) -> Outcome<String> {
        let from = self.server.front_target();
        let to = (from + 1) % self.server.addresses();
        let target = self.proxies.get(to).map(Proxy::addr).ok_or("there is no other address")?;
        let told = Endpoint::new(&target.ip().to_string(), target.port());
        let moving = self.server.move_endpoint(Move::new(from, to, GRACE).told_target(told)).await?;
        let reached = moving.announced().connections;
        // New connections come in by the new address half way through, as the server's own front door has it.
        tokio::time::sleep(GRACE / 2).await;
        self.door.handle().set_upstream(target);
        let report = moving.finished().await?;
        if reached == 0 {
            return Err("nobody had opted in to announcements".into());
        }
        Ok(format!(
            "MOVING to {target} reached {reached} connections; {} were left when the grace ended",
            report.closed
        ))
    }

    async fn migrate(&self) -> Outcome<String> {
        let shards = vec!["1".to_owned()];
        let migrating = Notice::Migrating { seq: None, within: Some(Duration::ZERO), shards: shards.clone() };
        let reached = self.server.announce(&migrating, Audience::All).connections;
        // The announcement is on its way before the silence begins.
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.server.hold_replies(None, SILENCE);
        tokio::time::sleep(SILENCE).await;
        self.server.release_replies(None);
        self.server.announce(&Notice::Migrated { seq: None, shards }, Audience::All);
        if reached == 0 {
            return Err("nobody had opted in to announcements".into());
        }
        Ok(format!("MIGRATING reached {reached} connections; the server was silent for {SILENCE:?}"))
    }

    pub(super) async fn shutdown(self) {
        drop(self.door);
        drop(self.proxies);
        self.server.shutdown().await;
    }
}
