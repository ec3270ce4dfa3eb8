//! One header line, and the scalars that fit on it.

use nom::{
    IResult, Parser,
    branch::alt,
    bytes::complete::{tag, take, take_until},
    character::complete::{i64 as signed, u64 as unsigned},
    combinator::{all_consuming, map, value},
    sequence::{preceded, terminated},
};

/// What one header says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Header<'a> {
    /// `*`, `%`, `~`, `>`, `|` with the count as written; `None` is the streamed form.
    Aggregate(u8, Option<u64>),
    BigNumber(&'a [u8]),
    Blob(&'a [u8]),
    BlobError(&'a [u8]),
    Boolean(bool),
    /// `;n` with its bytes; empty ends the string.
    Chunk(&'a [u8]),
    Double(f64),
    /// `.` ends a streamed aggregate.
    End,
    Integer(i64),
    Null,
    Simple(&'a [u8]),
    SimpleError(&'a [u8]),
    /// `$?`: chunks follow.
    StreamedBlob,
    Verbatim([u8; 3], &'a [u8]),
}

fn line(input: &[u8]) -> IResult<&[u8], &[u8]> {
    terminated(take_until(&b"\r\n"[..]), tag(&b"\r\n"[..])).parse(input)
}

fn length(input: &[u8]) -> IResult<&[u8], u64> {
    terminated(unsigned, tag(&b"\r\n"[..])).parse(input)
}

fn body(input: &[u8]) -> IResult<&[u8], &[u8]> {
    let (input, length) = length(input)?;
    terminated(take(length), tag(&b"\r\n"[..])).parse(input)
}

fn minus_one(input: &[u8]) -> IResult<&[u8], Header<'_>> {
    value(Header::Null, tag(&b"-1\r\n"[..])).parse(input)
}

fn streamed(input: &[u8]) -> IResult<&[u8], &[u8]> {
    tag(&b"?\r\n"[..]).parse(input)
}

fn aggregate(marker: u8) -> impl Fn(&[u8]) -> IResult<&[u8], Header<'_>> {
    move |input| {
        alt((
            value(Header::Aggregate(marker, None), streamed),
            map(length, |count| Header::Aggregate(marker, Some(count))),
        ))
        .parse(input)
    }
}

fn invalid(input: &[u8]) -> nom::Err<nom::error::Error<&[u8]>> {
    nom::Err::Error(nom::error::Error::new(input, nom::error::ErrorKind::Verify))
}

/// Digits that always fit into 63 bits.
const SAFE_DIGITS: usize = 18;

/// Reads an unsigned number of at most 18 digits and its line end.
#[inline]
pub(crate) fn short_length(input: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    let mut at = 0usize;
    loop {
        let byte = *input.get(at)?;
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 && at < SAFE_DIGITS {
            value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
            at = at.wrapping_add(1);
            continue;
        }
        if byte != b'\r' || at == 0 || input.get(at.wrapping_add(1)) != Some(&b'\n') {
            return None;
        }
        return Some((value, input.get(at.wrapping_add(2)..)?));
    }
}

/// A string of announced length: most elements are one.
#[inline]
pub(crate) fn blob(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let digit = |byte: u8| usize::from(byte.wrapping_sub(b'0'));
    let (length, rest) = match input {
        [b'$', ones @ b'0'..=b'9', b'\r', b'\n', rest @ ..] => (digit(*ones), rest),
        [b'$', tens @ b'0'..=b'9', ones @ b'0'..=b'9', b'\r', b'\n', rest @ ..] => {
            (digit(*tens).wrapping_mul(10).wrapping_add(digit(*ones)), rest)
        }
        [b'$', rest @ ..] => {
            let (length, rest) = short_length(rest)?;
            (usize::try_from(length).ok()?, rest)
        }
        _ => return None,
    };
    let (text, rest) = rest.split_at_checked(length)?;
    let [b'\r', b'\n', rest @ ..] = rest else { return None };
    Some((text, rest))
}

/// Reads the header at the front of `input`, with the bytes of a string; gives what is behind.
pub(crate) fn header(input: &[u8]) -> IResult<&[u8], Header<'_>> {
    if let Some((text, rest)) = blob(input) {
        return Ok((rest, Header::Blob(text)));
    }
    let (input, marker) = nom::number::complete::u8(input)?;
    match marker {
        b'+' => map(line, Header::Simple).parse(input),
        b'-' => map(line, Header::SimpleError).parse(input),
        b':' => {
            let (rest, text) = line(input)?;
            integer(text).map(|number| (rest, Header::Integer(number))).ok_or_else(|| invalid(input))
        }
        b',' => {
            let (rest, text) = line(input)?;
            double(text).map(|number| (rest, Header::Double(number))).ok_or_else(|| invalid(input))
        }
        b'(' => {
            let (rest, text) = line(input)?;
            let digits = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return Err(invalid(input));
            }
            Ok((rest, Header::BigNumber(text)))
        }
        b'#' => alt((
            value(Header::Boolean(true), tag(&b"t\r\n"[..])),
            value(Header::Boolean(false), tag(&b"f\r\n"[..])),
        ))
        .parse(input),
        b'_' => value(Header::Null, tag(&b"\r\n"[..])).parse(input),
        b'$' => alt((map(body, Header::Blob), minus_one, value(Header::StreamedBlob, streamed))).parse(input),
        b'!' => map(body, Header::BlobError).parse(input),
        b'=' => {
            let (rest, text) = body(input)?;
            match text {
                [a, b, c, b':', text @ ..] => Ok((rest, Header::Verbatim([*a, *b, *c], text))),
                _ => Err(invalid(input)),
            }
        }
        b';' => {
            // The last one is empty, and has no line end of its own.
            let (rest, length) = length(input)?;
            if length == 0 { Ok((rest, Header::Chunk(b""))) } else { map(body, Header::Chunk).parse(input) }
        }
        b'.' => value(Header::End, tag(&b"\r\n"[..])).parse(input),
        b'*' => alt((minus_one, aggregate(b'*'))).parse(input),
        b'%' | b'~' | b'>' | b'|' => aggregate(marker)(input),
        _ => Err(invalid(input)),
    }
}

/// A whole 64-bit number; RESP allows a plus sign.
pub(crate) fn integer(text: &[u8]) -> Option<i64> {
    let mut parser = all_consuming::<_, nom::error::Error<&[u8]>, _>(signed);
    parser.parse(text).ok().map(|(_rest, number)| number)
}

/// A floating point number as RESP3 writes it: `inf`, `-inf`, `nan`, or decimal.
pub(crate) fn double(text: &[u8]) -> Option<f64> {
    let named = preceded(
        nom::combinator::opt(tag::<_, _, nom::error::Error<&[u8]>>(&b"+"[..])),
        alt((value(f64::INFINITY, tag(&b"inf"[..])), value(f64::NAN, tag(&b"nan"[..])))),
    );
    if let Ok((_rest, number)) = all_consuming(named).parse(text) {
        return Some(number);
    }
    match text {
        b"-inf" => Some(f64::NEG_INFINITY),
        b"-nan" => Some(f64::NAN),
        _ => std::str::from_utf8(text).ok()?.parse().ok().filter(|number: &f64| number.is_finite()),
    }
}
