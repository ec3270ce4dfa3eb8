//! Configuration: typed, from a URL, from the environment or from a builder; it opens no connection.

mod builder;
mod defaults;
mod display;
mod env;
mod error;
mod maintenance;
mod nodes;
mod policy;
mod secret;
mod settings;
mod transport;
mod url;
mod value;

pub use builder::ConfigBuilder;
pub use defaults::*;
pub(crate) use error::{ConfigError, Problem};
pub use error::{Origin, Warning};
pub(crate) use maintenance::HookList;
pub use policy::{Backoff, ProtocolVersion, ReadPolicy, RedirectPolicy};
pub use secret::{Credentials, Secret};
pub use settings::{Config, Deployment, Tls};
pub(crate) use transport::Transport;
