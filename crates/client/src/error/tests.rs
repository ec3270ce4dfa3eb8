//! Tests of errors: what they say and what they prove.

use evenkeel_protocol::{Command, DecodeError};

use super::*;

fn here() -> Endpoint {
    Endpoint::new("127.0.0.1", 6399)
}

#[test]
fn it_is_one_word_wide_and_goes_everywhere() {
    fn everywhere<T: Send + Sync + Clone + std::error::Error + 'static>() {}
    everywhere::<Error>();
    assert_eq!(size_of::<Error>(), size_of::<usize>());
    assert_eq!(size_of::<Result<(), Error>>(), size_of::<usize>());
}

#[test]
fn a_refused_dial_says_what_to_look_at() {
    let error =
        Error::dial(here(), Origin::Variable("REDIS_URL"), io::Error::from(io::ErrorKind::ConnectionRefused));
    assert_eq!((error.kind(), error.executed()), (ErrorKind::Connect, Executed::No));
    assert_eq!(
        error.to_string(),
        "cannot connect to 127.0.0.1:6399 (address from REDIS_URL): ECONNREFUSED, is Redis running on port 6399?"
    );
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn silence_is_a_timeout_that_names_network_and_firewall() {
    let ours = Error::silent(here(), Origin::Url, Phase::Dial, Duration::from_secs(2));
    let theirs = Error::dial(here(), Origin::Url, io::Error::from(io::ErrorKind::TimedOut));
    let reply = Error::timeout(Phase::Reply, Duration::from_millis(50), Some(here()), Executed::Maybe);
    for error in [&ours, &theirs, &reply] {
        let text = error.to_string();
        assert!(error.is_timeout(), "{text}");
        assert!(
            text.contains("ETIMEDOUT") && text.contains("network") && text.contains("firewall"),
            "{text}"
        );
        assert!(text.contains("127.0.0.1:6399"), "{text}");
    }
    assert!(ours.is_safe_to_retry() && !reply.is_safe_to_retry());
}

#[test]
fn what_an_error_reply_proves_depends_on_its_code_and_on_scripts() {
    let check = |command: &str, text: &str, executed| {
        let error = Error::server(ServerError::parse(text.as_bytes()), &Command::new(command), None);
        assert_eq!(error.executed(), executed, "{command} {text}");
        assert_eq!(error.server_code(), text.split(' ').next());
    };
    check("SET", "READONLY You can't write against a read only replica.", Executed::No);
    check("SET", "MOVED 12 127.0.0.1:7001", Executed::No);
    check("SET", "OOM command not allowed", Executed::No);
    check("EXEC", "EXECABORT Transaction discarded", Executed::No);
    check("LPUSH", "WRONGTYPE Operation against a key", Executed::Yes);
    check("EVAL", "READONLY You can't write", Executed::Maybe);
    check("EVALSHA", "NOSCRIPT No matching script.", Executed::No);
    check("EVAL_RO", "READONLY You can't write", Executed::No);
}

#[test]
fn a_redirection_that_does_not_end_names_the_node() {
    let error = Error::redirect(ServerError::parse(b"MOVED 12 10.0.0.7:7001"), here(), 16);
    assert_eq!(error.kind(), ErrorKind::Redirect);
    let text = error.to_string();
    assert!(
        text.contains("127.0.0.1:6399") && text.contains("10.0.0.7:7001") && text.contains("16"),
        "{text}"
    );
    assert!(error.is_safe_to_retry());
}

#[test]
fn a_wrong_password_names_its_setting_and_not_itself() {
    let error = Error::handshake(
        here(),
        "AUTH",
        ServerError::parse(b"WRONGPASS invalid username-password pair or user is disabled."),
        Some(Origin::Variable("REDIS_PASSWORD")),
    );
    assert_eq!(error.server_code(), Some("WRONGPASS"));
    assert!(error.to_string().contains("REDIS_PASSWORD"), "{error}");
}

#[test]
fn what_is_not_queued_did_not_run_whatever_the_code() {
    let error = ServerError::parse(b"ERR unknown command");
    let error = Error::not_queued(error, &Command::new("SET"), 1, Some(here()));
    assert_eq!((error.executed(), error.position()), (Executed::No, Some(1)));
}

#[test]
fn unknown_names_are_not_repeated() {
    let error = Error::server(ServerError::parse(b"ERR unknown command"), &Command::new("hunter2"), None);
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[test]
fn an_error_inside_a_reply_stays_the_servers() {
    let name = CommandName::of(&Command::new("GET"));
    let error = Error::decode(DecodeError::Server(ServerError::parse(b"WRONGTYPE x")), name);
    assert_eq!(error.kind(), ErrorKind::Server);
    let error =
        Error::decode(DecodeError::Kind { expected: "i64", found: evenkeel_protocol::Kind::Blob }, name)
            .in_pipeline(2);
    assert_eq!((error.kind(), error.executed()), (ErrorKind::Decode, Executed::Yes));
    assert_eq!(error.to_string(), "command 3 of the pipeline: the reply to GET is not of the type asked for");
}
