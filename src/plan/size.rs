//! Sizes as rsync's options take them: `1.5m`, `10kb`, `2GiB`, `1g-1`.

use crate::model::display_bytes;

/// The unit of a number without a suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeUnit {
    /// `--max-size`, `--min-size`, `--block-size`.
    Bytes,
    /// `--bwlimit`.
    Kibibytes,
}

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not a number with a known suffix.
    #[error("invalid size \"{}\"", display_bytes(.0.as_bytes()))]
    Invalid(String),
    /// Outside of what the option takes.
    #[error("size out of range: \"{}\"", display_bytes(.0.as_bytes()))]
    OutOfRange(String),
}

/// Reads a size in bytes: digits with an optional fraction; a suffix of `b`, `k`, `m`, `g`, `t` or `p` in either case
/// (units of 1024; of 1000 with a further `b`; of 1024 with a further `ib`); `+1` or `-1` at the end. Fractions of a
/// byte are dropped. At most `i64::MAX`, the largest length of a file.
pub fn parse_size(text: &str, default_unit: SizeUnit) -> Result<u64, SizeError> {
    let invalid = || SizeError::Invalid(text.to_owned());
    let out_of_range = || SizeError::OutOfRange(text.to_owned());
    let number_end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(invalid());
    }
    let (suffix, offset) = match rest {
        _ if rest.ends_with("+1") => (&rest[..rest.len() - 2], 1),
        _ if rest.ends_with("-1") => (&rest[..rest.len() - 2], -1),
        _ => (rest, 0),
    };
    let unit = unit_of(suffix, default_unit).ok_or_else(invalid)?;

    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| out_of_range())? };
    // Eighteen digits fit the arithmetic below and are finer than a byte in any unit that fits a file.
    let digits = &fraction[..fraction.len().min(18)];
    let numerator: u128 = if digits.is_empty() { 0 } else { digits.parse().map_err(|_| invalid())? };
    let bytes = u128::from(whole) * u128::from(unit) + numerator * u128::from(unit) / 10_u128.pow(digits.len() as u32);
    let bytes = i128::try_from(bytes).map_err(|_| out_of_range())? + offset;
    u64::try_from(bytes).ok().filter(|bytes| *bytes <= i64::MAX as u64).ok_or_else(out_of_range)
}

/// `--bwlimit`: bytes a second, `None` for no limit (`0`). Less than 512 bytes a second is refused, as rsync does.
pub fn parse_bwlimit(text: &str) -> Result<Option<u64>, SizeError> {
    match parse_size(text, SizeUnit::Kibibytes)? {
        0 => Ok(None),
        1..512 => Err(SizeError::OutOfRange(text.to_owned())),
        bytes_per_s => Ok(Some(bytes_per_s)),
    }
}

fn unit_of(suffix: &str, default_unit: SizeUnit) -> Option<u64> {
    let suffix = suffix.to_ascii_lowercase();
    let Some(&letter) = suffix.as_bytes().first() else {
        return Some(match default_unit {
            SizeUnit::Bytes => 1,
            SizeUnit::Kibibytes => 1024,
        });
    };
    let power = match letter {
        b'b' => 0,
        b'k' => 1,
        b'm' => 2,
        b'g' => 3,
        b't' => 4,
        b'p' => 5,
        _ => return None,
    };
    match &suffix[1..] {
        "" => Some(1024_u64.pow(power)),
        "b" if power > 0 => Some(1000_u64.pow(power)),
        "ib" if power > 0 => Some(1024_u64.pow(power)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_as_rsync_reads_them() {
        for (text, bytes) in [
            ("1", 1),
            ("1b", 1),
            ("1k", 1024),
            ("1KB", 1000),
            ("1kib", 1024),
            ("1.5m", 1_572_864),
            ("1.5mb-1", 1_499_999),
            ("2g+1", 2_147_483_649),
            ("1t", 1 << 40),
            ("1p", 1 << 50),
            (".5k", 512),
            ("1.", 1),
            ("1.k", 1024),
            ("1+1", 2),
            ("1-1", 0),
            ("1b+1", 2),
            ("1.9", 1),
            ("1.99999k", 2047),
            ("007", 7),
            ("18014398509481984", 1 << 54),
        ] {
            assert_eq!(parse_size(text, SizeUnit::Bytes), Ok(bytes), "{text}");
        }
        for text in ["", "k", ".", "1e", "1..2", "-1", "+1", "1+2", "1ki", "1kbb", "1kx", "1 k", "0x10", "1,5", "1bb"] {
            assert!(matches!(parse_size(text, SizeUnit::Bytes), Err(SizeError::Invalid(_))), "{text}");
        }
        for text in ["9000P", "0-1", "9223372036854775808", "99999999999999999999999"] {
            assert!(matches!(parse_size(text, SizeUnit::Bytes), Err(SizeError::OutOfRange(_))), "{text}");
        }
    }

    #[test]
    fn a_bandwidth_is_in_kibibytes() {
        assert_eq!(parse_bwlimit("100"), Ok(Some(102_400)));
        assert_eq!(parse_bwlimit("1.5m"), Ok(Some(1_572_864)));
        assert_eq!(parse_bwlimit("0"), Ok(None));
        assert_eq!(parse_bwlimit("512b"), Ok(Some(512)));
        assert!(parse_bwlimit("511b").is_err());
        assert!(parse_bwlimit("0.1").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9.]{0,30}[bkmgtpi+\\-é1]{0,5}") {
            let _ = parse_size(&text, SizeUnit::Bytes);
        }
    }
}
