//! Numbers and times as rsync writes them.

use jiff::tz::TimeZone;

use crate::model::Timestamp;

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Human {
    /// Bare digits.
    Bare,
    /// Thousands apart by commas.
    Separated,
    /// Units of 1000.
    Thousands,
    /// Units of 1024.
    Binary,
}

impl Human {
    /// `--no-h`, default, `-h`, `-hh`.
    pub(crate) fn of_level(level: u8) -> Human {
        match level {
            0 => Human::Bare,
            1 => Human::Separated,
            2 => Human::Thousands,
            _ => Human::Binary,
        }
    }

    /// A whole number.
    pub(crate) fn integer(self, number: u64) -> String {
        match self.with_unit(number as f64) {
            Some(text) => text,
            None if self == Human::Bare => number.to_string(),
            None => separated(number),
        }
    }

    /// A number with `digits` decimals.
    pub(crate) fn decimal(self, number: f64, digits: usize) -> String {
        match self.with_unit(number) {
            Some(text) => text,
            None => self.plain_decimal(number, digits),
        }
    }

    /// A number that never gets a unit (counts, ratios).
    pub(crate) fn plain_integer(self, number: u64) -> String {
        if self == Human::Bare { number.to_string() } else { separated(number) }
    }

    /// See [`Human::plain_integer`].
    pub(crate) fn plain_decimal(self, number: f64, digits: usize) -> String {
        let text = format!("{number:.digits$}");
        if self == Human::Bare {
            return text;
        }
        match text.split_once('.') {
            Some((whole, fraction)) => match whole.parse::<u64>() {
                Ok(whole) => format!("{}.{fraction}", separated(whole)),
                Err(_) => text,
            },
            None => text,
        }
    }

    fn with_unit(self, number: f64) -> Option<String> {
        let base = match self {
            Human::Bare | Human::Separated => return None,
            Human::Thousands => 1000.0,
            Human::Binary => 1024.0,
        };
        if number < base {
            return None;
        }
        let mut scaled = number / base;
        let mut units = ['K', 'M', 'G', 'T', 'P'].into_iter();
        let mut unit = units.next()?;
        while scaled >= base {
            let Some(larger) = units.next() else { break };
            scaled /= base;
            unit = larger;
        }
        Some(format!("{scaled:.2}{unit}"))
    }
}

fn separated(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time of a file, in the local zone: `2026/01/31<separator>23:59:59`. Times outside of what the calendar holds are
/// shown as seconds.
pub(crate) fn clock(time: Timestamp, separator: char, zone: &TimeZone) -> String {
    match jiff::Timestamp::from_second(time.seconds) {
        Ok(instant) => calendar(&instant.to_zoned(zone.clone()), separator),
        Err(_) => format!("@{}", time.seconds),
    }
}

/// The present, as logs have it.
pub(crate) fn log_time(zone: &TimeZone) -> String {
    calendar(&jiff::Timestamp::now().to_zoned(zone.clone()), ' ')
}

fn calendar(time: &jiff::Zoned, separator: char) -> String {
    format!(
        "{}/{:02}/{:02}{separator}{:02}:{:02}:{:02}",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rsyncs() {
        // Seen in rsync 3.5 with --no-h, by default, with -h and -hh.
        assert_eq!(Human::Bare.integer(1_235_328), "1235328");
        assert_eq!(Human::Separated.integer(1_235_328), "1,235,328");
        assert_eq!(Human::Thousands.integer(1_234_586), "1.23M");
        assert_eq!(Human::Binary.integer(1_234_586), "1.18M");
        assert_eq!(Human::Thousands.integer(129), "129");
        assert_eq!(Human::Thousands.integer(4096), "4.10K");
        assert_eq!(Human::Binary.integer(1000), "1,000");
        assert_eq!(Human::Separated.integer(0), "0");
        assert_eq!(Human::Separated.integer(999), "999");
        assert_eq!(Human::Separated.integer(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(Human::Separated.decimal(2_470_964.0, 2), "2,470,964.00");
        assert_eq!(Human::Thousands.decimal(2_470_964.0, 2), "2.47M");
        assert_eq!(Human::Thousands.plain_decimal(4712.159, 2), "4,712.16");
        assert_eq!(Human::Thousands.integer(5_000_000_000_000_000_000), "5000.00P");
    }

    #[test]
    fn times_are_rsyncs() {
        let zone = TimeZone::UTC;
        assert_eq!(clock(Timestamp::new(1_577_934_245, 123), ' ', &zone), "2020/01/02 03:04:05");
        assert_eq!(clock(Timestamp::new(-1, 0), '-', &zone), "1969/12/31-23:59:59");
        assert_eq!(clock(Timestamp::new(i64::MAX, 0), '-', &zone), "@9223372036854775807");
    }
}
