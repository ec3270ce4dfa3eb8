use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_testkit::launcher::{Single, for_each_server, until};
use evenkeel_testkit::proxy::{Front, Notice};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_secs(2);

/// A connection that speaks RESP in words: one command a line.
struct Client(TcpStream);

impl Client {
    async fn connect(addr: SocketAddr) -> Self {
        Self(TcpStream::connect(addr).await.unwrap())
    }

    /// Opts in under RESP3; returns what was answered to the opt-in.
    async fn opt_in(addr: SocketAddr, line: &str) -> (Self, String) {
        let mut client = Self::connect(addr).await;
        client.send("HELLO 3").await;
        client.send("ECHO hello-is-over").await;
        client.read_until("hello-is-over\r\n").await;
        client.send(line).await;
        let answer = client.read_until("\r\n").await;
        (client, answer)
    }

    async fn send(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        let mut wire = format!("*{}\r\n", words.len());
        for word in words {
            wire.push_str(&["$", &word.len().to_string(), "\r\n", word, "\r\n"].concat());
        }
        self.0.write_all(wire.as_bytes()).await.unwrap();
    }

    async fn read_until(&mut self, end: &str) -> String {
        let mut text = String::new();
        let reading = async {
            while !text.ends_with(end) {
                text.push(char::from(self.0.read_u8().await.unwrap()));
            }
        };
        let in_time = timeout(LIMIT, reading).await.is_ok();
        assert!(in_time, "{text:?} does not end with {end:?}");
        text
    }

    async fn expect(&mut self, frame: &str) {
        let read = self.read_until(frame).await;
        assert_eq!(read, frame);
    }
}

fn push(sequence: u64, seconds: u64, endpoint: &str) -> String {
    format!(">4\r\n$6\r\nMOVING\r\n:{sequence}\r\n:{seconds}\r\n{endpoint}")
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

#[tokio::test]
async fn a_real_server_announces_a_move_and_its_old_address_retires() {
    for_each_server("front::a_real_server_announces_a_move", |kind| async move {
        let server = Single::start(&kind).await.unwrap();
        let front = Front::start(server.addr(), 2).await.unwrap();
        let [old, new] = front.addresses()[..] else { panic!("two addresses were asked for") };

        let on = "CLIENT MAINT_NOTIFICATIONS ON";
        let (mut by_ip, ok) = Client::opt_in(old, &format!("{on} moving-endpoint-type internal-ip")).await;
        assert_eq!(ok, "+OK\r\n");
        let (mut by_name, ok) =
            Client::opt_in(old, "client maint_notifications on moving-endpoint-type external-fqdn").await;
        assert_eq!(ok, "+OK\r\n");
        let (mut by_nothing, _) = Client::opt_in(old, on).await;
        let (_elsewhere, _) = Client::opt_in(new, on).await;
        let (_malformed, refused) = Client::opt_in(old, &format!("{on} moving-endpoint-type nowhere")).await;
        assert!(refused.starts_with("-ERR "), "{refused}");
        let mut silent = Client::connect(old).await;
        silent.send("PING").await;
        silent.expect("+PONG\r\n").await;
        // Under RESP2 the opt-in is answered and nothing is ever told.
        let mut resp2 = Client::connect(old).await;
        resp2.send(on).await;
        resp2.expect("+OK\r\n").await;
        assert_eq!((front.opted_in(0), front.opted_in(1)), (3, 1));

        by_ip.send("SET k v").await;
        by_ip.expect("+OK\r\n").await;
        let announced = front.announce_move(0, 1, GRACE).await.unwrap().unwrap();
        assert_eq!(announced.connections, 3);
        by_ip.expect(&push(announced.sequence, 2, &bulk(&new.to_string()))).await;
        by_name.expect(&push(announced.sequence, 2, &bulk(&format!("localhost:{}", new.port())))).await;
        by_nothing.expect(&push(announced.sequence, 2, "_\r\n")).await;
        // The old address works on until its grace is over, and tells who comes late.
        by_ip.send("GET k").await;
        by_ip.expect("$1\r\nv\r\n").await;
        let (mut late, _) = Client::opt_in(old, on).await;
        let told = late.read_until("_\r\n").await;
        assert!(told.starts_with(&format!(">4\r\n$6\r\nMOVING\r\n:{}\r\n:", announced.sequence)), "{told}");

        let mut moved = Client::connect(new).await;
        moved.send("GET k").await;
        moved.expect("$1\r\nv\r\n").await;
        for client in [&mut silent, &mut by_ip] {
            let end = timeout(LIMIT, client.0.read(&mut [0; 1])).await.unwrap();
            assert!(matches!(end, Ok(0)), "{end:?}");
        }
        assert_eq!(TcpStream::connect(old).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        moved.send("PING").await;
        moved.expect("+PONG\r\n").await;

        // And back: the retired address is in service again.
        front.announce_move(1, 0, GRACE).await.unwrap().unwrap();
        let mut back = Client::connect(old).await;
        back.send("GET k").await;
        back.expect("$1\r\nv\r\n").await;
        assert_eq!(front.announce_move(0, 7, GRACE).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn announcements_wait_for_the_reply_they_fall_into() {
    for_each_server("front::announcements_wait_for_the_reply", |kind| async move {
        let server = Single::start(&kind).await.unwrap();
        let front = Front::start(server.addr(), 1).await.unwrap();
        let value = "x".repeat(3_000_000);
        server.command(&["SET", "big", &value]).await.unwrap();
        let (mut client, _) = Client::opt_in(front.addresses()[0], "CLIENT MAINT_NOTIFICATIONS ON").await;
        // Nobody reads, so that the reply stands half written in the proxy.
        client.send("GET big").await;
        let proxy = front.proxy(0).unwrap();
        until(LIMIT, "a part of the reply to be delivered", || async {
            let sent = proxy.connections().first()?.to_client;
            (sent > 100_000).then_some(())
        })
        .await
        .unwrap();
        let migrating = front.announce(0, Notice::Migrating(Duration::from_secs(5))).unwrap();
        assert_eq!(migrating.connections, 1);
        let reply = client.read_until("xx\r\n").await;
        assert_eq!(reply.len(), "$3000000\r\n\r\n".len() + value.len());
        let sequence = migrating.sequence;
        client.expect(&format!(">4\r\n$9\r\nMIGRATING\r\n:{sequence}\r\n:5\r\n*1\r\n$1\r\n1\r\n")).await;
        front.announce(0, Notice::Migrated).unwrap();
        client.expect(&format!(">3\r\n$8\r\nMIGRATED\r\n:{}\r\n*1\r\n$1\r\n1\r\n", sequence + 1)).await;

        front.refuse_opt_in(true);
        let (_refused, answer) = Client::opt_in(front.addresses()[0], "CLIENT MAINT_NOTIFICATIONS ON").await;
        assert!(answer.starts_with("-ERR unknown subcommand"), "{answer}");
    })
    .await;
}
