//! What stands between and knows few commands.

use evenkeel_client::{Client, ErrorKind};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

/// Reads one command: an array of bulk strings.
async fn command(stream: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    let mut words = Vec::new();
    for _ in 0..line.trim().strip_prefix('*')?.parse().ok()? {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
        let mut word = vec![0; line.trim().strip_prefix('$')?.parse::<usize>().ok()? + 2];
        stream.read_exact(&mut word).await.ok()?;
        words.push(String::from_utf8_lossy(&word[..word.len() - 2]).into_owned());
    }
    Some(words)
}

/// Knows `AUTH`, `SET`, `GET` and `PING`, and closes the connection at anything else, as twemproxy does.
async fn strict_proxy() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut stream, mut value) = (BufReader::new(stream), String::new());
                while let Some(words) = command(&mut stream).await {
                    let words: Vec<&str> = words.iter().map(String::as_str).collect();
                    let answer = match words.as_slice() {
                        ["AUTH", "right"] => "+OK\r\n".to_owned(),
                        ["PING"] => "+PONG\r\n".to_owned(),
                        ["SET", _, given] => {
                            value = (*given).to_owned();
                            "+OK\r\n".to_owned()
                        }
                        ["GET", _] => format!("${}\r\n{value}\r\n", value.len()),
                        _ => return,
                    };
                    if stream.get_mut().write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr.to_string()
}

#[tokio::test]
async fn a_proxy_that_closes_at_what_it_does_not_know_is_told_nothing_that_it_need_not_know() {
    let proxy = strict_proxy().await;
    for login in ["", ":right@"] {
        let url = format!("redis://{login}{proxy}?protocol=2&identity=false");
        let client = Client::connect(&*url).await.unwrap();
        client.set("greeting", "hello").await.unwrap();
        assert_eq!(client.get::<String>("greeting").await.unwrap(), "hello");
        assert!(client.is_healthy().await);
    }
}

#[tokio::test]
async fn a_connection_closed_in_its_handshake_names_the_step() {
    let proxy = strict_proxy().await;
    for (query, step) in
        [("", "HELLO"), ("?protocol=2", "CLIENT SETINFO"), ("?protocol=2&identity=false&db=1", "SELECT")]
    {
        let error = Client::connect(&*format!("redis://{proxy}{query}")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Handshake);
        let expected = format!("{proxy} did not complete {step}: it closed the connection");
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}
