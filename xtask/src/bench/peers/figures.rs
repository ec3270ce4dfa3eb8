//! The figures of one row and client: collected over the rounds, then their medians.

use std::fmt::Write as _;

use super::contestant::{Contestant, Printed};
use super::row::Row;
use crate::failure::Outcome;

/// The names and order of the figures in a line of JSON.
pub(super) const NAMES: [&str; 8] = [
    "cpu_us_per_op",
    "ops_per_s",
    "p50_us",
    "p99_us",
    "p999_us",
    "allocs_per_op",
    "syscalls_per_op",
    "peak_rss_mib",
];

/// What the rounds gave so far.
#[derive(Debug, Default)]
pub(super) struct Figures {
    rounds: [Vec<f64>; 8],
    reason: Option<String>,
    failed: bool,
}

const CPU: usize = 0;
const ALLOCATIONS: usize = 5;
const SYSTEM_CALLS: usize = 6;
const MEMORY: usize = 7;

impl Figures {
    /// A round has failed; further ones would too.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    fn note(&mut self, figure: usize, value: Option<f64>) {
        if let (Some(figure), Some(value)) = (self.rounds.get_mut(figure), value) {
            figure.push(value);
        }
    }

    fn fail(&mut self, reason: String) {
        self.failed = true;
        self.reason.get_or_insert(reason);
    }

    pub(super) fn timed(&mut self, printed: Outcome<Printed>) {
        let printed = match printed {
            Ok(printed) => printed,
            Err(failure) => return self.fail(failure.to_string()),
        };
        let figure = |name: &str| printed.get(name).copied();
        let (ops, lost) = (figure("ops").unwrap_or(0.0), figure("lost").unwrap_or(0.0));
        if lost > 0.0 {
            // What remains is cheap to receive: its price could not be compared.
            return self.fail(format!("it dropped {lost} of 400000 messages"));
        }
        if ops <= 0.0 {
            return self.fail("nothing was done in the measured window".to_owned());
        }
        self.note(CPU, figure("cpu_us").map(|cpu| cpu / ops));
        self.note(1, figure("wall_us").map(|wall| ops / wall * 1e6));
        self.note(2, figure("p50_us"));
        self.note(3, figure("p99_us"));
        self.note(4, figure("p999_us"));
        self.note(MEMORY, figure("peak_kib").map(|kib| kib / 1024.0));
    }

    pub(super) fn allocations(&mut self, printed: Outcome<Printed>) {
        match printed {
            Ok(printed) => self.note(ALLOCATIONS, per(&printed, "allocations", "ops")),
            Err(failure) => self.reason = Some(format!("allocations: {failure}")),
        }
    }

    pub(super) fn system_calls(&mut self, printed: Outcome<Printed>) {
        match printed {
            Ok(printed) => self.note(SYSTEM_CALLS, per(&printed, "system_calls", "all_ops")),
            Err(failure) => self.reason = Some(format!("system calls: {failure}")),
        }
    }

    /// The memory is that of another run.
    pub(super) fn memory_of(&mut self, printed: Outcome<Printed>) {
        if let (Some(memory), Ok(printed)) = (self.rounds.get_mut(MEMORY), printed) {
            *memory = printed.get("peak_kib").map(|kib| kib / 1024.0).into_iter().collect();
        }
    }

    pub(super) fn into_line(mut self, row: &Row, client: Contestant) -> Line {
        let failed = self.failed;
        let mut medians = [None; 8];
        for (median, rounds) in medians.iter_mut().zip(&mut self.rounds) {
            *median = if failed { None } else { middle(rounds) };
        }
        Line { row: *row, client, medians, reason: self.reason }
    }
}

fn per(printed: &Printed, figure: &str, ops: &str) -> Option<f64> {
    let ops = printed.get(ops).copied().filter(|ops| *ops > 0.0)?;
    Some(printed.get(figure)? / ops)
}

/// The median.
fn middle(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    let upper = values.get(half).copied()?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    values.get(half.checked_sub(1)?).map(|lower| f64::midpoint(*lower, upper))
}

/// The medians of one row and client.
#[derive(Clone, Debug)]
pub(super) struct Line {
    row: Row,
    client: Contestant,
    medians: [Option<f64>; 8],
    reason: Option<String>,
}

impl Line {
    pub(super) fn row(&self) -> &Row {
        &self.row
    }

    pub(super) fn client(&self) -> Contestant {
        self.client
    }

    /// Client CPU per operation, in microseconds.
    pub(super) fn cpu(&self) -> Option<f64> {
        self.medians.get(CPU).copied().flatten()
    }

    /// The figures in the order of [`NAMES`].
    pub(super) fn medians(&self) -> &[Option<f64>; 8] {
        &self.medians
    }

    /// Why a figure is missing.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    pub(super) fn json(&self) -> String {
        let mut out = format!("{{\"row\":\"{}\",\"client\":\"{}\"", self.row, self.client.name());
        for (name, median) in NAMES.iter().zip(self.medians) {
            // Writing to a string does not fail.
            let _written = match median {
                Some(value) => write!(out, ",\"{name}\":{}", (value * 1e4).round() / 1e4),
                None => write!(out, ",\"{name}\":null"),
            };
        }
        out.push('}');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    fn round(cpu: f64) -> Printed {
        let pairs = [("ops", 100.0), ("cpu_us", cpu), ("wall_us", 1e6), ("peak_kib", 2048.0), ("lost", 0.0)];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn row() -> Row {
        super::super::row::choose(&["pubsub-ct".to_owned()]).unwrap()[0]
    }

    #[test]
    fn the_medians_are_printed_and_what_is_missing_is_null() {
        let mut figures = Figures::default();
        for cpu in [300.0, 100.0, 200.0] {
            figures.timed(Ok(round(cpu)));
        }
        let line = figures.into_line(&row(), Contestant::Evenkeel);
        assert_eq!(
            line.json(),
            r#"{"row":"pubsub-ct","client":"evenkeel","cpu_us_per_op":2,"ops_per_s":100,"p50_us":null,"p99_us":null,"p999_us":null,"allocs_per_op":null,"syscalls_per_op":null,"peak_rss_mib":2}"#
        );
    }

    #[test]
    fn one_failed_round_takes_the_line_and_says_why() {
        let mut figures = Figures::default();
        figures.timed(Ok(round(100.0)));
        figures.timed(Err(Failure::new("it fell over")));
        let line = figures.into_line(&row(), Contestant::Fred);
        assert_eq!((line.cpu(), line.reason()), (None, Some("it fell over")));
    }

    #[test]
    fn the_middle_of_an_even_number_is_between_two() {
        assert_eq!(middle(&mut [4.0, 1.0]), Some(2.5));
        assert_eq!(middle(&mut []), None);
    }
}
