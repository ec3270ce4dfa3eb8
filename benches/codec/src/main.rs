//! The codec beside its peers: one thread, no network, CPU time of the thread, medians of interleaved rounds.
//!
//! `evenkeel-bench-codec [--json] [--rows a,b] [--codecs a,b] [--rounds n]`; `cargo xtask bench codec` builds and runs it.

#[cfg(hiredis)]
mod agree;
mod decode;
mod encode;
#[cfg(hiredis)]
mod hiredis;
mod meter;
mod wires;

use std::rc::Rc;

#[global_allocator]
static ALLOCATOR: meter::Counting = meter::Counting;

/// One pass over a workload.
pub type Work = Box<dyn FnMut()>;

/// Delimiting (those without a prefix), typed decoding, encoding.
const ROWS: [&str; 24] = [
    "ok",
    "int",
    "bulk64",
    "array100",
    "map1000",
    "flat1000",
    "nested8",
    "array10000",
    "array10000-64k",
    "array10000-16k",
    "array10000-4k",
    "bulk1m",
    "bulk1m-64k",
    "bulk1m-16k",
    "bulk1m-4k",
    "bulk1m-1k",
    "typed-array100",
    "typed-map1000",
    "typed-flat1000",
    "typed-array10000",
    "typed-array10000-4k",
    "encode-get",
    "encode-set64",
    "encode-set1k",
];

/// Time that one codec gets in one round.
const SLICE_NS: u64 = 12_000_000;

struct Args {
    json: bool,
    head: bool,
    rows: Vec<String>,
    codecs: Vec<String>,
    rounds: usize,
}

impl Args {
    fn read() -> Result<Self, String> {
        let mut args = Self { json: false, head: true, rows: Vec::new(), codecs: Vec::new(), rounds: 7 };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--json" => args.json = true,
                "--no-head" => args.head = false,
                "--rows" => args.rows = value()?.split(',').map(|row| row.trim().to_owned()).collect(),
                "--codecs" => {
                    args.codecs = value()?.split(',').map(|codec| codec.trim().to_owned()).collect()
                }
                "--rounds" => {
                    args.rounds = value()?.parse().map_err(|_| "--rounds needs a number".to_owned())?;
                }
                _ => return Err(format!("unknown argument {word}")),
            }
        }
        if let Some(row) = args.rows.iter().find(|row| !ROWS.contains(&row.as_str())) {
            return Err(format!("no row is named {row}; there are {}", ROWS.join(", ")));
        }
        args.rounds = args.rounds.max(1);
        Ok(args)
    }
}

/// One codec in one row.
struct Entry {
    codec: &'static str,
    work: Work,
    /// Passes in one slice of time.
    passes: u64,
    /// Nanoseconds for one reply or command, by round.
    ns: Vec<f64>,
    allocs: f64,
}

fn entries(row: &str) -> Option<(usize, usize, Vec<(&'static str, Work)>)> {
    if let Some((length, works)) = encode::encode(row) {
        return Some((encode::COMMANDS, length, works));
    }
    let name = row.strip_prefix("typed-").unwrap_or(row);
    let wire = Rc::new(wires::wire(name)?);
    let works = if name == row { decode::delimit(&wire) } else { decode::typed(name, &wire) };
    Some((wire.replies, wire.bytes.len() / wire.replies, works))
}

fn measure(row: &str, codecs: &[String], rounds: usize) -> Option<(usize, Vec<Entry>)> {
    let (ops, bytes, works) = entries(row)?;
    let mut entries: Vec<Entry> = works
        .into_iter()
        .filter(|(codec, _)| codecs.is_empty() || codecs.iter().any(|wanted| wanted == codec))
        .map(|(codec, mut work)| {
            // Buffers reach their size, and it is known how much fits into a slice.
            let mut passes = 0;
            let start = meter::cpu_ns();
            while meter::cpu_ns() - start < SLICE_NS {
                work();
                passes += 1;
            }
            let counted = 10;
            let allocs = meter::allocations(&mut || (0..counted).for_each(|_| work()));
            Entry { codec, work, passes, ns: Vec::new(), allocs: allocs as f64 / (counted * ops) as f64 }
        })
        .collect();
    for _ in 0..rounds {
        for entry in &mut entries {
            let start = meter::cpu_ns();
            for _ in 0..entry.passes {
                (entry.work)();
            }
            let took = meter::cpu_ns() - start;
            entry.ns.push(took as f64 / (entry.passes * ops as u64) as f64);
        }
    }
    Some((bytes, entries))
}

fn main() {
    let args = match Args::read() {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(2);
        }
    };
    if cfg!(not(hiredis)) {
        eprintln!("hiredis is skipped: libhiredis-dev was not installed when this was built");
    }
    meter::pin();
    let rows: Vec<&str> = ROWS
        .into_iter()
        .filter(|row| args.rows.is_empty() || args.rows.iter().any(|wanted| wanted == row))
        .collect();
    if rows.len() > 1 {
        #[cfg(hiredis)]
        agree::check();
        // Each row in a process of its own: what one leaves behind in the heap is no other's luck.
        let this = std::env::current_exe().expect("a process knows its program");
        for (index, row) in rows.iter().enumerate() {
            let mut one = std::process::Command::new(&this);
            one.args(["--rows", row, "--rounds", &args.rounds.to_string()]);
            if !args.codecs.is_empty() {
                one.args(["--codecs", &args.codecs.join(",")]);
            }
            if args.json {
                one.arg("--json");
            } else if index > 0 {
                one.arg("--no-head");
            }
            let status = one.status().expect("this program runs again");
            if !status.success() {
                std::process::exit(1);
            }
        }
        return;
    }
    if !args.json && args.head {
        println!(
            "{:<20} {:<21} {:>12} {:>10} {:>10} {:>9}",
            "row", "codec", "ns/op", "MiB/s", "allocs/op", "evenkeel=1"
        );
    }
    for row in ROWS.iter().filter(|row| args.rows.is_empty() || args.rows.iter().any(|wanted| wanted == *row))
    {
        let Some((bytes, mut entries)) = measure(row, &args.codecs, args.rounds) else { continue };
        let ours = entries.first_mut().map_or(1.0, |first| median(&mut first.ns));
        for entry in &mut entries {
            let ns = median(&mut entry.ns);
            let mib = bytes as f64 / ns * 1e9 / (1 << 20) as f64;
            // What C allocates is not seen.
            let allocs = (entry.codec != "hiredis").then_some(entry.allocs);
            if args.json {
                let allocs = allocs.map_or("null".to_owned(), |allocs| format!("{allocs:.3}"));
                println!(
                    r#"{{"row":"{row}","codec":"{}","ns_per_op":{ns:.2},"mib_per_s":{mib:.1},"allocs_per_op":{allocs}}}"#,
                    entry.codec
                );
            } else {
                let allocs = allocs.map_or("-".to_owned(), |allocs| format!("{allocs:.2}"));
                println!(
                    "{row:<20} {:<21} {ns:>12.1} {mib:>10.0} {allocs:>10} {:>9.2}",
                    entry.codec,
                    ns / ours
                );
            }
        }
    }
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}
