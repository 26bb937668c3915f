//! Progress: a live display on a terminal, a line every few seconds elsewhere.

use std::collections::VecDeque;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::render::{Human, ProgressSnapshot};
use crate::model::display_bytes;

/// Milliseconds over which rates are taken: short enough to show a stall, long enough to stand still.
const RATE_WINDOW_MS: u64 = 10_000;

/// Bytes over time.
#[derive(Debug, Default)]
pub(crate) struct RateMeter {
    samples: VecDeque<(u64, u64)>,
}

impl RateMeter {
    /// `bytes` were reached at `now_ms`.
    pub(crate) fn push(&mut self, now_ms: u64, bytes: u64) {
        self.samples.push_back((now_ms, bytes));
        while self.samples.len() > 2 && self.samples[1].0 + RATE_WINDOW_MS <= now_ms {
            self.samples.pop_front();
        }
    }

    /// Bytes a second over the window; 0 while there is too little to tell.
    pub(crate) fn bytes_per_s(&self) -> f64 {
        match (self.samples.front(), self.samples.back()) {
            (Some((from_ms, from)), Some((to_ms, to))) if to_ms > from_ms => {
                to.saturating_sub(*from) as f64 * 1000.0 / (to_ms - from_ms) as f64
            }
            _ => 0.0,
        }
    }
}

/// Rates of a run.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    transferred: RateMeter,
    done: RateMeter,
}

impl Meters {
    /// Takes what the counters say.
    pub(crate) fn push(&mut self, now_ms: u64, now: &ProgressSnapshot) {
        self.transferred.push(now_ms, now.bytes_transferred);
        self.done.push(now_ms, now.bytes_done);
    }

    /// Seconds until the end at the present pace; `None` while that is unknown.
    fn remaining_s(&self, now: &ProgressSnapshot) -> Option<u64> {
        let left = now.bytes_listed.saturating_sub(now.bytes_done);
        let pace = self.done.bytes_per_s();
        (now.listing_complete && pace > 0.0).then(|| (left as f64 / pace).ceil() as u64)
    }
}

/// The columns of rsync's `--info=progress2`: bytes, percentage, rate, time left, files, entries left to check.
pub(crate) fn progress_line(now: &ProgressSnapshot, meters: &Meters, human: Human) -> String {
    let listing = if now.listing_complete { "to" } else { "ir" };
    format!(
        "{:>15} {:>3}% {} {} (xfr#{}, {listing}-chk={}/{})",
        human.integer(now.bytes_done),
        percent(now),
        rate(meters.transferred.bytes_per_s()),
        remaining(meters.remaining_s(now)),
        now.files_transferred,
        now.entries_listed.saturating_sub(now.entries_done),
        now.entries_listed
    )
}

fn percent(now: &ProgressSnapshot) -> u64 {
    if now.bytes_listed == 0 {
        return if now.listing_complete { 100 } else { 0 };
    }
    (u128::from(now.bytes_done.min(now.bytes_listed)) * 100 / u128::from(now.bytes_listed)) as u64
}

fn rate(bytes_per_s: f64) -> String {
    let kilo = bytes_per_s / 1024.0;
    let (number, unit) = if kilo < 1024.0 {
        (kilo, "kB/s")
    } else if kilo < 1024.0 * 1024.0 {
        (kilo / 1024.0, "MB/s")
    } else {
        (kilo / 1024.0 / 1024.0, "GB/s")
    };
    format!("{number:>7.2}{unit}")
}

fn remaining(seconds: Option<u64>) -> String {
    match seconds {
        Some(seconds) if seconds < 10_000 * 3600 => {
            format!("{:>4}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
        }
        _ => "  ??:??:??".to_owned(),
    }
}

/// The live display.
pub(crate) struct Live {
    bar: ProgressBar,
}

impl Live {
    /// On standard output.
    pub(crate) fn new() -> Live {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stdout_with_hz(10));
        // A template that does not parse would be our mistake; the default one shows less, but shows.
        if let Ok(style) = ProgressStyle::with_template("{spinner} [{bar:20}] {prefix}\n  {wide_msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Live { bar }
    }

    /// For the console, which writes around it.
    pub(crate) fn bar(&self) -> ProgressBar {
        self.bar.clone()
    }

    /// Draws the present state.
    pub(crate) fn draw(&self, now: &ProgressSnapshot, current: &[u8], meters: &Meters) {
        self.bar.set_length(now.bytes_listed.max(1));
        self.bar.set_position(now.bytes_done.min(now.bytes_listed));
        let human = Human::Binary;
        let searching = if now.listing_complete { "" } else { ", finding files" };
        self.bar.set_prefix(format!(
            "{} of {} {}% {} ETA {}, {} of {} entries{searching}",
            human.integer(now.bytes_done),
            human.integer(now.bytes_listed),
            percent(now),
            rate(meters.transferred.bytes_per_s()).trim_start(),
            remaining(meters.remaining_s(now)).trim_start(),
            Human::Separated.integer(now.entries_done),
            Human::Separated.integer(now.entries_listed),
        ));
        self.bar.set_message(display_bytes(current));
        self.bar.tick();
    }
}

/// Time between plain lines.
pub(crate) const PLAIN_INTERVAL: Duration = Duration::from_secs(5);
/// Time between progress events of `--json`.
pub(crate) const JSON_INTERVAL: Duration = Duration::from_secs(1);
/// Time between redraws, and between looks at what waits to be written.
pub(crate) const TICK: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(done: u64, listed: u64, complete: bool) -> ProgressSnapshot {
        ProgressSnapshot {
            entries_listed: 11,
            bytes_listed: listed,
            entries_done: 3,
            bytes_done: done,
            files_transferred: 2,
            bytes_transferred: done,
            deleted: 0,
            problems: 0,
            listing_complete: complete,
        }
    }

    #[test]
    fn plain_lines_have_rsyncs_columns() {
        let mut meters = Meters::default();
        meters.push(0, &snapshot(0, 1_234_595, true));
        let now = snapshot(1_048_576, 1_234_595, true);
        meters.push(1000, &now);
        assert_eq!(
            progress_line(&now, &meters, Human::Separated),
            "      1,048,576  84%    1.00MB/s    0:00:01 (xfr#2, to-chk=8/11)"
        );
        assert_eq!(
            progress_line(&snapshot(0, 0, false), &Meters::default(), Human::Separated),
            "              0   0%    0.00kB/s   ??:??:?? (xfr#2, ir-chk=8/11)"
        );
    }

    #[test]
    fn rates_forget_what_is_old() {
        let mut meter = RateMeter::default();
        for second in 0..100 {
            meter.push(second * 1000, if second < 50 { second * 1_000_000 } else { 50_000_000 });
        }
        assert_eq!(meter.bytes_per_s(), 0.0);
        assert!(meter.samples.len() < 14);
        assert_eq!(percent(&snapshot(5, 0, true)), 100);
        assert_eq!(rate(3.0 * 1024.0 * 1024.0 * 1024.0), "   3.00GB/s");
    }
}
