//! Which files are taken: quick check, `-u`, `-c`, sizes, existing ones, filters, alternative destinations.

use std::fs;
use std::path::Path;

use crate::support::Temp;
use crate::support::disk::{get, put, set_mtime, there};
use crate::support::fixture::{OLD, both, source};
use crate::support::judge::Judge;
use crate::support::run::{only_xfer, sync};
use crate::support::twin::same;

/// Pairs of files in every relation of length, time and content.
fn relations(dir: &Path) {
    for (name, ours, theirs) in [
        ("same", Some(("equal", OLD)), Some(("equal", OLD))),
        ("newer-here", Some(("new!!", OLD + 9)), Some(("older", OLD))),
        ("newer-there", Some(("older", OLD)), Some(("new!!", OLD + 9))),
        ("other-content", Some(("aaaaa", OLD)), Some(("bbbbb", OLD))),
        ("other-time", Some(("equal", OLD)), Some(("equal", OLD + 5))),
        ("longer", Some(("longer text", OLD)), Some(("short", OLD))),
        ("new", Some(("new", OLD)), None),
        ("extra", None, Some(("extra", OLD))),
        ("within-2s", Some(("equal", OLD)), Some(("equaL", OLD + 2))),
    ] {
        for (root, file) in [("src", ours), ("dst", theirs)] {
            if let Some((content, seconds)) = file {
                put(dir.join(root).join(name), content, seconds);
                put(dir.join(root).join("sub").join(name), content, seconds);
            }
        }
    }
    for name in ["src/sub", "src", "dst/sub", "dst"] {
        set_mtime(&dir.join(name), OLD, 0);
    }
}

#[test]
fn quick_checks() {
    for flags in [
        &["-a"][..],
        &["-r"],
        &["-rt"],
        &["-a", "-u"],
        &["-a", "-c"],
        &["-a", "-I"],
        &["-a", "--size-only"],
        &["-r", "--size-only"],
        &["-a", "--existing"],
        &["-a", "--ignore-existing"],
        &["-a", "--existing", "--ignore-existing", "--delete"],
        &["-a", "--max-size=6"],
        &["-a", "--min-size=6"],
        &["-a", "--min-size=3", "--max-size=5"],
        &["-a", "--max-size=5b", "--delete"],
        &["-a", "-u", "--delete"],
        &["-ac", "--delete", "--existing"],
        &["-rc"],
    ] {
        let mut args = flags.to_vec();
        args.extend(["src/", "dst"]);
        same(relations, &args).code(0);
        args.insert(0, "-W");
        same(relations, &args).code(0);
    }
}

#[test]
fn times_within_the_window_are_equal() {
    for window in ["--modify-window=2", "--modify-window=1", "--modify-window=10"] {
        let temp = Temp::new();
        relations(temp.path());
        let twin = Temp::new();
        relations(twin.path());
        sync(["-a", window, "src/", "dst"]).dir(temp.path()).expect(0);
        crate::support::run::rsync(["-a", window, "src/", "dst"]).dir(twin.path()).expect(0);
        Judge::strict().assert(&twin.join("dst"), &temp.join("dst"));
    }
}

#[test]
fn nanoseconds_count() {
    if only_xfer("comparison in nanoseconds") {
        return;
    }
    let temp = Temp::new();
    put(temp.join("src/a"), "aaaaa", OLD);
    put(temp.join("dst/a"), "bbbbb", OLD);
    set_mtime(&temp.join("dst/a"), OLD, 123_456_788);
    sync(["-a", "src/", "dst"]).dir(temp.path()).expect(0);
    assert_eq!(get(temp.join("dst/a")), b"aaaaa");
}

#[test]
fn digests_find_what_times_hide() {
    let temp = Temp::new();
    put(temp.join("src/a"), "aaaaa", OLD);
    put(temp.join("dst/a"), "bbbbb", OLD);
    sync(["-a", "src/", "dst"]).dir(temp.path()).expect(0);
    assert_eq!(get(temp.join("dst/a")), b"bbbbb");
    sync(["-a", "-c", "src/", "dst"]).dir(temp.path()).expect(0);
    assert_eq!(get(temp.join("dst/a")), b"aaaaa");
}

/// A tree on which filters have something to do.
fn for_filters(dir: &Path) {
    source(dir);
    for name in
        ["x.o", "keep.o", "dir/y.o", "dir/sub/z.o", "cache/1", "dir/cache/2", "dir/data/cache/3", ".hidden", "fo?o"]
    {
        put(dir.join("src").join(name), name, OLD);
    }
    fs::write(dir.join("src/.rules"), "- *.o\n+ /dir/\n").unwrap();
    fs::write(dir.join("src/dir/.rules"), "+ z.o\n- /cache/\n").unwrap();
    fs::write(dir.join("src/.rsync-filter"), "- .hidden\nP *.keep\n").unwrap();
    fs::write(dir.join("patterns"), "# comment\n; comment\n\n*.o\n+ dir/\n- cache/\n").unwrap();
    fs::write(dir.join("nul"), b"*.o\0cache/\0").unwrap();
    for name in ["extra.o", "extra.keep", "dir/extra.o", "cache/old", "dir/cache/old", "gone/x.o", "gone/y"] {
        put(dir.join("dst").join(name), "old", OLD);
    }
    for root in ["src", "dst"] {
        for path in crate::support::disk::walk(&dir.join(root)) {
            if !dir.join(root).join(&path).is_symlink() {
                set_mtime(&dir.join(root).join(path), OLD, 5);
            }
        }
    }
}

#[test]
fn filters() {
    for rules in [
        &["--exclude=*.o"][..],
        &["--exclude=/x.o"],
        &["--exclude=cache/"],
        &["--exclude=/cache/", "--exclude=dir/cache"],
        &["--exclude=dir/**"],
        &["--exclude=dir/***"],
        &["--exclude=dir/*"],
        &["--include=keep.o", "--exclude=*.o"],
        &["--include=*/", "--include=*.o", "--exclude=*"],
        &["--exclude=**/cache/*"],
        &["--exclude=[kx]*.o"],
        &["--exclude=fo\\?o"],
        &["--exclude=.*"],
        &["--exclude=[[:lower:]].o"],
        &["--exclude-from=patterns"],
        &["--include-from=patterns", "--exclude=*"],
        &["--from0", "--exclude-from=nul"],
        &["-f", "- *.o", "-f", "P extra.keep"],
        &["-f", "H *.o"],
        &["-f", "S keep.o", "-f", "H *.o"],
        &["-f", "P *.o"],
        &["-f", "R extra.o", "-f", "P *.o"],
        &["-f", "-s *.o"],
        &["-f", "-r *.o"],
        &["-f", "-! */", "-f", "+ **"],
        &["-f", "!", "--exclude=*.o"],
        &["--exclude=*.o", "-f", "!"],
        &["-f", "merge,- patterns"],
        &["-f", ".- patterns"],
        &["-f", ": .rules"],
        &["-f", ":n .rules"],
        &["-f", ":e .rules"],
        &["-f", "dir-merge,- .rsync-filter"],
        &["-F"],
        &["-FF"],
        &["-f", "-_*.o"],
        &["-f", "exclude *.o", "-f", "protect gone/"],
    ] {
        for delete in [&[][..], &["--delete-after"], &["--delete-after", "--delete-excluded"]] {
            let mut args = vec!["-a"];
            args.extend_from_slice(rules);
            args.extend_from_slice(delete);
            args.extend(["src/", "dst"]);
            same(for_filters, &args);
        }
    }
}

#[test]
fn anchors_count_from_the_root_of_the_transfer() {
    same(for_filters, &["-a", "--exclude=/src/dir", "src", "dst"]).code(0);
    same(for_filters, &["-a", "--exclude=/dir", "src", "dst"]).code(0);
    same(for_filters, &["-a", "--exclude=/dir", "src/", "dst"]).code(0);
    same(for_filters, &["-aR", "--exclude=/src/dir", "src", "dst"]).code(0);
    same(for_filters, &["-aR", "--exclude=/dir", "src/./", "dst"]).code(0);
}

#[test]
fn a_bad_rule_is_refused_before_anything_happens() {
    for rule in ["x *.o", "merge none-such", "-Q *.o"] {
        let temp = Temp::new();
        for_filters(temp.path());
        let output = sync(["-a", "--delete", "-f", rule, "src/", "dst"]).dir(temp.path()).run();
        assert!(output.code() != 0 && !output.stderr.is_empty(), "{}", output.describe());
        assert!(there(temp.join("dst/gone/y")) && !there(temp.join("dst/a")), "{}", output.describe());
    }
}

fn with_previous(dir: &Path) {
    source(dir);
    for (name, content) in
        [("prev/a", "content of a"), ("prev/b.log", "another"), ("prev/dir/sub/d", "d"), ("prev2/b.log", "log")]
    {
        put(dir.join(name), content, OLD);
    }
    set_mtime(&dir.join("prev2/b.log"), OLD + 1, 123_456_789);
    set_mtime(&dir.join("prev/dir/sub/d"), OLD + 3, 123_456_789);
    crate::support::disk::chmod(&dir.join("prev/a"), 0o640);
}

#[test]
fn alternative_destinations() {
    for flag in ["--link-dest", "--copy-dest", "--compare-dest"] {
        for flags in [&["-a"][..], &["-aH"], &["-ac"], &["-a", "--no-t"], &["-a", "--size-only"]] {
            let one = format!("{flag}=../prev");
            let two = format!("{flag}=../prev2");
            let mut args = flags.to_vec();
            args.extend([one.as_str(), "src/", "dst"]);
            same(with_previous, &args).code(0);
            args.insert(1, &two);
            same(with_previous, &args).code(0);
        }
    }
}

#[test]
fn a_link_dest_shares_inodes() {
    use std::os::unix::fs::MetadataExt;
    let temp = Temp::new();
    source(temp.path());
    sync(["-a", "src/", "one"]).dir(temp.path()).expect(0);
    put(temp.join("src/b.log"), "changed", OLD + 50);
    sync(["-a", "--link-dest=../one", "src/", "two"]).dir(temp.path()).expect(0);
    let inode = |path: &str| fs::metadata(temp.join(path)).unwrap().ino();
    assert_eq!(inode("one/a"), inode("two/a"));
    assert_ne!(inode("one/b.log"), inode("two/b.log"));
    assert_eq!(get(temp.join("one/b.log")), b"log");
}

#[test]
fn whole_or_delta_or_in_place_the_content_is_the_same() {
    let fixture = |dir: &Path| {
        let mut content = crate::support::rng::Rng::new(5).bytes(3_000_000);
        put(dir.join("dst/big"), &content, OLD);
        content[1_000_000] ^= 1;
        content.drain(2_000_000..2_000_100);
        put(dir.join("src/big"), &content, OLD + 1);
        put(dir.join("src/grown"), [&content[..500_000], b"more"].concat(), OLD + 1);
        put(dir.join("dst/grown"), &content[..500_000], OLD);
        put(dir.join("src/shrunk"), &content[..100_000], OLD + 1);
        put(dir.join("dst/shrunk"), &content[..500_000], OLD);
        set_mtime(&dir.join("src"), OLD, 0);
    };
    for flags in [
        &["-a"][..],
        &["-a", "--no-whole-file"],
        &["-a", "--inplace"],
        &["-a", "--inplace", "--no-whole-file"],
        &["-a", "--inplace", "-S"],
        &["-a", "--append-verify"],
        &["-a", "--append-verify", "--no-W"],
        &["-a", "-W"],
        &["-a", "--partial"],
        &["-a", "--partial-dir=.part"],
        &["-a", "-z", "--no-W"],
        &["-a", "--fsync"],
    ] {
        let mut args = flags.to_vec();
        args.extend(["src/", "dst"]);
        same(fixture, &args).code(0);
    }
}

#[test]
fn in_place_keeps_the_inode() {
    use std::os::unix::fs::MetadataExt;
    let temp = Temp::new();
    both(temp.path());
    let inode = || fs::metadata(temp.join("dst/a")).unwrap().ino();
    let before = inode();
    sync(["-a", "--inplace", "--delete", "src/", "dst"]).dir(temp.path()).expect(0);
    assert_eq!(inode(), before);
    assert_eq!(get(temp.join("dst/a")), b"content of a");
}

#[test]
fn source_files_are_removed_once_they_arrived() {
    same(source, &["-aH", "--remove-source-files", "src/", "dst"]).code(0);
    same(both, &["-a", "--remove-source-files", "--delete", "src/", "dst"]).code(0);
    same(both, &["-a", "--remove-source-files", "--exclude=*.log", "--force", "src/", "dst"]).code(0);
    same(relations, &["-a", "--remove-source-files", "-u", "src/", "dst"]).code(0);
    let twin = same(source, &["-an", "--remove-source-files", "src/", "dst"]).code(0);
    assert!(there(twin.dir().join("src/a")));
}

/// A destination that holds whole seconds only: the first run copies, the second finds nothing to do.
#[test]
fn coarse_timestamps_are_recognised() {
    use std::os::unix::fs::MetadataExt;
    let temp = Temp::new();
    source(temp.path());
    // Inodes of 128 bytes have no room for nanoseconds.
    let mounted = crate::support::mount::Mounted::ext4(&temp.join("old"), &["-I", "128"]);
    let dst = mounted.path().join("dst");
    sync(["-aH", "src/"]).args([&dst]).dir(temp.path()).expect(0);
    assert_eq!(fs::metadata(dst.join("a")).unwrap().mtime_nsec(), 0, "the file system is not coarse after all");
    if only_xfer("coarse destinations are found out") {
        return;
    }
    let output = sync(["-aHi", "src/"]).args([&dst]).dir(temp.path()).expect(0);
    assert!(output.stdout.is_empty(), "{}", output.describe());
    // A whole second is a difference there, too.
    set_mtime(&temp.join("src/a"), OLD + 1, 123_456_789);
    let output = sync(["-aHi", "src/"]).args([&dst]).dir(temp.path()).expect(0);
    assert_eq!(output.sorted_lines().len(), 1, "{}", output.describe());
}

#[test]
fn the_first_problem_may_end_the_run() {
    if only_xfer("--fail-fast") {
        return;
    }
    let temp = Temp::new();
    source(temp.path());
    put(temp.join("dst/a/in-the-way"), "x", OLD);
    let output = sync(["-a", "--fail-fast", "src/", "dst"]).dir(temp.path()).run();
    assert!([1, 23].contains(&output.code()) && output.err().contains('a'), "{}", output.describe());
    assert!(there(temp.join("dst/a/in-the-way")));
}
