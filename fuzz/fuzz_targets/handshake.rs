//! Whatever a peer answers to the handshake: it ends, and never as established while a step is unanswered or AUTH refused.
#![no_main]

use bytes::BytesMut;
use evenkeel_protocol::{
    Limits,
    conn::{
        Connection, Credentials, Handshake, HandshakeConfig, Incoming, OptIn, Progress, ProtocolChoice, Step,
    },
};
use libfuzzer_sys::fuzz_target;

fn config(draw: u8) -> HandshakeConfig {
    let protocol = match draw & 3 {
        0 => ProtocolChoice::Resp2,
        1 => ProtocolChoice::Resp3,
        _ => ProtocolChoice::Auto,
    };
    HandshakeConfig::default()
        .protocol(protocol)
        .credentials((draw & 4 != 0).then(|| Credentials::user("user", "password")))
        .client_name((draw & 8 != 0).then(|| "name".to_owned()))
        .database(u32::from(draw & 16 != 0))
        .read_only(draw & 32 != 0)
        .redirect(draw & 64 != 0)
        .opt_in((draw & 128 != 0).then(|| OptIn::new(draw & 4 != 0, None)))
        .library("evenkeel", "0.1.0")
}

fuzz_target!(|data: &[u8]| {
    let Some((&draw, wire)) = data.split_first() else { return };
    let (mut handshake, _out) = Handshake::start(config(draw));
    let mut conn = Connection::new(Limits::default().max_bulk(1 << 16).max_reply(1 << 16));
    for _ in 0..handshake.owed() {
        conn.sent(());
    }
    let mut read = BytesMut::from(wire);
    let (mut rounds, mut refused) = (0, false);
    while let Ok(Some(incoming)) = conn.next(&mut read) {
        let Incoming::Reply((), reply) = incoming else { continue };
        refused |= handshake.waiting_for() == Some(Step::Auth) && reply.error().is_some();
        match handshake.handle_reply(&reply) {
            Ok(Progress::Done(established)) => {
                assert!(conn.waiting().is_empty(), "a late reply of the handshake would be a caller's");
                assert!(!refused, "a refused login is no login");
                assert!(draw & 3 != 1 || established.server.resp3, "RESP3 was required");
                return;
            }
            Ok(Progress::Write(_)) => {
                rounds += 1;
                assert!(rounds <= 2, "it goes on for ever");
                for _ in 0..handshake.owed() {
                    conn.sent(());
                }
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
});
