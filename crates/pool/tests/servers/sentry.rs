//! The sentry beside callers on real servers: every answer is its own, whatever comes between.

use std::{sync::Arc, time::Duration};

use evenkeel_pool::{
    ConnInfo, DialConfig, Lane, LaneConfig, LaneId, LaneObserver, Outcome,
    machine::{OutOfStep, SentryConfig},
};
use evenkeel_protocol::{
    Command, Endpoint,
    conn::{HandshakeConfig, ProtocolChoice},
};
use evenkeel_testkit::launcher::{Single, SingleOptions, for_each_server};

/// Fails the test when a connection is out of step.
struct Strict;

impl LaneObserver for Strict {
    fn out_of_step(&self, _lane: LaneId, _info: &Arc<ConnInfo>, cause: OutOfStep) {
        panic!("out of step: {cause:?}");
    }
}

#[tokio::test]
async fn answers_are_in_step_in_both_protocols_and_refusals_are_no_disorder() {
    for_each_server("sentry", |kind| async move {
        let server = Single::start_with(&kind, SingleOptions::default()).await.unwrap();
        let endpoint = Endpoint::new(&server.addr().ip().to_string(), server.addr().port());
        for protocol in [ProtocolChoice::Auto, ProtocolChoice::Resp2] {
            let dial = DialConfig::default().handshake(HandshakeConfig::default().protocol(protocol));
            let config = LaneConfig::default().dial(dial).sentry(SentryConfig::default().every(3));
            let lane = Lane::start(LaneId(1), endpoint.clone(), config, Arc::new(Strict));
            assert!(lane.ready().await);
            let own = lane.info().unwrap().number;
            // An error of the server in the sentry's place too: it may not ask for a while.
            for rights in ["-ping", "+ping"] {
                let _old_server = server.command(&["ACL", "SETUSER", "default", rights]).await;
                let callers = (0..200).map(|number: u32| {
                    let lane = lane.clone();
                    tokio::spawn(async move {
                        let echo = Command::new("ECHO").arg(number);
                        match lane.request(&echo, Duration::from_secs(20)).await {
                            Outcome::Reply(reply) => assert_eq!(reply.decode::<u32>(), Ok(number)),
                            other => panic!("{other:?}"),
                        }
                    })
                });
                for caller in callers.collect::<Vec<_>>() {
                    caller.await.unwrap();
                }
            }
            assert_eq!(lane.info().unwrap().number, own, "the same connection to the end");
        }
    })
    .await;
}
