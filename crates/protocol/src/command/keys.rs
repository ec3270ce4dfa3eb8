//! Where the keys of a command stand, and how long it blocks: by the table, and by the pages of the few that are special.

use std::time::Duration;

use super::Command;

/// The first key.
pub(super) fn first(command: &Command) -> Option<&[u8]> {
    let spec = command.spec()?;
    let (first, _, _) = spec.keys();
    if first > 0 && !spec.has_movable_keys() {
        return command.args().nth(usize::try_from(first).ok()?);
    }
    if !spec.has_movable_keys() {
        return None;
    }
    all(command).into_iter().next()
}

/// Every key.
pub(super) fn all(command: &Command) -> Vec<&[u8]> {
    let Some(spec) = command.spec() else { return Vec::new() };
    let args: Vec<&[u8]> = command.args().collect();
    let numkeys_at = |at: usize| {
        let count =
            args.get(at).and_then(|text| std::str::from_utf8(text).ok()?.parse::<usize>().ok()).unwrap_or(0);
        args.get(at + 1..).unwrap_or_default().iter().take(count).copied().collect::<Vec<_>>()
    };
    match spec.name() {
        "EVAL" | "EVAL_RO" | "EVALSHA" | "EVALSHA_RO" | "FCALL" | "FCALL_RO" | "BLMPOP" | "BZMPOP" => {
            numkeys_at(2)
        }
        "SINTERCARD" | "ZINTERCARD" | "ZUNION" | "ZINTER" | "ZDIFF" | "LMPOP" | "ZMPOP" | "MSETEX" => {
            numkeys_at(1)
        }
        "ZUNIONSTORE" | "ZINTERSTORE" | "ZDIFFSTORE" => {
            args.get(1).copied().into_iter().chain(numkeys_at(2)).collect()
        }
        "XREAD" | "XREADGROUP" => {
            let Some(at) = args.iter().position(|arg| arg.eq_ignore_ascii_case(b"STREAMS")) else {
                return Vec::new();
            };
            let rest = args.get(at + 1..).unwrap_or_default();
            rest.iter().take(rest.len() / 2).copied().collect()
        }
        _ => {
            let (first, last, step) = spec.keys();
            let Ok(first) = usize::try_from(first) else { return Vec::new() };
            if first == 0 {
                return Vec::new();
            }
            let last = match usize::try_from(last) {
                Ok(last) => last,
                Err(_negative) => args.len().saturating_sub(usize::from(last.unsigned_abs())),
            };
            let step = usize::try_from(step).unwrap_or(1).max(1);
            (first..=last).step_by(step).filter_map(|at| args.get(at).copied()).collect()
        }
    }
}

/// How long a blocking command waits; `None` for ever.
pub(super) fn block_timeout(command: &Command) -> Option<Duration> {
    let args: Vec<&[u8]> = command.args().collect();
    let number = |arg: Option<&&[u8]>| std::str::from_utf8(arg?).ok()?.parse::<f64>().ok();
    let name = command.spec().map_or("", super::Spec::name);
    let seconds = match name {
        "XREAD" | "XREADGROUP" => {
            let at = args.iter().position(|arg| arg.eq_ignore_ascii_case(b"BLOCK"))?;
            number(args.get(at + 1))? / 1000.0
        }
        "BLMPOP" | "BZMPOP" => number(args.get(1))?,
        "WAIT" | "WAITAOF" => number(args.last())? / 1000.0,
        _ => number(args.last())?,
    };
    if seconds > 0.0 { Duration::try_from_secs_f64(seconds).ok() } else { None }
}
