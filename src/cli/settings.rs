//! What the flags mean, taken one by one in the order given. Defaults that depend on other flags stay open here and
//! are settled in `convert`.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStringExt;

use super::args::{Flag, Occurrence};
use super::exit::Failure;
use super::render::{Format, InfoLevels};
use crate::model::display_bytes;
use crate::plan::options::{AltDestKind, Deletion, LinkPolicy, Preserve};
use crate::sync::Transport;

/// One step of building the filter rules, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FilterStep {
    /// `--exclude`.
    Exclude(Vec<u8>),
    /// `--include`.
    Include(Vec<u8>),
    /// `--exclude-from`.
    ExcludeFrom(OsString),
    /// `--include-from`.
    IncludeFrom(OsString),
    /// `-f`.
    Rule(Vec<u8>),
    /// `-F`.
    PerDirectory,
}

/// When rsync would delete; xfer always deletes after the transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeleteTime {
    /// `--delete-before`.
    Before,
    /// `--delete-during`, `--delete-delay`.
    During,
    /// `--delete-after`.
    After,
}

/// Why recursion is on. `--files-from` turns off what only `-a` turned on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Recursive {
    /// Off.
    #[default]
    No,
    /// By `-a`.
    ByArchive,
    /// By `-r`.
    Yes,
}

/// Options that map owners and groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdMapOption {
    /// `--usermap`.
    UserMap,
    /// `--groupmap`.
    GroupMap,
    /// `--chown`.
    Chown,
}

/// Names by which compression is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CompressChoice {
    /// zstd.
    Zstd,
    /// lz4.
    Lz4,
}

/// `--progress` and its kin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum ProgressStyle {
    /// None.
    #[default]
    Off,
    /// `--progress`: with the names of what is copied.
    WithNames,
    /// `--info=progress2`: totals only.
    Totals,
}

/// All flags, taken together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "named after the flags")]
pub(crate) struct Settings {
    pub(crate) recursive: Recursive,
    pub(crate) dirs: Option<bool>,
    pub(crate) relative: Option<bool>,
    pub(crate) no_implied_dirs: bool,
    pub(crate) one_file_system: u8,
    pub(crate) prune_empty_dirs: bool,
    pub(crate) files_from: Option<OsString>,
    pub(crate) from0: bool,
    pub(crate) max_size: Option<Vec<u8>>,
    pub(crate) min_size: Option<Vec<u8>>,
    pub(crate) ignore_missing_args: bool,
    pub(crate) live: bool,
    pub(crate) links: LinkPolicy,
    pub(crate) preserve: Preserve,
    pub(crate) numeric_ids: bool,
    pub(crate) id_maps: Vec<(IdMapOption, Vec<u8>)>,
    pub(crate) chmod: Vec<Vec<u8>>,
    pub(crate) checksum: bool,
    pub(crate) update: bool,
    pub(crate) ignore_times: bool,
    pub(crate) size_only: bool,
    pub(crate) modify_window_ns: Option<u64>,
    pub(crate) existing: bool,
    pub(crate) ignore_existing: bool,
    pub(crate) content_only: bool,
    pub(crate) deletion: Deletion,
    pub(crate) delete_times: Vec<DeleteTime>,
    pub(crate) filters: Vec<FilterStep>,
    pub(crate) whole_file: Option<bool>,
    pub(crate) inplace: bool,
    pub(crate) append_verify: bool,
    pub(crate) sparse: bool,
    pub(crate) compress: bool,
    pub(crate) compress_choice: Option<CompressChoice>,
    pub(crate) compress_level: Option<i32>,
    pub(crate) bwlimit: Option<Vec<u8>>,
    pub(crate) backup: bool,
    pub(crate) backup_dir: Option<Vec<u8>>,
    pub(crate) suffix: Option<Vec<u8>>,
    pub(crate) partial: bool,
    pub(crate) partial_dir: Option<Vec<u8>>,
    pub(crate) alt_dests: Vec<(AltDestKind, Vec<u8>)>,
    pub(crate) mkpath: bool,
    pub(crate) fsync: bool,
    pub(crate) remove_source_files: bool,
    pub(crate) fail_fast: bool,
    pub(crate) dry_run: bool,
    pub(crate) list_only: bool,
    pub(crate) shell: Option<Vec<u8>>,
    pub(crate) xfer_path: Option<Vec<u8>>,
    pub(crate) timeout_s: Option<u64>,
    pub(crate) connect_timeout_s: Option<u64>,
    pub(crate) transport: Transport,
    pub(crate) lanes: Option<u8>,
    pub(crate) lane_ports: Option<RangeInclusive<u16>>,
    pub(crate) accept_new: bool,
    pub(crate) verbose: u8,
    pub(crate) quiet: bool,
    pub(crate) itemize: u8,
    /// 0: bare digits, 1: separators, 2: units of 1000, 3: units of 1024.
    pub(crate) human: u8,
    pub(crate) progress: bool,
    pub(crate) info: InfoLevels,
    pub(crate) stats: bool,
    pub(crate) out_format: Option<Format>,
    pub(crate) log_file: Option<OsString>,
    pub(crate) log_file_format: Option<Format>,
    pub(crate) json: bool,
}

impl Settings {
    /// What `occurrences` mean, later ones overriding earlier ones. Fails for a value that cannot be read.
    pub(crate) fn from_occurrences(occurrences: Vec<Occurrence>) -> Result<Settings, Failure> {
        let mut settings = Settings { human: 1, ..Settings::default() };
        for occurrence in occurrences {
            settings.apply(occurrence)?;
        }
        Ok(settings)
    }

    fn apply(&mut self, Occurrence { flag, on, value }: Occurrence) -> Result<(), Failure> {
        let counted = |count: u8| if on { count.saturating_add(1) } else { 0 };
        match flag {
            Flag::Archive => {
                if self.recursive == Recursive::No {
                    self.recursive = Recursive::ByArchive;
                }
                self.links.copy_as_links = true;
                let preserve = &mut self.preserve;
                for kept in [
                    &mut preserve.perms,
                    &mut preserve.times,
                    &mut preserve.group,
                    &mut preserve.owner,
                    &mut preserve.devices,
                    &mut preserve.specials,
                ] {
                    *kept = true;
                }
            }
            Flag::Recursive => self.recursive = if on { Recursive::Yes } else { Recursive::No },
            Flag::Dirs => self.dirs = Some(on),
            Flag::Relative => self.relative = Some(on),
            Flag::NoImpliedDirs => self.no_implied_dirs = on,
            Flag::OneFileSystem => self.one_file_system = counted(self.one_file_system),
            Flag::PruneEmptyDirs => self.prune_empty_dirs = on,
            Flag::FilesFrom => self.files_from = Some(value),
            Flag::From0 => self.from0 = on,
            Flag::MaxSize => self.max_size = Some(value.into_vec()),
            Flag::MinSize => self.min_size = Some(value.into_vec()),
            Flag::IgnoreMissingArgs => self.ignore_missing_args = on,
            Flag::AllowEmptySource => self.deletion.allow_empty_source = on,
            Flag::Live => self.live = on,
            Flag::Links => self.links.copy_as_links = on,
            Flag::CopyLinks => self.links.follow_all = on,
            Flag::CopyDirLinks => self.links.follow_dirs = on,
            Flag::KeepDirLinks => self.links.keep_dir_links = on,
            Flag::CopyUnsafeLinks => self.links.follow_unsafe = on,
            Flag::SafeLinks => self.links.skip_unsafe = on,
            Flag::HardLinks => self.preserve.hard_links = on,
            Flag::Perms => self.preserve.perms = on,
            Flag::Executability => self.preserve.executability = on,
            Flag::Times => self.preserve.times = on,
            Flag::Owner => self.preserve.owner = on,
            Flag::Group => self.preserve.group = on,
            Flag::Devices => self.preserve.devices = on,
            Flag::Specials => self.preserve.specials = on,
            Flag::DevicesAndSpecials => {
                self.preserve.devices = on;
                self.preserve.specials = on;
            }
            Flag::Acls => {
                self.preserve.acls = on;
                // Lists make no sense without the bits they share with the mode.
                self.preserve.perms |= on;
            }
            Flag::Xattrs => self.preserve.xattrs = on,
            Flag::Atimes => self.preserve.atimes = on,
            Flag::OmitDirTimes => self.preserve.omit_dir_times = on,
            Flag::OmitLinkTimes => self.preserve.omit_link_times = on,
            Flag::NumericIds => self.numeric_ids = on,
            Flag::UserMap => self.map_ids(IdMapOption::UserMap, value),
            Flag::GroupMap => self.map_ids(IdMapOption::GroupMap, value),
            Flag::Chown => self.map_ids(IdMapOption::Chown, value),
            Flag::Chmod => self.chmod.push(value.into_vec()),
            Flag::NoSetid => self.preserve.no_setid = on,
            Flag::Checksum => self.checksum = on,
            Flag::Update => self.update = on,
            Flag::IgnoreTimes => self.ignore_times = on,
            Flag::SizeOnly => self.size_only = on,
            Flag::ModifyWindow => self.modify_window_ns = modify_window_ns(&value)?,
            Flag::Existing => self.existing = on,
            Flag::IgnoreExisting => self.ignore_existing = on,
            Flag::ContentOnly => self.content_only = on,
            Flag::Delete => self.deletion.enabled = on,
            Flag::DeleteBefore => self.delete_at(DeleteTime::Before),
            Flag::DeleteDuring | Flag::DeleteDelay => self.delete_at(DeleteTime::During),
            Flag::DeleteAfter => self.delete_at(DeleteTime::After),
            Flag::DeleteExcluded => {
                self.deletion.enabled = true;
                self.deletion.excluded_too = true;
            }
            // A negative limit means none may be deleted, as in rsync.
            Flag::MaxDelete => self.deletion.max = Some(integer("max-delete", &value)?.max(0) as u64),
            Flag::IgnoreErrors => self.deletion.ignore_errors = on,
            Flag::Force => self.deletion.force = on,
            Flag::Exclude => self.filters.push(FilterStep::Exclude(value.into_vec())),
            Flag::Include => self.filters.push(FilterStep::Include(value.into_vec())),
            Flag::ExcludeFrom => self.filters.push(FilterStep::ExcludeFrom(value)),
            Flag::IncludeFrom => self.filters.push(FilterStep::IncludeFrom(value)),
            Flag::Filter => self.filters.push(FilterStep::Rule(value.into_vec())),
            Flag::PerDirectory => self.filters.push(FilterStep::PerDirectory),
            Flag::WholeFile => self.whole_file = Some(on),
            Flag::Inplace => self.inplace = on,
            Flag::AppendVerify => self.append_verify = on,
            Flag::Sparse => self.sparse = on,
            Flag::Compress => {
                self.compress = on;
                if !on {
                    self.compress_choice = None;
                }
            }
            Flag::CompressChoice => self.choose_compression(&value)?,
            Flag::CompressLevel => {
                let level = integer("compress-level", &value)?;
                // 0 asks for the default level, and does not turn compression on.
                self.compress |= level != 0;
                // rsync, too, takes what is out of range for the nearest level.
                self.compress_level = (level != 0).then(|| level.clamp(1, 19) as i32);
            }
            Flag::Bwlimit => self.bwlimit = on.then(|| value.into_vec()),
            Flag::Backup => {
                self.backup = on;
                if !on {
                    self.backup_dir = None;
                }
            }
            Flag::BackupDir => {
                self.backup = true;
                self.backup_dir = Some(value.into_vec());
            }
            Flag::Suffix => self.suffix = Some(value.into_vec()),
            Flag::Partial => {
                self.partial = on;
                if !on {
                    self.partial_dir = None;
                }
            }
            Flag::PartialDir => self.partial_dir = Some(value.into_vec()),
            Flag::CompareDest => self.alt_dests.push((AltDestKind::Compare, value.into_vec())),
            Flag::CopyDest => self.alt_dests.push((AltDestKind::Copy, value.into_vec())),
            Flag::LinkDest => self.alt_dests.push((AltDestKind::Link, value.into_vec())),
            Flag::Mkpath => self.mkpath = on,
            Flag::Fsync => self.fsync = on,
            Flag::RemoveSourceFiles => self.remove_source_files = on,
            Flag::FailFast => self.fail_fast = on,
            Flag::DryRun => self.dry_run = on,
            Flag::ListOnly => self.list_only = on,
            Flag::Shell => self.shell = Some(value.into_vec()),
            Flag::XferPath => self.xfer_path = Some(value.into_vec()),
            Flag::Timeout => self.timeout_s = if on { seconds("timeout", &value)? } else { None },
            Flag::ConnectTimeout => self.connect_timeout_s = if on { seconds("contimeout", &value)? } else { None },
            Flag::Transport => {
                self.transport = match value.as_encoded_bytes() {
                    b"auto" => Transport::Auto,
                    b"direct" => Transport::Direct,
                    b"shell" => Transport::Shell,
                    _ => {
                        return Err(Failure::usage(format!("--transport: no such way: {}", value.to_string_lossy()))
                            .with_hint("one of: auto, direct, shell"));
                    }
                }
            }
            Flag::Lanes => self.lanes = Some(lanes(&value)?),
            Flag::LanePorts => self.lane_ports = Some(ports(&value)?),
            Flag::AcceptNew => self.accept_new = on,
            // What the flag asks for is always so; there is nothing to keep.
            Flag::AlwaysSo => {}
            Flag::Verbose => self.verbose = counted(self.verbose),
            Flag::Quiet => self.quiet = on,
            Flag::Itemize => self.itemize = counted(self.itemize),
            Flag::HumanReadable => self.human = if on { (self.human + 1).min(3) } else { 0 },
            Flag::Progress => self.progress = on,
            Flag::PartialProgress => {
                self.partial = true;
                self.progress = true;
            }
            Flag::Info => self.info.merge(&text("info", &value)?)?,
            Flag::Stats => self.stats = on,
            Flag::OutFormat => self.out_format = Some(Format::parse("out-format", &value.into_vec())?),
            Flag::LogFile => self.log_file = Some(value),
            Flag::LogFileFormat => self.log_file_format = Some(Format::parse("log-file-format", &value.into_vec())?),
            Flag::Json => self.json = on,
        }
        Ok(())
    }

    /// As in rsync, a map implies that what it maps is kept.
    fn map_ids(&mut self, option: IdMapOption, value: OsString) {
        let text = value.into_vec();
        let (users, groups) = match option {
            IdMapOption::UserMap => (true, false),
            IdMapOption::GroupMap => (false, true),
            IdMapOption::Chown => match text.iter().position(|&byte| byte == b':') {
                Some(colon) => (colon > 0, colon + 1 < text.len()),
                None => (true, false),
            },
        };
        self.preserve.owner |= users;
        self.preserve.group |= groups;
        self.id_maps.push((option, text));
    }

    fn delete_at(&mut self, time: DeleteTime) {
        self.deletion.enabled = true;
        if !self.delete_times.contains(&time) {
            self.delete_times.push(time);
        }
    }

    fn choose_compression(&mut self, value: &OsString) -> Result<(), Failure> {
        let name = text("compress-choice", value)?;
        self.compress_choice = match name.as_str() {
            "zstd" => Some(CompressChoice::Zstd),
            "lz4" => Some(CompressChoice::Lz4),
            "auto" => None,
            "none" => {
                self.compress = false;
                self.compress_choice = None;
                return Ok(());
            }
            _ => {
                return Err(Failure::usage(format!("--compress-choice: unknown method \"{}\"", shown(value)))
                    .with_hint("xfer has zstd, lz4 and none"));
            }
        };
        self.compress = true;
        Ok(())
    }
}

fn shown(value: &OsString) -> String {
    use std::os::unix::ffi::OsStrExt;
    display_bytes(value.as_bytes())
}

fn text(option: &str, value: &OsString) -> Result<String, Failure> {
    match value.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(Failure::usage(format!("--{option}: \"{}\" is not text", shown(value)))),
    }
}

fn integer(option: &str, value: &OsString) -> Result<i64, Failure> {
    text(option, value)?
        .parse()
        .map_err(|_| Failure::usage(format!("--{option}: \"{}\" is not a whole number", shown(value))))
}

fn seconds(option: &str, value: &OsString) -> Result<Option<u64>, Failure> {
    let number = u64::try_from(integer(option, value)?)
        .map_err(|_| Failure::usage(format!("--{option}: \"{}\" seconds are less than none", shown(value))))?;
    Ok((number > 0).then_some(number))
}

/// `--lanes`.
fn lanes(value: &OsString) -> Result<u8, Failure> {
    let most = crate::limits::LANES_MAX;
    match integer("lanes", value)? {
        0 => Err(Failure::usage("--lanes: 0 lanes carry nothing").with_hint("--transport shell does without them")),
        number => u8::try_from(number)
            .ok()
            .filter(|&number| usize::from(number) <= most)
            .ok_or_else(|| Failure::usage(format!("--lanes: \"{}\" is not a number from 1 to {most}", shown(value)))),
    }
}

/// `--lane-ports`: `FROM-TO`, or one port.
fn ports(value: &OsString) -> Result<RangeInclusive<u16>, Failure> {
    let bad = || Failure::usage(format!("--lane-ports: \"{}\" is not a range of ports", shown(value)));
    let text = text("lane-ports", value)?;
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    let port = |digits: &str| digits.trim().parse::<u16>().ok().filter(|&port| port > 0).ok_or_else(bad);
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(bad().with_hint("the lower port comes first"));
    }
    Ok(first..=last)
}

/// `--modify-window`: seconds, also with decimals; negative asks for nanoseconds, 0 for the default, which compares
/// as exactly as the destination's file system allows.
fn modify_window_ns(value: &OsString) -> Result<Option<u64>, Failure> {
    let bad = || Failure::usage(format!("--modify-window: \"{}\" is not a number of seconds", shown(value)));
    let text = text("modify-window", value)?;
    if let Ok(whole) = text.parse::<i64>() {
        return match whole {
            0 => Ok(None),
            whole if whole < 0 => Ok(Some(0)),
            whole => (whole as u64).checked_mul(1_000_000_000).map(Some).ok_or_else(bad),
        };
    }
    let (whole, fraction) = text.split_once('.').ok_or_else(bad)?;
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
    let fraction_ns: u64 = format!("{fraction:0<9}").parse().map_err(|_| bad())?;
    whole.checked_mul(1_000_000_000).and_then(|ns| ns.checked_add(fraction_ns)).map(Some).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::super::args::tests::parse;
    use super::*;

    fn settings(args: &[&str]) -> Settings {
        Settings::from_occurrences(parse(args).unwrap().occurrences).unwrap()
    }

    fn failure(args: &[&str]) -> String {
        Settings::from_occurrences(parse(args).unwrap().occurrences).unwrap_err().message
    }

    #[test]
    fn later_flags_override_earlier_ones() {
        let table: &[(&[&str], bool)] = &[
            (&["-a"], true),
            (&["-a", "--no-o"], false),
            (&["--no-o", "-a"], true),
            (&["-a", "--no-o", "-o"], true),
            (&["-o", "--no-owner", "-a", "--no-owner"], false),
        ];
        for (args, owner) in table {
            assert_eq!(settings(args).preserve.owner, *owner, "{args:?}");
        }
        assert_eq!(settings(&["-a", "--no-r"]).recursive, Recursive::No);
        assert_eq!(settings(&["--no-r", "-a"]).recursive, Recursive::ByArchive);
        assert_eq!(settings(&["-r", "-a"]).recursive, Recursive::Yes);
        let without_devices = settings(&["-a", "--no-D"]).preserve;
        assert!(!without_devices.devices && !without_devices.specials);
        assert!(settings(&["-a", "--no-D", "--specials"]).preserve.specials);
        assert_eq!(settings(&["-W", "--no-W"]).whole_file, Some(false));
        assert!(!settings(&["-A", "--no-p"]).preserve.perms);
        assert!(settings(&["--no-p", "-A"]).preserve.perms);
        assert_eq!(settings(&["-vvv", "--no-v", "-v"]).verbose, 1);
        assert_eq!(settings(&["-hhhh"]).human, 3);
        assert_eq!(settings(&["--no-h"]).human, 0);
        assert_eq!(settings(&["-xx"]).one_file_system, 2);
        assert!(settings(&["--bwlimit=3", "--no-bwlimit"]).bwlimit.is_none());
        let mapped = settings(&["--chown=:staff", "--usermap=a:b", "--no-o"]).preserve;
        assert!(mapped.group && !mapped.owner);
    }

    #[test]
    fn archive_is_rlptgo_d_and_no_more() {
        let all = settings(&["-a"]);
        assert_eq!(all, settings_like_archive());
        fn settings_like_archive() -> Settings {
            let mut by_letter = settings(&["-lptgoD"]);
            by_letter.recursive = Recursive::ByArchive;
            by_letter
        }
        assert!(!all.preserve.hard_links && !all.preserve.acls && !all.preserve.xattrs && !all.preserve.atimes);
    }

    #[test]
    fn compression_is_chosen_by_any_of_three() {
        let chosen = |args: &[&str]| {
            let settings = settings(args);
            (settings.compress, settings.compress_choice, settings.compress_level)
        };
        assert_eq!(chosen(&["-z"]), (true, None, None));
        assert_eq!(chosen(&["--zc=lz4"]), (true, Some(CompressChoice::Lz4), None));
        assert_eq!(chosen(&["--zl=30"]), (true, None, Some(19)));
        assert_eq!(chosen(&["--zl=0"]), (false, None, None));
        assert_eq!(chosen(&["-z", "--zc=none"]), (false, None, None));
        assert_eq!(chosen(&["--zc=lz4", "--no-z"]), (false, None, None));
        assert!(failure(&["--zc=zlib"]).contains("zlib"));
    }

    #[test]
    fn numbers_are_checked() {
        assert_eq!(settings(&["--modify-window=2"]).modify_window_ns, Some(2_000_000_000));
        assert_eq!(settings(&["-@", "-1"]).modify_window_ns, Some(0));
        assert_eq!(settings(&["--modify-window=0"]).modify_window_ns, None);
        assert_eq!(settings(&["--modify-window=0.01"]).modify_window_ns, Some(10_000_000));
        assert_eq!(settings(&["--timeout=0"]).timeout_s, None);
        assert_eq!(settings(&["--timeout=30"]).timeout_s, Some(30));
        assert_eq!(settings(&["--max-delete=-1"]).deletion.max, Some(0));
        for bad in [
            "--modify-window=x",
            "--modify-window=1.",
            "--modify-window=1.0000000001",
            "--timeout=-4",
            "--timeout=1s",
            "--max-delete=x",
            "--zl=fast",
            "--modify-window=99999999999999999",
        ] {
            assert!(failure(&[bad]).starts_with(&bad[..5]) || bad.starts_with("--zl"), "{bad}");
        }
    }
}
