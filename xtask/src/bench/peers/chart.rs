//! The table as a chart: for each row and runtime a bar per client, as long as its CPU per operation beside the best peer's.

#![expect(clippy::cast_precision_loss, reason = "a handful of bars on a page")]

use std::fmt::Write as _;

use super::contestant::Contestant;
use super::figures::Line;
use super::row::Runtime;
use super::table::best_peer;

const PANEL: f64 = 330.0;
const LEFT: f64 = 104.0;
const TOP: f64 = 92.0;
const BAR: f64 = 13.0;
const GAP: f64 = 14.0;
/// Bars end here: this many times the best peer.
const MOST: f64 = 2.0;

/// Draws lines of any rows; rows and runtimes that did not run leave no room.
pub(super) fn draw(lines: &[Line]) -> String {
    let runtimes: Vec<Runtime> = Runtime::ALL
        .into_iter()
        .filter(|runtime| lines.iter().any(|line| line.row().runtime() == *runtime))
        .collect();
    let mut rows: Vec<&'static str> = Vec::new();
    for line in lines {
        if !rows.contains(&line.row().name()) {
            rows.push(line.row().name());
        }
    }
    let bars = Contestant::ALL.len() as f64;
    let height = TOP + rows.len() as f64 * (bars * BAR + GAP) + 12.0;
    let width = LEFT + runtimes.len() as f64 * PANEL + 16.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"11\" fill=\"#1f2933\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"16\" font-weight=\"600\">Client CPU per operation beside the best peer (shorter is better)</text>\n"
    );
    legend(&mut out);
    for (column, runtime) in runtimes.iter().enumerate() {
        let x = LEFT + column as f64 * PANEL;
        let title = match runtime {
            Runtime::One => "multi-thread, 1 worker",
            Runtime::Two => "multi-thread, 2 workers",
            Runtime::Current => "current-thread",
        };
        text(&mut out, x, TOP - 14.0, &format!("font-weight=\"600\">{title}"));
        for (place, row) in rows.iter().enumerate() {
            let y = TOP + place as f64 * (bars * BAR + GAP);
            if column == 0 {
                text(
                    &mut out,
                    LEFT - 10.0,
                    y + bars * BAR / 2.0 + 4.0,
                    &format!("text-anchor=\"end\" font-weight=\"600\">{row}"),
                );
            }
            let of_row: Vec<Line> = lines
                .iter()
                .filter(|line| line.row().name() == *row && line.row().runtime() == *runtime)
                .cloned()
                .collect();
            panel(&mut out, x, y, &of_row);
        }
    }
    out.push_str("</svg>\n");
    out
}

fn text(out: &mut String, x: f64, y: f64, rest: &str) {
    // Writing to a string does not fail.
    let _written = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" {rest}</text>");
}

fn rect(out: &mut String, x: f64, y: f64, size: (f64, f64), fill: &str) {
    let (width, height) = size;
    let _written = writeln!(
        out,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"1.5\" fill=\"{fill}\"/>"
    );
}

fn legend(out: &mut String) {
    let mut x = 16.0;
    for client in Contestant::ALL {
        rect(out, x, 38.0, (11.0, 11.0), colour(client));
        text(out, x + 16.0, 48.0, &format!(">{}", client.name()));
        x += 84.0;
    }
    text(
        out,
        x + 8.0,
        48.0,
        "fill=\"#616e7c\">the line is the best peer; figures are microseconds per operation",
    );
}

fn panel(out: &mut String, x: f64, y: f64, lines: &[Line]) {
    let unit = (PANEL - 130.0) / MOST;
    let height = Contestant::ALL.len() as f64 * BAR;
    let best = best_peer(lines).or_else(|| lines.iter().filter_map(Line::cpu).min_by(f64::total_cmp));
    let _written = writeln!(
        out,
        "<line x1=\"{0:.1}\" y1=\"{1:.1}\" x2=\"{0:.1}\" y2=\"{2:.1}\" stroke=\"#9aa5b1\" stroke-dasharray=\"3 2\"/>",
        x + unit,
        y - 2.0,
        y + height
    );
    for (index, client) in Contestant::ALL.into_iter().enumerate() {
        let top = y + index as f64 * BAR;
        let line = lines.iter().find(|line| line.client() == client);
        let Some((cpu, best)) = line.and_then(Line::cpu).zip(best) else {
            let why = if line.is_some() { "cannot" } else { "" };
            text(out, x + 4.0, top + 10.0, &format!("fill=\"#9aa5b1\">{why}"));
            continue;
        };
        let ratio = cpu / best;
        let length = (ratio.min(MOST) * unit).max(1.0);
        rect(out, x, top + 1.0, (length, BAR - 2.5), colour(client));
        let more = if ratio > MOST { "\u{2192} " } else { "" };
        text(
            out,
            x + length + 4.0,
            top + 10.0,
            &format!("fill=\"#52606d\">{more}{} ({ratio:.2})", figure(cpu)),
        );
    }
}

fn figure(cpu: f64) -> String {
    match cpu {
        cpu if cpu >= 100.0 => format!("{cpu:.0}"),
        cpu if cpu >= 10.0 => format!("{cpu:.1}"),
        cpu => format!("{cpu:.2}"),
    }
}

fn colour(client: Contestant) -> &'static str {
    match client {
        Contestant::Evenkeel => "#0b7a75",
        Contestant::Redis => "#d64545",
        Contestant::Fred => "#e9a23b",
        Contestant::Rustis => "#5b6abf",
        Contestant::Floor => "#c3cbd3",
    }
}
