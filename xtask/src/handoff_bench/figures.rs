//! `Figures`: what one run counted, by name, and how it is shown.

use std::collections::BTreeMap;

/// The fields of a JSON line, behind `scenario`, and whether two runs are added up or the worse one counts.
const FIELDS: [(&str, bool); 13] = [
    ("handoffs", true),
    ("commands", true),
    ("failed", true),
    ("doubled", true),
    ("out_of_order", true),
    ("published", true),
    ("lost", true),
    ("duplicated", true),
    ("p999_ratio", false),
    ("longest_gap_ms", false),
    ("dial_ms", false),
    ("pool_moved_ms", false),
    ("peak_rss_ratio", false),
];

/// What is worth a look beside them.
const ASIDE: [&str; 17] = [
    "unknown",
    "vanished",
    "gaps",
    "items",
    "items_lost",
    "items_doubled",
    "overlapping",
    "p999_inside_ms",
    "p999_outside_ms",
    "longest_outside_ms",
    "longest_silence_ms",
    "connections",
    "connects",
    "closed_by_server",
    "engine_handoffs",
    "moved",
    "abandoned",
];

pub(crate) const HEADER: &str = "scenario  handoffs  commands  failed  doubled  disorder  published  lost  dupl.  p99.9 ratio  gap ms  dial ms  pool ms  rss ratio";

/// What one run counted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// Reads `name=value` pairs; `None` when a field of the JSON line is missing.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let mut figures = BTreeMap::new();
        for pair in line.split_whitespace() {
            let (name, value) = pair.split_once('=')?;
            figures.insert(name.to_owned(), value.parse().ok()?);
        }
        FIELDS.iter().all(|(name, _)| figures.contains_key(*name)).then_some(Self(figures))
    }

    /// A figure by its name; 0 for one that was not counted.
    pub(crate) fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// This and another run of the same scenario as one.
    pub(crate) fn with(mut self, other: &Self) -> Self {
        for (name, theirs) in &other.0 {
            let adds = FIELDS.iter().any(|(field, adds)| field == name && *adds);
            let mine = self.0.entry(name.clone()).or_insert(0.0);
            *mine = if adds { *mine + theirs } else { mine.max(*theirs) };
        }
        self
    }

    pub(crate) fn json(&self, scenario: &str) -> String {
        let fields = FIELDS.iter().map(|(name, adds)| {
            let value = self.get(name);
            if *adds { format!("\"{name}\":{value:.0}") } else { format!("\"{name}\":{value:.3}") }
        });
        let fields: Vec<String> = fields.collect();
        format!("{{\"scenario\":\"{scenario}\",{}}}", fields.join(","))
    }

    pub(crate) fn row(&self, scenario: &str) -> String {
        let of = |name: &str| self.get(name);
        format!(
            "{scenario:<8}{:>10}{:>10}{:>8}{:>9}{:>10}{:>11}{:>6}{:>7}{:>13.2}{:>8.2}{:>9.2}{:>9.1}{:>11.2}",
            of("handoffs"),
            of("commands"),
            of("failed"),
            of("doubled"),
            of("out_of_order"),
            of("published"),
            of("lost"),
            of("duplicated"),
            of("p999_ratio"),
            of("longest_gap_ms"),
            of("dial_ms"),
            of("pool_moved_ms"),
            of("peak_rss_ratio"),
        )
    }

    /// What a person may want to know beside the table.
    pub(crate) fn aside(&self) -> String {
        let pairs = ASIDE.iter().map(|name| format!("{name} {}", (self.get(name) * 100.0).round() / 100.0));
        pairs.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(value: u32) -> Figures {
        let pairs: Vec<String> = FIELDS.iter().map(|(name, _)| format!("{name}={value}")).collect();
        Figures::read(&pairs.join(" ")).unwrap()
    }

    #[test]
    fn counts_add_up_and_of_times_the_worse_counts() {
        let both = figures(2).with(&figures(3));
        assert_eq!((both.get("commands"), both.get("longest_gap_ms")), (5.0, 3.0));
    }

    #[test]
    fn a_line_has_the_names_that_programs_look_for() {
        assert_eq!(
            figures(1).json("a"),
            "{\"scenario\":\"a\",\"handoffs\":1,\"commands\":1,\"failed\":1,\"doubled\":1,\"out_of_order\":1,\
             \"published\":1,\"lost\":1,\"duplicated\":1,\"p999_ratio\":1.000,\"longest_gap_ms\":1.000,\
             \"dial_ms\":1.000,\"pool_moved_ms\":1.000,\"peak_rss_ratio\":1.000}"
        );
    }

    #[test]
    fn a_run_that_did_not_count_everything_is_no_run() {
        assert_eq!(Figures::read("handoffs=1"), None);
        assert_eq!(Figures::read("handoffs"), None);
    }
}
