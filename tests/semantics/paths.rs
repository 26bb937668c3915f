//! What the paths of a command line mean: slashes, renames, parents, several sources, `-R`, `--files-from`, `-d`.

use std::fs;

use crate::support::disk::{get, put, there};
use crate::support::fixture::{OLD, both, source, with_empty_destination};
use crate::support::run::{only_xfer, sync};
use crate::support::twin::same;
use crate::support::{Temp, need_root};

#[test]
fn a_trailing_slash_means_the_contents() {
    same(source, &["-aH", "src/", "dst"]).code(0);
    same(source, &["-aH", "src/.", "dst"]).code(0);
    same(source, &["-aH", "./src/", "./dst/"]).code(0);
    same(with_empty_destination, &["-aH", "src/", "dst/"]).code(0);
}

#[test]
fn no_trailing_slash_means_the_directory_itself() {
    let twin = same(source, &["-aH", "src", "dst"]).code(0);
    assert!(there(twin.dir().join("dst/src/a")));
    same(with_empty_destination, &["-aH", "src", "dst"]).code(0);
    same(with_empty_destination, &["-aH", "src", "."]).code(0);
    same(with_empty_destination, &["-aH", "src/dir", "dst/"]).code(0);
}

#[test]
fn one_file_to_a_missing_name_is_renamed() {
    let twin = same(source, &["-a", "src/a", "new"]).code(0);
    assert_eq!(get(twin.dir().join("new")), b"content of a");
    same(with_empty_destination, &["-a", "src/a", "dst/new"]).code(0);
    same(with_empty_destination, &["src/a", "dst/new"]).code(0);
    same(both, &["-a", "src/a", "dst/a"]).code(0);
    same(both, &["-a", "src/a", "dst/extra"]).code(0);
    same(with_empty_destination, &["-a", "src/link", "dst/new"]).code(0);
}

#[test]
fn one_file_into_a_directory_keeps_its_name() {
    same(with_empty_destination, &["-a", "src/a", "dst"]).code(0);
    let twin = same(source, &["-a", "src/a", "dst/"]).code(0);
    assert!(there(twin.dir().join("dst/a")));
}

#[test]
fn a_missing_parent_is_an_error_unless_asked_for() {
    let temp = Temp::new();
    source(temp.path());
    let output = sync(["-a", "src/", "no/such/dst"]).dir(temp.path()).run();
    assert!(output.code() != 0 && !there(temp.join("no")), "{}", output.describe());
    let output = sync(["-a", "src/a", "no/such/new"]).dir(temp.path()).run();
    assert!(output.code() != 0 && !there(temp.join("no")), "{}", output.describe());
    same(source, &["-a", "--mkpath", "src/", "no/such/dst"]).code(0);
    same(source, &["-a", "--mkpath", "src/a", "no/such/new"]).code(0);
    same(source, &["-a", "--mkpath", "src/a", "no/such/new/"]).code(0);
}

#[test]
fn several_sources_go_into_one_directory() {
    let fixture = |dir: &std::path::Path| {
        with_empty_destination(dir);
        put(dir.join("other/z"), "z", OLD);
        put(dir.join("other/a"), "another a", OLD + 77);
    };
    same(fixture, &["-a", "src/a", "other/z", "dst"]).code(0);
    same(fixture, &["-a", "src", "other", "dst"]).code(0);
    same(fixture, &["-a", "src/dir", "src/empty", "src/b.log", "other/", "dst"]).code(0);
    same(fixture, &["-a", "--delete", "src", "other", "dst"]).code(0);
    // The first of two equal names wins.
    let twin = same(fixture, &["-a", "src/", "other/", "dst"]).code(0);
    assert_eq!(get(twin.dir().join("dst/a")), b"content of a");
    same(fixture, &["-a", "src/a", "other/z", "newdir"]).code(0);
}

#[test]
fn several_sources_and_a_file_are_refused() {
    let temp = Temp::new();
    both(temp.path());
    let output = sync(["-a", "src/a", "src/b.log", "dst/extra"]).dir(temp.path()).run();
    assert!(output.code() != 0, "{}", output.describe());
    assert_eq!(get(temp.join("dst/extra")), b"only here");
}

#[test]
fn a_missing_source_among_others_is_told_and_the_rest_copied() {
    let temp = Temp::new();
    with_empty_destination(temp.path());
    sync(["-a", "src/a", "src/none", "src/b.log", "dst"]).dir(temp.path()).run().expect(23).says(&["src/none"]);
    assert!(there(temp.join("dst/a")) && there(temp.join("dst/b.log")));
    same(with_empty_destination, &["-a", "--ignore-missing-args", "src/a", "src/none", "dst"]).code(0);
}

#[test]
fn relative_paths_are_recreated() {
    same(with_empty_destination, &["-aR", "src/dir/sub/d", "dst"]).code(0);
    same(with_empty_destination, &["-aR", "src/dir/", "dst"]).code(0);
    same(with_empty_destination, &["-aR", "src/dir", "src/empty", "dst"]).code(0);
    let twin = same(with_empty_destination, &["-aR", "src/./dir/sub", "dst"]).code(0);
    assert!(there(twin.dir().join("dst/dir/sub/d")) && !there(twin.dir().join("dst/src")));
    same(with_empty_destination, &["-aR", "--no-implied-dirs", "src/dir/sub/d", "dst"]).code(0);
    same(with_empty_destination, &["-aR", "--delete", "src/./dir", "dst"]).code(0);
    same(both, &["-aR", "--delete", "./src/empty", "dst"]).code(0);
}

#[test]
fn an_absolute_relative_source_is_recreated_in_full() {
    let temp = Temp::new();
    with_empty_destination(temp.path());
    let absolute = temp.join("src/dir/sub");
    sync(["-aR"]).args([absolute.as_path(), &temp.join("dst")]).expect(0);
    assert!(there(temp.join("dst").join(absolute.strip_prefix("/").unwrap()).join("d")));
}

#[test]
fn files_from_names_what_is_copied() {
    let fixture = |dir: &std::path::Path| {
        with_empty_destination(dir);
        fs::write(dir.join("list"), "a\n# a comment\n; another\n\ndir/sub/d\nempty/\n./b.log\n").unwrap();
        fs::write(dir.join("nul"), b"a\0dir/sub/d\0dir/../a\0").unwrap();
        fs::write(dir.join("dirs"), "dir\n").unwrap();
        fs::write(dir.join("slash"), "/dir/\nhard\n").unwrap();
    };
    same(fixture, &["-a", "--files-from=list", "src", "dst"]).code(0);
    same(fixture, &["-a", "--from0", "--files-from=nul", "src/", "dst"]).code(0);
    same(fixture, &["-a", "--files-from=dirs", "src", "dst"]).code(0);
    same(fixture, &["-ar", "--files-from=dirs", "src", "dst"]).code(0);
    same(fixture, &["-a", "--files-from=slash", "src", "dst"]).code(0);
    same(fixture, &["-a", "--no-R", "--files-from=list", "src", "dst"]).code(0);
}

#[test]
fn files_from_names_a_missing_file() {
    let temp = Temp::new();
    with_empty_destination(temp.path());
    fs::write(temp.join("list"), "a\nnone\n").unwrap();
    sync(["-a", "--files-from=list", "src", "dst"]).dir(temp.path()).run().expect(23).says(&["none"]);
    assert!(there(temp.join("dst/a")));
}

#[test]
fn files_from_reads_standard_input() {
    let temp = Temp::new();
    with_empty_destination(temp.path());
    fs::write(temp.join("list"), "a\ndir/c\n").unwrap();
    sync(["-a", "--files-from=-", "src", "dst"]).dir(temp.path()).stdin(&temp.join("list")).expect(0);
    assert!(there(temp.join("dst/a")) && there(temp.join("dst/dir/c")) && !there(temp.join("dst/b.log")));
}

#[test]
fn directories_without_recursion() {
    same(with_empty_destination, &["-d", "src/", "dst"]).code(0);
    same(with_empty_destination, &["-d", "src", "dst"]).code(0);
    same(with_empty_destination, &["-dlt", "src/.", "dst"]).code(0);
    same(both, &["-dt", "--force", "--delete", "src/", "dst"]).code(0);
    // Neither -r nor -d: directories are skipped.
    same(with_empty_destination, &["-lt", "src/a", "src/dir", "src/link", "dst"]).code(0);
    same(with_empty_destination, &["-t", "src/", "dst"]).code(0);
}

#[test]
fn empty_directories_are_pruned() {
    let fixture = |dir: &std::path::Path| {
        with_empty_destination(dir);
        fs::create_dir_all(dir.join("src/x/y/z")).unwrap();
        put(dir.join("src/only/logs/l.log"), "l", OLD);
    };
    same(fixture, &["-am", "src/", "dst"]).code(0);
    same(fixture, &["-am", "--exclude=*.log", "src/", "dst"]).code(0);
    same(fixture, &["-am", "--include=*/", "--include=*.log", "--exclude=*", "src/", "dst"]).code(0);
}

#[test]
fn another_file_system_is_not_entered() {
    need_root("mounts a tmpfs");
    let temp = Temp::new();
    source(temp.path());
    let mount = temp.join("src/mounted");
    fs::create_dir(&mount).unwrap();
    let _mounted = crate::support::mount::Mounted::tmpfs(&mount, "size=1m");
    fs::write(mount.join("inside"), "x").unwrap();
    for (flags, dir, file) in [("-a", true, true), ("-ax", true, false), ("-axx", false, false)] {
        let dst = temp.join(format!("dst{flags}"));
        sync([flags, "src/"]).args([&dst]).dir(temp.path()).expect(0);
        assert_eq!((there(dst.join("mounted")), there(dst.join("mounted/inside"))), (dir, file), "{flags}");
        assert!(there(dst.join("dir/sub/d")));
    }
}

#[test]
fn names_that_look_like_options_or_hosts() {
    let fixture = |dir: &std::path::Path| {
        fs::create_dir(dir.join("dst")).unwrap();
        put(dir.join("-n"), "dash", OLD);
        put(dir.join("a:b"), "colon", OLD);
    };
    same(fixture, &["-a", "./-n", "./a:b", "dst"]).code(0);
    same(fixture, &["-a", "--", "-n", "dst"]).code(0);
}

#[test]
fn one_tree_onto_itself_does_no_harm() {
    let temp = Temp::new();
    source(temp.path());
    let output = sync(["-aH", "--delete", "src/", "src/"]).dir(temp.path()).run();
    assert!([0, 1, 2].contains(&output.code()), "{}", output.describe());
    let other = Temp::new();
    source(other.path());
    crate::support::judge::Judge::strict().assert(&other.join("src"), &temp.join("src"));
}

/// The destination lies inside the source: an endless copy of copies must not come of it.
#[test]
fn a_destination_inside_the_source_ends() {
    let temp = Temp::new();
    source(temp.path());
    let output = sync(["-a", "src/", "src/backup"]).dir(temp.path()).run();
    assert!(!there(temp.join("src/backup/backup/backup/backup")), "{}", output.describe());
}

#[test]
fn nesting_by_a_forgotten_slash_is_told_once() {
    let temp = Temp::new();
    put(temp.join("redis/data/dump.rdb"), "x", OLD);
    fs::create_dir_all(temp.join("far/data")).unwrap();
    let output = sync(["-a", "redis/data", "far/data/"]).dir(temp.path()).expect(0);
    assert!(there(temp.join("far/data/data/dump.rdb")));
    if !only_xfer("a warning about nesting") {
        assert_eq!(output.err().matches("data/data").count(), 1, "{}", output.describe());
    }
    if !only_xfer("silence where nothing nests") {
        let output = sync(["-a", "redis/data/", "far/data/"]).dir(temp.path()).expect(0);
        assert!(output.stderr.is_empty(), "{}", output.describe());
    }
}
