//! Tuples of replies: how they grow with each command, and how they are read.

use evenkeel_protocol::{FromReply, Reply};

use crate::{
    call::settle,
    error::{CommandName, Error, Executed},
};

/// A tuple that can take one more reply.
///
/// Implemented for tuples of up to 15; a pipeline or transaction of more is a [`Batch`](crate::Batch).
#[diagnostic::on_unimplemented(
    message = "a pipeline holds at most 16 commands; use `client.batch()` for more",
    label = "no room for another command"
)]
pub trait Append<T> {
    /// The longer tuple.
    type Out;
}

/// A tuple that the replies of a pipeline become. Not to be implemented elsewhere.
pub trait Replies: sealed::Read {}

pub(crate) mod sealed {
    use evenkeel_protocol::Reply;

    use crate::error::Error;

    #[expect(unnameable_types, reason = "sealed")]
    pub trait Read: Sized {
        /// The tuple with a `Result` for each.
        type Each;

        fn whole(names: &[&'static str], replies: Vec<Result<Reply, Error>>) -> Result<Self, Error>;

        fn each(names: &[&'static str], replies: Vec<Result<Reply, Error>>) -> Self::Each;
    }
}

/// The replies of a pipeline, one after the other.
struct Results<'a> {
    names: &'a [&'static str],
    replies: std::vec::IntoIter<Result<Reply, Error>>,
    position: usize,
}

impl<'a> Results<'a> {
    fn new(names: &'a [&'static str], replies: Vec<Result<Reply, Error>>) -> Self {
        Self { names, replies: replies.into_iter(), position: 0 }
    }

    fn next<T: FromReply>(&mut self) -> Result<T, Error> {
        let position = self.position;
        self.position += 1;
        // The machinery gives one result for each command; were one missing, its fate would be unknown.
        let reply = self.replies.next().unwrap_or_else(|| Err(Error::closed(Executed::Maybe)));
        let name = CommandName::named(self.names.get(position).copied());
        settle(|| name, reply).map_err(|error| error.in_pipeline(position))
    }
}

macro_rules! tuples {
    ($(($($name:ident)*) + $next:ident;)+) => {$(
        impl<$($name,)* $next> Append<$next> for ($($name,)*) {
            type Out = ($($name,)* $next,);
        }

        impl<$($name: FromReply,)* $next: FromReply> Replies for ($($name,)* $next,) {}

        impl<$($name: FromReply,)* $next: FromReply> sealed::Read for ($($name,)* $next,) {
            type Each = ($(Result<$name, Error>,)* Result<$next, Error>,);

            fn whole(names: &[&'static str], replies: Vec<Result<Reply, Error>>) -> Result<Self, Error> {
                let mut results = Results::new(names, replies);
                Ok(($(results.next::<$name>()?,)* results.next::<$next>()?,))
            }

            fn each(names: &[&'static str], replies: Vec<Result<Reply, Error>>) -> Self::Each {
                let mut results = Results::new(names, replies);
                ($(results.next::<$name>(),)* results.next::<$next>(),)
            }
        }
    )+};
}

impl Replies for () {}

impl sealed::Read for () {
    type Each = ();

    fn whole(_names: &[&'static str], _replies: Vec<Result<Reply, Error>>) -> Result<Self, Error> {
        Ok(())
    }

    fn each(_names: &[&'static str], _replies: Vec<Result<Reply, Error>>) -> Self::Each {}
}

tuples! {
    () + A;
    (A) + B;
    (A B) + C;
    (A B C) + D;
    (A B C D) + E;
    (A B C D E) + F;
    (A B C D E F) + G;
    (A B C D E F G) + H;
    (A B C D E F G H) + I;
    (A B C D E F G H I) + J;
    (A B C D E F G H I J) + L;
    (A B C D E F G H I J L) + M;
    (A B C D E F G H I J L M) + N;
    (A B C D E F G H I J L M N) + O;
    (A B C D E F G H I J L M N O) + P;
    (A B C D E F G H I J L M N O P) + Q;
}

#[cfg(test)]
mod tests {
    use evenkeel_protocol::Command;

    use super::{sealed::Read as _, *};

    fn replies(wire: &[&'static [u8]]) -> Vec<Result<Reply, Error>> {
        wire.iter().map(|bytes| Ok(Reply::new((*bytes).into()))).collect()
    }

    fn names(names: &[&str]) -> Vec<&'static str> {
        names.iter().map(|name| CommandName::of(&Command::new(name)).as_str()).collect()
    }

    #[test]
    fn each_reply_becomes_its_own_type() {
        let (a, b) =
            <(i64, Option<String>)>::whole(&names(&["INCR", "GET"]), replies(&[b":3\r\n", b"$1\r\nx\r\n"]))
                .unwrap();
        assert_eq!((a, b.as_deref()), (3, Some("x")));
    }

    type Asked = (i64, i64, Option<String>);

    #[test]
    fn the_first_error_has_its_place_and_the_others_can_be_kept() {
        let names = names(&["INCR", "LPUSH", "GET"]);
        let wire: [&[u8]; 3] = [b":3\r\n", b"-WRONGTYPE no list\r\n", b"_\r\n"];
        let error = Asked::whole(&names, replies(&wire)).unwrap_err();
        assert_eq!((error.position(), error.server_code()), (Some(1), Some("WRONGTYPE")));
        assert_eq!(
            error.to_string(),
            "command 2 of the pipeline: the server answered LPUSH with WRONGTYPE no list"
        );
        let (a, b, c) = Asked::each(&names, replies(&wire));
        assert_eq!((a.unwrap(), b.unwrap_err().position(), c.unwrap()), (3, Some(1), None));
    }

    #[test]
    fn a_missing_reply_is_an_unknown_fate() {
        let error = <(i64, i64)>::whole(&names(&["INCR", "INCR"]), replies(&[b":1\r\n"])).unwrap_err();
        assert_eq!((error.executed(), error.position()), (Executed::Maybe, Some(1)));
    }
}
