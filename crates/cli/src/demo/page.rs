//! The page that a person looks at.

use std::net::SocketAddr;
use std::sync::Arc;

use evenkeel::Client;
use evenkeel::gateway::GatewayHandle;
use tokio::net::TcpListener;

use super::board::Board;
use super::deployment::{Mode, Outcome};
use super::ledger::Ledger;
use super::pubsub::Raw;
use super::troubles::Troublemaker;

/// What the page shows and steers.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) mode: Mode,
    pub(super) board: Arc<Board>,
    pub(super) client: Client,
    pub(super) gateway: GatewayHandle,
    pub(super) brokers: Client,
    pub(super) ledger: Arc<Ledger>,
    pub(super) raw: Arc<Raw>,
    pub(super) troublemaker: Arc<Troublemaker>,
}

pub(super) async fn serve(page: Page, port: u16) -> Outcome<(SocketAddr, impl Future<Output = ()>)> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?;
    Ok((address, async move { drop((page, listener)); std::future::pending::<()>().await }))
}
