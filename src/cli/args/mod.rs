//! What the user said: one table of flags, from which clap's commands, the help and the manual page are made, and the
//! occurrences of flags in the order in which they were given (rsync's later flags override earlier ones).

mod flags;
mod refused;

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};

pub(crate) use flags::{FLAGS, Flag, FlagSpec};
pub(crate) use refused::REFUSED;

use super::Purpose;
use super::exit::Failure;

/// Which command's flags are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All of them.
    Sync,
    /// Those that say which entries are compared, and how.
    Verify,
}

/// One flag as given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Occurrence {
    /// Which one.
    pub(crate) flag: Flag,
    /// False for a `--no-…` form.
    pub(crate) on: bool,
    /// Its value; empty where it takes none.
    pub(crate) value: OsString,
}

/// A command line, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Invocation {
    /// Flags in the order given.
    pub(crate) occurrences: Vec<Occurrence>,
    /// Everything else in the order given.
    pub(crate) operands: Vec<OsString>,
}

const OPERANDS: &str = "paths";

/// The flags of `scope` as arguments of `command`, with the operands.
pub(crate) fn add_arguments(mut command: Command, scope: Scope, purpose: Purpose) -> Command {
    command = command.disable_help_flag(true);
    for spec in FLAGS.iter().filter(|spec| spec.is_in(scope)) {
        command = command.arg(positive(spec));
        for (index, name) in spec.negative.iter().enumerate() {
            let id = format!("no:{}:{index}", spec.long);
            command = command.arg(switch(Arg::new(id).long(*name).hide(true)));
        }
    }
    if scope == Scope::Sync && purpose == Purpose::Parsing {
        for refused in REFUSED {
            let mut arg = Arg::new(format!("refused:{}", refused.name)).hide(true);
            arg = match refused.short {
                Some(short) => arg.short(short),
                None => arg,
            };
            arg = arg.long(refused.name);
            command = command.arg(if refused.takes_value { valued(arg, "VALUE") } else { switch(arg) });
        }
    }
    command
        .arg(Arg::new("help").long("help").action(ArgAction::HelpShort).help("Print help").help_heading("General"))
        .arg(
            Arg::new(OPERANDS)
                .value_name(if scope == Scope::Sync { "SRC... DST" } else { "SRC [DST]" })
                .num_args(0..)
                .value_parser(value_parser!(OsString))
                .value_hint(ValueHint::AnyPath)
                .help("PATH, or [USER@]HOST:PATH over a remote shell"),
        )
}

fn positive(spec: &FlagSpec) -> Arg {
    let mut arg = Arg::new(spec.long).help(spec.help).help_heading(spec.group.heading());
    if !spec.short_only {
        arg = arg.long(spec.long);
    }
    if let Some(short) = spec.short {
        arg = arg.short(short);
    }
    if !spec.aliases.is_empty() {
        arg = arg.aliases(spec.aliases.iter().copied());
    }
    arg = arg.hide(spec.hidden);
    match spec.value {
        Some(name) => valued(arg, name),
        None => switch(arg),
    }
}

fn switch(arg: Arg) -> Arg {
    arg.action(ArgAction::Append).num_args(0).value_parser(value_parser!(OsString)).default_missing_value("")
}

fn valued(arg: Arg, name: &'static str) -> Arg {
    // A value may look like a flag: `-f '- *.o'`.
    arg.action(ArgAction::Append)
        .num_args(1)
        .value_parser(value_parser!(OsString))
        .allow_hyphen_values(true)
        .value_name(name)
}

/// The flags of `matches` in the order given; fails for an option of rsync that xfer does not have.
pub(crate) fn invocation(matches: &ArgMatches, scope: Scope) -> Result<Invocation, Failure> {
    let mut found: Vec<(usize, Occurrence)> = Vec::new();
    if scope == Scope::Sync {
        for refused in REFUSED {
            if matches.contains_id(&format!("refused:{}", refused.name)) {
                return Err(refused.failure());
            }
        }
    }
    for spec in FLAGS.iter().filter(|spec| spec.is_in(scope)) {
        collect(matches, spec.long, spec.flag, true, &mut found);
        for index in 0..spec.negative.len() {
            collect(matches, &format!("no:{}:{index}", spec.long), spec.flag, false, &mut found);
        }
    }
    found.sort_by_key(|(index, _)| *index);
    Ok(Invocation {
        occurrences: found.into_iter().map(|(_, occurrence)| occurrence).collect(),
        operands: matches.get_many::<OsString>(OPERANDS).map(|all| all.cloned().collect()).unwrap_or_default(),
    })
}

fn collect(matches: &ArgMatches, id: &str, flag: Flag, on: bool, found: &mut Vec<(usize, Occurrence)>) {
    let (Some(indices), Some(values)) = (matches.indices_of(id), matches.get_many::<OsString>(id)) else {
        return;
    };
    for (index, value) in indices.zip(values) {
        found.push((index, Occurrence { flag, on, value: value.clone() }));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn parse(args: &[&str]) -> Result<Invocation, Failure> {
        let command = add_arguments(Command::new("sync"), Scope::Sync, Purpose::Parsing);
        let all = std::iter::once("sync").chain(args.iter().copied());
        invocation(&command.try_get_matches_from(all).map_err(|error| Failure::usage(error.to_string()))?, Scope::Sync)
    }

    fn names(args: &[&str]) -> Vec<(Flag, bool, String)> {
        let parsed = parse(args).unwrap();
        parsed
            .occurrences
            .into_iter()
            .map(|found| (found.flag, found.on, found.value.to_string_lossy().into_owned()))
            .collect()
    }

    #[test]
    fn the_table_is_consistent() {
        add_arguments(Command::new("sync"), Scope::Sync, Purpose::Parsing).debug_assert();
        add_arguments(Command::new("verify"), Scope::Verify, Purpose::Parsing).debug_assert();
    }

    #[test]
    fn order_is_kept_through_combined_shorts_and_negations() {
        assert_eq!(
            names(&["-avz", "--no-o", "a", "-vHo", "b"]),
            [
                (Flag::Archive, true, String::new()),
                (Flag::Verbose, true, String::new()),
                (Flag::Compress, true, String::new()),
                (Flag::Owner, false, String::new()),
                (Flag::Verbose, true, String::new()),
                (Flag::HardLinks, true, String::new()),
                (Flag::Owner, true, String::new()),
            ]
        );
        assert_eq!(parse(&["a", "-v", "b", "--", "-c"]).unwrap().operands, ["a", "b", "-c"]);
    }

    #[test]
    fn values_in_every_spelling() {
        for args in [&["--exclude=*.o"][..], &["--exclude", "*.o"]] {
            assert_eq!(names(args), [(Flag::Exclude, true, "*.o".to_owned())]);
        }
        for args in [&["-f- x"][..], &["-f", "- x"], &["--filter=- x"], &["--filter", "- x"], &["-rf", "- x"]] {
            let all = names(args);
            assert_eq!(all.last().unwrap(), &(Flag::Filter, true, "- x".to_owned()), "{args:?}");
        }
        assert_eq!(names(&["--suffix="]), [(Flag::Suffix, true, String::new())]);
        assert_eq!(names(&["-e", "ssh -p 22"]), [(Flag::Shell, true, "ssh -p 22".to_owned())]);
        assert_eq!(names(&["--rsync-path", "/x"]), names(&["--xfer-path=/x"]));
    }

    #[test]
    fn values_may_hold_any_bytes() {
        use std::os::unix::ffi::OsStringExt;
        let command = add_arguments(Command::new("sync"), Scope::Sync, Purpose::Parsing);
        let raw = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let args = [raw(b"sync"), raw(b"--exclude=\xff"), raw(b"-rf-\xfe"), raw(b"\xfd/"), raw(b"d")];
        let matches = command.try_get_matches_from(args).unwrap();
        let parsed = invocation(&matches, Scope::Sync).unwrap();
        assert_eq!(parsed.occurrences[0].value, raw(b"\xff"));
        assert_eq!(parsed.occurrences[2].value, raw(b"-\xfe"));
        assert_eq!(parsed.operands[0], raw(b"\xfd/"));
    }

    #[test]
    fn what_takes_no_value_refuses_one_and_unknown_flags_name_a_near_one() {
        assert!(parse(&["--verbose=1", "a", "b"]).is_err());
        let failure = parse(&["--recursiv", "a", "b"]).unwrap_err();
        assert!(failure.message.contains("--recursive"), "{}", failure.message);
    }

    #[test]
    fn every_refused_option_is_refused_by_name_with_a_hint() {
        for refused in REFUSED {
            let long = format!("--{}", refused.name);
            let args = if refused.takes_value { vec![long.as_str(), "1", "a", "b"] } else { vec![&long, "a", "b"] };
            let failure = parse(&args).unwrap_err();
            assert!(failure.message.contains(&long), "{}", failure.message);
            assert!(failure.hint.is_some());
            assert_eq!(failure.code.number(), 2);
            if let Some(short) = refused.short {
                let short = format!("-{short}");
                let args = if refused.takes_value { vec![short.as_str(), "1", "a"] } else { vec![&short, "a"] };
                assert!(parse(&args).unwrap_err().message.contains(&long));
            }
        }
    }
}
