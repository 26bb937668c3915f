//! Backups of what is replaced or deleted, and parts that are kept.

use std::path::Path;

use crate::support::disk::{get, put};
use crate::support::fixture::{OLD, both, source};
use crate::support::twin::same;

fn versions(dir: &Path) {
    source(dir);
    for (name, content) in
        [("a", "old a"), ("b.log", "old b"), ("dir/c", "old c"), ("extra", "extra"), ("gone/x", "x"), ("a~", "older a")]
    {
        put(dir.join("dst").join(name), content, OLD - 5);
    }
}

#[test]
fn backups_beside_the_file() {
    let twin = same(versions, &["-a", "-b", "src/", "dst"]).code(0);
    assert_eq!(get(twin.dir().join("dst/a~")), b"old a");
    same(versions, &["-ab", "--suffix=.bak", "src/", "dst"]).code(0);
    same(versions, &["-ab", "--delete", "src/", "dst"]).code(0);
    same(versions, &["-ab", "--delete", "--suffix=.old", "src/", "dst"]).code(0);
    same(versions, &["-abu", "src/", "dst"]).code(0);
    same(versions, &["-ab", "--inplace", "src/", "dst"]).code(0);
    same(versions, &["-ab", "-n", "--delete", "src/", "dst"]).code(0);
}

#[test]
fn backups_in_a_directory() {
    let twin = same(versions, &["-ab", "--backup-dir=../old", "src/", "dst"]).code(0);
    assert_eq!(get(twin.dir().join("old/dir/c")), b"old c");
    same(versions, &["-ab", "--backup-dir=../old", "--delete", "src/", "dst"]).code(0);
    same(versions, &["-ab", "--backup-dir=../old/deep", "--suffix=.x", "--delete", "src/", "dst"]).code(0);
    same(versions, &["-ab", "--backup-dir=.old", "--delete", "--exclude=.old", "src/", "dst"]).code(0);
    same(both, &["-ab", "--backup-dir=../old", "--delete", "src/", "dst"]).code(0);
}

#[test]
fn a_second_generation_replaces_the_first() {
    let twice = |dir: &Path| {
        versions(dir);
        put(dir.join("old/a"), "ancient a", OLD - 50);
        put(dir.join("old/b.log/in-the-way"), "x", OLD - 50);
    };
    let twin = same(versions_only_files(twice), &["-ab", "--backup-dir=../old", "src/", "dst"]).code(0);
    assert_eq!(get(twin.dir().join("old/a")), b"old a");
}

/// Without the directory in the way of a backup, where rsync has its own mind.
fn versions_only_files(fixture: impl Fn(&Path)) -> impl Fn(&Path) {
    move |dir| {
        fixture(dir);
        std::fs::remove_dir_all(dir.join("old/b.log")).unwrap();
    }
}
