//! How many handoffs run at once and how many wait.

/// Handoff dials at once per endpoint, and connections that may wait for theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Dials at once per endpoint; at least 1.
    pub workers: usize,
    /// Connections waiting; at least 2.
    pub queue: usize,
}

impl Sizes {
    /// The sizes for a pool of `pool_size` connections with at most `max_connections` (0 = no cap); `workers` and
    /// `queue` are taken as they are unless 0.
    ///
    /// Computed workers are `min(pool/2, max(10, pool/3))`, the computed queue is `max(20 * workers, pool)`.
    /// The queue is capped by `max_connections + 1`, or by five times the pool.
    ///
    /// ```
    /// use evenkeel_hitless::Sizes;
    /// assert_eq!(Sizes::new(0, 0, 100, 0), Sizes { workers: 33, queue: 500 });
    /// assert_eq!(Sizes::new(0, 0, 100, 150), Sizes { workers: 33, queue: 151 });
    /// ```
    pub fn new(workers: usize, queue: usize, pool_size: usize, max_connections: usize) -> Self {
        let workers = match workers {
            0 => (pool_size / 2).min((pool_size / 3).max(10)),
            given => given,
        }
        .max(1);
        let queue = match queue {
            0 => workers.saturating_mul(20).max(pool_size),
            given => given,
        };
        let cap = match max_connections {
            0 => pool_size.saturating_mul(5),
            cap => cap.saturating_add(1),
        };
        Self { workers, queue: queue.min(cap).max(2) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computed_sizes() {
        for (pool, max, workers, queue) in [
            (100, 0, 33, 500),
            (100, 150, 33, 151),
            (10, 0, 5, 50),
            (17, 0, 8, 85),
            (20, 0, 10, 100),
            (1, 0, 1, 5),
            (0, 0, 1, 2),
            (1000, 0, 333, 5000),
        ] {
            assert_eq!(Sizes::new(0, 0, pool, max), Sizes { workers, queue }, "pool {pool}, max {max}");
        }
        assert_eq!(Sizes::new(7, 9, 100, 0), Sizes { workers: 7, queue: 9 });
    }
}
