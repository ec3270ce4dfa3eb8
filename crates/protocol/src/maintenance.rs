//! `Notice`: what a server announces about its own maintenance; parsed leniently, acted on elsewhere.
//!
//! There is no public specification: integers come as numbers or strings, elements may be missing or too many, an
//! address may be null, empty, `?` or without a port. Whatever can be understood is; the rest is an error that the
//! connection survives, because a push never takes the place of a reply.

use std::{fmt, ops::RangeInclusive, time::Duration};

use crate::{Endpoint, Frame, Slot};

/// An announcement of maintenance (`CLIENT MAINT_NOTIFICATIONS`).
///
/// Sequence ids are given out per database, are shared by all kinds, may start at 0 and may have gaps.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// `FAILED_OVER`: the failover is done.
    FailedOver {
        /// Sequence id, if the server sent one.
        seq: Option<u64>,
        /// The shards concerned.
        shards: Vec<String>,
    },
    /// `FAILING_OVER`: a failover starts within the time given.
    FailingOver {
        /// Sequence id, if the server sent one.
        seq: Option<u64>,
        /// When it starts at the latest; not how long it takes.
        within: Option<Duration>,
        /// The shards concerned.
        shards: Vec<String>,
    },
    /// `MIGRATED`: the shards have moved.
    Migrated {
        /// Sequence id, if the server sent one.
        seq: Option<u64>,
        /// The shards concerned.
        shards: Vec<String>,
    },
    /// `MIGRATING`: shards start to move within the time given.
    Migrating {
        /// Sequence id, if the server sent one.
        seq: Option<u64>,
        /// When it starts at the latest; not how long it takes.
        within: Option<Duration>,
        /// The shards concerned.
        shards: Vec<String>,
    },
    /// `MOVING`: this endpoint is closed when the grace ends.
    Moving {
        /// Sequence id, if the server sent one.
        seq: Option<u64>,
        /// Until the server closes its sockets; `None` when the server did not say.
        grace: Option<Duration>,
        /// Where to go; `None` means: ask the configured name again.
        target: Option<Endpoint>,
    },
    /// `SMIGRATED`: slots have new owners.
    SlotsMigrated {
        /// Sequence id, if the server sent one.
        seq: Option<u64>,
        /// What moved where.
        moves: Vec<SlotMove>,
    },
    /// `SMIGRATING`: slots are about to move.
    SlotsMigrating {
        /// Sequence id, if the server sent one.
        seq: Option<u64>,
        /// The slots concerned.
        slots: SlotRanges,
    },
}

/// Slots that moved from one node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotMove {
    /// The node that served them, if the server named it.
    pub source: Option<Endpoint>,
    /// The node that serves them.
    pub target: Endpoint,
    /// The slots.
    pub slots: SlotRanges,
}

impl SlotMove {
    /// Slots that moved from `source` to `target`.
    pub fn new(source: Option<Endpoint>, target: Endpoint, slots: SlotRanges) -> Self {
        Self { source, target, slots }
    }
}

/// A set of slots as the server writes it: `1,5,100-200`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotRanges(Vec<RangeInclusive<u16>>);

impl SlotRanges {
    /// Reads `1,5,100-200`; `None` when a part is no slot or a range runs backwards.
    pub fn parse(text: &str) -> Option<Self> {
        let mut ranges = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            if first > last || last >= Slot::COUNT {
                return None;
            }
            ranges.push(first..=last);
        }
        Some(Self(ranges))
    }

    /// The slots from each range given; what is not a slot is left out.
    pub fn from_ranges(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Self {
        Self(
            ranges
                .into_iter()
                .filter(|range| *range.end() < Slot::COUNT && range.start() <= range.end())
                .collect(),
        )
    }

    /// The ranges in the server's order.
    pub fn ranges(&self) -> &[RangeInclusive<u16>] {
        &self.0
    }

    /// Whether the slot is among them.
    pub fn contains(&self, slot: Slot) -> bool {
        self.0.iter().any(|range| range.contains(&slot.number()))
    }

    /// Whether a slot is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|a| other.0.iter().any(|b| a.start() <= b.end() && b.start() <= a.end()))
    }

    /// True when no slot is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for SlotRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            if range.start() == range.end() {
                write!(f, "{comma}{}", range.start())?;
            } else {
                write!(f, "{comma}{}-{}", range.start(), range.end())?;
            }
        }
        Ok(())
    }
}

/// A push with the name of an announcement that cannot be understood; to be counted, never acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {name} announcement: {what}")]
pub struct MalformedNotice {
    /// The announcement.
    pub name: &'static str,
    /// What is wrong with it.
    pub what: &'static str,
}

const NAMES: [&str; 7] =
    ["FAILED_OVER", "FAILING_OVER", "MIGRATED", "MIGRATING", "MOVING", "SMIGRATED", "SMIGRATING"];

impl Notice {
    /// The canonical name when `name` announces maintenance, in whatever case.
    pub fn name_of(name: &[u8]) -> Option<&'static str> {
        NAMES.into_iter().find(|known| known.as_bytes().eq_ignore_ascii_case(name))
    }

    /// Its name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::FailedOver { .. } => "FAILED_OVER",
            Self::FailingOver { .. } => "FAILING_OVER",
            Self::Migrated { .. } => "MIGRATED",
            Self::Migrating { .. } => "MIGRATING",
            Self::Moving { .. } => "MOVING",
            Self::SlotsMigrated { .. } => "SMIGRATED",
            Self::SlotsMigrating { .. } => "SMIGRATING",
        }
    }

    /// Its sequence id, if it has one.
    pub fn seq(&self) -> Option<u64> {
        match self {
            Self::FailedOver { seq, .. }
            | Self::FailingOver { seq, .. }
            | Self::Migrated { seq, .. }
            | Self::Migrating { seq, .. }
            | Self::Moving { seq, .. }
            | Self::SlotsMigrated { seq, .. }
            | Self::SlotsMigrating { seq, .. } => *seq,
        }
    }

    /// Reads the elements of a push, its name included.
    ///
    /// `None` when the name is none of the seven.
    pub fn parse(elements: &[Frame]) -> Option<Result<Self, MalformedNotice>> {
        let name = Self::name_of(elements.first()?.as_bytes()?)?;
        Some(read(name, elements.get(1..).unwrap_or_default()))
    }
}

fn read(name: &'static str, rest: &[Frame]) -> Result<Notice, MalformedNotice> {
    let malformed = |what| MalformedNotice { name, what };
    let seq = match rest.first() {
        None | Some(Frame::Null) => None,
        Some(frame) => match integer(frame) {
            Some(seq) => Some(u64::try_from(seq).map_err(|_negative| malformed("negative sequence id"))?),
            None => return Err(malformed("sequence id is no number")),
        },
    };
    let rest = rest.get(1..).unwrap_or_default();
    Ok(match name {
        "MOVING" => {
            let grace = match rest.first() {
                None | Some(Frame::Null) => None,
                Some(frame) => Some(seconds(frame).ok_or_else(|| malformed("time is no number"))?),
            };
            let target = match rest.get(1) {
                None | Some(Frame::Null) => None,
                Some(frame) => {
                    let text = frame.as_bytes().ok_or_else(|| malformed("endpoint is no string"))?;
                    let text =
                        std::str::from_utf8(text).map_err(|_invalid| malformed("endpoint is not text"))?;
                    endpoint(text).map_err(malformed)?
                }
            };
            if seq.is_none() && grace.is_none() && target.is_none() {
                return Err(malformed("nothing but a name"));
            }
            Notice::Moving { seq, grace, target }
        }
        "MIGRATING" | "FAILING_OVER" => {
            // The time may be absent; a list of shards is never a time.
            let (within, shards) = match rest.first() {
                Some(first) if seconds(first).is_some() => (seconds(first), rest.get(1)),
                first => (None, first),
            };
            let shards = shards.map(strings).unwrap_or_default();
            if name == "MIGRATING" {
                Notice::Migrating { seq, within, shards }
            } else {
                Notice::FailingOver { seq, within, shards }
            }
        }
        "MIGRATED" | "FAILED_OVER" => {
            // Some servers send a time here too: the list is the last element.
            let shards = rest.iter().rev().map(strings).find(|shards| !shards.is_empty()).unwrap_or_default();
            if name == "MIGRATED" {
                Notice::Migrated { seq, shards }
            } else {
                Notice::FailedOver { seq, shards }
            }
        }
        "SMIGRATING" => {
            let slots = rest.iter().find_map(slot_ranges).ok_or_else(|| malformed("no slots"))?;
            Notice::SlotsMigrating { seq, slots }
        }
        _ => {
            let moves = rest.iter().find_map(slot_moves).ok_or_else(|| malformed("no moves"))?;
            Notice::SlotsMigrated { seq, moves }
        }
    })
}

/// A number, or a string that holds one; what no 64 bits hold is the largest that they do.
fn integer(frame: &Frame) -> Option<i64> {
    let text = match frame {
        Frame::Integer(value) => return Some(*value),
        other => std::str::from_utf8(other.as_bytes()?).ok()?.trim(),
    };
    text.parse().ok().or_else(|| {
        let digits = text.trim_start_matches(['-', '+']);
        let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        all.then_some(if text.starts_with('-') { i64::MIN } else { i64::MAX })
    })
}

/// Late joiners are told 0 or less: the operation is due now.
fn seconds(frame: &Frame) -> Option<Duration> {
    let fraction = match frame {
        Frame::Double(value) => *value,
        other => match integer(other) {
            Some(value) => return Some(Duration::from_secs(u64::try_from(value).unwrap_or(0))),
            None => std::str::from_utf8(other.as_bytes()?).ok()?.trim().parse().ok()?,
        },
    };
    if fraction.is_nan() {
        return None;
    }
    Some(Duration::try_from_secs_f64(fraction.max(0.0)).unwrap_or(Duration::MAX))
}

/// `Ok(None)` for every way of saying "no address"; a host without a port is none either, because a guessed port
/// would lead astray those who can ask the configured name.
fn endpoint(text: &str) -> Result<Option<Endpoint>, &'static str> {
    let text = text.trim();
    let no_port = text.ends_with(":0");
    let no_host = text.is_empty() || text.starts_with(':') && !text.starts_with("::");
    if no_port || no_host {
        return Ok(None);
    }
    // No port is port 0, as that of a Unix socket is, which no announcement may lead to.
    let endpoint = Endpoint::parse_with_default_port(text, 0).map_err(|_bad| "endpoint is not host:port")?;
    let host = endpoint.host();
    let unknown = ["?", "null", "nil"].iter().any(|word| host.eq_ignore_ascii_case(word));
    // An IPv6 address without brackets and port loses its last group to the port, and is none any more.
    let address = host.split('%').next().unwrap_or_default();
    let cut = address.contains(':') && address.parse::<std::net::Ipv6Addr>().is_err();
    Ok((!unknown && !cut && !endpoint.is_unix()).then_some(endpoint))
}

fn strings(frame: &Frame) -> Vec<String> {
    match frame.elements() {
        Some(list) => list.iter().filter_map(text).collect(),
        None => match frame {
            Frame::Integer(_) | Frame::Double(_) | Frame::Null => Vec::new(),
            scalar => text(scalar)
                .map(|all| all.split([',', ' ']).filter(|s| !s.is_empty()).map(str::to_owned).collect())
                .unwrap_or_default(),
        },
    }
}

fn text(frame: &Frame) -> Option<String> {
    match frame {
        Frame::Integer(number) => Some(number.to_string()),
        other => String::from_utf8(other.as_bytes()?.to_vec()).ok(),
    }
}

fn slot_ranges(frame: &Frame) -> Option<SlotRanges> {
    let joined = match frame.elements() {
        Some(list) => list.iter().map(text).collect::<Option<Vec<_>>>()?.join(","),
        None => text(frame)?,
    };
    SlotRanges::parse(&joined).filter(|ranges| !ranges.is_empty())
}

/// Triplets of source, target and slots; a bad triplet is left out, the others are used.
fn slot_moves(frame: &Frame) -> Option<Vec<SlotMove>> {
    let moves: Vec<_> = frame
        .elements()?
        .iter()
        .filter_map(|triplet| {
            let [source, target, slots, ..] = triplet.elements()? else { return None };
            let address = |frame: &Frame| text(frame).and_then(|text| endpoint(&text).ok().flatten());
            Some(SlotMove { source: address(source), target: address(target)?, slots: slot_ranges(slots)? })
        })
        .collect();
    (!moves.is_empty()).then_some(moves)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(wire: &str) -> Option<Result<Notice, MalformedNotice>> {
        let frame =
            Frame::parse(&bytes::Bytes::copy_from_slice(wire.as_bytes()), &crate::Limits::default()).unwrap();
        Notice::parse(frame.elements().unwrap())
    }

    #[test]
    fn moving_in_every_form_that_was_seen() {
        let moving = |seq, grace: Option<u64>, target: Option<&str>| {
            Some(Ok(Notice::Moving {
                seq,
                grace: grace.map(Duration::from_secs),
                target: target.map(|t| t.parse().unwrap()),
            }))
        };
        for (wire, expected) in [
            (">4\r\n$6\r\nMOVING\r\n:0\r\n:15\r\n_\r\n", moving(Some(0), Some(15), None)),
            (
                ">4\r\n+MOVING\r\n:17\r\n:15\r\n+54.78.247.156:12075\r\n",
                moving(Some(17), Some(15), Some("54.78.247.156:12075")),
            ),
            (">3\r\n+moving\r\n$1\r\n1\r\n$2\r\n15\r\n", moving(Some(1), Some(15), None)),
            (">4\r\n+MOVING\r\n:1\r\n:-3\r\n+\r\n", moving(Some(1), Some(0), None)),
            (">4\r\n+MOVING\r\n:1\r\n:5\r\n+?:6379\r\n", moving(Some(1), Some(5), None)),
            (">4\r\n+MOVING\r\n:1\r\n:5\r\n+:6379\r\n", moving(Some(1), Some(5), None)),
            (">4\r\n+MOVING\r\n:1\r\n:5\r\n+h:0\r\n", moving(Some(1), Some(5), None)),
            (
                ">5\r\n+MOVING\r\n:1\r\n:5\r\n+[::1]:7000\r\n+more\r\n",
                moving(Some(1), Some(5), Some("[::1]:7000")),
            ),
            (">4\r\n+MOVING\r\n_\r\n:5\r\n+h:1\r\n", moving(None, Some(5), Some("h:1"))),
            (
                ">5\r\n$6\r\nMoving\r\n+07\r\n+ 5 \r\n$3\r\nh:1\r\n%0\r\n",
                moving(Some(7), Some(5), Some("h:1")),
            ),
            (">2\r\n+MOVING\r\n:1\r\n", moving(Some(1), None, None)),
            (">4\r\n+MOVING\r\n:1\r\n_\r\n+h:1\r\n", moving(Some(1), None, Some("h:1"))),
        ] {
            assert_eq!(parse(wire), expected, "{wire:?}");
        }
    }

    #[test]
    fn every_way_of_naming_a_target_or_none() {
        for (text, target) in [
            ("10.0.0.1:6379", Some("10.0.0.1:6379")),
            ("node.example:12000", Some("node.example:12000")),
            ("[2001:db8::1]:7000", Some("[2001:db8::1]:7000")),
            // The last colon divides, as in every address that servers print.
            ("2001:db8::1:7000", Some("[2001:db8::1]:7000")),
            ("::1:7000", Some("[::1]:7000")),
            (" h:1 ", Some("h:1")),
            ("", None),
            ("?", None),
            ("?:6379", None),
            (":6379", None),
            ("h:0", None),
            ("null", None),
            ("NULL:6379", None),
            ("nil", None),
            ("10.0.0.1", None),
            ("node.example", None),
            ("[2001:db8::1]", None),
            ("2001:db8::1", None),
            ("::1", None),
            ("[2001:db8::1]:0", None),
            // A server has no say over the files of this machine.
            ("unix:/run/other.sock", None),
        ] {
            let target = target.map(|target| target.parse().unwrap());
            let expected = Notice::Moving { seq: Some(1), grace: Some(Duration::from_secs(5)), target };
            for sign in [format!("+{text}\r\n"), format!("${}\r\n{text}\r\n", text.len())] {
                let wire = format!(">4\r\n+MOVING\r\n:1\r\n:5\r\n{sign}");
                assert_eq!(parse(&wire), Some(Ok(expected.clone())), "{wire:?}");
            }
        }
    }

    #[test]
    fn every_way_of_writing_a_time() {
        for (wire, time) in [
            (":5", Duration::from_secs(5)),
            ("+5", Duration::from_secs(5)),
            ("(5", Duration::from_secs(5)),
            (",1.5", Duration::from_millis(1500)),
            ("+1.5", Duration::from_millis(1500)),
            (":0", Duration::ZERO),
            (":-7", Duration::ZERO),
            ("+-7", Duration::ZERO),
            (",-inf", Duration::ZERO),
            ("(-99999999999999999999", Duration::ZERO),
            (":9223372036854775807", Duration::from_secs(i64::MAX.unsigned_abs())),
            ("+99999999999999999999", Duration::from_secs(i64::MAX.unsigned_abs())),
            (",1e300", Duration::MAX),
            (",inf", Duration::MAX),
        ] {
            let moving = Notice::Moving { seq: Some(1), grace: Some(time), target: None };
            assert_eq!(parse(&format!(">3\r\n+MOVING\r\n:1\r\n{wire}\r\n")), Some(Ok(moving)), "{wire}");
            let migrating = Notice::Migrating { seq: Some(1), within: Some(time), shards: Vec::new() };
            let parsed = parse(&format!(">4\r\n+migrating\r\n:1\r\n{wire}\r\n*0\r\n"));
            assert_eq!(parsed, Some(Ok(migrating)), "{wire}");
        }
    }

    #[test]
    fn malformed_announcements_are_errors_and_other_pushes_are_none() {
        for wire in [
            ">1\r\n+MOVING\r\n",
            ">4\r\n+MOVING\r\n+abc\r\n+xyz\r\n:5\r\n",
            ">4\r\n+MOVING\r\n:1\r\n:5\r\n*1\r\n+h:1\r\n",
            ">4\r\n+MOVING\r\n:1\r\n:5\r\n+h:port\r\n",
            ">4\r\n+MOVING\r\n:1\r\n:5\r\n+[::1]7000\r\n",
            ">4\r\n+MOVING\r\n:1\r\n,nan\r\n+h:1\r\n",
            ">4\r\n+MOVING\r\n:-1\r\n:5\r\n+h:1\r\n",
            ">3\r\n+SMIGRATING\r\n:1\r\n+5-1\r\n",
            ">3\r\n+SMIGRATED\r\n:1\r\n+x\r\n",
            ">3\r\n+SMIGRATED\r\n:1\r\n*0\r\n",
        ] {
            assert!(matches!(parse(wire), Some(Err(_))), "{wire:?} {:?}", parse(wire));
        }
        assert_eq!(parse(">2\r\n+message\r\n+x\r\n"), None);
    }

    #[test]
    fn starts_and_ends_keep_their_shards() {
        assert_eq!(
            parse(">4\r\n+MIGRATING\r\n:1\r\n:2\r\n*2\r\n+1\r\n+2\r\n"),
            Some(Ok(Notice::Migrating {
                seq: Some(1),
                within: Some(Duration::from_secs(2)),
                shards: vec!["1".into(), "2".into()]
            }))
        );
        assert_eq!(
            parse(">3\r\n+FAILED_OVER\r\n:2\r\n*1\r\n:7\r\n"),
            Some(Ok(Notice::FailedOver { seq: Some(2), shards: vec!["7".into()] }))
        );
        assert_eq!(
            parse(">2\r\n+FAILING_OVER\r\n:2\r\n"),
            Some(Ok(Notice::FailingOver { seq: Some(2), within: None, shards: vec![] }))
        );
    }

    #[test]
    fn slot_moves_skip_a_bad_triplet() {
        let wire =
            ">3\r\n+SMIGRATED\r\n:5\r\n*2\r\n*3\r\n+h1:6379\r\n+h2:6379\r\n+123,789-1000\r\n*1\r\n+x\r\n";
        let Some(Ok(Notice::SlotsMigrated { seq: Some(5), moves })) = parse(wire) else { panic!() };
        assert_eq!(moves.len(), 1);
        assert_eq!(moves[0].slots.to_string(), "123,789-1000");
        assert!(moves[0].slots.contains(Slot::new(800).unwrap()));
    }
}
