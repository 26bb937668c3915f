//! How a daemon begins, reads its configuration again, and ends.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use rustix::process::Signal;
use xfer::model::Outcome;

use crate::daemon::{AS_US, LIMIT, Place, at, closed, here, wait_until};

#[test]
fn a_first_signal_lets_sessions_finish() {
    let place = Place::new();
    let mut daemon = place.start();
    let session = place.client().session(&daemon);
    daemon.wait_for_metric("sessions", 1);
    daemon.signal(Signal::TERM);
    daemon.line("no new sessions from now on; 1 still run");
    closed(&mut daemon.begun(None));
    daemon.line("the daemon is about to end");
    assert_eq!(daemon.metric("draining"), 1);
    assert_eq!(daemon.workers().len(), 1);
    drop(session);
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log());
}

#[test]
fn a_second_signal_ends_sessions() {
    let place = Place::new();
    let mut daemon = place.start();
    let session = place.client().session(&daemon);
    daemon.wait_for_metric("sessions", 1);
    let worker = daemon.workers()[0];
    daemon.signal(Signal::INT);
    daemon.line("1 still run");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(130), "{}", daemon.log());
    assert!(!std::path::Path::new(&format!("/proc/{worker}")).exists());
    daemon.line("1 sessions are told to stop");
    drop(session);
}

#[test]
fn without_sessions_it_ends_at_once() {
    let place = Place::new();
    let mut daemon = place.start();
    daemon.address();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_hang_up_reads_modules_and_keys_again() {
    let place = Place::new();
    let daemon = place.start();
    let client = place.client();
    let out = place.path("out");
    assert!(client.sync(&[at(&daemon, "more", "")], here(&out)).is_err());
    let text = fs::read_to_string(place.path("server/xfer/serve.toml")).unwrap();
    let more = format!("{text}\n[[module]]\nname = \"more\"\npath = \"{}\"\n{AS_US}\n", place.path("data").display());
    place.configure_whole(&more);
    daemon.signal(Signal::HUP);
    daemon.line("read again: 2 modules");
    assert_eq!(client.sync(&[at(&daemon, "more", "")], here(&out)).unwrap(), Outcome::Complete);

    // A broken one changes nothing, and says where it is broken.
    place.configure_whole(&format!("{more}\nuid = [\n"));
    daemon.signal(Signal::HUP);
    let line = daemon.line("the old one stays");
    assert!(line.contains("serve.toml: line "), "{line}");
    assert_eq!(daemon.metric("reloads_total{result=\"failed\"}"), 1);
    assert!(client.sync(&[at(&daemon, "more", "")], here(&place.path("again"))).is_ok());

    // A user that is not there is found before anything changes.
    place.configure_whole(&more.replace(AS_US, "uid = \"no-such-user\""));
    daemon.signal(Signal::HUP);
    daemon.line("no-such-user");
    assert_eq!(daemon.metric("reloads_total{result=\"failed\"}"), 2);

    // A key that is taken away is gone at once, as with ssh.
    place.authorize(&["module=\"data\""], &client.identity);
    assert!(client.sync(&[at(&daemon, "more", "")], here(&out)).is_err());
}

#[test]
fn a_service_manager_opens_the_socket_and_hears_of_it() {
    let place = Place::new();
    let manager = UnixDatagram::bind(place.path("notify")).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let hear = || {
        let mut buffer = [0; 300];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    // What systemd does: the socket as descriptor 3, its number and whose it is in the environment.
    let start = "import os, socket, sys\n\
                 s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(9); os.dup2(s.fileno(), 3); os.set_inheritable(3, True)\n\
                 os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n\
                 os.execv(sys.argv[1], sys.argv[1:])";
    let mut command = Command::new("python3");
    command.args(["-c", start, env!("CARGO_BIN_EXE_xfer"), "serve", "--metrics", "0"]);
    let notify = place.path("notify");
    let mut daemon = place.start_command(command, |command| {
        command.env("NOTIFY_SOCKET", notify);
    });
    assert_eq!(hear(), "READY=1\n");
    daemon.line("metrics on");
    assert_eq!(daemon.count("listening on"), 1);
    let synced = place.client().sync(&[at(&daemon, "data", "")], here(&place.path("out")));
    assert_eq!(synced.unwrap(), Outcome::Complete);
    daemon.signal(Signal::HUP);
    assert!(hear().starts_with("RELOADING=1\n"));
    assert_eq!(hear(), "READY=1\n");
    daemon.signal(Signal::TERM);
    assert!(hear().starts_with("STOPPING=1\n"));
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_daemon_that_cannot_begin_says_why() {
    let place = Place::new();
    let fails = |arguments: &[&str], code: i32, words: &str| {
        let mut daemon = place.start_with(arguments, |_| {});
        assert_eq!(daemon.wait().code(), Some(code), "{arguments:?}");
        wait_until(words, || daemon.log().contains(words));
    };
    fails(&["--module", "nonsense"], 2, "NAME=PATH");
    fails(&["--worker"], 1, "nobody else can");
    fails(&["--config", "/nowhere.toml"], 2, "cannot read /nowhere.toml");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    fails(&["--listen", &address], 1, "another daemon runs there");
    place.configure_whole("listen = [\"127.0.0.1:0\"]\n");
    fails(&[], 2, "there is no module to serve");
    place.configure_whole("[[module]]\nname = \"data\"\npath = \"/srv\"\n");
    fails(&["--listen", "127.0.0.1:0"], 1, "uid = \"USER\"");
    place.configure("");
    fs::remove_file(place.path("server/xfer/identity")).unwrap();
    fails(&["--listen", "127.0.0.1:0"], 1, "xfer key new");
}

/// The log keeps up with nothing: service goes on.
#[test]
fn a_log_that_nobody_reads_stops_nobody() {
    let place = Place::new();
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    let mut daemon = place.start_with(&["--listen", "127.0.0.1:0"], |command| {
        command.stderr(writer);
        command.stdout(std::process::Stdio::piped());
    });
    let address = daemon.port_on_stdout();
    // Each of these is a line; the pipe holds some forty.
    for _ in 0..300 {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        std::io::Write::write_all(&mut stream, &[0; 24]).unwrap();
        closed(&mut stream);
    }
    drop(reader);
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
}
