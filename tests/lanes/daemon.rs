//! `xfer://` addresses, as their users meet them.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::support::Temp;
use crate::support::daemon::{Daemon, User};
use crate::support::disk::{get, leftovers, put, there, walk};
use crate::support::fixture::{self, OLD};
use crate::support::judge::Judge;
use crate::support::run::{Call, sync, xfer};
use crate::support::sockets::connections;
use crate::support::ssh::{FakeShell, at};
use crate::support::tree::{self, Size};

/// `NAME=PATH,rw`.
fn module(name: &str, path: &Path, how: &str) -> String {
    fs::create_dir_all(path).unwrap();
    format!("{name}={},{how}", path.display())
}

/// Without attributes of the `trusted` namespace: a daemon has given up the privilege that they need.
fn without_trusted(root: &Path) {
    for path in walk(root).iter().map(|path| root.join(path)).chain([root.to_path_buf()]) {
        let _absent = rustix::fs::lremovexattr(&path, "trusted.test");
    }
}

#[test]
fn modules_are_written_read_and_verified_with_lanes() {
    let (temp, user) = (Temp::new(), User::new());
    let (src, held) = (temp.join("src"), temp.join("module"));
    let daemon = Daemon::start(&[module("data", &held, "rw")], &user);
    tree::random(&src, 5, Size { entries: 150, ..Size::SMALL });
    without_trusted(&src);
    fixture::big_file(&src.join("big"), 20 << 20, 5);
    for (pass, options) in
        [&["--lanes", "4"][..], &["--lanes", "1", "--no-W"], &["--transport", "shell", "-z"]].into_iter().enumerate()
    {
        let call = |args: [&str; 2]| {
            let all = sync(["-aHAX", "--numeric-ids", "--delete", "--accept-new"]).args(options).args(args);
            user.call(all).dir(temp.path())
        };
        call(["src/", &daemon.at("data")]).expect(0);
        Judge::strict().assert(&src, &held);
        let pulled = format!("pulled-{pass}");
        // With a slash or without, a module is its contents.
        call([&daemon.at(if pass == 0 { "data" } else { "data/" }), &pulled]).expect(0);
        Judge::strict().assert(&src, &temp.join(&pulled));
        let verify = |one: &str, two: &str| {
            user.call(xfer(["verify", "-HAX", "--numeric-ids", one, two])).dir(temp.path()).run()
        };
        verify("src/", &daemon.at("data")).expect(0);
        verify(&daemon.at("data"), &pulled).expect(0);
        put(held.join("more"), "x", OLD);
        verify("src/", &daemon.at("data")).expect(23);
        verify(&daemon.at("data"), &pulled).expect(23);
        tree::mutate(&src, 50 + pass as u64, Size::SMALL);
        without_trusted(&src);
        fixture::big_file(&src.join("big"), 19 << 20, 6);
    }
}

/// Paths within a module: directories below it, single files, parents that are missing, and what leads out.
#[test]
fn paths_within_a_module() {
    let (temp, user) = (Temp::new(), User::new());
    fixture::source(temp.path());
    put(temp.join("secret"), "outside", OLD);
    let daemon = Daemon::start(&[module("m", &temp.join("src"), "rw")], &user);
    let call = |args: [&str; 2]| user.call(sync(["-aH", "--accept-new"]).args(args)).dir(temp.path());
    call([&daemon.at("m/dir/"), "one"]).expect(0);
    Judge::strict().assert(&temp.join("src/dir"), &temp.join("one"));
    call([&daemon.at("m/dir"), "two/"]).expect(0);
    Judge::strict().assert(&temp.join("src/dir"), &temp.join("two/dir"));
    call([&daemon.at("m/a"), "renamed"]).expect(0);
    assert_eq!(get(temp.join("renamed")), b"content of a");
    call(["one/", &daemon.at("m/new")]).expect(0);
    Judge::strict().assert(&temp.join("one"), &temp.join("src/new"));
    // Verified where it is, not where the daemon's process is.
    let verify = |one: &str, two: &str| user.call(xfer(["verify", "-H", one, two])).dir(temp.path()).run();
    verify("one/", &daemon.at("m/new")).expect(0);
    put(temp.join("src/new/more"), "x", OLD);
    verify("one/", &daemon.at("m/new")).expect(23);
    assert!(call(["one/", &daemon.at("m/no/such/parent")]).run().code() != 0);
    for path in ["m/../secret", "m/dir/../../secret"] {
        let output = call([&daemon.at(path), "stolen"]).run();
        assert!(output.code() != 0 && !there(temp.join("stolen/secret")), "{}", output.describe());
        assert!(!fs::read(temp.join("stolen")).is_ok_and(|bytes| bytes == b"outside"));
    }
    let output = verify("one/", &daemon.at("m/../one"));
    assert!(output.code() != 0 && output.code() != 23, "it compared outside of the module: {}", output.describe());
    call([&daemon.at("m/none/"), "nothing"]).run().expect(23).says(&["none"]);
}

#[test]
fn hosts_are_believed_once_they_are_known() {
    let (temp, user) = (Temp::new(), User::new());
    fixture::source(temp.path());
    let modules = [module("m", &temp.join("module"), "rw")];
    let daemon = Daemon::start(&modules, &user);
    let address = daemon.at("m/");
    let call = |options: &[&str]| user.call(sync(["-aH"]).args(options).args(["src/", &address])).dir(temp.path());
    let nothing_came = || fs::read_dir(temp.join("module")).unwrap().count() == 0;

    call(&[]).under(["setsid", "-w"]).expect(1).says(&["is not known", "SHA256:", "--accept-new", "xfer key trust"]);
    assert!(nothing_came() && !user.file("known_hosts").exists());
    call(&["--accept-new"]).expect(0).says(&["stored the key"]);
    Judge::strict().assert(&temp.join("src"), &temp.join("module"));
    let known = get(user.file("known_hosts"));
    call(&[]).expect(0);

    fs::remove_dir_all(temp.join("module")).unwrap();
    fs::create_dir(temp.join("module")).unwrap();
    let daemon = daemon.with_another_key(&modules, &user);
    for options in [&[][..], &["--accept-new"]] {
        call(options).under(["setsid", "-w"]).expect(1).says(&["HAS CHANGED", "known_hosts line 1"]);
    }
    assert!(nothing_came() && get(user.file("known_hosts")) == known);
    // The daemon saw a connection that came to nothing, and no session.
    assert!(!daemon.log().contains("writes to module"), "{}", daemon.log());
}

#[test]
fn what_a_key_may_not_is_refused() {
    let (temp, user, stranger) = (Temp::new(), User::new(), User::new());
    fixture::source(temp.path());
    put(temp.join("module/kept"), "x", OLD);
    let daemon =
        Daemon::start(&[module("fixed", &temp.join("module"), "ro"), module("in", &temp.join("in"), "wo")], &user);
    let sync_of = |user: &User, from: &str, to: &str| -> Call {
        user.call(sync(["-a", "--delete", "--accept-new", from, to])).dir(temp.path())
    };
    sync_of(&user, "src/", &daemon.at("fixed/")).expect(1).says(&["read-only"]);
    sync_of(&user, &daemon.at("in/"), "out").expect(1).says(&["write-only"]);
    sync_of(&user, "src/", &daemon.at("none/")).expect(1).says(&["no module", "none"]);
    sync_of(&user, &daemon.at("fixed/"), "out").expect(0);
    Judge::strict().assert(&temp.join("module"), &temp.join("out"));
    let output = sync_of(&stranger, "src/", &daemon.at("in/")).run();
    assert!(output.code() == 1 && !output.stderr.is_empty(), "{}", output.describe());
    assert!(there(temp.join("module/kept")) && fs::read_dir(temp.join("in")).unwrap().count() == 0);
    assert!(daemon.log().contains("read-only"), "{}", daemon.log());

    let listed = user.call(sync([daemon.at("")])).expect(0).out();
    let words: Vec<&str> = listed.split_ascii_whitespace().collect();
    assert_eq!(words, ["fixed", "read-only", "in", "write-only"]);
    assert!(!user.call(sync(["-r", &daemon.at("fixed/")])).expect(0).out().is_empty());
}

/// Content of both lies with daemons: it passes through the client, in whatever combination.
#[test]
fn between_daemons_and_shells() {
    let (temp, user) = (Temp::new(), User::new());
    tree::random(&temp.join("one"), 9, Size { entries: 100, ..Size::SMALL });
    without_trusted(&temp.join("one"));
    fixture::big_file(&temp.join("one/big"), 8 << 20, 9);
    let from = Daemon::start(&[module("one", &temp.join("one"), "ro")], &user);
    let to = Daemon::start(&[module("two", &temp.join("two"), "rw")], &user);
    let shell = FakeShell::new();
    let call =
        |options: &[&str]| user.call(sync(["-aHAX", "--numeric-ids", "--delete"]).args(options)).dir(temp.path());
    for options in [&["--accept-new", "--lanes", "4"][..], &["--transport", "shell"]] {
        call(options).args([from.at("one"), to.at("two")]).expect(0);
        Judge::strict().assert(&temp.join("one"), &temp.join("two"));
        user.call(xfer(["verify", "-HAX", "--numeric-ids", &from.at("one"), &to.at("two")])).expect(0);
        tree::mutate(&temp.join("one"), 10, Size::SMALL);
        without_trusted(&temp.join("one"));
    }
    call(&[]).args(shell.args()).args([from.at("one").into(), at("127.0.0.1", &temp.join("three"))]).expect(0);
    Judge::strict().assert(&temp.join("one"), &temp.join("three"));
    call(&[])
        .args(shell.args())
        .args([crate::contents("127.0.0.1", &temp.join("three")), to.at("two").into()])
        .expect(0);
    Judge::strict().assert(&temp.join("one"), &temp.join("two"));
}

/// Lanes of a daemon come through its one port; who interrupts or dies leaves old files behind and no session.
#[test]
fn lanes_of_a_daemon_end_with_their_client() {
    let (temp, user) = (Temp::new(), User::new());
    fixture::big_file(&temp.join("src/big"), 24 << 20, 1);
    put(temp.join("module/big"), "the old one", OLD);
    let daemon = Daemon::start(&[module("m", &temp.join("module"), "rw")], &user);
    let options = ["-a", "--accept-new", "--lanes", "4", "--bwlimit=4M", "--transport", "direct"];
    for (signal, code) in [(Signal::INT, 130), (Signal::KILL, 128 + 9)] {
        let call = user.call(sync(options).args(["src/", &daemon.at("m/")])).dir(temp.path());
        let mut running = call.spawn();
        let near = running.pid();
        running.until("lanes", || connections(near).len() == 5);
        assert!(connections(near).iter().all(|lane| lane.remote_port == daemon.port()));
        running.signal(signal);
        running.wait().expect(code);
        let workers = || crate::support::run::family(daemon.pid()).len() - 1;
        crate::support::sockets::wait_until("the session's end", || workers() == 0);
        assert_eq!(get(temp.join("module/big")), b"the old one");
    }
    user.call(sync(["-a", "--delete", "src/", &daemon.at("m/")])).dir(temp.path()).expect(0);
    Judge::strict().assert(&temp.join("src"), &temp.join("module"));
    assert_eq!(leftovers(&temp.join("module")), Vec::<std::path::PathBuf>::new());
    crate::support::sockets::wait_until("three ends in the log", || {
        daemon.log().matches(" ended in module").count() == 3
    });
}
