//! RESP2 and RESP3 codec, commands, replies and the connection machine of Evenkeel, without I/O.
//!
//! ```
//! use bytes::{Bytes, BytesMut};
//! use evenkeel_protocol::{Command, Limits, Reply, Scanner};
//!
//! let mut wire = BytesMut::new();
//! Command::new("GET").key("greeting").encode(&mut wire);
//! assert_eq!(&wire[..], b"*2\r\n$3\r\nGET\r\n$8\r\ngreeting\r\n");
//!
//! let mut read = BytesMut::from(&b"$5\r\nhello\r\n"[..]);
//! let found = Scanner::new(Limits::default()).scan(&read).unwrap().expect("one whole reply");
//! let reply = Reply::new(read.split_to(found.len).freeze());
//! assert_eq!(reply.decode::<String>().unwrap(), "hello");
//! ```
//!
//! | feature | what it adds |
//! |---|---|
//! | `tokio` (default) | nothing here: the switch that every crate of the workspace has |
//! | `codec` | `Codec`, a `tokio_util::codec` decoder and encoder |
//! | `serde` | `Reply::deserialize` and `Serde`: replies into any type that derives `Deserialize` |

#[cfg(feature = "codec")]
mod codec;
pub mod command;
pub mod conn;
mod encode;
mod endpoint;
mod error;
mod frame;
mod limits;
pub mod machine;
pub mod maintenance;
mod parse;
mod push;
mod redirect;
mod reply;
mod scan;
mod server_error;
mod slot;

#[cfg(feature = "codec")]
pub use codec::{Codec, CodecError};
pub use command::{Command, ToArg, ToArgs};
pub use encode::{encode_command, encode_frame};
pub use endpoint::{Endpoint, EndpointError};
pub use error::{DecodeError, ParseError, ScanError};
pub use frame::{Frame, Frames};
pub use limits::Limits;
pub use machine::Machine;
pub use maintenance::Notice;
pub use push::{Push, SubscriptionKind};
pub use redirect::{Refusal, Target};
#[cfg(feature = "serde")]
pub use reply::Serde;
pub use reply::{Event, FromReply, Items, Kind, Reader, Reply};
pub use scan::{Scanned, Scanner};
pub use server_error::ServerError;
pub use slot::{Slot, hash_tag};

// Its examples show the features too.
#[cfg(all(doctest, feature = "codec", feature = "serde"))]
#[doc = include_str!("../README.md")]
mod readme {}
