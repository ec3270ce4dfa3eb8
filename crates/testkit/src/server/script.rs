//! Scripts in Rust: EVAL runs a registered function in place of the Lua source that it is called with.

use std::{collections::HashMap, fmt, sync::Arc};

use bytes::Bytes;
use evenkeel_protocol::{Frame, Limits};
use sha1::{Digest, Sha1};

use super::{
    commands::Lookup,
    conn::ConnKey,
    engine::Engine,
    out::{Out, Proto},
    request::OwnedArgs,
};

type Body = dyn Fn(&mut Script<'_>) -> Result<Frame, String> + Send + Sync;

/// A registered function.
#[derive(Clone)]
pub(super) struct ScriptFn(Arc<Body>);

impl ScriptFn {
    pub(super) fn new(
        body: impl Fn(&mut Script<'_>) -> Result<Frame, String> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(body))
    }

    pub(super) fn run(&self, script: &mut Script<'_>) -> Result<Frame, String> {
        (self.0)(script)
    }
}

impl fmt::Debug for ScriptFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScriptFn")
    }
}

/// Registered functions by the SHA-1 of their source, and which of them clients have loaded.
#[derive(Debug, Default)]
pub(super) struct Scripts {
    known: HashMap<String, (ScriptFn, bool)>,
}

impl Scripts {
    pub(super) fn register(&mut self, source: &str, script: ScriptFn) -> String {
        let sha = sha1_hex(source.as_bytes());
        self.known.insert(sha.clone(), (script, false));
        sha
    }

    /// The function of a source, loaded from here on.
    pub(super) fn load(&mut self, sha: &str) -> Option<ScriptFn> {
        let (script, loaded) = self.known.get_mut(sha)?;
        *loaded = true;
        Some(script.clone())
    }

    /// The function, when a client has loaded it.
    pub(super) fn loaded(&self, sha: &str) -> Option<ScriptFn> {
        self.known.get(sha).filter(|(_, loaded)| *loaded).map(|(script, _)| script.clone())
    }

    /// Forgets what clients have loaded.
    pub(super) fn flush(&mut self) {
        self.known.values_mut().for_each(|(_, loaded)| *loaded = false);
    }
}

pub(super) fn sha1_hex(source: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or_default();
    Sha1::digest(source).iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// What a registered script sees of its call. Everything that it does is one atomic step.
///
/// The server's lock is held while it runs: it must not use the server's handle.
pub struct Script<'a> {
    engine: &'a mut Engine,
    conn: ConnKey,
    keys: Vec<Bytes>,
    args: Vec<Bytes>,
}

impl fmt::Debug for Script<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Script({} keys, {} args)", self.keys.len(), self.args.len())
    }
}

impl<'a> Script<'a> {
    pub(super) fn new(engine: &'a mut Engine, conn: ConnKey, keys: Vec<Bytes>, args: Vec<Bytes>) -> Self {
        Self { engine, conn, keys, args }
    }

    /// The keys, as Lua's `KEYS`.
    pub fn keys(&self) -> &[Bytes] {
        &self.keys
    }

    /// The other arguments, as Lua's `ARGV`.
    pub fn args(&self) -> &[Bytes] {
        &self.args
    }

    /// Runs a command, as `redis.pcall` does, and gives its RESP3 reply; an error is a [`Frame::Error`].
    pub fn call<A: AsRef<[u8]>>(&mut self, command: impl IntoIterator<Item = A>) -> Frame {
        let mut owned = OwnedArgs::default();
        command.into_iter().for_each(|arg| owned.push(arg.as_ref()));
        let args = owned.as_args();
        let mut out = Out::new(Proto::Resp3);
        let done = match Lookup::of(args) {
            Lookup::Found(command) if command.is_barred_in_scripts() => {
                Err("ERR This Redis command is not allowed from script".into())
            }
            Lookup::Found(command) => self.engine.call(self.conn, command, args, &mut out, true),
            Lookup::Refused(fault) => Err(fault),
        };
        if let Err(fault) = done {
            out.buf.clear();
            out.error(&fault.0);
        }
        Frame::parse(&out.buf.freeze(), &Limits::default()).unwrap_or(Frame::Null)
    }
}
