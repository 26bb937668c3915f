//! Symbolic links and hard links.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use crate::support::Temp;
use crate::support::disk::{get, put, there};
use crate::support::fixture::{OLD, source};
use crate::support::judge::Judge;
use crate::support::run::sync;
use crate::support::twin::{same, same_but};

/// Links of all sorts: to files, to directories, out of the tree (absolute, by `..`), up and back in; none dangling.
fn linked(dir: &Path) {
    source(dir);
    put(dir.join("outside/file"), "outside", OLD);
    put(dir.join("outside/sub/deep"), "deep", OLD);
    let src = dir.join("src");
    symlink("dir", src.join("to-dir")).unwrap();
    symlink("dir/c", src.join("to-file")).unwrap();
    symlink("../outside/file", src.join("out-file")).unwrap();
    symlink("../outside", src.join("out-dir")).unwrap();
    symlink("../dir/c", src.join("empty/back-in")).unwrap();
    symlink("sub/../../a", src.join("dir/up")).unwrap();
    symlink("/", src.join("absolute")).unwrap();
    fs::remove_file(src.join("absolute")).unwrap();
    symlink(dir.join("outside/file"), src.join("absolute")).unwrap();
    // The twins' surroundings have different names: what points there by an absolute path is not comparable.
    fs::remove_file(src.join("absolute")).unwrap();
    symlink("/etc/passwd", src.join("absolute")).unwrap();
    fs::create_dir(dir.join("dst")).unwrap();
    for name in ["dir", "empty", ""] {
        crate::support::disk::set_mtime(&src.join(name), OLD, 0);
    }
}

#[test]
fn links_are_copied_followed_or_left_out() {
    for flags in [
        &["-a"][..],
        &["-r"],
        &["-rL"],
        &["-aL"],
        &["-ak"],
        &["-a", "--copy-unsafe-links"],
        &["-a", "--safe-links"],
        &["-rk"],
        &["-a", "--no-l"],
        &["-a", "--copy-unsafe-links", "--safe-links"],
        &["-akL"],
        &["-ak", "--copy-unsafe-links"],
    ] {
        let mut args = flags.to_vec();
        args.extend(["src/", "dst"]);
        same(linked, &args).code(0);
    }
}

#[test]
fn links_on_the_command_line() {
    same(linked, &["-a", "src/to-dir", "dst"]).code(0);
    same(linked, &["-a", "src/to-dir/", "dst"]).code(0);
    same(linked, &["-aL", "src/to-file", "dst"]).code(0);
    same(linked, &["-ak", "src/out-dir", "dst"]).code(0);
    same(linked, &["-a", "src/to-file", "dst/renamed"]).code(0);
}

#[test]
fn a_link_at_the_destination_gives_way_and_its_target_is_untouched() {
    let fixture = |dir: &Path| {
        source(dir);
        put(dir.join("precious/keep"), "keep", OLD);
        put(dir.join("precious-file"), "keep", OLD);
        fs::create_dir(dir.join("dst")).unwrap();
        symlink("../precious", dir.join("dst/dir")).unwrap();
        symlink("../precious-file", dir.join("dst/a")).unwrap();
        symlink("nowhere", dir.join("dst/b.log")).unwrap();
    };
    for flags in ["-a", "-aW", "-aI", "-ac"] {
        let twin = same(fixture, &[flags, "--delete", "src/", "dst"]).code(0);
        assert_eq!(get(twin.dir().join("precious-file")), b"keep");
        assert_eq!(fs::read_dir(twin.dir().join("precious")).unwrap().count(), 1);
        assert!(!twin.dir().join("dst/a").is_symlink() && !twin.dir().join("dst/dir").is_symlink());
    }
    same(fixture, &["-a", "--inplace", "src/", "dst"]).code(0);
}

#[test]
fn directory_links_at_the_destination_can_be_kept() {
    let fixture = |dir: &Path| {
        source(dir);
        fs::create_dir_all(dir.join("dst/real")).unwrap();
        put(dir.join("dst/real/old"), "old", OLD);
        symlink("real", dir.join("dst/dir")).unwrap();
        // A link to a file is no directory link.
        symlink("real/old", dir.join("dst/a")).unwrap();
    };
    // rsync gives the mtime to the link; here the directory gets it.
    let judge = Judge::strict().ignoring(|path| path == b"dst/dir" || path == b"dst/real");
    let twin = same_but(fixture, &["-aK", "src/", "dst"], judge).code(0);
    assert!(twin.dir().join("dst/dir").is_symlink() && there(twin.dir().join("dst/real/c")));
}

/// `-K` serves links beneath the root; one that leaves it is replaced as any other link.
#[test]
fn a_kept_link_never_leads_out_of_the_destination() {
    let temp = Temp::new();
    source(temp.path());
    put(temp.join("precious/keep"), "keep", OLD);
    fs::create_dir(temp.join("dst")).unwrap();
    symlink("../precious", temp.join("dst/dir")).unwrap();
    let output = sync(["-aK", "--delete", "src/", "dst"]).dir(temp.path()).run();
    if crate::support::run::only_xfer("-K stays beneath the root") {
        return;
    }
    assert_eq!(get(temp.join("precious/keep")), b"keep", "{}", output.describe());
    assert_eq!(fs::read_dir(temp.join("precious")).unwrap().count(), 1, "{}", output.describe());
}

#[test]
fn hard_links_are_carried_over_the_whole_transfer() {
    let fixture = |dir: &Path| {
        let src = dir.join("src");
        put(src.join("1/a"), "one", OLD);
        fs::create_dir_all(src.join("2/deep")).unwrap();
        for name in ["2/deep/b", "z", "2/c"] {
            fs::hard_link(src.join("1/a"), src.join(name)).unwrap();
        }
        put(dir.join("out"), "outside", OLD);
        fs::hard_link(dir.join("out"), src.join("one-inside")).unwrap();
        symlink("target", src.join("link")).unwrap();
        fs::hard_link(src.join("link"), src.join("link-too")).unwrap();
        for name in ["2/deep", "2", "1", ""] {
            crate::support::disk::set_mtime(&src.join(name), OLD, 0);
        }
        fs::create_dir(dir.join("dst")).unwrap();
    };
    same(fixture, &["-aH", "src/", "dst"]).code(0);
    same(fixture, &["-a", "src/", "dst"]).code(0);
    same(fixture, &["-aH", "src/1", "src/2", "dst"]).code(0);
    // One name is there already, another is other content.
    let partly = move |dir: &Path| {
        fixture(dir);
        put(dir.join("dst/1/a"), "one", OLD);
        put(dir.join("dst/2/c"), "something else", OLD - 5);
        fs::create_dir_all(dir.join("dst/z/dir")).unwrap();
    };
    let twin = same(partly, &["-aH", "--delete", "src/", "dst"]).code(0);
    let inode = |name: &str| fs::metadata(twin.dir().join("dst").join(name)).unwrap().ino();
    assert!(["2/deep/b", "z", "2/c"].iter().all(|name| inode(name) == inode("1/a")));
}

/// A link is broken, joined, and moved between groups; the destination follows.
#[test]
fn hard_link_groups_follow_the_source() {
    let temp = Temp::new();
    let src = temp.join("src");
    put(src.join("a"), "group one", OLD);
    put(src.join("x"), "the second group", OLD + 1);
    fs::hard_link(src.join("a"), src.join("b")).unwrap();
    fs::hard_link(src.join("x"), src.join("y")).unwrap();
    sync(["-aH", "src/", "dst"]).dir(temp.path()).expect(0);
    fs::remove_file(src.join("b")).unwrap();
    fs::hard_link(src.join("x"), src.join("b")).unwrap();
    fs::remove_file(src.join("y")).unwrap();
    put(src.join("y"), "its own now", OLD + 5);
    sync(["-aH", "--delete", "src/", "dst"]).dir(temp.path()).expect(0);
    crate::support::judge::Judge::strict().assert(&src, &temp.join("dst"));
}

/// Writing in place through one of several names would change the others, which the source may not have changed.
#[test]
fn in_place_writing_spares_other_names_of_the_file() {
    if crate::support::run::only_xfer("--inplace leaves hard links of others alone") {
        return;
    }
    let temp = Temp::new();
    put(temp.join("src/a"), "new", OLD + 1);
    put(temp.join("dst/a"), "old", OLD);
    fs::hard_link(temp.join("dst/a"), temp.join("snapshot")).unwrap();
    sync(["-a", "--inplace", "src/", "dst"]).dir(temp.path()).expect(0);
    assert_eq!(get(temp.join("dst/a")), b"new");
    assert_eq!(get(temp.join("snapshot")), b"old");
}

#[test]
fn dangling_links_and_loops_are_copied_as_links() {
    let fixture = |dir: &Path| {
        put(dir.join("src/file"), "x", OLD);
        symlink("nowhere", dir.join("src/dangling")).unwrap();
        symlink("loop", dir.join("src/loop")).unwrap();
        symlink(".", dir.join("src/self")).unwrap();
        symlink("..", dir.join("src/parent")).unwrap();
    };
    same(fixture, &["-a", "src/", "dst"]).code(0);
}
