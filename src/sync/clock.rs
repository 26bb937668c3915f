//! The only place of this room that looks at the clock.
#![allow(clippy::disallowed_methods, reason = "time is read here and nowhere else in this room")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::Timestamp;

/// The time of day.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::new(since.as_secs() as i64, since.subsec_nanos())
}

pub(super) fn sleep_ns(nanoseconds: u64) {
    std::thread::sleep(Duration::from_nanos(nanoseconds));
}

/// This instant.
pub(super) fn instant() -> Instant {
    Instant::now()
}

/// The instant after `span`; far away where that cannot be said.
pub(super) fn after(span: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(span).unwrap_or(now + Duration::from_secs(365 * 24 * 3600))
}

/// Measures elapsed time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    pub(super) fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    pub(super) fn elapsed_ms(self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }
}
