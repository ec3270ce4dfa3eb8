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

/// Where the time is that a blocking command waits, among its arguments with the name first, and whether it is in
/// seconds; `None` for those that wait for something else than data.
fn timeout_place(name: &str, args: &[&[u8]]) -> Option<(usize, bool)> {
    let last = args.len().checked_sub(1)?;
    match name {
        "XREAD" | "XREADGROUP" => {
            let at = args.iter().position(|arg| arg.eq_ignore_ascii_case(b"BLOCK"))?;
            (at < last).then_some((at + 1, false))
        }
        "BLMPOP" | "BZMPOP" => (last >= 1).then_some((1, true)),
        "WAIT" | "WAITAOF" => None,
        _ => (last >= 1).then_some((last, true)),
    }
}

/// The same command with another time to wait; zero is for ever.
pub(super) fn with_block_timeout(command: &Command, wait: Duration) -> Option<Command> {
    let args: Vec<&[u8]> = command.args().collect();
    let name = command.spec()?.name();
    let (place, seconds) = timeout_place(name, &args)?;
    let mut other = Command::new(name);
    for (at, arg) in args.iter().enumerate().skip(1) {
        other = if at != place {
            other.arg(*arg)
        } else if seconds {
            other.arg(wait.as_secs_f64())
        } else {
            // Less than a millisecond must not become for ever.
            let whole = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            other.arg(whole.max(u64::from(!wait.is_zero())))
        };
    }
    Some(other)
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
