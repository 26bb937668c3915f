//! Totals at the end: `-v` and `--stats`.

use super::numbers::Human;
use crate::model::{KindCounts, Stats};

/// The two lines at the end of `-v`.
pub(crate) fn totals(stats: &Stats, elapsed_ms: u64, human: Human, dry_run: bool) -> Vec<String> {
    let moved = stats.sent_bytes.saturating_add(stats.received_bytes);
    // A run of less than a millisecond has no rate worth the name; half a second keeps it finite, as in rsync.
    let rate = moved as f64 / (0.5 + elapsed_ms as f64 / 1000.0);
    let speedup = if moved == 0 { 0.0 } else { stats.total_bytes as f64 / moved as f64 };
    vec![
        format!(
            "sent {} bytes  received {} bytes  {} bytes/sec",
            human.integer(stats.sent_bytes),
            human.integer(stats.received_bytes),
            human.decimal(rate, 2)
        ),
        format!(
            "total size is {}  speedup is {}{}",
            human.integer(stats.total_bytes),
            human.plain_decimal(speedup, 2),
            if dry_run { " (DRY RUN)" } else { "" }
        ),
    ]
}

/// The one line at the end of a log when nothing else is asked for.
pub(crate) fn log_totals_line(stats: &Stats) -> String {
    format!(
        "sent {} bytes  received {} bytes  total size {}",
        stats.sent_bytes, stats.received_bytes, stats.total_bytes
    )
}

/// The block of `--stats`, line by line.
pub(crate) fn stats_block(stats: &Stats, listing_ms: u64, human: Human) -> Vec<String> {
    let counted = |label: &str, counts: &KindCounts| format!("{label}: {}", by_kind(counts, human));
    let bytes = |label: &str, number: u64| format!("{label}: {} bytes", human.integer(number));
    vec![
        counted("Number of files", &stats.listed),
        counted("Number of created files", &stats.created),
        counted("Number of deleted files", &stats.deleted),
        format!("Number of regular files transferred: {}", human.plain_integer(stats.transferred_files)),
        bytes("Total file size", stats.total_bytes),
        bytes("Total transferred file size", stats.transferred_bytes),
        bytes("Literal data", stats.literal_bytes),
        bytes("Matched data", stats.matched_bytes),
        format!("File list size: {}", human.integer(stats.listing_bytes)),
        format!("File list generation time: {} seconds", human.plain_decimal(listing_ms as f64 / 1000.0, 3)),
        // Listings travel while the rest goes on: there is no time of their own.
        "File list transfer time: 0.000 seconds".to_owned(),
        format!("Total bytes sent: {}", human.integer(stats.sent_bytes)),
        format!("Total bytes received: {}", human.integer(stats.received_bytes)),
    ]
}

fn by_kind(counts: &KindCounts, human: Human) -> String {
    let kinds = [
        ("reg", counts.files),
        ("dir", counts.dirs),
        ("link", counts.symlinks),
        ("dev", counts.devices),
        ("special", counts.specials),
    ];
    let named: Vec<String> = kinds
        .iter()
        .filter(|(_, number)| *number > 0)
        .map(|(name, number)| format!("{name}: {}", human.plain_integer(*number)))
        .collect();
    if named.is_empty() {
        return "0".to_owned();
    }
    format!("{} ({})", human.plain_integer(counts.total()), named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Stats {
        let counts = KindCounts { files: 5, dirs: 4, symlinks: 1, devices: 0, specials: 1 };
        Stats {
            listed: counts,
            created: counts,
            transferred_files: 4,
            total_bytes: 1_234_596,
            transferred_bytes: 1_234_584,
            literal_bytes: 1_234_584,
            sent_bytes: 1_235_341,
            received_bytes: 129,
            ..Stats::default()
        }
    }

    #[test]
    fn the_block_is_rsyncs() {
        insta::assert_snapshot!(stats_block(&sample(), 1, Human::Separated).join("\n"), @r"
        Number of files: 11 (reg: 5, dir: 4, link: 1, special: 1)
        Number of created files: 11 (reg: 5, dir: 4, link: 1, special: 1)
        Number of deleted files: 0
        Number of regular files transferred: 4
        Total file size: 1,234,596 bytes
        Total transferred file size: 1,234,584 bytes
        Literal data: 1,234,584 bytes
        Matched data: 0 bytes
        File list size: 0
        File list generation time: 0.001 seconds
        File list transfer time: 0.000 seconds
        Total bytes sent: 1,235,341
        Total bytes received: 129
        ");
        insta::assert_snapshot!(stats_block(&sample(), 1, Human::Thousands)[4..8].join("\n"), @r"
        Total file size: 1.23M bytes
        Total transferred file size: 1.23M bytes
        Literal data: 1.23M bytes
        Matched data: 0 bytes
        ");
    }

    #[test]
    fn totals_are_rsyncs() {
        insta::assert_snapshot!(totals(&sample(), 0, Human::Separated, true).join("\n"), @r"
        sent 1,235,341 bytes  received 129 bytes  2,470,940.00 bytes/sec
        total size is 1,234,596  speedup is 1.00 (DRY RUN)
        ");
        insta::assert_snapshot!(totals(&sample(), 0, Human::Binary, false).join("\n"), @r"
        sent 1.18M bytes  received 129 bytes  2.36M bytes/sec
        total size is 1.18M  speedup is 1.00
        ");
        assert_eq!(totals(&Stats::default(), 0, Human::Bare, false)[1], "total size is 0  speedup is 0.00");
        assert_eq!(log_totals_line(&sample()), "sent 1235341 bytes  received 129 bytes  total size 1234596");
    }
}
