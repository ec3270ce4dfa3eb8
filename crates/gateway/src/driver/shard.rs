//! The task of one shard: takes its queue in waves, then flushes every session that got something, once.

use super::conn::Conn;
use super::shared::{Phase, Shared, reached};
use crate::hub::shard::Shard;
use crate::hub::{Command, SHARD_QUEUE};
use crate::metrics::Metrics;
use crate::wire::Farewell;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Commands taken in one wave. What came in one wave shares a write per session.
const WAVE: usize = 64;
/// Seconds that a session outlives its token, so that a fresh one can still come.
const TOKEN_GRACE: u64 = 25;
/// Between two looks at the sessions' heartbeats.
const TICK: Duration = Duration::from_secs(1);
/// Between two steps of a drain.
const DRAIN_STEP: Duration = Duration::from_millis(50);

/// Runs one shard until the gateway stops; then closes its sessions.
pub(crate) async fn run(
    shared: Arc<Shared>,
    mut commands: mpsc::Receiver<Command>,
    mut phase: watch::Receiver<Phase>,
) {
    let mut shard = Shard::default();
    let mut wave = Vec::with_capacity(WAVE);
    let mut dirty = Vec::new();
    let mut ticks = tokio::time::interval(TICK);
    // After a standstill of the process its clients get as long for their answers as ever.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut tick = 0_usize;
    loop {
        tokio::select! {
            // Heartbeats come first: a busy queue must not make clients believe that the server is gone.
            biased;
            _ = ticks.tick() => {
                tick = tick.wrapping_add(1);
                shard.tick();
                heartbeat(&shared, &shard, tick);
            }
            () = reached(&mut phase, Phase::Draining) => break,
            taken = commands.recv_many(&mut wave, WAVE) => {
                if taken == 0 {
                    break;
                }
                let alone = taken == 1;
                for command in wave.drain(..) {
                    apply(&shared, &mut shard, command, alone, &mut dirty);
                }
                for conn in dirty.drain(..) {
                    conn.flush();
                }
                tokio::task::yield_now().await;
            }
        }
    }
    drain(&shared, &mut shard, commands, phase).await;
}

fn apply(
    shared: &Shared,
    shard: &mut Shard<Conn>,
    command: Command,
    alone: bool,
    dirty: &mut Vec<Arc<Conn>>,
) {
    match command {
        Command::Activate { conn, channel, serial: _, at: Some((epoch, offset)) } => {
            shard.activate(&conn, &channel, &epoch, offset, dirty);
        }
        Command::Activate { conn, channel, serial, at: None } => {
            shard.open(&conn, &channel, serial, dirty);
        }
        Command::Attach(conn) => shard.attach(conn),
        Command::Detach(conn) => shard.detach(&conn),
        Command::Disconnect { who, why } => {
            shard.visit(0, 1, |conn| {
                if conn.is(&who) {
                    conn.say_farewell(why, false);
                    conn.flush();
                }
            });
        }
        Command::Expel { channel, who } => shard.expel(&channel, |conn| conn.is(&who), dirty),
        Command::Gap(channel) => shard.gap(&channel, dirty),
        Command::NewEpoch(channel, epoch) => shard.new_epoch(&channel, &epoch, dirty),
        Command::Order { who, order } => {
            shard.visit(0, 1, |conn| {
                if conn.is(&who) {
                    conn.order(&order);
                }
            });
        }
        Command::Publish(publication) => {
            let delivered = shard.publish(&publication, alone, dirty);
            Metrics::add(&shared.metrics.delivered, delivered);
        }
        Command::Subscribe { conn, channel, serial } => shard.subscribe(&conn, &channel, serial),
        Command::Unsubscribe { conn, channel } => shard.unsubscribe(&conn, &channel),
    }
}

/// Sends the heartbeats that are due in this second, and closes those whose answer is overdue. Sessions are
/// spread over the interval by their slot, so that a second has its share of them only.
fn heartbeat(shared: &Shared, shard: &Shard<Conn>, tick: usize) {
    let cycle = usize::try_from(shared.rules.ping_seconds).unwrap_or(25).max(1);
    let pong = usize::try_from(shared.config.session.pong_timeout.as_secs()).unwrap_or(8).clamp(1, cycle);
    shard.visit((tick + cycle - pong % cycle) % cycle, cycle, |conn| conn.check_pong());
    let now = super::clock::unix_seconds();
    shard.visit(tick % cycle, cycle, |conn| {
        conn.check_due(now);
        conn.check_expiry(now.saturating_sub(TOKEN_GRACE));
        conn.ping();
    });
}

/// Closes all sessions, spread over the configured time, so that they do not all come back at once elsewhere.
async fn drain(
    shared: &Shared,
    shard: &mut Shard<Conn>,
    mut commands: mpsc::Receiver<Command>,
    mut phase: watch::Receiver<Phase>,
) {
    let spread = shared.config.session.drain;
    let steps = usize::try_from(spread.as_millis() / DRAIN_STEP.as_millis()).unwrap_or(1).max(1);
    // Few sessions are spread as far as many.
    let groups = shard.sessions().clamp(1, steps);
    let mut next = 0;
    let mut dirty = Vec::new();
    for step in 0..steps {
        if *phase.borrow() == Phase::Stopped {
            break;
        }
        if step * groups >= next * steps {
            shard.visit(next, groups, say_goodbye);
            next += 1;
        }
        // Publications go on for those who are still here.
        let until = tokio::time::Instant::from_std(super::clock::now() + DRAIN_STEP);
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(until) => break,
                changed = phase.changed() => if changed.is_err() { break },
                command = commands.recv() => match command {
                    Some(command) => {
                        apply(shared, shard, command, true, &mut dirty);
                        for conn in dirty.drain(..) {
                            conn.flush();
                        }
                    }
                    None => break,
                },
            }
        }
        if shard.sessions() == 0 {
            break;
        }
    }
    shard.visit(0, 1, say_goodbye);
    commands.close();
    // Sessions that attach until the queue is empty are sent away at once.
    for _ in 0..=SHARD_QUEUE {
        match commands.recv().await {
            Some(Command::Attach(conn)) => say_goodbye(&conn),
            Some(_) => {}
            None => break,
        }
    }
}

fn say_goodbye(conn: &Arc<Conn>) {
    conn.say_farewell(Farewell::Shutdown, false);
    conn.flush();
}
