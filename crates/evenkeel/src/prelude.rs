//! What most programs use: `use evenkeel::prelude::*;`.

pub use evenkeel_client::{
    Client, Config, Delivery, Error, ErrorKind, Event, Executed, FromReply, Lease, Subscription, ToArg,
    ToArgs,
};
#[cfg(feature = "gateway")]
pub use evenkeel_gateway::{Gateway, GatewayConfig};
