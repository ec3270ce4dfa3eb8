use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_testkit::launcher::until;
use evenkeel_testkit::proxy::{ConnectionInfo, CutHow, Direction, Proxy, Rules, When};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

const LIMIT: Duration = Duration::from_secs(10);
/// Long beside a loopback round trip; only ever waited for where nothing may come.
const SILENCE: Duration = Duration::from_millis(100);

/// A server that sends back what it reads, after its name.
async fn echo(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                socket.write_all(name.as_bytes()).await?;
                let (mut reads, mut writes) = socket.split();
                tokio::io::copy(&mut reads, &mut writes).await
            });
        }
    });
    addr
}

async fn start() -> (Proxy, TcpStream) {
    let proxy = Proxy::start(echo("").await).await.unwrap();
    let client = connect(&proxy).await;
    (proxy, client)
}

/// Connects, and waits until the proxy has connected to the server too.
async fn connect(proxy: &Proxy) -> TcpStream {
    let client = TcpStream::connect(proxy.addr()).await.unwrap();
    client.set_nodelay(true).unwrap();
    let from = client.local_addr().unwrap();
    until(LIMIT, "the proxy to connect", || async {
        proxy.handle().connections().iter().any(|live| live.client == from).then_some(())
    })
    .await
    .unwrap();
    client
}

fn only(proxy: &Proxy) -> ConnectionInfo {
    let mut live = proxy.handle().connections();
    assert_eq!(live.len(), 1);
    live.remove(0)
}

async fn read(client: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    timeout(LIMIT, client.read_exact(&mut bytes)).await.unwrap().unwrap();
    bytes
}

async fn read_to_end(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    timeout(LIMIT, client.read_to_end(&mut bytes)).await.unwrap()?;
    Ok(bytes)
}

async fn is_silent(client: &mut TcpStream) -> bool {
    timeout(SILENCE, client.read_u8()).await.is_err()
}

#[tokio::test]
async fn bytes_go_through_both_ways_and_are_counted() {
    let (proxy, mut client) = start().await;
    client.write_all(b"hello").await.unwrap();
    assert_eq!(read(&mut client, 5).await, b"hello");
    let live = only(&proxy);
    assert_eq!((live.to_server, live.to_client), (5, 5));
    assert_eq!((live.upstream, proxy.handle().accepted()), (proxy.handle().upstream(), 1));
    // The client ends its half; the server answers that by ending its own.
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await.unwrap(), b"");
    until(LIMIT, "the connection to be off the list", || async {
        proxy.handle().connections().is_empty().then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_megabyte_survives_slices_delay_and_jitter_in_order() {
    let proxy = Proxy::start_seeded(echo("").await, 42).await.unwrap();
    let trouble = Rules::new().delay(Duration::from_millis(1)).jitter(Duration::from_millis(3)).slice(1_000);
    proxy.handle().set(Direction::ToClient, trouble.clone());
    proxy.handle().set(Direction::ToServer, trouble);
    let (mut reads, mut writes) = connect(&proxy).await.into_split();
    let sent: Vec<u8> = (0..1_048_576_u32).map(|n| (n % 251) as u8).collect();
    let expected = sent.clone();
    let write = tokio::spawn(async move {
        writes.write_all(&sent).await.unwrap();
        writes
    });
    let mut got = vec![0; expected.len()];
    timeout(LIMIT, reads.read_exact(&mut got)).await.unwrap().unwrap();
    assert!(got == expected);
    drop(write.await.unwrap());
}

#[tokio::test]
async fn a_delay_holds_each_byte_and_only_one_way() {
    let (proxy, mut client) = start().await;
    proxy.handle().set(Direction::ToClient, Rules::new().delay(Duration::from_millis(120)));
    let begun = begin();
    client.write_all(b"x").await.unwrap();
    assert_eq!(read(&mut client, 1).await, b"x");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(120), "{took:?}");
    assert_eq!(only(&proxy).to_server, 1);
}

#[expect(clippy::disallowed_methods, reason = "a test of real time")]
fn begin() -> Instant {
    Instant::now()
}

#[tokio::test]
async fn slices_arrive_one_by_one() {
    let (proxy, mut client) = start().await;
    proxy.handle().set(Direction::ToClient, Rules::new().slice(2));
    client.write_all(b"abcdefg").await.unwrap();
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < 7 {
        let mut bytes = [0; 7];
        sizes.push(timeout(LIMIT, client.read(&mut bytes)).await.unwrap().unwrap());
    }
    assert!(sizes.len() > 1, "{sizes:?}");
}

#[tokio::test]
async fn a_cut_delivers_exactly_the_bytes_before_it() {
    for how in [CutHow::Close, CutHow::Reset] {
        let (proxy, mut client) = start().await;
        client.write_all(b"before").await.unwrap();
        assert_eq!(read(&mut client, 6).await, b"before");
        proxy.handle().set(Direction::ToClient, Rules::new().cut_after_by(3, how));
        client.write_all(b"abcdef").await.unwrap();
        assert_eq!(read(&mut client, 3).await, b"abc");
        let rest = read_to_end(&mut client).await;
        match how {
            CutHow::Reset => assert_eq!(rest.unwrap_err().kind(), ErrorKind::ConnectionReset),
            _ => assert_eq!(rest.unwrap(), b""),
        }
    }
}

#[tokio::test]
async fn a_cut_on_the_way_to_the_server_counts_that_way() {
    let (proxy, mut client) = start().await;
    proxy.handle().set(Direction::ToServer, Rules::new().slice(1).cut_after(4));
    client.write_all(b"abcdef").await.unwrap();
    // Whether the echo of the four came back before the cut is a race; nothing beyond them may come.
    let echoed = read_to_end(&mut client).await.unwrap_or_default();
    assert!(b"abcd".starts_with(&echoed), "{echoed:?}");
}

#[tokio::test]
async fn a_stall_holds_one_direction_until_it_is_lifted() {
    let (proxy, mut client) = start().await;
    proxy.handle().set(Direction::ToClient, Rules::new().stall());
    client.write_all(b"abc").await.unwrap();
    assert!(is_silent(&mut client).await);
    assert_eq!(only(&proxy).to_server, 3);
    proxy.handle().clear();
    assert_eq!(read(&mut client, 3).await, b"abc");
}

#[tokio::test]
async fn a_black_hole_loses_bytes_and_the_end_of_the_stream() {
    let (proxy, mut client) = start().await;
    proxy.handle().set(Direction::ToServer, Rules::new().blackhole());
    client.write_all(b"lost").await.unwrap();
    assert!(is_silent(&mut client).await);
    proxy.handle().clear();
    client.write_all(b"found").await.unwrap();
    assert_eq!(read(&mut client, 5).await, b"found");
    proxy.handle().set(Direction::ToServer, Rules::new().blackhole());
    client.shutdown().await.unwrap();
    assert!(is_silent(&mut client).await);
    proxy.handle().clear();
    assert_eq!(read_to_end(&mut client).await.unwrap(), b"");
}

#[tokio::test]
async fn resets_and_closes_reach_the_client_as_such() {
    let (proxy, mut client) = start().await;
    assert!(proxy.handle().reset(only(&proxy).id));
    assert_eq!(read_to_end(&mut client).await.unwrap_err().kind(), ErrorKind::ConnectionReset);

    let mut first = connect(&proxy).await;
    let mut second = connect(&proxy).await;
    assert_eq!(proxy.handle().close_all(), 2);
    assert_eq!(read_to_end(&mut first).await.unwrap(), b"");
    assert_eq!(read_to_end(&mut second).await.unwrap(), b"");
}

#[tokio::test]
async fn rewriting_works_across_slices() {
    let (proxy, mut client) = start().await;
    proxy.handle().set(Direction::ToServer, Rules::new().slice(2));
    proxy.handle().set(Direction::ToClient, Rules::new().rewrite("ERR unknown", "OK").rewrite("OK!", "fine"));
    client.write_all(b"-ERR unknown!\r\n-ERR other\r\n").await.unwrap();
    assert_eq!(read(&mut client, 19).await, b"-fine\r\n-ERR other\r\n");
}

#[tokio::test]
async fn an_edit_sees_what_goes_by() {
    let (proxy, mut client) = start().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let edit = move |id: evenkeel_testkit::proxy::ConnectionId, bytes: &mut bytes::BytesMut| {
        log.lock().push((id, bytes.to_vec()));
        bytes.make_ascii_uppercase();
    };
    proxy.handle().set(Direction::ToServer, Rules::new().edit(edit));
    client.write_all(b"abc").await.unwrap();
    assert_eq!(read(&mut client, 3).await, b"ABC");
    assert_eq!(*seen.lock(), [(only(&proxy).id, b"abc".to_vec())]);
}

#[tokio::test]
async fn injected_pushes_wait_for_the_end_of_a_frame_and_others_do_not() {
    let (proxy, mut client) = start().await;
    let id = only(&proxy).id;
    client.write_all(b"$6\r\nabc").await.unwrap();
    assert_eq!(read(&mut client, 7).await, b"$6\r\nabc");
    assert!(proxy.handle().inject(id, Direction::ToClient, ">1\r\n+push\r\n", When::BetweenFrames));
    assert!(proxy.handle().inject(id, Direction::ToClient, "?", When::Now));
    assert_eq!(read(&mut client, 1).await, b"?");
    client.write_all(b"def\r\n:1\r\n").await.unwrap();
    assert_eq!(read(&mut client, 20).await, b"def\r\n>1\r\n+push\r\n:1\r\n"[..20]);
    assert!(proxy.handle().inject(id, Direction::ToClient, "_\r\n", When::BetweenFrames));
    assert_eq!(read(&mut client, 3).await, b"_\r\n");
}

#[tokio::test]
async fn rules_of_one_connection_leave_the_others_alone() {
    let (proxy, mut first) = start().await;
    let id = only(&proxy).id;
    let mut second = connect(&proxy).await;
    assert!(proxy.handle().set_on(id, Direction::ToClient, Rules::new().stall()));
    first.write_all(b"1").await.unwrap();
    second.write_all(b"2").await.unwrap();
    assert_eq!(read(&mut second, 1).await, b"2");
    assert!(is_silent(&mut first).await);
    assert!(proxy.handle().reset(id));
    assert_eq!(read_to_end(&mut first).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    until(LIMIT, "the connection to be gone", || async {
        (!proxy.handle().set_on(id, Direction::ToClient, Rules::new())).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_new_upstream_takes_new_connections_and_leaves_old_ones() {
    let (proxy, mut old) = start().await;
    proxy.handle().set_upstream(echo("second:").await);
    let mut new = connect(&proxy).await;
    new.write_all(b"x").await.unwrap();
    assert_eq!(read(&mut new, 8).await, b"second:x");
    old.write_all(b"x").await.unwrap();
    assert_eq!(read(&mut old, 1).await, b"x");
}

#[tokio::test]
async fn refused_connections_are_refused_and_live_ones_go_on() {
    let (proxy, mut client) = start().await;
    proxy.handle().refuse().await.unwrap();
    let refused = TcpStream::connect(proxy.addr()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    client.write_all(b"x").await.unwrap();
    assert_eq!(read(&mut client, 1).await, b"x");
    proxy.handle().accept().await.unwrap();
    let mut again = connect(&proxy).await;
    again.write_all(b"y").await.unwrap();
    assert_eq!(read(&mut again, 1).await, b"y");
}

#[tokio::test]
async fn an_upstream_that_refuses_resets_the_client() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = Proxy::start(gone).await.unwrap();
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(read_to_end(&mut client).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn everything_ends_with_the_proxy() {
    let (proxy, mut client) = start().await;
    let handle = proxy.handle();
    let addr = proxy.addr();
    drop(proxy);
    assert!(read_to_end(&mut client).await.unwrap_or_default().is_empty());
    until(LIMIT, "the connections to be gone", || async { handle.connections().is_empty().then_some(()) })
        .await
        .unwrap();
    assert_eq!(TcpStream::connect(addr).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert!(handle.refuse().await.is_err());
}
