//! `cargo xtask commands`: writes the command table from what servers say of themselves.
//!
//! Every server that the tests run on is asked for `COMMAND`, the oldest first; what an older one has said stays, and a
//! newer one adds what it alone has. Commands of modules are left out: they are not the server's own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use evenkeel_protocol::{Frame, Limits, Reply, Scanner};
use evenkeel_testkit::launcher::ServerKind;

use crate::failure::{Failure, Outcome};
use crate::process::{self, root};
use crate::servers;

const FILE: &str = "crates/protocol/src/command/generated.rs";

/// A server starts within milliseconds.
const ROUND: Duration = Duration::from_millis(20);
const ROUNDS: u32 = 250;

/// Arguments of `commands`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Writes nothing, and fails where the table lacks a command that a server has
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    for skipped in servers::ensure() {
        println!("{} is not asked: {}", skipped.server, skipped.reason);
    }
    let mut kinds = servers::found().kinds().to_vec();
    kinds.sort_by_key(|kind| (kind.name().to_owned(), version(kind)));
    if kinds.is_empty() {
        return Err(Failure::new("there is no server to ask"));
    }
    let mut table = Table::default();
    for kind in &kinds {
        println!("asking {kind}");
        table.asked.push(kind.to_string());
        let server = Server::start(kind)?;
        let reply = server.ask("COMMAND")?;
        for command in reply.elements().unwrap_or_default() {
            table.add(command).ok_or_else(|| Failure::new(format!("{kind} describes a command oddly")))?;
        }
    }
    let path = root().join(FILE);
    let before = fs::read_to_string(&path).map_err(Failure::of(FILE))?;
    let text = table.text();
    if args.check {
        let known: BTreeSet<&str> = before.lines().filter(|line| line.contains("Spec::new(")).collect();
        let missing: Vec<&str> =
            text.lines().filter(|line| line.contains("Spec::new(") && !known.contains(line)).collect();
        return if missing.is_empty() {
            println!("the table has all {} commands", table.specs.len());
            Ok(())
        } else {
            Err(Failure::new(format!("the table differs in:\n{}", missing.join("\n"))))
        };
    }
    fs::write(&path, &text).map_err(Failure::of(FILE))?;
    process::run(process::program("rustfmt").args(["--edition", "2024", FILE]))?;
    println!("{} commands written to {FILE}", table.specs.len());
    Ok(())
}

fn version(kind: &ServerKind) -> Vec<u32> {
    kind.version().split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

#[derive(Debug, Default)]
struct Table {
    asked: Vec<String>,
    /// Lines of the table by name.
    specs: BTreeMap<String, String>,
}

/// Flags of the table, in the order in which they are written.
const FLAGS: [(&str, &str); 7] = [
    ("write", "WRITE"),
    ("readonly", "READ_ONLY"),
    ("may_replicate", "MAY_REPLICATE"),
    ("blocking", "BLOCKING"),
    ("movablekeys", "MOVABLE_KEYS"),
    ("pubsub", "PUBSUB"),
    ("admin", "ADMIN"),
];

/// What the servers do not say of these: they change data or tell subscribers all the same.
const MAY_REPLICATE: [&str; 7] =
    ["EVAL", "EVALSHA", "FCALL", "PFCOUNT", "PUBLISH", "SCRIPT LOAD", "SPUBLISH"];

impl Table {
    /// Takes one entry of `COMMAND`, and its subcommands.
    fn add(&mut self, command: &Frame) -> Option<()> {
        let [name, _arity, flags, first, last, step, _acl, tips, _keys, subcommands, ..] =
            command.elements()?
        else {
            return None;
        };
        let words = |frame: &Frame| -> Option<Vec<String>> {
            frame.elements()?.iter().map(|word| word.as_str().map(str::to_owned)).collect()
        };
        let name = name.as_str()?.to_uppercase().replace('|', " ");
        let (flags, tips) = (words(flags)?, words(tips)?);
        let subcommands = subcommands.elements().unwrap_or_default();
        if flags.iter().any(|flag| flag == "module") || name.contains('.') {
            return Some(());
        }
        let mut bits: Vec<&str> = FLAGS
            .iter()
            .filter(|(flag, _)| flags.iter().any(|own| own == flag))
            .map(|(_, bit)| *bit)
            .collect();
        if MAY_REPLICATE.contains(&name.as_str()) && !bits.contains(&"MAY_REPLICATE") {
            bits.push("MAY_REPLICATE");
        }
        if name == "WAIT" && !bits.contains(&"BLOCKING") {
            bits.push("BLOCKING");
        }
        if !subcommands.is_empty() {
            bits.push("CONTAINER");
        }
        let bits = if bits.is_empty() { "0".to_owned() } else { bits.join(" | ") };
        let policy = |kind: &str| {
            let tip = tips.iter().find_map(|tip| tip.strip_prefix(kind)?.strip_prefix(':'));
            tip.map_or_else(|| "Default".to_owned(), camel)
        };
        let line = format!(
            "    Spec::new(\"{name}\", {bits}, ({}, {}, {}), Request::{}, Response::{}),",
            first.as_integer()?,
            last.as_integer()?,
            step.as_integer()?,
            policy("request_policy"),
            policy("response_policy"),
        );
        self.specs.entry(name).or_insert(line);
        subcommands.iter().try_for_each(|subcommand| self.add(subcommand))
    }

    fn text(&self) -> String {
        let mut text = String::from(
            "//! Made by `cargo xtask commands` from the servers' own COMMAND output; not edited by hand.\n//!\n",
        );
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "//! Servers: {}.\n", self.asked.join(", "));
        text.push_str(
            "use super::spec::{\n    ADMIN, BLOCKING, CONTAINER, MAY_REPLICATE, MOVABLE_KEYS, PUBSUB, READ_ONLY, Request, Response, Spec, WRITE,\n};\n\n/// Every command and subcommand, by name.\n#[rustfmt::skip]\npub(super) const SPECS: &[Spec] = &[\n",
        );
        for line in self.specs.values() {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("];\n");
        text
    }
}

/// `all_shards` is `AllShards`.
fn camel(word: &str) -> String {
    word.split('_')
        .map(|part| {
            let (first, rest) = part.split_at(part.len().min(1));
            first.to_uppercase() + rest
        })
        .collect()
}

/// A server of our own, on a socket in a folder of its own.
struct Server {
    process: Child,
    folder: PathBuf,
}

impl Server {
    fn start(kind: &ServerKind) -> Outcome<Self> {
        let name = format!("evenkeel-commands-{}-{}", std::process::id(), kind.version());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).map_err(Failure::of("making a folder for the server"))?;
        let process = Command::new(kind.program())
            .current_dir(&folder)
            .args(["--port", "0", "--unixsocket", "socket", "--save", "", "--daemonize", "no"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Failure::of(&format!("starting {kind}")))?;
        Ok(Self { process, folder })
    }

    fn connect(path: &Path) -> Outcome<UnixStream> {
        for _ in 0..ROUNDS {
            if let Ok(stream) = UnixStream::connect(path) {
                return Ok(stream);
            }
            thread::park_timeout(ROUND);
        }
        Err(Failure::new("the server does not come up"))
    }

    fn ask(&self, question: &str) -> Outcome<Frame> {
        let mut stream = Self::connect(&self.folder.join("socket"))?;
        stream.write_all(format!("{question}\r\n").as_bytes()).map_err(Failure::of(question))?;
        let (mut scanner, mut read, mut piece) = (Scanner::new(Limits::default()), Vec::new(), [0; 4096]);
        loop {
            let count = stream.read(&mut piece).map_err(Failure::of(question))?;
            if count == 0 {
                return Err(Failure::new("the server closed in the middle of its answer"));
            }
            read.extend_from_slice(piece.get(..count).unwrap_or_default());
            if let Some(found) = scanner.scan(&read).map_err(Failure::of(question))? {
                read.truncate(found.len);
                return Reply::new(read.into()).frame().map_err(Failure::of(question));
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _ended = self.process.wait();
        let _left = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(wire: &str) -> Frame {
        Reply::new(wire.to_owned().into()).frame().unwrap()
    }

    #[test]
    fn an_entry_becomes_a_line_and_the_first_word_on_it_stays() {
        let entry = |first: u8| {
            frame(&format!(
                "*10\r\n$4\r\nmget\r\n:-2\r\n*2\r\n+readonly\r\n+fast\r\n:{first}\r\n:-1\r\n:1\r\n*0\r\n*1\r\n$26\r\nrequest_policy:multi_shard\r\n*0\r\n*0\r\n"
            ))
        };
        let mut table = Table::default();
        table.add(&entry(1)).unwrap();
        table.add(&entry(2)).unwrap();
        assert_eq!(
            table.specs["MGET"],
            "    Spec::new(\"MGET\", READ_ONLY, (1, -1, 1), Request::MultiShard, Response::Default),"
        );
        assert_eq!(camel("agg_logical_and"), "AggLogicalAnd");
    }
}
