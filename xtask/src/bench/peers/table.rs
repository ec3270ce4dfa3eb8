//! The table for people.

use std::fmt::Write as _;

use super::figures::Line;

const HEAD: [&str; 11] = [
    "row",
    "client",
    "CPU us/op",
    "vs best peer",
    "ops/s",
    "p50 us",
    "p99 us",
    "p99.9 us",
    "allocs/op",
    "syscalls/op",
    "peak MiB",
];

/// The least client CPU among the peers of a row.
pub(super) fn best_peer(lines: &[Line]) -> Option<f64> {
    let peers = lines.iter().filter(|line| line.client().is_peer());
    peers.filter_map(Line::cpu).min_by(f64::total_cmp)
}

/// The lines of one row; with the heads of the columns when `head` is set.
pub(super) fn render(lines: &[Line], head: bool) -> String {
    let mut out = String::new();
    if head {
        write_line(&mut out, &HEAD.map(str::to_owned));
    }
    let best = best_peer(lines);
    for line in lines {
        let mut cells = vec![line.row().to_string(), line.client().name().to_owned()];
        for (index, median) in line.medians().iter().enumerate() {
            cells.push(median.map_or_else(|| "-".to_owned(), |value| shown(value, index)));
            if index == 0 {
                let ratio = line.cpu().zip(best).map(|(cpu, best)| format!("{:.2}", cpu / best));
                cells.push(ratio.unwrap_or_else(|| "-".to_owned()));
            }
        }
        write_line(&mut out, &cells);
    }
    out
}

fn write_line(out: &mut String, cells: &[String]) {
    for (index, cell) in cells.iter().enumerate() {
        // Writing to a string does not fail.
        let _written = match index {
            0 => write!(out, "{cell:<16}"),
            1 => write!(out, " {cell:<9}"),
            _ => write!(out, " {cell:>12}"),
        };
    }
    out.push('\n');
}

fn shown(value: f64, index: usize) -> String {
    match index {
        1 => format!("{value:.0}"),
        _ if value >= 100.0 => format!("{value:.0}"),
        0 | 5 | 6 => format!("{value:.3}"),
        _ => format!("{value:.1}"),
    }
}
