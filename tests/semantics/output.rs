//! What is printed: lists, itemised changes, statistics, JSON, log files; and the exit codes.

use std::fs;
use std::os::unix::fs::lchown;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::disk::{chmod, put, set_mtime, set_xattr, there};
use crate::support::fixture::{OLD, both, source, with_empty_destination};
use crate::support::run::{binary, is_rsync, only_xfer, rsync, sync, xfer};
use crate::support::twin::same;
use crate::support::{Temp, is_root};

/// One of every change that `-i` has a letter for.
fn battery(dir: &Path) {
    source(dir);
    let (src, dst) = (dir.join("src"), dir.join("dst"));
    for name in ["same", "content", "time", "mode", "owner", "group", "all", "xattr", "sub/file"] {
        for root in [&src, &dst] {
            put(root.join(name), "content", OLD);
        }
    }
    put(dst.join("content"), "CONTENT", OLD - 1);
    put(dst.join("all"), "other length", OLD - 7);
    set_mtime(&dst.join("time"), OLD - 3, 0);
    chmod(&dst.join("mode"), 0o600);
    if is_root() {
        lchown(dst.join("owner"), Some(7), None).unwrap();
        lchown(dst.join("group"), None, Some(7)).unwrap();
        lchown(dst.join("all"), Some(7), Some(7)).unwrap();
    }
    set_xattr(&src.join("xattr"), "user.x", b"1");
    for (name, target) in [("ln-same", "t"), ("ln-target", "t"), ("ln-time", "t"), ("ln-new", "t")] {
        std::os::unix::fs::symlink(target, src.join(name)).unwrap();
        set_mtime(&src.join(name), OLD, 0);
    }
    for (name, target) in [("ln-same", "t"), ("ln-target", "other"), ("ln-time", "t")] {
        std::os::unix::fs::symlink(target, dst.join(name)).unwrap();
        set_mtime(&dst.join(name), if name == "ln-time" { OLD - 5 } else { OLD }, 0);
    }
    put(dst.join("extra"), "x", OLD);
    put(dst.join("extra-dir/x"), "x", OLD);
    chmod(&dst.join("sub"), 0o700);
    for path in [src.join("sub"), dst.join("sub"), src, dst.join("extra-dir")] {
        set_mtime(&path, OLD, 0);
    }
    set_mtime(&dst, OLD - 60, 0);
}

#[test]
fn itemised_changes_are_those_of_rsync() {
    for flags in [
        &["-ai"][..],
        &["-aHi"],
        &["-aHii"],
        &["-ai", "--delete"],
        &["-ain", "--delete"],
        &["-aHAXi", "--delete"],
        &["-ri"],
        &["-rti"],
        &["-rlpi"],
        &["-aci"],
        &["-aIi"],
        &["-aOi"],
        &["-ai", "--size-only"],
        &["-ai", "--existing"],
        &["-ai", "--ignore-existing"],
        &["-aui"],
        &["-ai", "--no-o", "--no-g"],
        &["-ai", "--exclude=sub"],
        &["-abi"],
    ] {
        let mut args = flags.to_vec();
        args.extend(["src/", "dst"]);
        let linked: &[&str] = if flags[0].contains('H') { &["hard", "dir/c"] } else { &[] };
        same(battery, &args).code(0).same_lines_but(linked);
        *args.last_mut().unwrap() = "fresh";
        same(battery, &args).code(0).same_lines_but(linked);
    }
}

/// Lines of `-v` but for the totals, which count bytes of each program's own protocol.
#[test]
fn verbose_names_are_those_of_rsync() {
    for flags in [&["-av"][..], &["-avH", "--delete"], &["-avn", "--delete"], &["-rv"], &["-avd", "--no-r"], &["-avR"]]
    {
        let mut args = flags.to_vec();
        args.extend(["src/", "dst"]);
        let twin = same(battery, &args).code(0);
        let names = |lines: Vec<String>| -> Vec<String> {
            lines
                .into_iter()
                .filter(|line| !line.is_empty() && !line.starts_with("sent ") && !line.starts_with("total size"))
                .filter(|line| !flags[0].contains('H') || !(line.contains("hard") || line.contains("dir/c")))
                .collect()
        };
        assert_eq!(names(twin.ours.sorted_lines()), names(twin.theirs.sorted_lines()), "{}", twin.ours.describe());
        let totals = twin.ours.out();
        assert!(
            totals.contains("bytes/sec") && totals.contains("total size is") && totals.contains("speedup is"),
            "{totals}"
        );
        assert_eq!(totals.contains("(DRY RUN)"), flags[0].contains('n'));
    }
}

#[test]
fn formats_of_ones_own() {
    for format in ["%n", "%i %n%L", "%l %n", "%o %n", "%M %n", "%B %n", "%U:%G %n", "%%%n"] {
        let format = format!("--out-format={format}");
        same(battery, &["-a", "--delete", &format, "src/", "dst"]).code(0).same_lines();
    }
}

#[test]
fn quiet_unless_asked() {
    for flags in [&["-a"][..], &["-aq"], &["-aqv"], &["-a", "--delete"]] {
        let temp = Temp::new();
        battery(temp.path());
        let output = sync(flags).args(["src/", "dst"]).dir(temp.path()).expect(0);
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{}", output.describe());
    }
}

/// Labels of `--stats` and the numbers that do not depend on a protocol.
#[test]
fn statistics_have_the_layout_of_rsync() {
    let counted = [
        "Number of files",
        "Number of created files",
        "Number of deleted files",
        "Number of regular files transferred",
        "Total file size",
        "Total transferred file size",
    ];
    for flags in
        [&["-aH", "--stats", "--delete"][..], &["-a", "--stats"], &["-an", "--stats", "--delete"], &["-ah", "--stats"]]
    {
        for destination in ["dst", "fresh"] {
            let mut args = flags.to_vec();
            args.extend(["src/", destination]);
            let twin = same(battery, &args).code(0);
            let labels = |text: &str| -> Vec<String> {
                text.lines().filter_map(|line| line.split_once(": ")).map(|(label, _)| label.to_owned()).collect()
            };
            let (ours, theirs) = (twin.ours.out(), twin.theirs.out());
            assert_eq!(labels(&ours), labels(&theirs), "{ours}\n{theirs}");
            for label in counted {
                let line = |text: &str| text.lines().find(|line| line.starts_with(label)).map(str::to_owned);
                assert_eq!(line(&ours), line(&theirs), "{args:?}");
            }
        }
    }
}

#[test]
fn lists_instead_of_copies() {
    for args in [&["--list-only", "-r", "src/"][..], &["src/"], &["-r", "src"], &["--list-only", "-a", "src/", "dst"]] {
        let twin = same(with_empty_destination, args).code(0);
        let clean = |lines: Vec<String>| -> Vec<String> {
            // Sizes of directories are the file system's affair.
            lines.into_iter().filter(|line| !line.starts_with('d')).collect()
        };
        assert_eq!(clean(twin.ours.sorted_lines()), clean(twin.theirs.sorted_lines()), "{args:?}");
        assert!(!there(twin.dir().join("dst/a")));
    }
}

#[test]
fn control_bytes_in_names_are_escaped_everywhere() {
    let temp = Temp::new();
    let name = "a\u{1b}[31mred\nline\u{7}";
    put(temp.join("src").join(name), "x", OLD);
    put(temp.join("dst").join(format!("{name}-gone")), "x", OLD);
    for flags in
        [&["-avv", "--delete"][..], &["-aii"], &["-an", "--delete", "--out-format=%n"], &["-a", "--progress", "-I"]]
    {
        let output = sync(flags).args(["src/", "dst"]).dir(temp.path()).expect(0);
        for stream in [&output.stdout, &output.stderr] {
            assert!(!stream.contains(&0x1b) && !stream.contains(&7), "{}", output.describe());
        }
    }
    let output = sync(["--list-only", "-r", "src/"]).dir(temp.path()).expect(0);
    assert!(!output.stdout.contains(&0x1b), "{}", output.describe());
    // In a problem's text, too.
    let output = sync(["-a"]).args([temp.join(format!("{name}-none")), temp.join("dst")]).run();
    assert!(
        output.code() != 0 && !output.stderr.contains(&0x1b) && !output.stderr.contains(&7),
        "{}",
        output.describe()
    );
}

#[test]
fn json_is_one_event_a_line() {
    if is_rsync() {
        return;
    }
    let temp = Temp::new();
    battery(temp.path());
    put(temp.join("src/new\nline"), "x", OLD);
    put(crate::support::disk::path(&[temp.path().as_os_str().as_encoded_bytes(), b"/src/\xff\xfe"].concat()), "x", OLD);
    let output = sync(["-a", "--delete", "--json", "src/", "dst"]).dir(temp.path()).expect(0);
    let mut last = None;
    let mut deleted = 0;
    for line in output.out().lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value.is_object(), "{line}");
        deleted += usize::from(line.contains("delet") && line.contains("extra"));
        last = Some(line.to_owned());
    }
    assert!(deleted >= 3, "{}", output.describe());
    assert!(last.is_some_and(|line| line.contains("summary")), "{}", output.describe());
}

#[test]
fn a_log_file_holds_what_was_done() {
    let temp = Temp::new();
    battery(temp.path());
    let output = sync(["-a", "--delete", "--log-file=log", "src/", "dst"]).dir(temp.path()).expect(0);
    assert!(output.stdout.is_empty());
    let log = fs::read_to_string(temp.join("log")).unwrap();
    assert!(log.contains("all") && log.contains("*deleting") && log.contains("extra"), "{log}");
    let twin = Temp::new();
    battery(twin.path());
    rsync(["-a", "--delete", "--log-file=log", "src/", "dst"]).dir(twin.path()).expect(0);
    let items = |text: &str| {
        let mut lines: Vec<String> = text
            .lines()
            .filter_map(|line| line.split_once("] ").map(|(_, rest)| rest.to_owned()))
            .filter(|line| line.starts_with(['>', '*', 'c', '.']) && line.get(1..2).is_some_and(|c| c != " "))
            .collect();
        lines.sort();
        lines
    };
    // Changes of attributes alone are logged too, which rsync does for directories only.
    let ours = items(&log);
    for line in items(&fs::read_to_string(twin.join("log")).unwrap()) {
        assert!(ours.contains(&line), "{line} is missing in {ours:?}");
    }
}

#[test]
fn exit_codes() {
    let temp = Temp::new();
    both(temp.path());
    let code = |args: &[&str]| sync(args).dir(temp.path()).run().code();
    assert_eq!(code(&["-a", "--force", "src/", "dst"]), 0);
    assert_eq!(code(&["-a", "src/", "none", "dst"]), 23);
    if is_rsync() {
        return;
    }
    assert_eq!(code(&["-a", "--no-such-option", "src/", "dst"]), 2);
    assert_eq!(code(&["-a"]), 2);
    assert_eq!(code(&["-a", "h1:src/", "h2:src/", "dst"]), 2);
    assert_eq!(code(&["-a", "-T", "/tmp", "src/", "dst"]), 2);
    assert_eq!(code(&["-a", "--max-size=x", "src/", "dst"]), 2);
    assert_eq!(code(&["-t", "--delete", "src/", "dst"]), 2);
}

#[test]
fn what_rsync_has_and_xfer_has_not_is_refused_by_name() {
    if is_rsync() {
        return;
    }
    let temp = Temp::new();
    both(temp.path());
    for option in [
        "--temp-dir=/tmp",
        "--fuzzy",
        "--append",
        "--delay-updates",
        "--write-batch=x",
        "--read-batch=x",
        "--only-write-batch=x",
        "--fake-super",
        "--iconv=utf8",
        "--daemon",
        "--password-file=x",
        "--copy-devices",
        "--write-devices",
        "--super",
        "--cvs-exclude",
        "--checksum-choice=md5",
        "--munge-links",
        "--preallocate",
        "--delete-missing-args",
        "--stop-after=5",
        "--remote-option=x",
        "--protocol=30",
        "--block-size=1000",
    ] {
        let output = sync(["-a", option, "src/", "dst"]).dir(temp.path()).expect(2);
        let name = option.split('=').next().unwrap();
        assert!(output.err().contains(name), "{name} should be named\n{}", output.describe());
        assert!(!there(temp.join("dst/b.log")), "nothing may be copied with {option}");
    }
    sync(["-a", "--temp-dir=/tmp", "src/", "dst"]).dir(temp.path()).expect(2).says(&["rename", "atomic"]);
}

#[test]
fn progress_without_a_terminal_is_plain_lines() {
    let temp = Temp::new();
    crate::support::fixture::big_file(&temp.join("src/big"), 8 << 20, 1);
    for flags in [&["-a", "--info=progress2"][..], &["-aP"], &["-av", "--progress"]] {
        let dst = temp.join(format!("dst{}", flags.concat()));
        let output = sync(flags).args(["src/".as_ref(), dst.as_os_str()]).dir(temp.path()).expect(0);
        assert!(!output.stdout.contains(&0x1b), "{}", output.describe());
        assert!(only_xfer("no carriage returns") || !output.stdout.contains(&b'\r'), "{}", output.describe());
    }
}

/// `xfer … | head -1`: the reader goes away; no panic, no hang, no half a run that looks whole.
#[test]
fn a_reader_that_goes_away_is_no_crash() {
    let temp = Temp::new();
    crate::support::fixture::many_files(&temp.join("src"), 5000);
    let sub = if is_rsync() { "" } else { "sync" };
    let script = format!("\"$0\" {sub} -avv src/ dst | head -1");
    let output = Command::new("bash")
        .args(["-c", &format!("set -o pipefail; timeout 60 {}", script.trim_start())])
        .arg(binary())
        .current_dir(temp.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(!err.contains("panicked") && !err.contains("bug"), "{err}");
    assert!(output.status.code().is_some_and(|code| code != 124), "it hangs");
    sync(["-a", "src/", "dst"]).dir(temp.path()).expect(0);
    crate::support::judge::Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
}

#[test]
fn completions_manual_and_help() {
    if is_rsync() {
        return;
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(xfer(["completions", shell]).expect(0).out().contains("xfer"));
    }
    assert!(xfer(["man"]).expect(0).out().contains(".TH"));
    assert!(xfer(["sync", "--help"]).expect(0).out().contains("--delete"));
    assert!(xfer(["--version"]).expect(0).out().starts_with("xfer "));
    xfer::<&str>([]).expect(2);
    xfer(["no-such-command"]).expect(2);
}

/// `--bwlimit` holds for local copies too.
#[test]
fn a_bandwidth_limit_holds_locally() {
    let temp = Temp::new();
    crate::support::fixture::big_file(&temp.join("src/big"), 3 << 20, 1);
    let output = sync(["-aW", "--bwlimit=1M", "src/", "dst"]).dir(temp.path()).expect(0);
    let seconds = output.elapsed.as_secs_f64();
    assert!((1.8..10.0).contains(&seconds), "3 MiB at 1 MiB/s took {seconds} s");
}

/// No home directory is no reason to stop.
#[test]
fn a_missing_home_is_no_error() {
    let temp = Temp::new();
    source(temp.path());
    let output = sync(["-a", "src/", "dst"]).dir(temp.path()).env("HOME", "/nonexistent/home").expect(0);
    assert!(output.stderr.is_empty(), "{}", output.describe());
}
