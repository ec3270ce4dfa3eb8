//! The server's process: an embedded server that does what it reads on standard input, line by line.

use std::time::Duration;

use evenkeel_protocol::{Frame, Limits, Notice};
use evenkeel_testkit::server::{Audience, EmbeddedServer, Move};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::Failure;

/// Announcements that no client can act on.
const BAD: [&str; 10] = [
    ">1\r\n+MOVING\r\n",
    ">2\r\n+MOVING\r\n:7\r\n",
    ">4\r\n+MOVING\r\n+abc\r\n+xyz\r\n:5\r\n",
    ">4\r\n+MOVING\r\n:9\r\n:1\r\n*1\r\n+h:1\r\n",
    ">4\r\n+MOVING\r\n:9\r\n:1\r\n+h:port\r\n",
    ">3\r\n+SMIGRATED\r\n:1\r\n+x\r\n",
    ">2\r\n+MIGRATING\r\n%0\r\n",
    ">4\r\n+FAILING_OVER\r\n*0\r\n*0\r\n:1\r\n",
    ">3\r\n+SMIGRATING\r\n:3\r\n+99999\r\n",
    ">3\r\n+SMIGRATED\r\n:4\r\n*1\r\n*1\r\n:1\r\n",
];

pub(crate) async fn serve() -> Result<(), Failure> {
    let server = EmbeddedServer::builder().addresses(2).start().await?;
    println!("ready {}", server.url());
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["move", from, to, grace, target, flip_at, copies, withhold] => {
                let millis = |text: &str| text.parse().map(Duration::from_millis);
                let mut plan = Move::new(from.parse()?, to.parse()?, millis(grace)?)
                    .flip_at(flip_at.parse()?)
                    .copies(copies.parse()?)
                    .withhold_last(millis(withhold)?);
                plan = match *target {
                    "dead" => plan.dead_target(),
                    "null" => plan.null_target(),
                    _ => plan,
                };
                let report = server.move_endpoint(plan).await?.finished().await?;
                println!("done {} {}", report.closed, report.commands_after_announcement);
            }
            ["stall", millis] => {
                let time = Duration::from_millis(millis.parse()?);
                server.announce(&notice(">4\r\n+FAILING_OVER\r\n:1\r\n:3\r\n*1\r\n+1\r\n")?, Audience::All);
                tokio::time::sleep(Duration::from_millis(100)).await;
                server.hold_replies(None, time);
                tokio::time::sleep(time + Duration::from_millis(50)).await;
                server.announce(&notice(">3\r\n+FAILED_OVER\r\n:2\r\n*1\r\n+1\r\n")?, Audience::All);
                println!("done 0 0");
            }
            ["bad"] => {
                for frame in BAD {
                    server.send_raw(frame.as_bytes(), Audience::All);
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
                println!("done 0 0");
            }
            ["counters"] => {
                let sum = |of: fn(&evenkeel_testkit::server::AddressCounters) -> u64| {
                    (0..server.addresses()).map(|address| of(&server.counters(address))).sum::<u64>()
                };
                println!("counters {} {}", sum(|each| each.accepted), sum(|each| each.open));
            }
            _ => return Err(format!("unknown order {line:?}").into()),
        }
    }
    Ok(())
}

fn notice(frame: &str) -> Result<Notice, Failure> {
    let frame = Frame::parse(&frame.to_owned().into(), &Limits::default())?;
    let elements = frame.elements().ok_or("no elements")?;
    Notice::parse(elements).ok_or("no announcement")?.map_err(|malformed| malformed.what.into())
}
