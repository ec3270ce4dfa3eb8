use evenkeel_testkit::launcher::{Control, LaunchError, Reply, Single, SingleOptions, for_each_server};

fn ok() -> Reply {
    Reply::Simple("OK".into())
}

fn bulk(text: &str) -> Reply {
    Reply::Bulk(text.into())
}

#[tokio::test]
async fn a_server_answers_and_is_what_it_claims_to_be() {
    for_each_server("launcher::a_server_answers", |kind| async move {
        let server = Single::start(&kind).await.unwrap();
        assert!(server.addr().port() < 22_768);
        assert_eq!(server.command(&["SET", "k", "v"]).await.unwrap(), ok());
        assert_eq!(server.command(&["GET", "k"]).await.unwrap(), bulk("v"));
        assert_eq!(server.command(&["GET", "none"]).await.unwrap(), Reply::Nil);
        let info = server.command(&["INFO", "server"]).await.unwrap();
        assert!(info.text().unwrap().contains(kind.version()));
        // DEBUG is off in servers since 7.0 unless it is asked for.
        assert_eq!(server.command(&["DEBUG", "SLEEP", "0"]).await.unwrap(), ok());
    })
    .await;
}

#[tokio::test]
async fn a_password_is_needed_where_one_was_set() {
    for_each_server("launcher::a_password_is_needed", |kind| async move {
        let options = SingleOptions::default().password("p\"a\\ss word");
        let server = Single::start_with(&kind, options).await.unwrap();
        assert_eq!(server.command(&["SET", "k", "v"]).await.unwrap(), ok());
        let mut stranger = Control::connect(server.addr(), None).await.unwrap();
        let error = stranger.command(&["SET", "k", "v"]).await.unwrap_err();
        assert!(error.is_refused_with("NOAUTH"), "{error}");
        let error = Control::connect(server.addr(), Some("wrong")).await.unwrap_err();
        assert!(error.is_refused_with("WRONGPASS"), "{error}");
        assert!(!error.to_string().contains("wrong"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn an_append_only_server_keeps_its_data_through_sigkill_and_its_port() {
    for_each_server("launcher::an_append_only_server_keeps_its_data", |kind| async move {
        let server = Single::start_with(&kind, SingleOptions::default().append_only(true)).await.unwrap();
        let first = server.nodes().pid(server.addr()).unwrap();
        server.command(&["SET", "k", "v"]).await.unwrap();
        server.nodes().kill(server.addr()).await.unwrap();
        assert!(!server.nodes().is_running(server.addr()));
        let error = server.command(&["PING"]).await.unwrap_err();
        assert!(
            matches!(error, LaunchError::Io { ref source, .. }
            if source.kind() == std::io::ErrorKind::ConnectionRefused),
            "{error:?}"
        );
        server.nodes().restart(server.addr()).await.unwrap();
        assert_ne!(server.nodes().pid(server.addr()).unwrap(), first);
        assert_eq!(server.command(&["GET", "k"]).await.unwrap(), bulk("v"));
    })
    .await;
}

#[tokio::test]
async fn a_stopped_server_accepts_and_does_not_answer_until_it_goes_on() {
    for_each_server("launcher::a_stopped_server_does_not_answer", |kind| async move {
        let server = Single::start(&kind).await.unwrap();
        server.nodes().stop(server.addr()).unwrap();
        let mut control = Control::connect(server.addr(), None).await.unwrap();
        let ping = control.command(&["PING"]);
        tokio::pin!(ping);
        let silence = std::time::Duration::from_millis(150);
        assert!(tokio::time::timeout(silence, &mut ping).await.is_err());
        server.nodes().cont(server.addr()).unwrap();
        assert_eq!(ping.await.unwrap(), Reply::Simple("PONG".into()));
    })
    .await;
}

#[tokio::test]
async fn a_unix_socket_is_there_when_asked_for() {
    for_each_server("launcher::a_unix_socket_is_there", |kind| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let server = Single::start_with(&kind, SingleOptions::default().unix_socket(true)).await.unwrap();
        let mut socket = tokio::net::UnixStream::connect(server.unix_socket().unwrap()).await.unwrap();
        socket.write_all(b"PING\r\n").await.unwrap();
        let mut answer = [0; 7];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"+PONG\r\n");
    })
    .await;
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    for_each_server("launcher::a_server_that_cannot_start_says_why", |kind| async move {
        let options = SingleOptions::default().config("no-such-directive yes");
        let error = Single::start_with(&kind, options).await.unwrap_err();
        assert!(
            matches!(error, LaunchError::Exited { ref log, .. } if log.contains("no-such-directive")),
            "{error}"
        );
    })
    .await;
}
