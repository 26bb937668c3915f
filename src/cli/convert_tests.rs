use std::collections::HashMap;

use super::*;
use crate::cli::args::tests::parse;
use crate::plan::options::{AltDestKind, Preserve};

#[derive(Default)]
struct Given {
    files: HashMap<Vec<u8>, Vec<u8>>,
    shell: Option<Vec<u8>>,
}

impl Inputs for Given {
    fn read(&mut self, path: &[u8], bytes_max: u64) -> Result<Vec<u8>, String> {
        let content = self.files.get(path).ok_or("No such file or directory")?;
        if content.len() as u64 > bytes_max { Err("larger".to_owned()) } else { Ok(content.clone()) }
    }

    fn variable(&self, name: &str) -> Option<Vec<u8>> {
        self.shell.clone().filter(|_| name == "RSYNC_RSH")
    }

    fn umask(&self) -> u32 {
        0o022
    }
}

fn with(args: &[&str], inputs: &mut Given) -> Result<SyncRequest, Failure> {
    sync_request(parse(args)?, inputs).map(|prepared| prepared.request)
}

fn request(args: &[&str]) -> SyncRequest {
    with(args, &mut Given::default()).unwrap()
}

fn options_of(args: &[&str]) -> SyncOptions {
    request(&[args, &["a/", "b"]].concat()).options
}

fn refusal(args: &[&str]) -> String {
    let failure = with(args, &mut Given::default()).unwrap_err();
    assert_eq!(failure.code.number(), 2, "{args:?}: {}", failure.message);
    failure.message
}

#[test]
fn nothing_is_asked_for_by_default() {
    let plain = options_of(&[]);
    let expected = SyncOptions { filters: FilterRules::default(), ..SyncOptions::default() };
    assert_eq!(plain, expected);
    assert_eq!(request(&["a", "b"]).connect.shell, RemoteShell::default());
}

#[test]
fn archive_and_progress() {
    let all = options_of(&["-aP"]);
    assert_eq!(all.recursion, Recursion::Deep);
    assert!(all.links.copy_as_links && all.partial);
    let kept = Preserve {
        perms: true,
        times: true,
        owner: true,
        group: true,
        devices: true,
        specials: true,
        ..Preserve::default()
    };
    assert_eq!(all.preserve, kept);
    assert_eq!(all.item_report, ItemReport::Changed);
}

#[test]
fn a_source_alone_is_listed() {
    let listing = request(&["-r", "a"]);
    assert!(listing.options.list_only && listing.destination.is_none());
    assert_eq!(listing.options.item_report, ItemReport::All);
    assert_eq!(request(&["a/"]).options.recursion, Recursion::Shallow);
    let both = request(&["--list-only", "a", "b"]);
    assert!(both.destination.is_some() && both.options.list_only);
    assert!(refusal(&["-a"]).contains("no source"));
}

#[test]
fn remote_sources_share_one_host() {
    assert!(request(&["-a", "h:x", "b"]).sources[0].is_remote());
    assert!(request(&["-a", "x", "u@h:b"]).destination.is_some_and(|destination| destination.is_remote()));
    assert!(!request(&["-a", "./x:y", "b"]).sources[0].is_remote());
    assert!(request(&["-a", "h:x", "g:y"]).destination.is_some_and(|destination| destination.is_remote()));
    assert!(refusal(&["-a", "h:x", "z", "y"]).contains("mixed"));
    assert!(refusal(&["-a", "h:x", "g:x", "y"]).contains("same host"));
    assert_eq!(request(&["-a", "h:x", ":y", "z"]).sources[1].path(), b"y");
    assert!(request(&["-a", "xfer://h/m", "y"]).sources[0].is_remote());
    assert!(refusal(&["-a", "xfer://h/m/a", "xfer://h/n/a", "y"]).contains("same host"));
    assert!(refusal(&["-a", "h::x", "y"]).contains("daemon"));
    assert!(refusal(&["-a", "", "y"]).contains("empty"));
}

#[test]
fn deletion_needs_directories() {
    assert!(refusal(&["--delete", "a/", "b"]).contains("--recursive"));
    assert!(refusal(&["--delete-excluded", "a/", "b"]).contains("--recursive"));
    assert!(options_of(&["--delete", "-d"]).deletion.enabled);
    let excluded = options_of(&["-r", "--delete-excluded", "--max-delete=5"]).deletion;
    assert!(excluded.enabled && excluded.excluded_too);
    assert_eq!(excluded.max, Some(5));
    for variant in ["--del", "--delete-before", "--delete-during", "--delete-delay", "--delete-after"] {
        assert!(options_of(&["-r", variant]).deletion.enabled, "{variant}");
    }
    assert!(refusal(&["-r", "--delete-before", "--delete-after", "a", "b"]).contains("only one"));
    assert!(!options_of(&["-r", "--max-delete=5"]).deletion.enabled);
}

#[test]
fn conflicts_are_rsyncs() {
    for args in [
        &["-a", "--inplace", "--partial-dir=x"][..],
        &["-a", "--append-verify", "-W"],
        &["-a", "--link-dest=/x", "--copy-dest=/y"],
        &["-b", "--suffix=/x"],
        &["-b", "--suffix="],
        &["--zc=lz4", "--zl=3"],
        &["--bwlimit=foo"],
        &["--max-size=foo"],
        &["-e", ""],
        &["-e", "ssh 'x"],
    ] {
        refusal(&[args, &["a", "b"]].concat());
    }
    assert!(options_of(&["-a", "--inplace", "--link-dest=/x"]).inplace);
    assert!(options_of(&["--append-verify"]).inplace);
}

#[test]
fn lists_imply_relative_paths_and_directories() {
    let mut inputs = Given::default();
    inputs.files.insert(b"list".to_vec(), b"x\n#c\ny/\n".to_vec());
    inputs.files.insert(b"-".to_vec(), b"x\n\0y".to_vec());
    let mut of = |args: &[&str]| with(&[args, &["a", "b"]].concat(), &mut inputs).unwrap().options;
    let listed = of(&["-a", "--files-from=list"]);
    assert_eq!(listed.files_from, Some(vec![b"x".to_vec(), b"y/".to_vec()]));
    assert_eq!(listed.recursion, Recursion::Shallow);
    assert!(listed.relative && listed.implied_dirs && listed.links.copy_as_links);
    assert_eq!(of(&["-ar", "--files-from=list"]).recursion, Recursion::Deep);
    assert!(!of(&["-a", "--files-from=list", "--no-R"]).relative);
    assert_eq!(of(&["-a", "--no-d", "--files-from=list"]).recursion, Recursion::Skip);
    assert!(!of(&["-R", "--no-implied-dirs"]).implied_dirs);
    assert!(of(&["-R", "--no-i-d", "--implied-dirs"]).implied_dirs);
    assert_eq!(of(&["--files-from=-", "-0"]).files_from, Some(vec![b"x\n".to_vec(), b"y".to_vec()]));
    assert!(refusal(&["--files-from=list", "a", "b", "c"]).contains("one source"));
    assert!(refusal(&["--files-from=h:list", "a", "b"]).contains("must be here"));
    let missing = with(&["--files-from=none", "a", "b"], &mut inputs).unwrap_err();
    assert_eq!(missing.code.number(), 1);
    assert!(missing.message.contains("\"none\": No such file"));
}

#[test]
fn backups_and_partial_files_have_their_defaults() {
    let simple = options_of(&["-ab", "--delete"]);
    assert_eq!(simple.backup, Some(Backup { dir: None, suffix: b"~".to_vec() }));
    assert!(simple.preserve.omit_dir_times);
    let away = options_of(&["-a", "--backup-dir=../old/"]);
    assert_eq!(away.backup, Some(Backup { dir: Some(b"../old".to_vec()), suffix: Vec::new() }));
    assert!(!away.preserve.omit_dir_times);
    assert_eq!(options_of(&["-a", "--suffix=.x"]).backup, None);
    let partial = options_of(&["-a", "--partial-dir=.p/"]);
    assert!(partial.partial);
    assert_eq!(partial.partial_dir.as_deref(), Some(&b".p"[..]));
    assert_eq!(options_of(&["-a", "--partial-dir=."]).partial_dir, None);
    assert!(!options_of(&["--partial", "--inplace"]).partial);
    assert_ne!(partial.filters, FilterRules::default());
}

#[test]
fn filters_keep_their_order() {
    let mut by_options = FilterRules::default();
    by_options.push_include(b"*.d/").unwrap();
    by_options.push_exclude(b"x").unwrap();
    assert_eq!(options_of(&["--include=*.d/", "--exclude", "x"]).filters, by_options);
    assert_ne!(options_of(&["--exclude", "x", "--include=*.d/"]).filters, by_options);
    let mut inputs = Given::default();
    inputs.files.insert(b"rules".to_vec(), b"- x\n".to_vec());
    assert!(with(&["-f", ". rules", "a", "b"], &mut inputs).is_ok());
    assert!(with(&["-f", ". none", "a", "b"], &mut inputs).is_err());
    assert!(with(&["--exclude-from=none", "a", "b"], &mut inputs).unwrap_err().message.contains("exclude-from"));
    assert_ne!(options_of(&["-F"]).filters, options_of(&["-FF"]).filters);
    assert!(refusal(&["-f", "bogus x", "a", "b"]).contains("bogus x"));
    assert!(refusal(&["--chmod=foo", "a", "b"]).contains("foo"));
    assert!(!options_of(&["--chmod=D755", "--chmod=F644"]).chmod.is_empty());
    refusal(&["--chown=a", "--usermap=b:c", "a", "b"]);
    refusal(&["--usermap=x", "a", "b"]);
}

#[test]
fn numbers_and_choices() {
    let all = options_of(&["--max-size=10", "--min-size=2", "--bwlimit=3", "--timeout=9", "-z", "--zl=3"]);
    assert_eq!((all.max_size, all.min_size), (Some(10), Some(2)));
    assert_eq!(all.bwlimit_bytes_per_s, Some(3 * 1024));
    assert_eq!(options_of(&["--bwlimit=0"]).bwlimit_bytes_per_s, None);
    assert_eq!(all.timeout_s, Some(9));
    assert_eq!(all.compression, Some(Compression::Zstd { level: Some(3) }));
    assert_eq!(options_of(&["--zc=lz4"]).compression, Some(Compression::Lz4));
    assert_eq!(options_of(&["-c", "--size-only"]).quick_check, QuickCheck::Checksum);
    assert_eq!(options_of(&["-I", "--size-only"]).quick_check, QuickCheck::SizeOnly);
    assert_eq!(options_of(&["-I"]).quick_check, QuickCheck::Never);
    let linked = options_of(&["--link-dest=../1", "--link-dest=../2"]).alt_dests.unwrap();
    assert_eq!(linked.kind, AltDestKind::Link);
    assert_eq!(linked.dirs, [b"../1".to_vec(), b"../2".to_vec()]);
}

#[test]
fn what_is_shown_decides_what_is_asked_for() {
    let report = |args: &[&str]| options_of(args).item_report;
    assert_eq!(report(&["-a", "--stats"]), ItemReport::None);
    assert_eq!(report(&["-a", "--info=progress2"]), ItemReport::None);
    for args in ["-v", "-i", "--out-format=%n", "--json", "--log-file=x", "--progress", "--info=del"] {
        assert_eq!(report(&[args]), ItemReport::Changed, "{args}");
    }
    assert_eq!(report(&["-ii"]), ItemReport::All);
    assert_eq!(report(&["-vv"]), ItemReport::All);
    assert_eq!(report(&["-viq"]), ItemReport::None);
    assert!(options_of(&["-v"]).details && !options_of(&["-a"]).details);
}

#[test]
fn the_remote_shell_comes_from_the_option_or_the_environment() {
    let shell = |command: &str, path: Option<&[u8]>| RemoteShell::new(Some(command.as_bytes()), path).unwrap();
    let mut inputs = Given { shell: Some(b"ssh -p 22".to_vec()), ..Given::default() };
    assert_eq!(with(&["a", "h:b"], &mut inputs).unwrap().connect.shell, shell("ssh -p 22", None));
    let given = with(&["-e", "my 'own shell'", "a", "h:b"], &mut inputs).unwrap().connect.shell;
    assert_eq!(given, shell("my 'own shell'", None));
    let connect = request(&["-e", "ssh", "--rsync-path=env A=1 /x", "--contimeout=4", "a", "h:b"]).connect;
    assert_eq!(connect.shell, shell("ssh", Some(b"env A=1 /x")));
    assert_eq!(connect.connect_timeout_s, Some(4));
    refusal(&["--xfer-path=", "a", "b"]);
}

#[test]
fn verify_starts_from_archive() {
    use crate::cli::args::{Flag, Occurrence};
    let parsed = |flags: Vec<(Flag, bool)>, operands: &[&str]| {
        let occurrences = flags.into_iter().map(|(flag, on)| Occurrence { flag, on, value: OsString::new() }).collect();
        let operands = operands.iter().map(OsString::from).collect();
        verify_request(Invocation { occurrences, operands }, &mut Given::default())
    };
    let Prepared { request, .. } = parsed(vec![(Flag::Owner, false), (Flag::HardLinks, true)], &["a/", "b/"]).unwrap();
    assert!(!request.options.preserve.owner && request.options.preserve.group && request.options.preserve.hard_links);
    assert_eq!(request.options.quick_check, QuickCheck::Checksum);
    assert!(!request.content_only);
    let Prepared { request: one, .. } = parsed(vec![(Flag::ContentOnly, true)], &["a"]).unwrap();
    assert!(one.content_only && one.destination.is_none() && !one.options.list_only);
    assert!(parsed(vec![], &[]).is_err());
}
