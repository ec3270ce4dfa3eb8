//! Replies of several nodes made into one, by the command's `response_policy`.

use bytes::{Bytes, BytesMut};
use evenkeel_protocol::{
    Reply,
    command::{Request, Response, Spec},
};

use crate::error::{Error, Executed};

/// Stands for a reply that nobody misses.
pub(super) const NOTHING: Bytes = Bytes::new();

/// Whether answers to this command can become one. Those that are texts for people stay the answer of one node.
pub(super) fn can_join(spec: &Spec) -> bool {
    match spec.response() {
        Response::Special => false,
        Response::Default => {
            matches!(
                spec.name(),
                "CLUSTER SLOT-STATS" | "COMMANDLOG GET" | "KEYS" | "RANDOMKEY" | "SLOWLOG GET"
            )
        }
        _ => spec.request() != Request::Special,
    }
}

/// One reply from several, by the policy of the command.
pub(super) fn joined(spec: &Spec, replies: Vec<Result<Reply, Error>>) -> Result<Reply, Error> {
    if spec.response() == Response::OneSucceeded {
        return one_succeeded(replies);
    }
    let replies = all_succeeded(replies)?;
    match spec.response() {
        Response::AggLogicalAnd => per_element(&replies, i64::min),
        Response::AggLogicalOr => per_element(&replies, i64::max),
        Response::AggMax => numbers(&replies, |all| all.max()),
        Response::AggMin => numbers(&replies, |all| all.min()),
        Response::AggSum => numbers(&replies, |all| Some(all.fold(0, i64::saturating_add))),
        Response::Default if spec.name() == "RANDOMKEY" => {
            let found = replies.iter().position(|reply| {
                !matches!(reply.as_bytes().first(), Some(b'_')) && !reply.as_bytes().starts_with(b"$-1")
            });
            nth(replies, found.unwrap_or(0))
        }
        Response::Default => concatenated(&replies),
        _ => nth(replies, 0),
    }
}

fn nth(replies: Vec<Reply>, at: usize) -> Result<Reply, Error> {
    replies.into_iter().nth(at).ok_or_else(|| Error::closed(Executed::No))
}

/// The first success; if there is none, the first error.
fn one_succeeded(replies: Vec<Result<Reply, Error>>) -> Result<Reply, Error> {
    let mut first_error = None;
    for reply in replies {
        match reply {
            Ok(reply) => return Ok(reply),
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| Error::closed(Executed::No)))
}

/// All of them, or the first error; which then says that the rest may have run.
fn all_succeeded(replies: Vec<Result<Reply, Error>>) -> Result<Vec<Reply>, Error> {
    let certain =
        |reply: &Result<Reply, Error>| matches!(reply, Err(error) if error.executed() == Executed::No);
    let nothing_ran = replies.iter().all(certain);
    let all: Result<Vec<Reply>, Error> = replies.into_iter().collect();
    all.map_err(|error| if nothing_ran { error } else { error.partly_executed() })
}

fn shape() -> Error {
    Error::closed(Executed::Yes)
}

fn numbers(
    replies: &[Reply],
    of: impl Fn(&mut dyn Iterator<Item = i64>) -> Option<i64>,
) -> Result<Reply, Error> {
    let all: Result<Vec<i64>, _> = replies.iter().map(Reply::decode::<i64>).collect();
    let all = all.map_err(|_other_shape| shape())?;
    let number = of(&mut all.into_iter()).unwrap_or(0);
    Ok(Reply::new(Bytes::from(format!(":{number}\r\n"))))
}

/// Lists of numbers, place by place.
fn per_element(replies: &[Reply], of: impl Fn(i64, i64) -> i64) -> Result<Reply, Error> {
    let mut joined: Option<Vec<i64>> = None;
    for reply in replies {
        let list: Vec<i64> = reply.decode().map_err(|_other_shape| shape())?;
        joined = Some(match joined {
            None => list,
            Some(known) => known.into_iter().zip(list).map(|(a, b)| of(a, b)).collect(),
        });
    }
    let elements: Vec<Bytes> =
        joined.unwrap_or_default().into_iter().map(|number| format!(":{number}\r\n").into()).collect();
    Ok(list(&elements))
}

/// The elements of a list, each with its bytes.
fn elements(reply: &Reply) -> Result<Vec<Bytes>, Error> {
    let mut reader = reply.reader();
    let mut items = reader.list("a list").map_err(|_other_shape| shape())?;
    let mut elements = Vec::new();
    while reader.more(&mut items).map_err(|_other_shape| shape())? {
        elements.push(reader.take_value().map_err(|_other_shape| shape())?);
    }
    Ok(elements)
}

fn list(elements: &[Bytes]) -> Reply {
    let mut wire = BytesMut::with_capacity(16 + elements.iter().map(Bytes::len).sum::<usize>());
    wire.extend_from_slice(format!("*{}\r\n", elements.len()).as_bytes());
    for element in elements {
        wire.extend_from_slice(element);
    }
    Reply::new(wire.freeze())
}

fn concatenated(replies: &[Reply]) -> Result<Reply, Error> {
    let mut all = Vec::new();
    for reply in replies {
        all.extend(elements(reply)?);
    }
    Ok(list(&all))
}

/// Lists whose elements belong to `places` of a list of `count`. What a server refused stands in its places as an error.
///
/// # Errors
/// An error that is not a server's, as a whole: nobody knows the values.
pub(super) fn in_order(
    places: &[Vec<usize>],
    count: usize,
    replies: Vec<Result<Reply, Error>>,
) -> Result<Reply, Error> {
    let mut all = vec![Bytes::from_static(b"_\r\n"); count];
    let mut put = |place: usize, element: Bytes| {
        if let Some(slot) = all.get_mut(place) {
            *slot = element;
        }
    };
    for (places, reply) in places.iter().zip(replies) {
        match reply {
            Ok(reply) => {
                for (place, element) in places.iter().zip(elements(&reply)?) {
                    put(*place, element);
                }
            }
            Err(error) => match error.server_error().map(ToString::to_string) {
                Some(words) => {
                    for place in places {
                        put(*place, Bytes::from(format!("-{words}\r\n")));
                    }
                }
                None => return Err(error),
            },
        }
    }
    Ok(list(&all))
}

#[cfg(test)]
mod tests {
    use evenkeel_protocol::{Command, ServerError};

    use super::*;

    fn reply(wire: &'static str) -> Reply {
        Reply::new(wire.into())
    }

    fn spec(name: &str) -> &'static Spec {
        Spec::find(name).unwrap()
    }

    fn refused() -> Result<Reply, Error> {
        let error = Reply::new("-NOPERM no\r\n".into()).error().unwrap();
        Err(Error::server(error, &Command::new("MGET"), None))
    }

    fn wire(result: Result<Reply, Error>) -> String {
        String::from_utf8(result.unwrap().as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn answers_become_one_as_the_command_says() {
        let of = |name, replies: [&'static str; 2]| {
            wire(joined(spec(name), replies.map(|wire| Ok(reply(wire))).into()))
        };
        assert_eq!(of("DBSIZE", [":3\r\n", ":4\r\n"]), ":7\r\n");
        assert_eq!(of("FLUSHALL", ["+OK\r\n", "+OK\r\n"]), "+OK\r\n");
        assert_eq!(of("SCRIPT EXISTS", ["*2\r\n:1\r\n:0\r\n", "*2\r\n:1\r\n:1\r\n"]), "*2\r\n:1\r\n:0\r\n");
        assert_eq!(of("KEYS", ["*1\r\n$1\r\na\r\n", "*1\r\n$1\r\nb\r\n"]), "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
        assert_eq!(of("RANDOMKEY", ["_\r\n", "$1\r\nb\r\n"]), "$1\r\nb\r\n");
    }

    #[test]
    fn one_refusal_fails_all_or_stands_in_its_places() {
        let failed = joined(spec("FLUSHALL"), vec![Ok(reply("+OK\r\n")), refused()]).unwrap_err();
        assert_eq!(failed.executed(), Executed::Maybe);
        assert_eq!(wire(joined(spec("SCRIPT KILL"), vec![refused(), Ok(reply("+OK\r\n"))])), "+OK\r\n");
        let places = [vec![0, 2], vec![1]];
        let values = in_order(&places, 3, vec![Ok(reply("*2\r\n$1\r\na\r\n_\r\n")), refused()]).unwrap();
        let values: Vec<Result<Option<String>, ServerError>> = values.decode().unwrap();
        assert_eq!(values[0], Ok(Some("a".to_owned())));
        assert_eq!(values[1].as_ref().unwrap_err().code(), "NOPERM");
        assert_eq!(values[2], Ok(None));
    }
}
