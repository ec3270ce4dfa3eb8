//! The rounds: every scenario on every system in turn, medians, and how they are told.

use crate::Words;
use crate::process::pin_self;
use crate::systems::{Programs, System};
use crate::{deployment, trouble};
use evenkeel_testkit::launcher::{ServerKind, Servers, Single, SingleOptions};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};

/// Every scenario, in the order of running.
const SCENARIOS: [&str; 9] = [
    "alone",
    "hot",
    "idle10k",
    "connect",
    "latency",
    "slow-reader",
    "redis-restart",
    "sentinel-crash",
    "deployment",
];
/// Fields of every line, in their order; what a scenario does not measure is null.
const FIELDS: [&str; 9] = [
    "cpu_us_per_delivery",
    "deliveries_per_s",
    "p50_ms",
    "p99_ms",
    "rss_kib_per_idle_connection",
    "recovered_ms",
    "missing",
    "doubled",
    "cpu_us_per_connect",
];
/// Fields that only some scenarios have.
const MORE: [&str; 8] = [
    "refused",
    "p99_ms_without",
    "published",
    "acknowledged",
    "lost_by_redis",
    "silent_gaps",
    "told_gaps",
    "reconnects",
];

/// Runs everything; false when something could not be measured.
pub(crate) fn run(words: &Words) -> bool {
    let pinned = pin_self();
    if !pinned {
        eprintln!(
            "the processes cannot be put on processors of their own: figures of several systems mix more"
        );
    }
    let programs = Programs::read(words, pinned);
    let found = Servers::discover();
    let kind = found.preferred().expect("a redis-server").clone();
    let asked = words.list("--systems");
    let systems: Vec<System> = System::ALL
        .into_iter()
        .filter(|system| asked.as_ref().is_none_or(|asked| asked.iter().any(|name| name == system.name())))
        .filter(|system| {
            let has = programs.has(*system);
            if !has {
                eprintln!("{} is left out: it is not installed", system.name());
            }
            has
        })
        .collect();
    let scenarios: Vec<String> =
        words.list("--scenario").unwrap_or_else(|| SCENARIOS.iter().map(|&name| name.to_owned()).collect());
    let rounds = words.number("--rounds", 5_usize).max(1);
    let seconds = words.number("--seconds", 2.0_f64);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut all_well = true;
    for scenario in &scenarios {
        let Some(scenario) = SCENARIOS.into_iter().find(|known| known == scenario) else {
            eprintln!("there is no scenario {scenario}; there are {}", SCENARIOS.join(", "));
            return false;
        };
        let bench = Bench { programs: &programs, kind: &kind, scenario, rounds, seconds };
        let lines = runtime.block_on(bench.measure(&systems));
        all_well &= !lines.is_empty();
        if words.has("--json") {
            for line in &lines {
                println!("{line}");
            }
        } else {
            table(scenario, &lines);
        }
    }
    all_well
}

struct Bench<'a> {
    programs: &'a Programs,
    kind: &'a ServerKind,
    scenario: &'static str,
    rounds: usize,
    seconds: f64,
}

impl Bench<'_> {
    async fn measure(&self, systems: &[System]) -> Vec<Value> {
        let is_trouble = matches!(self.scenario, "redis-restart" | "sentinel-crash");
        let mut samples: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
        for round in 1..=self.rounds {
            for (at, system) in systems.iter().enumerate() {
                // The history is there for trouble; without it a floor has nothing to say, as it ends with Redis.
                let fits = if self.scenario == "deployment" {
                    *system == System::EvenkeelHistory
                } else if *system == System::EvenkeelPlain {
                    // What it has in common with nchan: one round trip to a subscription.
                    self.scenario == "connect"
                } else if is_trouble {
                    !system.is_floor()
                        && (self.scenario == "redis-restart" || system.name().starts_with("evenkeel"))
                } else {
                    *system != System::EvenkeelHistory
                };
                if !fits {
                    continue;
                }
                eprintln!("{}, {}, round {round} of {}", self.scenario, system.name(), self.rounds);
                let line = if self.scenario == "deployment" {
                    Some(deployment::run(self.programs, self.kind).await)
                } else if is_trouble {
                    Some(trouble::run(self.programs, self.kind, *system, self.scenario).await)
                } else {
                    self.load(*system).await
                };
                match line {
                    Some(line) => samples.entry(at).or_default().push(line),
                    None => eprintln!("the load on {} failed; this round counts without it", system.name()),
                }
            }
        }
        samples.into_iter().map(|(at, lines)| self.median(systems[at], &lines)).collect()
    }

    /// One load on a fresh server.
    async fn load(&self, system: System) -> Option<Value> {
        let redis = Single::start_with(self.kind, SingleOptions::default()).await.expect("a Redis");
        let server = self.programs.start(system, redis.addr(), &[]);
        let publish = match system {
            System::Nchan => format!("nchan:{}", server.address),
            _ => format!("redis:{}", redis.addr()),
        };
        let subscribers = match self.scenario {
            "idle10k" | "connect" | "slow-reader" => "10000",
            _ => "1000",
        };
        let own = std::env::current_exe().expect("our own program");
        let output = Command::new(own)
            .args(["load", "--server", &server.address.to_string(), "--publish", &publish])
            .args(["--pid", &server.pid.to_string(), "--hello", system.hello(), "--subscribers", subscribers])
            .args(["--scenario", self.scenario, "--seconds", &self.seconds.to_string()])
            .stderr(Stdio::inherit())
            .output()
            .expect("a load");
        serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success())
    }

    fn median(&self, system: System, lines: &[Value]) -> Value {
        let mut line = Map::new();
        line.insert("system".to_owned(), json!(system.name()));
        line.insert("scenario".to_owned(), json!(self.scenario));
        line.insert("subscribers".to_owned(), lines[0]["subscribers"].clone());
        for field in FIELDS.into_iter().chain(MORE) {
            let mut values: Vec<f64> = lines.iter().filter_map(|line| line[field].as_f64()).collect();
            values.sort_by(f64::total_cmp);
            // Of what must be none the worst round counts.
            let worst = matches!(
                field,
                "missing" | "doubled" | "refused" | "recovered_ms" | "lost_by_redis" | "silent_gaps"
            );
            let at = if worst { values.len().saturating_sub(1) } else { values.len() / 2 };
            let value = values.get(at).map(|value| round(*value));
            if value.is_some() || FIELDS.contains(&field) {
                line.insert(field.to_owned(), json!(value));
            }
        }
        Value::Object(line)
    }
}

fn round(value: f64) -> f64 {
    if value >= 1_000.0 { value.round() } else { (value * 1_000.0).round() / 1_000.0 }
}

/// What a person reads, with each figure's ratio to that of the first floor.
fn table(scenario: &str, lines: &[Value]) {
    let fields: Vec<&str> = FIELDS
        .into_iter()
        .chain(MORE)
        .filter(|field| lines.iter().any(|line| !line[*field].is_null()))
        .collect();
    println!("\n{scenario}, {} subscribers", lines.first().map_or(&Value::Null, |line| &line["subscribers"]));
    print!("{:<18}", "");
    for field in &fields {
        print!("{field:>30}");
    }
    println!();
    let floor =
        lines.iter().find(|line| line["system"].as_str().is_some_and(|name| name.starts_with("floor")));
    for line in lines {
        print!("{:<18}", line["system"].as_str().unwrap_or_default());
        for field in &fields {
            let text = line[*field].as_f64().map_or_else(String::new, |value| {
                let base = floor.and_then(|floor| floor[*field].as_f64()).filter(|base| *base > 0.0);
                base.map_or_else(|| format!("{value}"), |base| format!("{value} ({:.2}x)", value / base))
            });
            print!("{text:>30}");
        }
        println!();
    }
}
