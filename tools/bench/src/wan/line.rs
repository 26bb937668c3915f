//! What a line does to packets. Pure: the clock is an argument.

use std::str::FromStr;
use std::time::Duration;

use crate::content::Content;

/// The smallest queue, in bytes: some forty packets, so that short lines carry bursts.
const QUEUE_BYTES_MIN: u64 = 64 << 10;

/// A line as a user describes it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Line {
    /// There and back again, without waiting.
    pub(crate) rtt_ms: f64,
    /// Bits of IP packets in each direction, in millions a second.
    pub(crate) rate_mbit: f64,
    /// Share of packets that each direction loses at random, in percent.
    pub(crate) loss_percent: f64,
    /// Bytes that may wait for each direction; what comes then is dropped.
    pub(crate) queue_bytes: u64,
}

impl Line {
    /// A line whose queue holds what the line itself holds (rate times round trip).
    pub(crate) fn new(rtt_ms: f64, rate_mbit: f64, loss_percent: f64) -> Result<Line, String> {
        if !(0.0..=10_000.0).contains(&rtt_ms) {
            return Err(format!("a round trip of {rtt_ms} ms: give 0 to 10000"));
        }
        if !(0.01..=100_000.0).contains(&rate_mbit) {
            return Err(format!("a rate of {rate_mbit} Mbit/s: give 0.01 to 100000"));
        }
        if !(0.0..=100.0).contains(&loss_percent) {
            return Err(format!("a loss of {loss_percent}%: give 0 to 100"));
        }
        let product_bytes = (rate_mbit * 1e6 / 8.0 * rtt_ms / 1e3) as u64;
        Ok(Line { rtt_ms, rate_mbit, loss_percent, queue_bytes: product_bytes.max(QUEUE_BYTES_MIN) })
    }
}

impl FromStr for Line {
    type Err = String;

    /// `RTT_MS,RATE_MBIT,LOSS_PERCENT`.
    fn from_str(text: &str) -> Result<Line, String> {
        let numbers: Vec<f64> = text
            .split(',')
            .map(|number| number.trim().parse().map_err(|_| format!("`{number}` in `{text}` is not a number")))
            .collect::<Result<_, _>>()?;
        match numbers[..] {
            [rtt_ms, rate_mbit, loss_percent] => Line::new(rtt_ms, rate_mbit, loss_percent),
            _ => Err(format!("`{text}`: give RTT_MS,RATE_MBIT,LOSS_PERCENT, as 50,1000,0.1")),
        }
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} ms round trip, {} Mbit/s, {}% loss each way, queue {} KiB",
            self.rtt_ms,
            self.rate_mbit,
            self.loss_percent,
            self.queue_bytes >> 10
        )
    }
}

/// What becomes of one packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It arrives at this time.
    Arrives(Duration),
    /// The queue is full.
    Dropped,
    /// The line loses it, after it took its time on the line.
    Lost,
}

/// One direction of a line: a queue that drops at its tail, then a wire with a rate, a delay and a loss.
pub(crate) struct Direction {
    delay: Duration,
    seconds_per_byte: f64,
    queue: Duration,
    loss: f64,
    chance: Content,
    free_at: Duration,
}

impl Direction {
    /// `seed` names the sequence of losses.
    pub(crate) fn new(line: &Line, seed: &str) -> Direction {
        let seconds_per_byte = 8.0 / (line.rate_mbit * 1e6);
        Direction {
            delay: Duration::from_secs_f64(line.rtt_ms / 2e3),
            seconds_per_byte,
            queue: Duration::from_secs_f64(line.queue_bytes as f64 * seconds_per_byte),
            loss: line.loss_percent / 100.0,
            chance: Content::new(seed),
            free_at: Duration::ZERO,
        }
    }

    /// A packet of `bytes` comes at `now` (since any fixed moment; never earlier than the one before).
    pub(crate) fn offer(&mut self, now: Duration, bytes: usize) -> Fate {
        let starts = self.free_at.max(now);
        let ends = starts + Duration::from_secs_f64(bytes as f64 * self.seconds_per_byte);
        if starts > now && ends - now > self.queue {
            return Fate::Dropped;
        }
        self.free_at = ends;
        if self.loss > 0.0 && self.chance.unit() <= self.loss {
            return Fate::Lost;
        }
        Fate::Arrives(ends + self.delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// 1 Mbit/s carries 125 bytes a millisecond.
    fn direction(line: &str) -> Direction {
        Direction::new(&line.parse().unwrap(), "test")
    }

    #[test]
    fn packets_take_their_time_one_after_the_other() {
        let mut way = direction("20,1,0");
        assert_eq!(way.offer(ms(0), 1250), Fate::Arrives(ms(20)));
        assert_eq!(way.offer(ms(0), 1250), Fate::Arrives(ms(30)));
        assert_eq!(way.offer(ms(100), 1250), Fate::Arrives(ms(120)));
    }

    #[test]
    fn the_queue_is_bounded_in_bytes_and_drains() {
        let mut way = direction("0,1,0");
        let taken = (0..100).filter(|_| way.offer(ms(0), 1250) != Fate::Dropped).count();
        assert_eq!(taken, QUEUE_BYTES_MIN as usize / 1250);
        assert!(matches!(way.offer(ms(20), 1250), Fate::Arrives(_)), "10 ms drain one packet");
    }

    #[test]
    fn a_packet_larger_than_the_queue_passes_an_idle_line() {
        let line = Line { queue_bytes: 10, ..Line::new(0.0, 1.0, 0.0).unwrap() };
        assert!(matches!(Direction::new(&line, "").offer(ms(0), 1250), Fate::Arrives(_)));
    }

    #[test]
    fn losses_are_as_many_as_asked_for_and_repeatable() {
        let lost = |seed| {
            let mut way = Direction::new(&"0,1000,3".parse().unwrap(), seed);
            (0..100_000).map(|n| way.offer(ms(n), 100) == Fate::Lost).collect::<Vec<_>>()
        };
        let count = lost("a").iter().filter(|lost| **lost).count();
        assert!((2_700..3_300).contains(&count), "{count}");
        assert_eq!(lost("a"), lost("a"));
        assert_ne!(lost("a"), lost("b"));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "50", "50,1000", "50,1000,0,1", "a,1,1", "-1,1,1", "1,0,1", "1,1,101", "NaN,1,1", "inf,1,1"] {
            assert!(text.parse::<Line>().is_err(), "{text}");
        }
        assert_eq!("50, 1000, 0.1".parse::<Line>().unwrap().queue_bytes, 6_250_000);
    }
}
