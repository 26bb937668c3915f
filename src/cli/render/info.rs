//! `--info`, `-v` and their kin: how much of what is shown.

use super::super::exit::Failure;
use super::super::settings::{ProgressStyle, Settings};

/// Levels asked for by `--info`; `None`: left to the other flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct InfoLevels {
    name: Option<u8>,
    del: Option<u8>,
    stats: Option<u8>,
    flist: Option<u8>,
    progress: Option<u8>,
    details: Option<u8>,
}

/// rsync's words that xfer can only keep silent.
const SILENT_WORDS: [&str; 7] = ["backup", "copy", "mount", "remove", "skip", "symsafe", "misc"];

impl InfoLevels {
    /// Adds the words of one `--info`. Fails for a word that is unknown or cannot be honoured.
    pub(crate) fn merge(&mut self, words: &str) -> Result<(), Failure> {
        for word in words.split(',').filter(|word| !word.is_empty()) {
            let name = word.trim_end_matches(|c: char| c.is_ascii_digit());
            let digits = &word[name.len()..];
            let level = if digits.is_empty() { 1 } else { digits.parse::<u8>().unwrap_or(u8::MAX) };
            let name = name.to_ascii_lowercase();
            match name.as_str() {
                "name" => self.name = Some(level),
                "del" => self.del = Some(level),
                "stats" => self.stats = Some(level),
                "flist" => self.flist = Some(level),
                "progress" => self.progress = Some(level),
                "nonreg" => self.details = Some(level),
                "none" => self.silence(),
                "all" if level == 0 => self.silence(),
                known if SILENT_WORDS.contains(&known) && level == 0 => {}
                known if SILENT_WORDS.contains(&known) || known == "all" => {
                    return Err(Failure::usage(format!("--info: \"{known}\" of rsync is not supported"))
                        .with_hint("xfer has name, del, stats, flist, nonreg, progress and none"));
                }
                _ => {
                    return Err(Failure::usage(format!("--info: unknown word \"{}\"", word.escape_debug()))
                        .with_hint("xfer has name, del, stats, flist, nonreg, progress and none"));
                }
            }
        }
        Ok(())
    }

    fn silence(&mut self) {
        let none = Some(0);
        *self = InfoLevels { name: none, del: none, stats: none, flist: none, progress: none, details: none };
    }
}

/// How much is shown, all flags taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Levels {
    /// 1: names of what is copied; 2: of what is up to date too.
    pub(crate) name: u8,
    /// Deletions.
    pub(crate) del: bool,
    /// 1: totals; 2: the block of statistics too.
    pub(crate) stats: u8,
    /// The line that opens the list.
    pub(crate) flist: bool,
    /// Details such as `skipping directory x`.
    pub(crate) details: bool,
    /// Progress.
    pub(crate) progress: ProgressStyle,
    /// `-i`: 1 what changed, 2 everything.
    pub(crate) itemize: u8,
}

impl Levels {
    /// From all flags; `-q` silences them all.
    pub(crate) fn of(settings: &Settings) -> Levels {
        if settings.quiet {
            return Levels::default();
        }
        let info = settings.info;
        let verbose = settings.verbose;
        let progress = match info.progress {
            Some(0) => ProgressStyle::Off,
            Some(1) => ProgressStyle::WithNames,
            Some(_) => ProgressStyle::Totals,
            None if settings.progress => ProgressStyle::WithNames,
            None => ProgressStyle::Off,
        };
        // As in rsync: progress by file makes no sense without the names, a format of one's own shows them already.
        let named_by_progress = progress == ProgressStyle::WithNames && settings.out_format.is_none();
        let default_name = verbose.min(2).max(u8::from(named_by_progress));
        let details = verbose > 0 || settings.itemize > 0 || progress == ProgressStyle::WithNames;
        Levels {
            name: info.name.unwrap_or(default_name),
            del: info.del.map_or(verbose > 0 || settings.itemize > 0, |level| level > 0),
            stats: info.stats.unwrap_or(u8::from(verbose > 0)).max(if settings.stats { 2 } else { 0 }),
            flist: info.flist.map_or(verbose > 0 || progress == ProgressStyle::WithNames, |level| level > 0),
            details: info.details.map_or(details, |level| level > 0 && details),
            progress,
            itemize: settings.itemize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(verbose: u8, words: &str) -> Levels {
        let mut settings = Settings { verbose, ..Settings::default() };
        settings.info.merge(words).unwrap();
        Levels::of(&settings)
    }

    #[test]
    fn info_words_override_verbosity() {
        assert_eq!(levels(0, ""), Levels::default());
        assert_eq!(levels(1, "").stats, 1);
        assert_eq!(levels(2, "").name, 2);
        assert_eq!(levels(1, "name0,stats2").name, 0);
        assert_eq!(levels(1, "NAME0,stats2").stats, 2);
        assert_eq!(levels(2, "none"), Levels::default());
        assert_eq!(levels(0, "progress2").progress, ProgressStyle::Totals);
        assert_eq!(levels(0, "progress2").name, 0);
        assert_eq!(levels(0, "progress").name, 1);
        assert!(levels(0, "del").del);
    }

    #[test]
    fn words_that_cannot_be_honoured_are_refused_by_name() {
        let refused = |words: &str| InfoLevels::default().merge(words).unwrap_err().message;
        assert!(refused("name,mount2").contains("mount"));
        assert!(refused("bogus").contains("bogus"));
        assert!(refused("all").contains("all"));
        assert!(InfoLevels::default().merge("mount0,skip0").is_ok());
    }

    #[test]
    fn quiet_silences_all() {
        let settings = Settings { verbose: 3, quiet: true, stats: true, progress: true, ..Settings::default() };
        assert_eq!(Levels::of(&settings), Levels::default());
    }
}
