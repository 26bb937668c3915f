//! Stages: what appears, what is left.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::*;

/// With and without a name; on each place.
fn each_way(act: impl Fn(&Place, bool)) {
    for replacing in [false, true] {
        for place in places() {
            act(&place, replacing);
        }
        // A file system without nameless files.
        let place = place_in(std::env::temp_dir());
        place.dir.learned.no_unnamed_files.store(true, Ordering::Relaxed);
        act(&place, replacing);
    }
}

#[test]
fn a_stage_dropped_leaves_nothing() {
    each_way(|place, replacing| {
        let stage = Stage::create(&place.dir, replacing, 0o600).unwrap();
        write_all_at(stage.file(), b"x", 0).unwrap();
        let is_named = replacing || place.dir.learned.no_unnamed_files.load(Ordering::Relaxed);
        let names = place.names();
        assert_eq!(names.len(), usize::from(is_named));
        assert!(names.iter().all(|name| is_stage_name(name.as_bytes())));
        stage.discard();
        assert!(place.names().is_empty());
    });
}

#[test]
fn a_stage_replaces_files_links_and_pipes_in_one_step() {
    each_way(|place, replacing| {
        std::fs::write(place.path("File"), "old").unwrap();
        std::fs::write(place.path("target"), "target").unwrap();
        std::os::unix::fs::symlink("target", place.path("Symlink")).unwrap();
        place.dir.make_node(&name("Fifo"), Kind::Fifo, 0o600, (0, 0)).unwrap();
        for label in ["File", "Symlink", "Fifo", "none"] {
            let stage = Stage::create(&place.dir, replacing, 0o640).unwrap();
            write_all_at(stage.file(), b"new", 0).unwrap();
            let inode = metadata_of(stage.file()).unwrap().ino;
            stage.commit(&name(label)).unwrap();
            let found = place.dir.stat(&name(label)).unwrap();
            assert_eq!((found.kind, found.ino, found.nlink, found.size), (Kind::File, inode, 1, 3));
            // Where a new file cannot be without a name, others get nothing before it is complete.
            let named = place.dir.learned.no_unnamed_files.load(Ordering::Relaxed) && !replacing;
            assert_eq!(found.mode, if named { 0o600 } else { 0o640 & !umask() });
        }
        assert_eq!(std::fs::read(place.path("target")).unwrap(), b"target");
        assert_eq!(place.names(), ["Fifo", "File", "Symlink", "none", "target"]);
    });
}

#[test]
fn a_failed_commit_leaves_all_as_it_was() {
    each_way(|place, replacing| {
        place.dir.make_dir(&name("dir"), 0o700).unwrap();
        let stage = Stage::create(&place.dir, replacing, 0o600).unwrap();
        assert_eq!(errno(&stage.commit(&name("dir")).unwrap_err()), Errno::ISDIR);
        assert_eq!(place.names(), ["dir"]);
        let gone = Arc::new(place.dir.open_child(&name("dir")).unwrap());
        let stage = Stage::create(&gone, false, 0o600).unwrap();
        std::fs::remove_dir_all(place.path("dir")).unwrap();
        assert!(stage.commit(&name("x")).is_err());
        assert_eq!(errno(&Stage::create(&gone, replacing, 0o600).unwrap_err()), Errno::NOENT);
    });
}

#[test]
fn a_part_is_kept_aside_and_taken_over_again() {
    each_way(|place, replacing| {
        place.dir.make_dir(&name(".partial"), 0o700).unwrap();
        let partial = Arc::new(place.dir.open_child(&name(".partial")).unwrap());
        for text in [&b"half"[..], b"half more"] {
            let stage = Stage::create(&place.dir, replacing, 0o600).unwrap();
            write_all_at(stage.file(), text, 0).unwrap();
            stage.keep_as(&partial, &name("f")).unwrap();
            assert_eq!(place.names(), [".partial"]);
        }
        let stage = Stage::adopt(&partial, &name("f")).unwrap();
        assert!(!std::fs::exists(place.path(".partial/f")).unwrap());
        write_all_at(stage.file(), b"!", 9).unwrap();
        stage.keep_as(&place.dir, &name("f")).unwrap();
        assert_eq!(std::fs::read(place.path("f")).unwrap(), b"half more!");
        assert!(partial.list().unwrap().is_empty());
        let stage = Stage::adopt(&place.dir, &name("f")).unwrap();
        stage.commit(&name("g")).unwrap();
        drop(Stage::adopt(&place.dir, &name("g")).unwrap());
        assert_eq!(place.names(), [".partial"]);
    });
}

#[test]
fn a_part_that_became_a_second_name_of_the_final_file_leaves_no_stage() {
    for place in places() {
        std::fs::write(place.path("f"), "x").unwrap();
        let stage = Stage::adopt(&place.dir, &name("f")).unwrap();
        let staged = name(&place.names()[0]);
        place.dir.make_link(&staged, &place.dir, &name("f")).unwrap();
        stage.commit(&name("f")).unwrap();
        assert_eq!(place.names(), ["f"]);
    }
}

#[test]
fn only_files_of_ours_alone_are_taken_over() {
    need_root();
    for place in places() {
        let victim = place.path("victim");
        std::fs::write(&victim, "precious").unwrap();
        std::fs::hard_link(&victim, place.path("linked")).unwrap();
        std::os::unix::fs::symlink("victim", place.path("symlink")).unwrap();
        place.dir.make_node(&name("pipe"), Kind::Fifo, 0o600, (0, 0)).unwrap();
        std::fs::write(place.path("theirs"), "").unwrap();
        std::os::unix::fs::chown(place.path("theirs"), Some(12_345), None).unwrap();
        let before = place.names();
        for label in ["linked", "symlink", "pipe", "theirs", "none"] {
            assert!(Stage::adopt(&place.dir, &name(label)).is_err(), "{label}");
        }
        assert_eq!(place.names(), before);
    }
}

#[test]
fn an_ordinary_user_commits_too() {
    for place in places() {
        std::fs::set_permissions(place.temporary.path(), PermissionsExt::from_mode(0o777)).unwrap();
        as_ordinary_user(12_345, || {
            for replacing in [false, false, true] {
                Stage::create(&place.dir, replacing, 0o600).unwrap().commit(&name("f")).unwrap();
            }
        });
        assert_eq!(place.names(), ["f"]);
        assert_eq!(place.dir.stat(&name("f")).unwrap().uid, 12_345);
    }
}

#[test]
fn a_stage_under_its_final_name_goes_or_stays() {
    for place in places() {
        let stage = Stage::create_final(&place.dir, &name("f"), 0o600).unwrap();
        assert!(stage.has_name());
        assert_eq!(place.names(), ["f"]);
        drop(stage);
        assert!(place.names().is_empty());
        let stage = Stage::create_final(&place.dir, &name("f"), 0o600).unwrap();
        write_all_at(stage.file(), b"text", 0).unwrap();
        stage.commit(&name("f")).unwrap();
        assert_eq!(std::fs::read(place.path("f")).unwrap(), b"text");
        let taken = Stage::create_final(&place.dir, &name("f"), 0o600).unwrap_err();
        assert_eq!(errno(&taken), Errno::EXIST);
        assert_eq!(std::fs::read(place.path("f")).unwrap(), b"text");
        let part = Stage::create_final(&place.dir, &name("g"), 0o600).unwrap();
        part.keep_as(&place.dir, &name("kept")).unwrap();
        assert_eq!(place.names(), ["f", "kept"]);
    }
}
