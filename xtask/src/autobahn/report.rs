//! What the suite found, counted.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::failure::{Failure, Outcome};

/// One case, as the suite's index has it.
#[derive(Debug, Deserialize)]
struct Case {
    behavior: String,
    #[serde(rename = "behaviorClose")]
    close: String,
}

/// All cases of a run, by name.
#[derive(Debug)]
pub(super) struct Report(BTreeMap<String, Case>);

impl Report {
    pub(super) fn read(folder: &Path) -> Outcome<Self> {
        let index = fs::read_to_string(folder.join("index.json"));
        Self::parse(&index.map_err(Failure::of("reading what the suite found"))?)
    }

    fn parse(index: &str) -> Outcome<Self> {
        let agents: BTreeMap<String, BTreeMap<String, Case>> =
            serde_json::from_str(index).map_err(Failure::of("reading what the suite found"))?;
        Ok(Self(agents.into_values().flatten().collect()))
    }

    /// The cases that are not as they have to be. INFORMATIONAL ones have no right answer; NON-STRICT is not right.
    fn wrong(&self) -> impl Iterator<Item = (&String, &Case)> {
        let is_right = |word: &str| matches!(word, "OK" | "INFORMATIONAL");
        self.0.iter().filter(move |(_, case)| !(is_right(&case.behavior) && is_right(&case.close)))
    }

    /// Fails unless cases ran and all are right.
    pub(super) fn judge(&self) -> Outcome {
        let wrong = self.wrong().count();
        if self.0.is_empty() {
            return Err(Failure::new("no case was run"));
        }
        if wrong > 0 {
            return Err(Failure::new(format!("{wrong} of {} cases are not OK", self.0.len())));
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut groups: BTreeMap<u32, BTreeMap<&str, usize>> = BTreeMap::new();
        let mut whole: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, case) in &self.0 {
            let group = name.split('.').next().and_then(|group| group.parse().ok()).unwrap_or_default();
            for counts in [groups.entry(group).or_default(), &mut whole] {
                *counts.entry(case.behavior.as_str()).or_default() += 1;
            }
        }
        let line = |counts: &BTreeMap<&str, usize>| {
            let words: Vec<_> =
                counts.iter().map(|(behavior, count)| format!("{count} {behavior}")).collect();
            words.join(", ")
        };
        for (group, counts) in &groups {
            writeln!(f, "{group}.*: {}", line(counts))?;
        }
        writeln!(f, "{} cases: {}", self.0.len(), line(&whole))?;
        for (name, case) in self.wrong() {
            writeln!(f, "{name} is {}, its close {}", case.behavior, case.close)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Report;

    fn report(behavior: &str, close: &str) -> Report {
        let index = format!(
            r#"{{"evenkeel":{{"1.1.1":{{"behavior":"OK","behaviorClose":"OK","duration":2}},
                "7.1.6":{{"behavior":"INFORMATIONAL","behaviorClose":"INFORMATIONAL"}},
                "12.1.1":{{"behavior":"{behavior}","behaviorClose":"{close}"}}}}}}"#
        );
        Report::parse(&index).unwrap()
    }

    #[test]
    fn one_case_that_is_not_ok_fails_the_run_and_is_named() {
        let good = report("OK", "OK");
        assert!(good.judge().is_ok());
        assert_eq!(
            good.to_string(),
            "1.*: 1 OK\n7.*: 1 INFORMATIONAL\n12.*: 1 OK\n3 cases: 1 INFORMATIONAL, 2 OK\n"
        );
        for (behavior, close) in [("NON-STRICT", "OK"), ("UNIMPLEMENTED", "OK"), ("OK", "UNCLEAN")] {
            let bad = report(behavior, close);
            assert!(bad.judge().is_err());
            assert!(bad.to_string().ends_with(&format!("12.1.1 is {behavior}, its close {close}\n")));
        }
        assert!(Report::parse("{}").unwrap().judge().is_err(), "nothing ran");
    }
}
