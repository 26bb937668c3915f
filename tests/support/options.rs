//! Random options and filters: a set whose result the judge can tell alone, and a wider one for twins with rsync.

use std::ffi::OsString;
use std::path::Path;

use super::disk;
use super::judge::Judge;
use super::rng::Rng;
use super::tree::COMMON_NAMES;

/// Options, and what the judge may still expect under them.
pub struct Choice {
    pub args: Vec<OsString>,
    pub judge: Judge,
    /// Names are left out by a filter.
    pub excludes: bool,
    /// Deletion is on.
    pub deletes: bool,
    /// A further run finds nothing to do.
    pub settles: bool,
}

/// Options under which the destination must equal the source in all that the judge still looks at.
pub fn faithful(rng: &mut Rng) -> Choice {
    let mut judge = Judge::strict();
    let mut args: Vec<OsString> = Vec::new();
    let mut settles = true;
    let mut base = String::from("-r");
    let mut part = |letter: char, percent: u64, rng: &mut Rng| {
        let on = rng.chance(percent);
        if on {
            base.push(letter);
        }
        on
    };
    let links = part('l', 92, rng);
    let acls = part('A', 85, rng);
    let perms = part('p', 92, rng) || acls;
    let times = part('t', 92, rng);
    let group = part('g', 92, rng);
    let owner = part('o', 92, rng);
    let specials = part('D', 92, rng);
    // rsync may wait for ever for names of a hard-linked entry that it skips.
    let hard = part('H', 88, rng) && !(super::run::is_rsync() && !(links && specials));
    let xattrs = part('X', 85, rng);
    judge.skip_links = !links;
    judge.skip_specials = !specials;
    judge.skip_devices = !specials;
    judge.acls = acls;
    judge.mode = perms;
    judge.group = group && super::is_root();
    judge.owner = owner && super::is_root();
    judge.hard_links = hard;
    judge.xattrs = xattrs;
    if !times {
        judge = judge.without_times();
        settles = false;
    }
    // Without these, group, mode and set-ID bits of what is only updated follow rules of their own; with inherited
    // default ACLs the same holds.
    if !hard {
        base = base.replace('H', "");
    }
    args.push(base.into());
    args.push("--numeric-ids".into());
    let mut neutral = |words: &[&str], percent: u64, rng: &mut Rng| {
        let on = rng.chance(percent);
        if on {
            args.extend(words.iter().map(OsString::from));
        }
        on
    };
    if neutral(&["-O"], 6, rng) {
        judge.times_dirs = false;
    }
    if neutral(&["-J"], 6, rng) {
        judge.times_links = false;
    }
    let checksum = neutral(&["-c"], 10, rng);
    if !checksum && neutral(&["-I"], 6, rng) {
        settles = false;
    }
    if neutral(&["-S"], 20, rng) {
        judge.holes = true;
    }
    let _ = neutral(&["-W"], 10, rng) || neutral(&["--no-whole-file"], 20, rng);
    if !hard && neutral(&["--inplace"], 12, rng) {
        // rsync writes through hard links here and xfer does not; both reach the source's content.
    } else {
        neutral(&["--partial"], 8, rng);
    }
    let _ = neutral(&["-z"], 10, rng);
    neutral(&["--fsync"], 3, rng);
    neutral(&["-q"], 5, rng);
    neutral(&["-vv", "--stats"], 10, rng);
    neutral(&["-i"], 10, rng);
    neutral(&["-x"], 5, rng);
    let deletions =
        [&["--delete"][..], &["--del"], &["--delete-before"], &["--delete-delay"], &["--delete-after", "--force"]];
    let deletes = rng.chance(75);
    if deletes {
        args.extend(rng.pick(&deletions).iter().map(OsString::from));
        args.push("--allow-empty-source".into());
    } else {
        args.push("--force".into());
        judge.extra_allowed = true;
    }
    let excludes = rng.chance(20);
    if excludes {
        let name = *rng.pick(COMMON_NAMES);
        args.push(format!("--exclude={name}").into());
        judge = judge.ignoring(move |path| path.split(|&byte| byte == b'/').any(|part| part == name.as_bytes()));
        // The neighbours of what is left out: links whose other names are excluded.
        judge.hard_links = false;
    }
    if super::run::is_rsync() {
        args.retain(|arg| arg != "--allow-empty-source");
    }
    Choice { args, judge, excludes, deletes, settles }
}

/// Options for a twin run, with filters of all kinds. `source` gets per-directory rule files when they ask for them.
pub fn like_rsync(rng: &mut Rng, source: &Path) -> Choice {
    let mut judge = Judge::strict();
    let mut args: Vec<OsString> = Vec::new();
    // Never -H without -pog: which name of an inode leads, and so which attributes stay, is each program's own.
    let base = *rng.pick(&["-a", "-aH", "-aHAX", "-aX", "-aA", "-rlt", "-rltp", "-rltgoD", "-aE"]);
    args.push(base.into());
    let mut merges = false;
    for _ in 0..rng.below(5) {
        let (rule, is_merge) = filter(rng);
        merges |= is_merge;
        args.extend(rule);
    }
    if merges {
        scatter_rule_files(rng, source);
    }
    let deletes = rng.chance(65);
    if deletes {
        // Rules that lie at the destination are read when deletion happens: with xfer that is always afterwards.
        let variants: &[&str] = if merges {
            &["--delete-after"]
        } else {
            &["--delete", "--delete-before", "--delete-after", "--delete-delay"]
        };
        args.push(rng.pick(variants).into());
        if rng.chance(20) {
            args.push("--delete-excluded".into());
        }
    }
    if !deletes || rng.chance(30) {
        args.push("--force".into());
    }
    let extras: &[&[&str]] = &[
        &["-u"],
        &["--existing"],
        &["--ignore-existing"],
        &["--max-size=2000"],
        &["--min-size=1K"],
        &["--max-size=1.5k", "--min-size=10"],
        &["-m"],
        &["-c"],
        &["-I"],
        &["--size-only"],
        &["-O"],
        &["-J"],
        &["--safe-links"],
        &["--chmod=D2755,F640"],
        &["--chmod=u+rwX,go-w"],
        &["--chmod=ug=rwX,o="],
        &["--chown=1000:1001"],
        &["--usermap=1-1000:65534,*:7"],
        &["--groupmap=*:1000"],
        &["--numeric-ids"],
        &["-S"],
        &["-W"],
        &["-x"],
        &["--no-D"],
        &["--no-p"],
        &["--no-o", "--no-g"],
        &["--no-l"],
        &["--no-r", "-d"],
        &["--backup", "--backup-dir=../backup"],
        &["--fsync"],
        &["-K"],
        &["-R"],
    ];
    for _ in 0..rng.below(4) {
        let extra = rng.pick(extras);
        // Some can be given only once.
        if !args.iter().any(|arg| arg == extra[0]) {
            args.extend(extra.iter().map(OsString::from));
        }
    }
    // What comes to be during a run has the time of that run.
    if !base.contains('a') && !base.contains('p') || args.iter().any(|arg| arg == "--no-p") {
        // rsync gives a file the mode of a link or device that it replaces.
        judge.mode = false;
        judge.acls = false;
    }
    if args.iter().any(|arg| arg == "-m") {
        // A pruned directory that stays because something in it does: rsync leaves it the time of the deletion.
        judge.times_dirs = false;
    }
    if args.iter().any(|arg| arg == "--backup") {
        // rsync puts --chmod on the directories of backups too.
        args.retain(|arg| !arg.to_string_lossy().starts_with("--chmod"));
    }
    if base.contains('A') {
        // Access lists carry permissions: taking those back means something else to each.
        args.retain(|arg| arg != "--no-p");
    }
    if base.contains('H') {
        // rsync may wait for ever for names of a hard-linked entry that it skips.
        args.retain(|arg| arg != "--no-l" && arg != "--no-D");
        // Nor what lets only some of an inode's names be dealt with.
        args.retain(|arg| {
            !["--no-p", "--no-o", "--no-g", "--size-only", "-u", "--existing", "--ignore-existing"]
                .iter()
                .any(|one| arg == one)
        });
    }
    let has = |word: &str| args.iter().any(|arg| arg == word);
    if has("-O") {
        judge.times_dirs = false;
    }
    if has("--usermap=1-1000:65534,*:7") || has("--groupmap=*:1000") {
        // Both sides refuse the mixture.
        args.retain(|arg| arg != "--chown=1000:1001");
    }
    let has = |word: &str| args.iter().any(|arg| arg == word);
    if has("--no-r") && deletes {
        args.retain(|arg| arg != "--no-r" && arg != "-d");
    }
    Choice { args, judge, excludes: true, deletes, settles: false }
}

const PATTERNS: &[&str] = &[
    "*.log",
    "*.tmp",
    "?",
    "[a-c]*",
    "[!a]*",
    "*a*",
    "**/data",
    "data/***",
    "cache/",
    "/a",
    "/data/b",
    "data/*",
    "*/",
    "file*",
    "**/b/*",
    "l*l",
    "core/**",
    "/data/",
    "a/b",
    "*o*/",
    "/*",
    "b/**/a",
    "x.*",
    "[[:alpha:]]",
    "note.t?t",
    "lib/***",
    "*",
    ".*",
    "/*/",
    "a**b",
    "-rf",
    "q'uo*",
];

fn pattern(rng: &mut Rng) -> String {
    if rng.chance(30) { (*rng.pick(COMMON_NAMES)).to_owned() } else { (*rng.pick(PATTERNS)).to_owned() }
}

/// One filter option; true where it names per-directory files.
fn filter(rng: &mut Rng) -> (Vec<OsString>, bool) {
    let pattern = pattern(rng);
    let words = match rng.below(13) {
        0..=3 => vec![format!("--exclude={pattern}")],
        4 | 5 => vec![format!("--include={pattern}")],
        6 => vec!["-f".into(), format!("{} {pattern}", rng.pick(&["-", "+", "H", "S", "P", "R"]))],
        7 => {
            vec!["--filter".into(), format!("{} {pattern}", rng.pick(&["hide", "show", "protect", "risk", "exclude"]))]
        }
        8 => vec!["-f".into(), format!("{} {pattern}", rng.pick(&["-s", "-r", "-!", "-,s", "+r"]))],
        9 => vec!["--include=*/".into(), format!("--include={pattern}"), "--exclude=*".into()],
        10 => return (vec!["-F".into()], true),
        11 => return (vec!["-f".into(), ": .rules".into()], true),
        _ => return (vec!["-f".into(), (*rng.pick(&["dir-merge,n .rules", ":- .rules", ":e .rules"])).into()], true),
    };
    (words.into_iter().map(Into::into).collect(), false)
}

fn scatter_rule_files(rng: &mut Rng, source: &Path) {
    let mut dirs: Vec<_> = disk::walk(source).into_iter().filter(|path| source.join(path).is_dir()).collect();
    dirs.retain(|path| !std::fs::symlink_metadata(source.join(path)).unwrap().file_type().is_symlink());
    dirs.push(Default::default());
    for _ in 0..1 + rng.below(3) {
        let dir = source.join(rng.pick(&dirs));
        let (seconds, nanoseconds) = disk::mtime(&dir);
        let name = *rng.pick(&[".rules", ".rules", ".rsync-filter"]);
        let path = dir.join(name);
        if disk::there(&path) {
            continue;
        }
        let mut text = String::from("# rules of this directory\n\n");
        for _ in 0..1 + rng.below(3) {
            let pattern = pattern(rng);
            text.push_str(&format!("{} {pattern}\n", rng.pick(&["-", "-", "+", "P", "H"])));
        }
        // Bare patterns only: `:-` files know no other form.
        std::fs::write(&path, text).unwrap();
        disk::set_mtime(&path, 1_600_000_000, 5);
        disk::set_mtime(&dir, seconds, nanoseconds);
    }
}
