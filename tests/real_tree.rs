//! Real trees: the Rust toolchain and `/usr`, with everything they hold, here and through a real sshd.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests stand outside the rooms")]

mod support;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::judge::{Judge, rsync_finds_nothing};
use support::run::{is_rsync, sync, xfer};
use support::ssh::{Sshd, at};
use support::{Temp, need_root};

const LIMIT: Duration = Duration::from_secs(900);

fn toolchain() -> PathBuf {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
    assert!(output.status.success(), "this test needs rustc");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

fn slash(path: &Path) -> OsString {
    let mut path = path.as_os_str().to_owned();
    path.push("/");
    path
}

/// Copies `source` here, pushes it, pulls it; after each, three judges agree that both are equal.
fn everywhere(source: &Path) {
    need_root("owners and set-ID bits of a real tree");
    let temp = Temp::new();
    let sshd = Sshd::start();
    let flags = ["-aHAX", "--numeric-ids"];
    let copy = temp.join("copy");
    sync(flags).args([slash(source).as_os_str(), copy.as_os_str()]).limit(LIMIT).expect(0);
    agreed(source, &copy, None);
    std::fs::remove_dir_all(&copy).unwrap();
    let pushed = temp.join("pushed");
    sync(flags).args(sshd.args()).args([slash(source), at("there", &pushed)]).limit(LIMIT).expect(0);
    agreed(source, &pushed, Some(&sshd));
    let pulled = temp.join("pulled");
    sync(flags)
        .args(sshd.args())
        .args([at("there", Path::new(&slash(&pushed))), pulled.clone().into()])
        .limit(LIMIT)
        .expect(0);
    agreed(&pushed, &pulled, None);
    // Nothing to do is nothing done.
    let output = sync(["-aHAXi", "--numeric-ids", "--delete"])
        .args([slash(source).as_os_str(), pulled.as_os_str()])
        .limit(LIMIT)
        .expect(0);
    assert!(output.stdout.is_empty(), "{}", output.describe());
}

fn agreed(source: &Path, destination: &Path, sshd: Option<&Sshd>) {
    Judge::strict().assert(source, destination);
    rsync_finds_nothing(source, destination, &["--numeric-ids"]);
    if is_rsync() {
        return;
    }
    let verify = match sshd {
        Some(sshd) => {
            xfer(["verify", "-aHAX", "--numeric-ids"]).args(sshd.args()).args([slash(source), at("there", destination)])
        }
        None => xfer(["verify", "-aHAX", "--numeric-ids"]).args([slash(source).as_os_str(), destination.as_os_str()]),
    };
    verify.limit(LIMIT).expect(0);
}

#[test]
fn the_rust_toolchain() {
    everywhere(&toolchain());
}

#[test]
fn usr() {
    everywhere(Path::new("/usr"));
}

/// What verify finds is named, and makes the code 23.
#[test]
fn verify_names_every_difference() {
    if is_rsync() {
        return;
    }
    use support::disk::{chmod, put, set_mtime};
    use support::fixture::{self, OLD};
    let temp = Temp::new();
    fixture::source(temp.path());
    sync(["-aHAX", "src/", "dst"]).dir(temp.path()).expect(0);
    let dst = temp.join("dst");
    xfer(["verify", "-aHAX", "src/", "dst"]).dir(temp.path()).expect(0);
    // Same length and mtime, other content: what only a digest finds.
    put(dst.join("dir/c"), "C".repeat(5000), OLD + 2);
    chmod(&dst.join("a"), 0o600);
    std::fs::remove_file(dst.join("link")).unwrap();
    std::fs::write(dst.join("extra"), "x").unwrap();
    set_mtime(&dst.join("b.log"), OLD + 99, 0);
    for command in [&["verify", "-aHAX"][..], &["verify", "-aHAX", "--json"]] {
        let output = xfer(command).args(["src/", "dst"]).dir(temp.path()).expect(23);
        let told = output.out() + &output.err();
        for name in ["dir/c", "a", "link", "extra", "b.log"] {
            assert!(told.contains(name), "{name} is not named\n{}", output.describe());
        }
    }
    let output = xfer(["verify", "-aHAX", "--content-only", "src/", "dst"]).dir(temp.path()).expect(23);
    let told = output.out() + &output.err();
    assert!(told.contains("dir/c") && !told.contains("b.log"), "{}", output.describe());
}

/// One digest of a tree, which both sides can compute alone.
#[test]
fn verify_prints_one_digest_of_a_tree() {
    if is_rsync() {
        return;
    }
    let temp = Temp::new();
    support::fixture::source(temp.path());
    sync(["-aHAX", "src/", "dst"]).dir(temp.path()).expect(0);
    let digest = |tree: &str| xfer(["verify", tree]).dir(temp.path()).expect(0).out();
    let hex =
        |text: &str| text.split(|c: char| !c.is_ascii_hexdigit()).find(|word| word.len() >= 32).map(str::to_owned);
    let (one, two) = (hex(&digest("src")), hex(&digest("dst")));
    assert!(one.is_some() && one == two, "{one:?} {two:?}");
    std::fs::write(temp.join("dst/a"), "other").unwrap();
    assert_ne!(hex(&digest("dst")), one);
}
