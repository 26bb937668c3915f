//! What `--delete` deletes, what it spares, and when it does nothing at all.

use std::fs;
use std::path::Path;

use crate::support::Temp;
use crate::support::disk::{chmod, put, set_mtime, there};
use crate::support::fixture::{OLD, both, source};
use crate::support::run::{only_xfer, sync};
use crate::support::twin::same;

fn extras(dir: &Path) {
    source(dir);
    for name in
        ["x1", "x2", "dir/x3", "gone/deep/er/x4", "gone/x5", "keep.cfg", "gone/keep.cfg", "dir/keep.cfg", "empty/x"]
    {
        put(dir.join("dst").join(name), "extra", OLD);
    }
    put(dir.join("dst/a"), "older", OLD - 9);
}

#[test]
fn every_variant_ends_alike() {
    for variant in [
        "--delete",
        "--del",
        "--delete-before",
        "--delete-during",
        "--delete-delay",
        "--delete-after",
        "--delete-excluded",
    ] {
        same(extras, &["-a", variant, "src/", "dst"]).code(0);
        same(extras, &["-a", variant, "--exclude=*.cfg", "src/", "dst"]).code(0);
        same(extras, &["-r", variant, "src/dir", "src/empty", "dst"]).code(0);
    }
}

#[test]
fn only_what_was_listed_is_a_scope_of_deletion() {
    // A directory that goes into the destination says nothing about its siblings there.
    let twin = same(extras, &["-a", "--delete", "src/dir", "dst"]).code(0);
    assert!(there(twin.dir().join("dst/x1")) && !there(twin.dir().join("dst/dir/x3")));
    let twin = same(extras, &["-a", "--delete", "src/a", "dst"]).code(0);
    assert!(there(twin.dir().join("dst/x1")));
    same(extras, &["-aR", "--delete", "src/./dir", "dst"]).code(0);
    same(extras, &["-a", "--delete", "src", "dst"]).code(0);
}

#[test]
fn deletion_without_recursion_is_refused() {
    let temp = Temp::new();
    extras(temp.path());
    let output = sync(["-t", "--delete", "src/", "dst"]).dir(temp.path()).run();
    assert!(output.code() != 0 && there(temp.join("dst/x1")), "{}", output.describe());
}

#[test]
fn excluded_names_are_protected() {
    let twin = same(extras, &["-a", "--delete", "--exclude=keep.cfg", "src/", "dst"]).code(0);
    for name in ["keep.cfg", "gone/keep.cfg", "dir/keep.cfg"] {
        assert!(there(twin.dir().join("dst").join(name)), "{name}");
    }
    assert!(!there(twin.dir().join("dst/gone/x5")));
    same(extras, &["-a", "--delete", "-f", "P keep.cfg", "src/", "dst"]).code(0);
    same(extras, &["-a", "--delete", "--exclude=/gone", "src/", "dst"]).code(0);
    same(extras, &["-a", "--delete", "--delete-excluded", "--exclude=keep.cfg", "src/", "dst"]).code(0);
    same(extras, &["-a", "--delete", "--delete-excluded", "--exclude=keep.cfg", "-f", "P gone/", "src/", "dst"])
        .code(0);
}

#[test]
fn at_most_so_many_are_deleted() {
    let fixture = |dir: &Path| {
        put(dir.join("src/a"), "a", OLD);
        for name in ["1", "2", "3", "4", "5"] {
            put(dir.join("dst").join(name), name, OLD);
        }
    };
    for (limit, left, code) in [("2", 3, 25), ("5", 0, 0), ("0", 5, 25), ("9", 0, 0)] {
        let temp = Temp::new();
        fixture(temp.path());
        let limit = format!("--max-delete={limit}");
        sync(["-a", "--delete", &limit, "src/", "dst"]).dir(temp.path()).expect(code);
        assert_eq!(fs::read_dir(temp.join("dst")).unwrap().count(), left + 1, "{limit}");
        assert!(there(temp.join("dst/a")));
    }
}

#[test]
fn a_dry_run_lists_exactly_what_a_real_run_deletes() {
    for flags in [
        &["-a", "--delete"][..],
        &["-a", "--delete", "--exclude=keep.cfg"],
        &["-a", "--delete-excluded", "--exclude=*1"],
        &["-a", "--delete", "-f", "P x?"],
    ] {
        let temp = Temp::new();
        extras(temp.path());
        let deleted = |dry: bool| {
            let call = sync(flags).args(if dry { &["-n"][..] } else { &[] }).args(["-i", "src/", "dst"]);
            let output = call.dir(temp.path()).expect(0);
            let mut lines = output.sorted_lines();
            lines.retain(|line| line.starts_with("*deleting"));
            lines
        };
        let before = crate::support::disk::walk(&temp.join("dst"));
        let foretold = deleted(true);
        assert_eq!(crate::support::disk::walk(&temp.join("dst")), before, "a dry run must change nothing");
        assert!(!foretold.is_empty());
        let done = deleted(false);
        if only_xfer("a dry run that foretells all deletions") {
            continue;
        }
        assert_eq!(foretold, done);
        let after = crate::support::disk::walk(&temp.join("dst"));
        let gone = before.iter().filter(|path| !after.contains(path)).count();
        assert_eq!(gone, foretold.len(), "{foretold:?}");
    }
}

#[test]
fn an_empty_or_missing_source_stops() {
    if only_xfer("a stop at an empty source") {
        return;
    }
    for missing in [true, false] {
        let temp = Temp::new();
        both(temp.path());
        fs::remove_dir_all(temp.join("src")).unwrap();
        if !missing {
            fs::create_dir(temp.join("src")).unwrap();
        }
        let before = crate::support::disk::walk(&temp.join("dst"));
        for flags in [
            &["-a", "--delete"][..],
            &["-a", "--delete-excluded", "--exclude=x"],
            &["-a", "--delete", "--ignore-errors"],
        ] {
            let output = sync(flags).args(["src/", "dst"]).dir(temp.path()).run();
            assert!(output.code() != 0, "{}", output.describe());
            assert_eq!(crate::support::disk::walk(&temp.join("dst")), before, "{}", output.describe());
        }
        let output = sync(["-a", "--delete", "--allow-empty-source", "src/", "dst"]).dir(temp.path()).run();
        if missing {
            assert!(output.code() != 0 && there(temp.join("dst/extra")), "{}", output.describe());
        } else {
            assert_eq!(output.code(), 0, "{}", output.describe());
            assert_eq!(fs::read_dir(temp.join("dst")).unwrap().count(), 0);
        }
    }
    // An empty source is named, with the option that allows it.
    let temp = Temp::new();
    both(temp.path());
    fs::remove_dir_all(temp.join("src")).unwrap();
    fs::create_dir(temp.join("src")).unwrap();
    sync(["-a", "--delete", "src/", "dst"]).dir(temp.path()).run().says(&["--allow-empty-source"]);
    // An empty directory inside a source is no empty source.
    source(&temp.join("two"));
    put(temp.join("two/dst/empty/x"), "x", OLD);
    sync(["-a", "--delete", "src/", "dst"]).dir(&temp.join("two")).expect(0);
    assert!(!there(temp.join("two/dst/empty/x")));
}

#[test]
fn directories_that_nobody_may_write_are_deleted_too() {
    let fixture = |dir: &Path| {
        extras(dir);
        chmod(&dir.join("dst/gone/deep"), 0o500);
        chmod(&dir.join("dst/gone"), 0o000);
    };
    if crate::support::is_root() {
        same(fixture, &["-a", "--delete", "src/", "dst"]).code(0);
    }
}

#[test]
fn deletion_restores_the_times_of_directories() {
    let temp = Temp::new();
    source(temp.path());
    sync(["-aH", "src/", "dst"]).dir(temp.path()).expect(0);
    put(temp.join("dst/dir/sub/extra"), "x", OLD);
    put(temp.join("dst/extra/extra"), "x", OLD);
    sync(["-aH", "--delete", "src/", "dst"]).dir(temp.path()).expect(0);
    crate::support::judge::Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
    set_mtime(&temp.join("dst/dir"), OLD - 7, 0);
    sync(["-aH", "--delete", "src/", "dst"]).dir(temp.path()).expect(0);
    crate::support::judge::Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
}
