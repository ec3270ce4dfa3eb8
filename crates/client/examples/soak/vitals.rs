//! `Vitals`: memory and descriptors of this process over time.

/// Growth of the memory over the whole run that is no growth, in percent.
const FLAT: f64 = 5.0;
/// Descriptors that may be more at the end than at the beginning: a connection may be on its way.
const SPARE: u64 = 4;

/// Samples, one a second.
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    /// Resident memory in KiB.
    memory: Vec<f64>,
    /// What of it the program asked for and has not given back, in KiB: the rest is the allocator's.
    heap: Vec<f64>,
    descriptors: Vec<u64>,
}

impl Vitals {
    pub(crate) fn sample(&mut self) {
        self.memory.extend(resident());
        self.heap.push(super::heap::held() as f64 / 1024.0);
        self.descriptors.extend(std::fs::read_dir("/proc/self/fd").map(|entries| entries.count() as u64));
    }

    /// The medians of the first and of the last quarter.
    fn descriptors(&self) -> (u64, u64) {
        let quarter = (self.descriptors.len() / 4).max(1);
        let median = |samples: &[u64]| {
            let mut samples = samples.to_vec();
            samples.sort_unstable();
            samples.get(samples.len() / 2).copied().unwrap_or(0)
        };
        let last = self.descriptors.len().saturating_sub(quarter);
        (
            median(self.descriptors.get(..quarter).unwrap_or_default()),
            median(self.descriptors.get(last..).unwrap_or_default()),
        )
    }

    pub(crate) fn are_flat(&self) -> bool {
        let (first, last) = self.descriptors();
        growth(&self.memory) <= FLAT && last <= first + SPARE
    }

    pub(crate) fn json(&self) -> String {
        let (first, last) = self.descriptors();
        let memory = |at: Option<&f64>| at.copied().unwrap_or_default() / 1024.0;
        format!(
            r#""rss_mib_first":{:.2},"rss_mib_last":{:.2},"rss_growth_percent":{:.2},"heap_mib_first":{:.2},"heap_mib_last":{:.2},"heap_growth_percent":{:.2},"descriptors_first":{first},"descriptors_last":{last}"#,
            memory(self.memory.first()),
            memory(self.memory.last()),
            growth(&self.memory),
            memory(self.heap.first()),
            memory(self.heap.last()),
            growth(&self.heap),
        )
    }
}

/// How much samples grow from the first to the last, by the line that fits best, in percent of the mean.
fn growth(samples: &[f64]) -> f64 {
    let count = samples.len() as f64;
    if count < 2.0 {
        return 0.0;
    }
    let middle = (count - 1.0) / 2.0;
    let mean = samples.iter().sum::<f64>() / count;
    let (mut up, mut along) = (0.0, 0.0);
    for (at, memory) in samples.iter().enumerate() {
        let from_middle = at as f64 - middle;
        up += from_middle * (memory - mean);
        along += from_middle * from_middle;
    }
    up / along * (count - 1.0) / mean * 100.0
}

/// Resident memory in KiB, as far as the system tells.
fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}
