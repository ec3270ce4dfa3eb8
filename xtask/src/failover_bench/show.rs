//! The table for people, and the lines for programs.

use super::judge::Line;

const HEAD: &str = "mode     fault               server         client    run  commands failed  ambig.   lost doubled  ready->first ms     gap ms   server ms  others' p99 ms before/after (failed)";

/// Shows lines as they come, and medians at the end of a race.
pub(crate) struct Report {
    json: bool,
    lines: Vec<Line>,
    head_shown: bool,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, lines: Vec::new(), head_shown: false }
    }

    pub(crate) fn add(&mut self, session: u32, mut line: Line) {
        line.run += session;
        if self.json {
            // A struct of numbers and words always has a JSON form.
            println!("{}", serde_json::to_string(&line).unwrap_or_default());
        }
        self.show(&line.run.to_string(), &line);
        self.lines.push(line);
    }

    /// Medians of the times, sums of the rest.
    pub(crate) fn end_of_race(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        let Some(mut all) = lines.first().cloned() else { return };
        if lines.len() < 2 {
            return;
        }
        let sum = |of: fn(&Line) -> u64| lines.iter().map(of).sum();
        all.commands = sum(|line| line.commands);
        all.failed = sum(|line| line.failed);
        all.ambiguous = sum(|line| line.ambiguous);
        all.lost_acknowledged = sum(|line| line.lost_acknowledged);
        all.doubled = sum(|line| line.doubled);
        all.server_ready_to_first_success_ms =
            median(lines.iter().filter_map(|line| line.server_ready_to_first_success_ms));
        all.longest_gap_ms = median(lines.iter().map(|line| line.longest_gap_ms)).unwrap_or(0.0);
        all.server_pause_ms = median(lines.iter().map(|line| line.server_pause_ms)).unwrap_or(0.0);
        all.others = None;
        self.show("all", &all);
        let worst = lines.iter().map(|line| line.longest_gap_ms).fold(0.0, f64::max);
        self.say(&format!("  sums, and medians of times; the longest gap of all: {worst:.1} ms"));
    }

    fn show(&mut self, run: &str, line: &Line) {
        if !std::mem::replace(&mut self.head_shown, true) {
            self.say(HEAD);
        }
        let ready = line.server_ready_to_first_success_ms.map_or_else(|| "-".into(), |ms| format!("{ms:.1}"));
        let others = line.others.map_or_else(String::new, |others| {
            format!("{:.2} / {:.2} ({})", others.p99_before, others.p99_after, others.failed)
        });
        self.say(&format!(
            "{:<8} {:<19} {:<14} {:<9} {run:>3} {:>9} {:>6} {:>7} {:>6} {:>7} {ready:>16} {:>10.1} {:>11.1}  {others}",
            line.mode,
            line.fault,
            line.server,
            line.client,
            line.commands,
            line.failed,
            line.ambiguous,
            line.lost_acknowledged,
            line.doubled,
            line.longest_gap_ms,
            line.server_pause_ms,
        ));
    }

    /// Standard output is for programs when they asked for lines.
    fn say(&self, words: &str) {
        if self.json { eprintln!("{words}") } else { println!("{words}") }
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// A line with nothing in it yet.
pub(crate) fn blank() -> Line {
    Line {
        mode: String::new(),
        fault: String::new(),
        server: String::new(),
        client: String::new(),
        run: 1,
        commands: 0,
        failed: 0,
        ambiguous: 0,
        lost_acknowledged: 0,
        doubled: 0,
        server_ready_to_first_success_ms: None,
        longest_gap_ms: 0.0,
        server_pause_ms: 0.0,
        others: None,
    }
}
