//! `CLIENT TRACKING` and its kin.

use bytes::Bytes;

use super::{
    Ctx,
    client::{on_off, signed},
    number::integer,
};
use crate::server::{
    fault::Fault,
    request::Args,
    tracking::{Caching, Tracking},
};

pub(super) fn caching(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let Some(tracking) = &mut ctx.conn().tracking else {
        return Err(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode \
             enabled"
                .into(),
        );
    };
    if args.is(2, "YES") {
        if !tracking.opt_in {
            return Err("ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.".into());
        }
        tracking.caching = Some(Caching::Yes);
    } else if args.is(2, "NO") {
        if !tracking.opt_out {
            return Err("ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.".into());
        }
        tracking.caching = Some(Caching::No);
    } else {
        return Err(Fault::SYNTAX);
    }
    ctx.out.ok();
    Ok(())
}

pub(super) fn tracking(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let mut wanted = Tracking::default();
    let mut at = 3;
    while at < args.len() {
        match args.text(at).to_ascii_uppercase().as_str() {
            "BCAST" => wanted.broadcast = true,
            "OPTIN" => wanted.opt_in = true,
            "OPTOUT" => wanted.opt_out = true,
            "NOLOOP" => wanted.no_loop = true,
            "PREFIX" if at + 1 < args.len() => {
                at += 1;
                wanted.prefixes.push(Bytes::copy_from_slice(args.at(at)));
            }
            "REDIRECT" if at + 1 < args.len() => {
                at += 1;
                let id = integer(args.at(at)).ok_or(Fault::NOT_INTEGER)?;
                let id = u64::try_from(id).ok().filter(|&id| ctx.engine.by_id(id).is_some());
                wanted.redirect = Some(id.ok_or("ERR The client ID you want redirect to does not exist")?);
            }
            _ => return Err(Fault::SYNTAX),
        }
        at += 1;
    }
    let key = ctx.key;
    if on_off(args, 2)? {
        if !wanted.broadcast && !wanted.prefixes.is_empty() {
            return Err("ERR PREFIX option requires BCAST mode to be enabled".into());
        }
        if wanted.broadcast && (wanted.opt_in || wanted.opt_out) {
            return Err("ERR OPTIN and OPTOUT are not compatible with BCAST".into());
        }
        if wanted.opt_in && wanted.opt_out {
            return Err("ERR You can't specify both OPTIN mode and OPTOUT mode".into());
        }
        ctx.engine.start_tracking(key, wanted);
    } else {
        ctx.engine.stop_tracking(key);
    }
    ctx.out.ok();
    Ok(())
}

pub(super) fn getredir(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    let redirect = ctx.conn().tracking.as_ref().map_or(-1, |tracking| tracking.redirect.map_or(0, signed));
    ctx.out.integer(redirect);
    Ok(())
}

pub(super) fn trackinginfo(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    let tracking = ctx.conn().tracking.clone();
    let mut flags = vec![if tracking.is_some() { "on" } else { "off" }];
    if let Some(tracking) = &tracking {
        for (flag, set) in [
            ("bcast", tracking.broadcast),
            ("optin", tracking.opt_in),
            ("optout", tracking.opt_out),
            ("noloop", tracking.no_loop),
        ] {
            if set {
                flags.push(flag);
            }
        }
    }
    let out = &mut *ctx.out;
    out.map(3);
    out.bulk(b"flags");
    out.set(flags.len());
    for flag in &flags {
        out.bulk(flag.as_bytes());
    }
    out.bulk(b"redirect");
    out.integer(tracking.as_ref().map_or(-1, |tracking| tracking.redirect.map_or(0, signed)));
    out.bulk(b"prefixes");
    let prefixes = tracking.map(|tracking| tracking.prefixes).unwrap_or_default();
    out.array(prefixes.len());
    for prefix in &prefixes {
        out.bulk(prefix);
    }
    Ok(())
}
