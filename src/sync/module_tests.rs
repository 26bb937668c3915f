//! Sessions within a module: both ends in it, beside a canary that nothing leads to.
#![allow(clippy::disallowed_methods, reason = "tests build trees")]

use std::fs::{self, create_dir_all, read, write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;

use super::clock::Stopwatch;
use super::session::Session;
use super::verify::VerifyMode;
use super::{StopFlag, SyncError, local, module_base};
use crate::fs::Dir;
use crate::model::Stats;
use crate::monitor::Recorder;
use crate::plan::filter::FilterRules;
use crate::plan::module::{ModulePolicy, ModuleRole};
use crate::plan::options::{AltDestKind, AltDests, Backup, LinkPolicy, Preserve, Recursion, SyncOptions};

/// A module's directory and a canary beside it.
struct Place {
    temp: tempfile::TempDir,
    policy: ModulePolicy,
}

struct Ran {
    result: Result<(), SyncError>,
    recorder: Arc<Recorder>,
    stats: Stats,
}

impl Ran {
    /// Everything that was told, in words.
    fn told(&self) -> String {
        let error = self.result.as_ref().err().map(|error| {
            let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            format!("{error}: {source}\n")
        });
        format!("{}{:?}", error.unwrap_or_default(), self.recorder.events())
    }
}

impl Place {
    fn new() -> Place {
        let temp = tempfile::tempdir().unwrap();
        create_dir_all(temp.path().join("mod/src/sub")).unwrap();
        create_dir_all(temp.path().join("canary/sub")).unwrap();
        for (path, content) in [
            ("mod/src/a", "a"),
            ("mod/src/sub/b", "b"),
            ("mod/outer", "of the module"),
            ("canary/f", "canary"),
            ("canary/sub/f", "canary"),
        ] {
            write(temp.path().join(path), content).unwrap();
        }
        Place { temp, policy: ModulePolicy { may_read: true, may_write: true, ..ModulePolicy::default() } }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.temp.path().join("mod").join(path)
    }

    fn exclude(&mut self, rules: &[&str]) {
        let mut filters = FilterRules::new();
        for rule in rules {
            filters.push_exclude(rule.as_bytes()).unwrap();
        }
        self.policy.filters = filters;
    }

    fn session(&self, role: ModuleRole, options: SyncOptions, recorder: &Arc<Recorder>) -> Session {
        let monitor = Arc::clone(recorder) as Arc<dyn crate::monitor::Monitor>;
        let options = self.policy.effective(options, role).unwrap();
        let mut session = Session::build(options, monitor, StopFlag::new());
        session.base = module_base(Dir::open(&self.path("")).unwrap(), &self.policy, role).unwrap();
        session
    }

    fn run(&self, role: ModuleRole, sources: &[&str], destination: &str, options: SyncOptions) -> Ran {
        let recorder = Arc::new(Recorder::new());
        let session = Arc::new(self.session(role, options, &recorder));
        let sources: Vec<Vec<u8>> = sources.iter().map(|source| source.as_bytes().to_vec()).collect();
        let ended = local::run(&session, &sources, destination.as_bytes(), &Stopwatch::start());
        let result = ended.and(session.take_error().map_or(Ok(()), Err));
        Ran { result, recorder, stats: session.stats() }
    }

    fn canary(&self) -> Vec<(i64, i64, u64, u64, Vec<u8>)> {
        let canary = self.temp.path().join("canary");
        let tell = |path: &str| {
            let path = canary.join(path);
            let m = fs::symlink_metadata(&path).unwrap();
            let content = if m.is_file() { read(&path).unwrap() } else { Vec::new() };
            (m.ctime(), m.ctime_nsec(), m.nlink(), m.ino(), content)
        };
        assert_eq!(fs::read_dir(&canary).unwrap().count() + fs::read_dir(canary.join("sub")).unwrap().count(), 3);
        ["", "f", "sub", "sub/f"].map(tell).into()
    }
}

fn archive() -> SyncOptions {
    SyncOptions {
        recursion: Recursion::Deep,
        links: LinkPolicy { copy_as_links: true, ..LinkPolicy::default() },
        preserve: Preserve { perms: true, times: true, ..Preserve::default() },
        implied_dirs: true,
        ..SyncOptions::default()
    }
}

#[test]
fn the_root_of_all_paths_is_the_modules() {
    let place = Place::new();
    for (source, destination) in
        [("src/", "dst1"), ("/src/", "/dst2"), ("src/sub/../", "src/../dst3/"), ("//src/.", "./dst4")]
    {
        let ran = place.run(ModuleRole::Sender, &[source], destination, archive());
        assert!(ran.result.is_ok() && ran.recorder.problems().is_empty(), "{source}: {}", ran.told());
    }
    for number in 1..=4 {
        assert_eq!(read(place.path(&format!("dst{number}/sub/b"))).unwrap(), b"b");
    }
    let relative = SyncOptions { relative: true, ..archive() };
    assert!(place.run(ModuleRole::Sender, &["/src/./sub/b", "outer"], "dst5", relative).result.is_ok());
    assert_eq!(read(place.path("dst5/sub/b")).unwrap(), b"b");
    assert_eq!(read(place.path("dst5/outer")).unwrap(), b"of the module");
}

#[test]
fn no_path_that_a_client_writes_leads_out() {
    let place = Place::new();
    let absolute = place.temp.path().join("canary").to_string_lossy().into_owned();
    symlink("../canary", place.path("out")).unwrap();
    symlink(&absolute, place.path("absolute")).unwrap();
    symlink("/", place.path("slash")).unwrap();
    let canary = place.canary();
    let outside =
        ["../canary", "out", "absolute", "src/../../canary", "/..", "out/sub", &format!("slash{absolute}")[..]];
    for path in outside.into_iter().chain([&absolute[..]]) {
        let with_slash = format!("{path}/");
        // As a source: nothing of it arrives.
        let ran = place.run(ModuleRole::Sender, &[&with_slash], "got", SyncOptions { mkpath: true, ..archive() });
        assert!(!ran.recorder.problems().is_empty() || ran.result.is_err(), "{path}: {}", ran.told());
        assert!(!place.path("got/f").exists(), "{path}");
        let listed =
            SyncOptions { files_from: Some(vec![b"f".to_vec(), b"sub/f".to_vec()]), relative: true, ..archive() };
        place.run(ModuleRole::Sender, &[path], "got", listed.clone());
        place.run(ModuleRole::Sender, &[path], "got", SyncOptions { relative: false, ..listed });
        let up = SyncOptions { files_from: Some(vec![format!("{path}/f").into_bytes()]), ..archive() };
        place.run(ModuleRole::Sender, &["/"], "got", up);
        assert!(!place.path("got/f").exists(), "{path}");
        assert!(!place.path("got/sub").exists(), "{path}");
        if path == absolute {
            // A name like any other, beneath the module: it may be made.
            continue;
        }
        // As a destination, and as each directory that an option names.
        for mkpath in [false, true] {
            let options = SyncOptions { mkpath, ..archive() };
            let ran = place.run(ModuleRole::Receiver, &["src/"], &format!("{path}/new"), options.clone());
            assert!(ran.result.is_err(), "{path}: {}", ran.told());
            let mut delete = options;
            delete.deletion.enabled = true;
            assert!(place.run(ModuleRole::Receiver, &["src/"], path, delete).result.is_err(), "{path}");
            assert!(place.run(ModuleRole::Receiver, &["src/a"], &format!("{path}/f"), archive()).result.is_err());
        }
        for from_dst in [format!("/{path}"), format!("../{path}")] {
            create_dir_all(place.path("dst")).unwrap();
            write(place.path("dst/a"), "older").unwrap();
            let backup = Some(Backup { dir: Some(from_dst.clone().into_bytes()), suffix: b"~".to_vec() });
            let ran = place.run(ModuleRole::Receiver, &["src/"], "dst", SyncOptions { backup, ..archive() });
            assert_eq!(read(place.path("dst/a")).unwrap(), b"older", "{path}: {}", ran.told());
            fs::remove_dir_all(place.path("dst")).unwrap();
            write(place.temp.path().join("canary/a"), "a").unwrap();
            let alt = AltDests { kind: AltDestKind::Link, dirs: vec![from_dst.into_bytes()] };
            let options = SyncOptions {
                alt_dests: Some(alt),
                quick_check: crate::plan::options::QuickCheck::SizeOnly,
                preserve: Preserve::default(),
                ..archive()
            };
            place.run(ModuleRole::Receiver, &["src/"], "dst", options);
            assert_eq!(fs::metadata(place.path("dst/a")).unwrap().nlink(), 1, "{path}");
            fs::remove_file(place.temp.path().join("canary/a")).unwrap();
        }
    }
    let now = place.canary();
    assert_eq!(now[1..], canary[1..]);
}

#[test]
fn followed_links_stay_in_the_module_unless_it_says_otherwise() {
    let mut place = Place::new();
    for (link, target) in
        [("in", "../outer"), ("dir-in", "../other"), ("out", "../../canary/f"), ("dir-out", "../../canary")]
    {
        symlink(target, place.path("src").join(link)).unwrap();
    }
    symlink(place.path("outer"), place.path("src/absolute")).unwrap();
    create_dir_all(place.path("other/deep")).unwrap();
    write(place.path("other/deep/f"), "deep").unwrap();
    symlink("../../src/a", place.path("other/deep/back")).unwrap();
    let follow = [
        LinkPolicy { follow_all: true, ..archive().links },
        LinkPolicy { follow_dirs: true, ..archive().links },
        LinkPolicy { follow_unsafe: true, ..archive().links },
    ];
    for outside in [false, true] {
        place.policy.copy_links_outside = outside;
        for (number, links) in follow.into_iter().enumerate() {
            let dst = format!("dst-{outside}-{number}");
            let ran = place.run(ModuleRole::Sender, &["src/"], &dst, SyncOptions { links, ..archive() });
            let got = |path: &str| {
                read(place.path(&dst).join(path)).ok().filter(|_| {
                    let here = fs::symlink_metadata(place.path(&dst).join(path));
                    here.is_ok_and(|metadata| metadata.is_file())
                })
            };
            assert_eq!(got("dir-in/deep/f").as_deref(), Some(&b"deep"[..]), "{number}: {}", ran.told());
            let out = ["out", "dir-out/f", "dir-out/sub/f"].map(|path| got(path).is_some());
            if outside {
                assert_eq!(out, [number != 1, true, true], "{number}");
                assert!(ran.recorder.problems().is_empty(), "{}", ran.told());
            } else {
                assert_eq!(out, [false; 3], "{number}");
                let told = ran.told();
                assert!(told.contains("leads out of the module"), "{told}");
                let about =
                    |name: &str| ran.recorder.problems().iter().filter(|p| p.path.ends_with(name.as_bytes())).count();
                assert_eq!((about("/out"), about("/dir-out"), about("/absolute")), (1, 1, 1), "{number}: {told}");
                assert_eq!(ran.stats.source_problems, 3);
            }
            if number == 0 {
                assert_eq!(got("in").as_deref(), Some(&b"of the module"[..]));
                assert_eq!(got("dir-in/deep/back").as_deref(), Some(&b"a"[..]));
            }
        }
    }
}

#[test]
fn what_the_owner_excludes_is_not_sent_by_any_name() {
    let mut place = Place::new();
    create_dir_all(place.path("private/deep")).unwrap();
    write(place.path("private/deep/f"), "secret").unwrap();
    write(place.path("src/x.key"), "secret").unwrap();
    symlink("../private", place.path("src/alias")).unwrap();
    symlink("../private/deep/f", place.path("src/file-alias")).unwrap();
    symlink("x.key", place.path("src/key-alias")).unwrap();
    place.exclude(&["/private/", "*.key"]);
    let follow = SyncOptions { links: LinkPolicy { follow_all: true, ..archive().links }, ..archive() };
    let mut follow = follow;
    // Where the copies go is in the module too.
    follow.filters.push_exclude(b"/.tmp*").unwrap();
    let mut including = follow.clone();
    including.filters.push_include(b"**").unwrap();
    let listed = SyncOptions {
        files_from: Some(
            ["private/deep/f", "src/x.key", "src/alias/deep/f"].map(|path| path.as_bytes().to_vec()).into(),
        ),
        relative: true,
        ..follow.clone()
    };
    for outside in [false, true] {
        place.policy.copy_links_outside = outside;
        for (sources, options) in [
            (&["/"][..], &follow),
            (&["src/", "/"], &including),
            (&["private/"], &follow),
            (&["private/deep/f"], &follow),
            (&["private/deep/"], &follow),
            (&["src/alias/", "src/alias/deep/f", "src/x.key", "src/key-alias"], &including),
            (&["/"], &listed),
            (&["src/"], &SyncOptions { relative: false, ..listed.clone() }),
            (&["/./private/deep/f"], &SyncOptions { relative: true, ..including.clone() }),
        ] {
            let got = tempfile::tempdir_in(place.path("")).unwrap();
            let dst = got.path().file_name().unwrap().to_string_lossy().into_owned();
            let ran = place.run(ModuleRole::Sender, sources, &dst, options.clone());
            let found = std::process::Command::new("grep").args(["-rl", "secret"]).arg(got.path()).output().unwrap();
            assert!(found.stdout.is_empty(), "{sources:?}: {:?} {}", found, ran.told());
        }
    }
}

#[test]
fn what_the_owner_excludes_is_neither_overwritten_nor_deleted() {
    let mut place = Place::new();
    for path in ["dst/x.key", "dst/gone/y.key", "dst/gone/z", "dst/private/f", "dst/a", "dst/b"] {
        create_dir_all(place.path(path).parent().unwrap()).unwrap();
        write(place.path(path), "kept").unwrap();
    }
    create_dir_all(place.path("src/private")).unwrap();
    write(place.path("src/private/f"), "overwritten").unwrap();
    write(place.path("src/x.key"), "overwritten").unwrap();
    write(place.path("src/new.key"), "overwritten").unwrap();
    write(place.path("src/x"), "newer").unwrap();
    write(place.path("dst/x"), "old").unwrap();
    symlink("private", place.path("dst/alias")).unwrap();
    create_dir_all(place.path("src/alias")).unwrap();
    write(place.path("src/alias/f"), "overwritten").unwrap();
    place.exclude(&["/dst/private/", "/dst/**.key"]);
    let mut options = archive();
    options.deletion.enabled = true;
    options.deletion.excluded_too = true;
    options.deletion.ignore_errors = true;
    options.links.keep_dir_links = true;
    options.partial_dir = Some(b"private".to_vec());
    options.partial = true;
    options.backup = Some(Backup { dir: None, suffix: b".key".to_vec() });
    let ran = place.run(ModuleRole::Receiver, &["src/"], "dst", options.clone());
    for path in ["dst/x.key", "dst/gone/y.key", "dst/private/f"] {
        assert_eq!(read(place.path(path)).unwrap(), b"kept", "{path}: {}", ran.told());
    }
    assert!(!place.path("dst/new.key").exists());
    assert_eq!(read(place.path("dst/x")).unwrap(), b"old", "its backup would be a name that does not exist");
    assert!(ran.told().contains("the module excludes it"));
    options.backup = None;
    let ran = place.run(ModuleRole::Receiver, &["src/"], "dst", options.clone());
    assert_eq!(read(place.path("dst/x")).unwrap(), b"newer", "{}", ran.told());
    assert!(!place.path("dst/b").exists() && !place.path("dst/gone/z").exists());
    for destination in ["dst/private", "dst/private/deeper", "dst/alias", "dst/x.key"] {
        let options = SyncOptions { mkpath: true, ..options.clone() };
        let sources = if destination == "dst/x.key" { ["src/a"] } else { ["src/"] };
        let ran = place.run(ModuleRole::Receiver, &sources, destination, options);
        assert!(ran.result.is_err() || !ran.recorder.problems().is_empty(), "{destination}");
        assert_eq!(fs::read_dir(place.path("dst/private")).unwrap().count(), 1, "{destination}");
    }
    for path in ["dst/x.key", "dst/gone/y.key", "dst/private/f"] {
        assert_eq!(read(place.path(path)).unwrap(), b"kept", "{path}");
    }
}

#[test]
fn a_comparison_knows_the_modules_rules_and_bounds() {
    let mut place = Place::new();
    create_dir_all(place.path("dst/sub")).unwrap();
    for (path, content) in [("dst/a", "a"), ("dst/sub/b", "b"), ("dst/x.key", "k")] {
        write(place.path(path), content).unwrap();
    }
    let compare = |place: &Place, destination: &str| {
        let recorder = Arc::new(Recorder::new());
        let options = SyncOptions { recursion: Recursion::Deep, ..SyncOptions::default() };
        let mut session = place.session(ModuleRole::Verifier, options, &recorder);
        session.verify = Some(VerifyMode { content_only: true });
        let session = Arc::new(session);
        let destination = Some(destination.as_bytes());
        let ended = super::verify::local_run(&session, &[b"src/".to_vec()], destination, &Stopwatch::start());
        ended.map(|_| session.stats().differs)
    };
    assert_eq!(compare(&place, "dst").unwrap(), 1);
    place.exclude(&["*.key"]);
    assert_eq!(compare(&place, "dst").unwrap(), 0);
    for outside in ["..", "../canary", "/../canary"] {
        assert!(compare(&place, outside).is_err(), "{outside}");
    }
}
