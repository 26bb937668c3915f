//! `--bwlimit`: one pace for all threads of a run.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::limits;

const NS_PER_S: u128 = 1_000_000_000;

/// Hands out sending times. Pure: time comes in as nanoseconds since any fixed start.
#[derive(Debug)]
struct Pacer {
    bytes_per_s: u64,
    /// When everything granted so far will have been sent at the exact pace.
    busy_until_ns: u64,
}

impl Pacer {
    /// Grants `bytes` to a caller at `now_ns`; returns the time from which they may be sent. Unused time is forgotten,
    /// save one burst, so that an idle spell does not end in a flood.
    fn reserve(&mut self, now_ns: u64, bytes: u64) -> u64 {
        let burst_ns = limits::THROTTLE_BURST_MS * 1_000_000;
        let start_ns = self.busy_until_ns.max(now_ns.saturating_sub(burst_ns));
        let span_ns = u128::from(bytes) * NS_PER_S / u128::from(self.bytes_per_s);
        self.busy_until_ns = start_ns.saturating_add(u64::try_from(span_ns).unwrap_or(u64::MAX));
        start_ns
    }
}

/// A token bucket, shared by threads. Free where there is no limit.
#[derive(Debug)]
pub struct Throttle {
    started: Instant,
    pacer: Option<Mutex<Pacer>>,
    piece_bytes: usize,
}

impl Throttle {
    /// A limit in bytes a second, over all threads together; `None` or 0: unlimited.
    pub fn new(bytes_per_s: Option<u64>) -> Throttle {
        let rate = bytes_per_s.filter(|&rate| rate > 0);
        let piece_bytes = rate.map_or(usize::MAX, |rate| {
            usize::try_from(rate.saturating_mul(limits::THROTTLE_BURST_MS) / 1000).unwrap_or(usize::MAX).max(1)
        });
        Throttle {
            started: Instant::now(),
            pacer: rate.map(|bytes_per_s| Mutex::new(Pacer { bytes_per_s, busy_until_ns: 0 })),
            piece_bytes,
        }
    }

    /// Whether nothing is ever held back.
    pub fn is_unlimited(&self) -> bool {
        self.pacer.is_none()
    }

    /// The most to send at once for a smooth stream: what the pace allows in `limits::THROTTLE_BURST_MS`.
    pub fn piece_bytes(&self) -> usize {
        self.piece_bytes
    }

    /// Waits until `bytes` more may be sent. Returns false, with the bytes still counted, when `stop` was raised
    /// meanwhile.
    pub fn take(&self, bytes: usize, stop: &AtomicBool) -> bool {
        let Some(pacer) = &self.pacer else { return true };
        let start_ns = match pacer.lock() {
            Ok(mut pacer) => pacer.reserve(self.now_ns(), bytes as u64),
            // A thread that panicked inside leaves plain numbers behind.
            Err(poisoned) => poisoned.into_inner().reserve(self.now_ns(), bytes as u64),
        };
        loop {
            if stop.load(Ordering::Relaxed) {
                return false;
            }
            let wait_ns = start_ns.saturating_sub(self.now_ns());
            if wait_ns == 0 {
                return true;
            }
            std::thread::sleep(Duration::from_nanos(wait_ns).min(Duration::from_millis(limits::STOP_POLL_MS)));
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn bytes_follow_the_clock() {
        let mut pacer = Pacer { bytes_per_s: 1_000_000, busy_until_ns: 0 };
        let mut now = 0;
        let mut sent = 0_u64;
        while now < 10_000 * MS {
            now = now.max(pacer.reserve(now, 50_000));
            sent += 50_000;
            assert!(sent <= 50_000 + 100_000 + now / 1000, "{sent} bytes at {now} ns");
        }
        assert!((9_900_000..=10_200_000).contains(&sent), "{sent}");
    }

    #[test]
    fn an_idle_spell_is_not_caught_up() {
        let mut pacer = Pacer { bytes_per_s: 1_000_000, busy_until_ns: 0 };
        let now = 3_600_000 * MS;
        let mut free = 0;
        while pacer.reserve(now, 10_000) < now {
            free += 10_000;
        }
        assert!(free <= 100_000, "{free}");
    }

    #[test]
    fn extreme_rates_do_not_overflow() {
        let mut slow = Pacer { bytes_per_s: 1, busy_until_ns: 0 };
        slow.reserve(0, u64::MAX);
        assert_eq!(slow.reserve(0, 1), u64::MAX);
        assert_eq!(slow.reserve(0, u64::MAX), u64::MAX);
        assert_eq!(Throttle::new(Some(1)).piece_bytes(), 1);
        assert_eq!(Throttle::new(Some(1 << 20)).piece_bytes(), (1 << 20) / 10);
        assert!(Throttle::new(Some(u64::MAX)).piece_bytes() > 1 << 40);
    }

    #[test]
    fn unlimited_is_free_and_a_stop_ends_the_wait() {
        let stop = AtomicBool::new(false);
        assert!(Throttle::new(None).take(usize::MAX, &stop));
        assert!(Throttle::new(Some(0)).is_unlimited());
        let throttle = Throttle::new(Some(1));
        assert!(throttle.take(1 << 30, &stop));
        stop.store(true, Ordering::Relaxed);
        assert!(!throttle.take(1, &stop));
    }
}
