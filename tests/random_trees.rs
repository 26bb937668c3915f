//! Random trees under random options: synced, judged, edited, synced again; and twins of rsync's own result.
//!
//! A failure names its seeds. `XFER_TEST_SEED=N cargo test --test random_trees` runs one again, `XFER_TEST_KEEP=1`
//! keeps its trees, `XFER_TEST_PAIRS=N` runs more or fewer.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests stand outside the rooms")]

mod support;

use std::ffi::OsString;
use std::path::Path;

use support::judge::Judge;
use support::options;
use support::rng::Rng;
use support::run::{Output, is_rsync, rsync, sync};
use support::tree::{self, Size};
use support::{Temp, for_seeds, need_root};

/// Trees, edits and options that must hold, at the least.
const PAIRS: u64 = 2000;
const TWINS: u64 = 320;

#[test]
fn destinations_equal_their_sources() {
    need_root("owners, devices and trusted attributes");
    for_seeds(1, count(PAIRS), pair);
}

#[test]
fn destinations_equal_those_of_rsync() {
    need_root("owners, devices and trusted attributes");
    for_seeds(1_000_000, count(TWINS), twin);
}

/// Through a far end of its own, so that listings, contents and metadata all cross the wire.
#[test]
fn destinations_equal_their_sources_over_a_remote_shell() {
    need_root("owners, devices and trusted attributes");
    let shell = support::ssh::FakeShell::new();
    for_seeds(2_000_000, count(300), |seed| {
        let push = seed % 2 == 0;
        pair_by(seed, |source, destination, args| {
            let far = |path: &Path| support::ssh::at("host", path);
            let ends: [OsString; 2] =
                if push { [source.into(), far(destination)] } else { [far(source), destination.into()] };
            sync(args).args(shell.args()).args(ends).run()
        })
    });
}

fn count(least: u64) -> u64 {
    std::env::var("XFER_TEST_PAIRS").ok().map_or(least, |text| text.parse().unwrap())
}

fn pair(seed: u64) -> Result<(), String> {
    pair_by(seed, |source, destination, args| sync(args).args([source, destination]).run())
}

fn pair_by(seed: u64, run: impl Fn(&Path, &Path, &[OsString]) -> Output) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let temp = Temp::new();
    let mut size = if rng.chance(80) { Size::TINY } else { Size::SMALL };
    size.beyond_rsync = !is_rsync();
    let choice = options::faithful(&mut rng);
    let (source, destination) = (temp.join("source"), temp.join("destination"));
    tree::random(&source, seed, size);
    if choice.deletes && !choice.excludes && rng.chance(40) {
        // The destination begins as an older state of the source that went its own way.
        tree::random(&destination, seed, size);
        tree::mutate(&destination, seed ^ 1, size);
    } else {
        std::fs::create_dir(&destination).unwrap();
    }
    let mut with_slash = source.clone().into_os_string();
    with_slash.push("/");
    for pass in 0..3 {
        let output = run(Path::new(&with_slash), &destination, &choice.args);
        let tell = |what: String| format!("pass {pass}: {what}\n{}", output.describe());
        if output.code() != 0 {
            return Err(tell("exit code".into()));
        }
        choice.judge.check(&source, &destination).map_err(&tell)?;
        if choice.settles {
            let mut again = choice.args.clone();
            again.retain(|arg| arg != "-vv" && arg != "--stats" && arg != "-q" && arg != "-i");
            again.push("-ni".into());
            let idle = run(Path::new(&with_slash), &destination, &again);
            if idle.code() != 0 || idle.out().lines().any(|line| !line.starts_with("skipping ")) {
                return Err(format!("pass {pass}: a further run is not idle\n{}", idle.describe()));
            }
        }
        if pass < 2 {
            tree::mutate(&source, seed.wrapping_mul(31) + pass, size);
        }
    }
    Ok(())
}

fn twin(seed: u64) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let temp = Temp::new();
    let mut size = if rng.chance(60) { Size::TINY } else { Size::SMALL };
    // A stage's name at the destination that the source does not list is swept by xfer and kept by rsync.
    size.stage_names = false;
    size.beyond_rsync = false;
    let source = temp.join("source");
    tree::random(&source, seed, size);
    let choice = options::like_rsync(&mut rng, &source);
    let dirs = [temp.join("ours"), temp.join("theirs")];
    let grown = rng.chance(70);
    for dir in &dirs {
        let dst = dir.join("dst");
        std::fs::create_dir_all(&dst).unwrap();
        if grown {
            tree::random(&dst, seed, size);
            tree::mutate(&dst, seed ^ 1, size);
            tree::mutate(&dst, seed ^ 2, size);
        } else {
            support::disk::set_mtime(&dst, 1_550_000_000, 0);
        }
    }
    Judge { root: false, ..Judge::strict() }
        .check(&dirs[0], &dirs[1])
        .map_err(|text| format!("twins differ from birth: {text}"))?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let own: &[&str] = if is_rsync() { &[] } else { &["--allow-empty-source"] };
    // A relative path may not climb; the marker says where it begins.
    let source = if choice.args.iter().any(|arg| arg == "-R") { "../source/./" } else { "../source/" };
    let ours = sync(own).args(&choice.args).args([source, "dst/"]).dir(&dirs[0]).run();
    let theirs = rsync(["--modify-window=-1"]).args(&choice.args).args([source, "dst/"]).dir(&dirs[1]).run();
    let tell = |what: String| format!("{what}\nours: {}\nrsync: {}", ours.describe(), theirs.describe());
    if ours.code() != theirs.code() {
        return Err(tell("exit codes differ".into()));
    }
    let judge = Judge { now_from: Some(now - 1), root: false, ..choice.judge };
    judge.check(&dirs[1], &dirs[0]).map_err(tell)
}
