//! `xfer key` through the binary: its files, their modes, and what it says.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests stand outside the rooms")]

mod support;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::run::{Call, binary, only_xfer, xfer};
use support::{Temp, need};
use xfer::net::{Identity, LaneListener, PeerKey, tls_accept};

/// A user of their own, with nothing configured.
struct Home(Temp);

impl Home {
    fn new() -> Home {
        Home(Temp::new())
    }

    fn key(&self, args: &[&str]) -> Call {
        self.of(xfer(["key"]).args(args))
    }

    fn of(&self, call: Call) -> Call {
        call.env("HOME", self.0.join("home")).env("XDG_CONFIG_HOME", self.0.join("config"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join("config/xfer").join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }

    /// Makes a pair and returns the line that `key show` prints.
    fn shown(&self) -> String {
        self.key(&["new", "--comment", "a test"]).expect(0);
        self.key(&["show"]).expect(0).out().trim_end().to_owned()
    }
}

/// A daemon that shakes hands once and hangs up.
fn daemon() -> (u16, Identity, JoinHandle<()>) {
    let listener = LaneListener::bind(None, Some([127, 0, 0, 1].into())).unwrap();
    let identity = Identity::generate().unwrap();
    let (port, ours) = (listener.port(), identity.clone());
    let serving = std::thread::spawn(move || {
        let (deadline, stop) = (Instant::now() + Duration::from_secs(30), AtomicBool::new(false));
        let (mut stream, _) = listener.accept(deadline, &stop).unwrap();
        stream.set_nonblocking(false).unwrap();
        let mut preamble = [0; 24];
        stream.read_exact(&mut preamble).unwrap();
        assert_eq!(preamble[8..], [0; 16], "a new session");
        // Whether the client goes on is its own matter.
        let _ = tls_accept(stream, &ours, PeerKey::Any, deadline, &stop);
    });
    (port, identity, serving)
}

#[test]
fn a_pair_is_made_shown_and_never_overwritten_by_accident() {
    if only_xfer("keys of its own") {
        return;
    }
    let home = Home::new();
    home.key(&["show"]).expect(1).says(&["xfer key new"]);
    let made = home.key(&["new", "--comment", "a test"]).expect(0);
    let line = home.key(&["show"]).expect(0).out();
    assert!(line.starts_with("xfer-ed25519 ") && line.ends_with(" a test\n"), "{line}");
    assert_eq!(line, home.text("identity.pub"));
    let fingerprint = home.key(&["show", "--fingerprint"]).expect(0).out();
    assert!(fingerprint.starts_with("SHA256:") && made.out().contains(&fingerprint), "{fingerprint}");
    let mode = |name: &str| fs::metadata(home.file(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(""), mode("identity"), mode("identity.pub")), (0o700, 0o600, 0o644));

    home.key(&["new"]).expect(1).says(&["exists already", "--force"]);
    assert_eq!(home.key(&["show"]).expect(0).out(), line);
    home.key(&["new", "--force"]).expect(0);
    assert_ne!(home.key(&["show"]).expect(0).out(), line);

    fs::set_permissions(home.file("identity"), fs::Permissions::from_mode(0o640)).unwrap();
    home.key(&["show"]).expect(1).says(&["0640", "chmod 600"]);
}

#[test]
fn the_configuration_is_where_xdg_says_or_beneath_home() {
    if only_xfer("keys of its own") {
        return;
    }
    let home = Home::new();
    home.key(&["new"]).env("XDG_CONFIG_HOME", "").expect(0);
    assert!(home.0.join("home/.config/xfer/identity").is_file());
    home.key(&["new"]).env("XDG_CONFIG_HOME", "relative").expect(1).says(&["home/.config/xfer/identity"]);
}

#[test]
fn keys_are_authorized_from_lines_files_and_standard_input() {
    if only_xfer("keys of its own") {
        return;
    }
    let (server, client) = (Home::new(), Home::new());
    let line = client.shown();
    let written = || server.text("authorized_keys");

    server.key(&["authorize", &line, "--module", "data"]).expect(0);
    assert_eq!(written(), format!("module=\"data\" {line}\n"));
    assert_eq!(fs::metadata(server.file("authorized_keys")).unwrap().permissions().mode() & 0o777, 0o600);
    // In words, as an unquoted paste brings it; replaced, not doubled.
    let words: Vec<&str> = line.split(' ').collect();
    let options = ["--module", "data", "--module", "logs", "--read-only", "--from", "10.0.0.0/8,::1"];
    server.key(&["authorize"]).args(&words).args(options).expect(0);
    let expected = format!("module=\"data\",module=\"logs\",read-only,from=\"10.0.0.0/8,::1/128\" {line}\n");
    assert_eq!(written(), expected);

    let file = client.file("identity.pub");
    server.key(&["authorize", file.to_str().unwrap(), "--module", "m", "--write-only"]).expect(0);
    assert_eq!(written(), format!("module=\"m\",write-only {line}\n"));
    server.key(&["authorize", "-", "--module", "n"]).stdin(&file).expect(0);
    assert_eq!(written(), format!("module=\"n\" {line}\n"));

    let private = client.file("identity");
    server.key(&["authorize", private.to_str().unwrap(), "--module", "m"]).expect(1).says(&["private key"]);
    server.key(&["authorize", &line]).expect(2).says(&["--module"]);
    server.key(&["authorize", &line, "--module", "a/b"]).expect(2).says(&["no module name"]);
    server.key(&["authorize", &line, "--module", "m", "--from", "10.0.0.1/8"]).expect(2).says(&["no network"]);
    server.key(&["authorize", &line, "--module", "m", "--read-only", "--write-only"]).expect(2);
    server.key(&["authorize", "ssh-ed25519 AAAA x", "--module", "m"]).expect(1).says(&["cannot read"]);
    assert_eq!(written(), format!("module=\"n\" {line}\n"));
}

#[test]
fn a_host_is_pinned_by_its_line() {
    if only_xfer("keys of its own") {
        return;
    }
    let (client, server, other) = (Home::new(), Home::new(), Home::new());
    let line = server.shown();
    let key = line.strip_suffix(" a test").unwrap().to_owned();
    let told = client.key(&["trust", "DB1:7788", &line]).expect(0).out();
    assert!(told.starts_with("db1 SHA256:"), "{told}");
    assert_eq!(client.text("known_hosts"), format!("db1 {key}\n"));
    let newer = other.shown();
    client.key(&["trust", "db1", &newer]).expect(0);
    assert_eq!(client.text("known_hosts"), format!("db1 {}\n", newer.strip_suffix(" a test").unwrap()));
    client.key(&["trust", "a:b:c", &line]).expect(2).says(&["brackets"]);
    client.key(&["trust", "db1", "xfer-ed25519 AAAA"]).expect(1).says(&["damaged"]);
}

#[test]
fn an_unknown_host_is_stored_only_on_a_word_and_a_changed_one_never() {
    if only_xfer("keys of its own") {
        return;
    }
    let client = Home::new();
    let address = |port: u16| format!("127.0.0.1:{port}");

    // No terminal, no word: refused with the fingerprint and what to do.
    let (port, identity, serving) = daemon();
    let fingerprint = identity.public_key().fingerprint();
    let refused = client.key(&["trust", &address(port)]).under(["setsid", "-w"]).expect(1);
    refused.says(&["is not known", &fingerprint, "--accept-new"]);
    serving.join().unwrap();
    assert!(!client.file("known_hosts").exists());

    let (port, identity, serving) = daemon();
    client.key(&["trust", "--accept-new", &address(port)]).expect(0).says(&[&identity.public_key().fingerprint()]);
    serving.join().unwrap();
    let stored = format!("127.0.0.1:{port} {}\n", identity.public_key());
    assert_eq!(client.text("known_hosts"), stored);

    // Another key on the same address: refused, whatever is given.
    let (port, identity, serving) = daemon();
    let other = Identity::generate().unwrap().public_key();
    fs::write(client.file("known_hosts"), format!("127.0.0.1:{port} {other}\n")).unwrap();
    client.key(&["trust", "--accept-new", &address(port)]).expect(1).says(&[
        "HAS CHANGED",
        "known_hosts line 1",
        &identity.public_key().fingerprint(),
        &other.fingerprint(),
    ]);
    serving.join().unwrap();
    assert_eq!(client.text("known_hosts"), format!("127.0.0.1:{port} {other}\n"));

    // Nothing listens there any more.
    client.key(&["trust", &address(port)]).expect(1).says(&["nothing listens"]);
}

#[test]
fn a_person_at_a_terminal_is_asked() {
    if only_xfer("keys of its own") {
        return;
    }
    need("script", "bsdutils");
    for (answer, code) in [("yes", 0), ("no", 1)] {
        let client = Home::new();
        let (port, identity, serving) = daemon();
        let command = format!("{} key trust 127.0.0.1:{port}", binary().display());
        let answers = client.0.join("answers");
        fs::write(&answers, format!("what?\n{answer}\n")).unwrap();
        let call = Call::new("script").args(["-qefc", &command, "/dev/null"]).stdin(&answers);
        let output = client.of(call).expect(code);
        let fingerprint = identity.public_key().fingerprint();
        for words in ["not known yet", &fingerprint, "Please write 'yes', 'no' or the fingerprint"] {
            assert!(output.out().contains(words), "{words}\n{}", output.describe());
        }
        serving.join().unwrap();
        assert_eq!(client.file("known_hosts").exists(), code == 0);
    }
}
