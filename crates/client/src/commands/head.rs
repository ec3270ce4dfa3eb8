//! Names of commands in wire form, made when compiling.

/// Bytes of `$3\r\nGET\r\n`.
pub(super) const fn head_len(name: &str) -> usize {
    let digits = if name.len() < 10 { 1 } else { 2 };
    1 + digits + 2 + name.len() + 2
}

/// Writes `$3\r\nGET\r\n`.
pub(super) const fn head<const N: usize>(name: &str) -> [u8; N] {
    let mut out = [0; N];
    let name = name.as_bytes();
    out[0] = b'$';
    let mut at = 1;
    if name.len() >= 10 {
        out[at] = b'0' + (name.len() / 10) as u8;
        at += 1;
    }
    out[at] = b'0' + (name.len() % 10) as u8;
    out[at + 1] = b'\r';
    out[at + 2] = b'\n';
    at += 3;
    let mut from = 0;
    while from < name.len() {
        out[at + from] = name[from];
        from += 1;
    }
    at += from;
    out[at] = b'\r';
    out[at + 1] = b'\n';
    out
}

/// A command whose name is known when compiling, perhaps with its first key: no search in the table, no formatting of the
/// name.
macro_rules! command {
    ($name:literal $(, $key:expr)?) => {{
        const LEN: usize = crate::commands::head::head_len($name);
        const HEAD: &[u8] = &crate::commands::head::head::<LEN>($name);
        const SPEC: &evenkeel_protocol::command::Spec = evenkeel_protocol::command::Spec::known($name);
        const START: evenkeel_protocol::Command = evenkeel_protocol::Command::with_head(HEAD, Some(SPEC));
        command!(@begun START $(, $key)?)
    }};
    (@begun $start:ident) => {
        $start
    };
    (@begun $start:ident, $key:expr) => {{
        let mut command = $start;
        command.push_key($key);
        command
    }};
}

pub(super) use command;

#[cfg(test)]
mod tests {
    use evenkeel_protocol::Command;

    #[test]
    fn names_are_what_the_encoder_would_write() {
        let wire = |command: Command| {
            let mut out = bytes::BytesMut::new();
            command.encode(&mut out);
            out
        };
        assert_eq!(wire(command!("GET", "k")), wire(Command::new("GET").key("k")));
        assert_eq!(wire(command!("INCRBYFLOAT").arg(1.5)), wire(Command::new("INCRBYFLOAT").arg(1.5)));
        assert_eq!(command!("GET").spec(), Command::new("GET").spec());
    }
}
