//! What must hold on every kernel: run once as it is, and by `fallbacks.rs` with calls taken away.

use std::os::unix::fs::symlink;

use rustix::io::Errno;

use super::*;

#[test]
fn a_link_on_the_way_is_refused() {
    for place in places() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir(outside.path().join("deep")).unwrap();
        std::fs::create_dir_all(place.path("real/deep")).unwrap();
        symlink(outside.path(), place.path("out")).unwrap();
        symlink("real", place.path("in")).unwrap();
        for link in ["out", "in"] {
            let refusals = [
                place.dir.open_child(&name(link)).unwrap_err(),
                place.dir.open_beneath(&rel(link)).unwrap_err(),
                place.dir.open_beneath(&rel(&format!("{link}/deep"))).unwrap_err(),
            ];
            for refusal in refusals {
                assert!(matches!(errno(&refusal), Errno::LOOP | Errno::NOTDIR), "{refusal}");
            }
            assert!(place.dir.open_child_following(&name(link)).is_ok());
        }
        assert!(place.dir.open_beneath(&rel("real/deep")).is_ok());
        assert_eq!(errno(&place.dir.open_beneath(&rel("real/none")).unwrap_err()), Errno::NOENT);
        let inside = place.dir.open_beneath(&RelPath::root()).unwrap();
        assert_eq!(inside.metadata().unwrap().ino, place.dir.metadata().unwrap().ino);
        // Never out, whether links are followed or not.
        assert!(place.dir.open_beneath_following(&rel("out")).is_err());
        symlink("..", place.path("up")).unwrap();
        symlink("/proc/self/cwd", place.path("magic")).unwrap();
        assert!(place.dir.open_beneath_following(&rel("up")).is_err());
        assert!(place.dir.open_beneath_following(&rel("magic")).is_err());
    }
}

#[test]
fn trees_deeper_than_a_path_can_name_are_reached() {
    for place in places() {
        let component = "d".repeat(250);
        let mut path = RelPath::root();
        let mut deepest = place.dir.open_beneath(&path).unwrap();
        for _ in 0..40 {
            deepest.make_dir(&name(&component), 0o700).unwrap();
            deepest = deepest.open_child(&name(&component)).unwrap();
            path = path.join(&name(&component));
        }
        assert!(path.as_bytes().len() > 2 * 4096);
        deepest.make_symlink(b"x", &name("leaf")).unwrap();
        for reached in [place.dir.open_beneath(&path).unwrap(), place.dir.open_beneath_following(&path).unwrap()] {
            assert_eq!(reached.read_link(&name("leaf")).unwrap(), b"x");
        }
    }
}

#[test]
fn every_kind_is_made_and_told() {
    need_root();
    for place in places() {
        let dir = &place.dir;
        let kinds = [Kind::Block, Kind::Char, Kind::Fifo, Kind::Socket];
        for kind in kinds {
            dir.make_node(&name(&format!("{kind:?}")), kind, 0o640, (259, 70_000)).unwrap();
        }
        assert!(dir.make_node(&name("no"), Kind::Dir, 0o640, (0, 0)).is_err());
        dir.make_dir(&name("Dir"), 0o750).unwrap();
        dir.make_symlink(b"to\xffwhere", &name("Symlink")).unwrap();
        dir.create_file(&name("File"), 0o600).unwrap();
        let list = dir.list().unwrap();
        assert_eq!(list.len(), 7);
        for kind in Kind::ALL {
            let name = name(&format!("{kind:?}"));
            let metadata = dir.stat(&name).unwrap();
            assert_eq!(metadata.kind, kind);
            assert_eq!(metadata.rdev, if kind.is_device() { (259, 70_000) } else { (0, 0) });
            assert_eq!(metadata.dev, dir.metadata().unwrap().dev);
            let index = list.find(name.as_bytes()).unwrap();
            assert_eq!(list.get(index), (name.as_bytes(), Some(kind)));
            // Only the file opens; nothing hangs.
            assert_eq!(dir.open_file(&name).is_ok(), kind == Kind::File, "{kind:?}");
            assert_eq!(dir.open_file_write(&name).is_ok(), kind == Kind::File, "{kind:?}");
        }
        let link = dir.stat(&name("Symlink")).unwrap();
        assert_eq!((link.size, link.nlink), (8, 1));
        assert_eq!(dir.read_link(&name("Symlink")).unwrap(), b"to\xffwhere");
        assert!(dir.read_link(&name("File")).is_err());
    }
}

#[test]
fn renames_replace_or_do_not() {
    for place in places() {
        let dir = &place.dir;
        for (label, make) in [
            ("file", (&|name: &Name| drop(dir.create_file(name, 0o600).unwrap())) as &dyn Fn(&Name)),
            ("link", &|name: &Name| dir.make_symlink(b"nowhere", name).unwrap()),
            ("pipe", &|name: &Name| dir.make_node(name, Kind::Fifo, 0o600, (0, 0)).unwrap()),
            ("dir", &|name: &Name| dir.make_dir(name, 0o700).unwrap()),
        ] {
            let (from, to) = (name(&format!("{label}-1")), name(&format!("{label}-2")));
            make(&from);
            make(&to);
            let inode = dir.stat(&from).unwrap().ino;
            assert_eq!(errno(&dir.rename_noreplace(&from, dir, &to).unwrap_err()), Errno::EXIST);
            assert_eq!(dir.stat(&from).unwrap().ino, inode);
            dir.rename(&from, dir, &to).unwrap();
            dir.rename_noreplace(&to, dir, &from).unwrap();
            assert_eq!(dir.stat(&from).unwrap().ino, inode);
            assert!(dir.stat(&to).is_err());
        }
        assert_eq!(place.names(), ["dir-1", "file-1", "link-1", "pipe-1"]);
        dir.make_dir(&name("full"), 0o700).unwrap();
        dir.open_child(&name("full")).unwrap().create_file(&name("x"), 0o600).unwrap();
        for from in ["dir-1", "file-1"] {
            let refusal = dir.rename_noreplace(&name(from), dir, &name("full")).unwrap_err();
            assert_eq!(errno(&refusal), Errno::EXIST);
        }
        let inner = dir.open_child(&name("full")).unwrap();
        assert_eq!(errno(&dir.rename_noreplace(&name("full"), &inner, &name("y")).unwrap_err()), Errno::INVAL);
        assert_eq!(errno(&dir.rename_noreplace(&name("none"), dir, &name("y")).unwrap_err()), Errno::NOENT);
    }
}

#[test]
fn a_nameless_stage_gets_its_name() {
    for place in places() {
        for (replacing, text) in [(false, "new"), (false, "over"), (true, "named")] {
            let stage = Stage::create(&place.dir, replacing, 0o644).unwrap();
            write_all_at(stage.file(), text.as_bytes(), 0).unwrap();
            assert!(!std::fs::exists(place.path("f")).unwrap() || text != "new");
            stage.commit(&name("f")).unwrap();
            assert_eq!(std::fs::read_to_string(place.path("f")).unwrap(), text);
            assert_eq!(place.names(), ["f"]);
        }
    }
}

#[test]
fn content_is_copied_in_whatever_way() {
    for place in places() {
        let content: Vec<u8> = (0..3_000_001u32).map(|i| (i ^ (i >> 8)) as u8).collect();
        std::fs::write(place.path("a"), &content).unwrap();
        let source = place.dir.open_file(&name("a")).unwrap();
        for sparse in [false, true] {
            for (length, expected) in
                [(0, 0), (1, 1), (3_000_001, 3_000_001), (2_000_000, 2_000_000), (4_000_000, 3_000_001)]
            {
                let stage = Stage::create(&place.dir, false, 0o600).unwrap();
                let mut told = 0;
                let copied = copy_file_data(&source, stage.file(), length, sparse, &mut |bytes| {
                    told += bytes;
                    Ok(())
                });
                assert_eq!((copied.unwrap(), told), (expected, expected));
                stage.commit(&name("b")).unwrap();
                assert!(std::fs::read(place.path("b")).unwrap() == content[..expected as usize]);
            }
        }
    }
}

/// A module `top` with links of all sorts beside a `canary`, both in one directory.
fn module(place: &Place) -> Base {
    std::fs::create_dir_all(place.path("top/a/b")).unwrap();
    std::fs::create_dir_all(place.path("top/other")).unwrap();
    std::fs::create_dir(place.path("canary")).unwrap();
    std::fs::write(place.path("canary/f"), "canary").unwrap();
    std::fs::write(place.path("top/other/f"), "inside").unwrap();
    for (link, target) in [
        ("a/up-and-in", "../other".to_owned()),
        ("a/file-in", "../other/f".to_owned()),
        ("a/out", "../../canary".to_owned()),
        ("a/file-out", "../../canary/f".to_owned()),
        ("a/absolute", place.path("top/other").to_string_lossy().into_owned()),
        ("a/magic", "/proc/self/cwd".to_owned()),
        ("a/loop", "loop".to_owned()),
    ] {
        symlink(target, place.path("top").join(link)).unwrap();
    }
    Base::beneath(Dir::open(&place.path("top")).unwrap(), false, None)
}

#[test]
fn written_paths_stay_beneath_their_base() {
    for place in places() {
        let base = module(&place);
        let ino = |path: &str| Dir::open(&place.path(path)).unwrap().metadata().unwrap().ino;
        for (path, real) in [
            ("", "top"),
            ("/", "top"),
            (".", "top"),
            ("a/..", "top"),
            ("//a/./b//", "top/a/b"),
            ("/a/b/../../other/", "top/other"),
        ] {
            let dir = base.open_dir(path.as_bytes()).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!(dir.metadata().unwrap().ino, ino(real), "{path}");
            assert!(dir.list().is_ok());
            assert_eq!(
                base.path_of(&dir).unwrap(),
                real.strip_prefix("top").map(|rest| if rest.is_empty() { "/" } else { rest }).unwrap().as_bytes()
            );
        }
        let canary = place.path("canary").to_string_lossy().into_owned();
        for path in ["..", "/..", "a/../../canary", "a/out", "a/out/..", "a/absolute", "a/magic", "a/loop"] {
            assert!(base.open_dir(path.as_bytes()).is_err(), "{path}");
        }
        for path in ["..", "a/../../canary"] {
            assert!(is_confined(&base.open_dir(path.as_bytes()).unwrap_err()), "{path}");
        }
        // Beneath the top there is no such path.
        assert_eq!(base.open_dir(canary.as_bytes()).unwrap_err().kind(), std::io::ErrorKind::NotFound);
        assert_eq!(base.open_dir(b"none").unwrap_err().kind(), std::io::ErrorKind::NotFound);
        assert!(base.open_dir(b"a\0b").is_err());
        let top = base.open_dir(b"").unwrap();
        assert!(top.open_parent().is_err());
        assert_eq!(base.open_dir(b"a").unwrap().open_parent().unwrap().metadata().unwrap().ino, ino("top"));
    }
}

#[test]
fn followed_links_stay_beneath_their_base() {
    for place in places() {
        let base = module(&place);
        let direct = base.open_dir(b"/a").unwrap();
        let child = base.open_dir(b"").unwrap().open_child(&name("a")).unwrap();
        let beneath = base.open_dir(b"other").unwrap().open_parent().unwrap().open_beneath(&rel("a")).unwrap();
        for dir in [direct, child, beneath] {
            // Without openat2 no link is followed at all.
            match dir.open_child_following(&name("up-and-in")) {
                Ok(found) => {
                    assert!(found.open_file(&name("f")).is_ok());
                    assert!(found.open_parent().unwrap().open_parent().is_err());
                    assert_eq!(dir.stat_following(&name("file-in")).unwrap().size, 6);
                    let file = dir.open_file_following(&name("file-in")).unwrap();
                    assert_eq!(read_exact_or_eof_at(&file, &mut [0; 9], 0).unwrap(), 6);
                    for out in ["out", "file-out", "absolute"] {
                        assert!(is_confined(&dir.stat_following(&name(out)).unwrap_err()), "{out}");
                    }
                }
                Err(error) => assert!(is_confined(&error), "{error}"),
            }
            for out in ["out", "file-out", "absolute", "magic", "loop"] {
                assert!(dir.open_child_following(&name(out)).is_err(), "{out}");
                assert!(dir.open_file_following(&name(out)).is_err(), "{out}");
                assert!(dir.stat_following(&name(out)).is_err(), "{out}");
            }
            assert!(dir.open_child_following(&name("b")).is_ok());
        }
        let lax = Base::beneath(Dir::open(&place.path("top")).unwrap(), true, None);
        let dir = lax.open_dir(b"a").unwrap();
        assert!(dir.open_child_following(&name("out")).unwrap().open_file(&name("f")).is_ok());
        assert_eq!(dir.stat_following(&name("file-out")).unwrap().size, 6);
        assert!(dir.open_file_following(&name("file-out")).is_ok());
        assert!(lax.open_dir(b"a/out").is_err());
    }
}

#[test]
fn what_is_hidden_is_not_reached_by_another_name() {
    for place in places() {
        module(&place);
        let hides = |path: &RelPath, _is_dir: bool| path.as_bytes() == b"other";
        for links_lead_out in [false, true] {
            let top = Dir::open(&place.path("top")).unwrap();
            let base = Base::beneath(top, links_lead_out, Some(std::sync::Arc::new(hides)));
            for path in ["other", "a/../other", "a/up-and-in"] {
                assert!(is_confined(&base.open_dir(path.as_bytes()).unwrap_err()), "{path}");
            }
            let dir = base.open_dir(b"a").unwrap();
            assert!(is_confined(&dir.open_child_following(&name("up-and-in")).unwrap_err()));
            assert!(is_confined(&dir.open_file_following(&name("file-in")).unwrap_err()));
            assert!(dir.stat_following(&name("file-in")).is_err());
            let top = base.open_dir(b"/").unwrap();
            assert!(
                top.hides(&name("other"), true) && !top.hides(&name("a"), true) && !dir.hides(&name("other"), true)
            );
            assert!(top.open_child(&name("other")).unwrap().is_hidden());
            assert!(!dir.is_hidden());
        }
    }
}
