//! Peers that take, and peers that make no sense.

use std::io::Write;
use std::net::TcpStream;

use xfer::model::Outcome;
use xfer::wire::SessionId;

use crate::daemon::{Client, Place, at, closed, here, is_open, wait_until};

#[test]
fn five_hundred_silent_connections_harm_nobody() {
    let place = Place::new();
    let daemon = place.start();
    let silent: Vec<TcpStream> = (0..500).map(|_| daemon.silent()).collect();
    let mut dribbling: Vec<TcpStream> = (0..20).map(|_| daemon.silent()).collect();
    dribbling.iter_mut().for_each(|stream| stream.write_all(b"\x89xlane").unwrap());
    assert!(daemon.workers().is_empty(), "silence has cost a process");
    let out = place.path("out");
    assert_eq!(place.client().sync(&[at(&daemon, "data", "")], here(&out)).unwrap(), Outcome::Complete);
    assert!(out.join("sub/4").exists());
    // What is known of them is bounded: of one address the oldest went.
    assert!(daemon.metric("unauthenticated") <= 256);
    assert!(daemon.refused("displaced") >= 264);
    drop(silent);
}

#[test]
fn the_oldest_that_has_not_said_who_it_is_goes() {
    let place = Place::new();
    let text = std::fs::read_to_string(place.path("server/xfer/serve.toml")).unwrap();
    place.configure_whole(&format!("limits = {{ unauthenticated = 3 }}\n{text}"));
    let daemon = place.start();
    let session = place.client().session(&daemon);
    daemon.wait_for_metric("sessions", 1);
    let mut first = daemon.silent();
    daemon.wait_for_metric("unauthenticated", 1);
    let others = [daemon.silent(), daemon.silent()];
    daemon.wait_for_metric("unauthenticated", 3);
    assert_eq!(daemon.refused("displaced"), 0);
    let newest = daemon.silent();
    closed(&mut first);
    daemon.wait_for_metric("refused_total{reason=\"displaced\"}", 1);
    assert!(others.iter().chain([&newest]).all(is_open));
    assert_eq!(daemon.metric("sessions"), 1);
    // The log is written beside the work.
    wait_until("a line about it", || daemon.count("gave way to a newer connection") == 1);
    drop(session);
}

/// A preamble costs a process: one address gets few, its others wait, and nobody else notices.
#[test]
fn processes_for_the_unknown_are_few() {
    let place = Place::new();
    let daemon = place.start();
    let elsewhere = std::net::Ipv4Addr::new(127, 0, 0, 2);
    let begun: Vec<TcpStream> = (0..60).map(|_| daemon.begun_from(elsewhere)).collect();
    wait_until("sixty beginnings", || daemon.metric("connections_total") >= 60 && daemon.workers().len() == 8);
    for round in 0..5 {
        let out = place.path(&format!("out{round}"));
        std::fs::create_dir(&out).unwrap();
        let from = format!("xfer://{}/data/sub/", daemon.address());
        let output = place.xfer(&daemon).args(["sync", "-a", &from]).arg(&out).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(daemon.refused("displaced"), 0);
    drop(begun);
    wait_until("the end of all sixty", || daemon.metric("unauthenticated") == 0 && daemon.workers().is_empty());
}

/// A flood of one address costs a line a second, in which each is counted.
#[test]
fn refusals_of_one_address_share_lines() {
    let place = Place::new();
    let daemon = place.start();
    for _ in 0..40 {
        let mut stream = daemon.silent();
        stream.write_all(&[0; 24]).unwrap();
        closed(&mut stream);
    }
    wait_until("all forty told", || daemon.told_refused() == 40);
    assert_eq!(daemon.refused("preamble"), 40);
    daemon.line("more of 127.0.0.1: ");
    assert!(daemon.count("refused ") < 40, "{}", daemon.log());
}

/// Until it has shaken hands a worker talks to nobody knows whom: what it does not need it does not have.
#[test]
fn a_worker_in_the_handshake_has_little() {
    let place = Place::new();
    let inherited = std::fs::File::open("/etc/hostname").or_else(|_| std::fs::File::open("/etc/passwd")).unwrap();
    rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
    let daemon = place.start_with(&["--listen", "127.0.0.1:0", "--metrics", "0"], |command| {
        command.env("XFER_TEST_SECRET", "secret");
    });
    let _begun = daemon.begun(None);
    wait_until("a worker", || daemon.workers().len() == 1);
    let worker = daemon.workers()[0];
    let read = |pid: u32, name: &str| String::from_utf8(std::fs::read(format!("/proc/{pid}/{name}")).unwrap()).unwrap();
    let field = |name: &str| {
        let status = read(worker, "status");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        line.trim_start_matches(':').trim().to_owned()
    };
    let files = |pid: u32| -> Vec<String> {
        let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        links.flatten().filter_map(|link| Some(std::fs::read_link(link.path()).ok()?.display().to_string())).collect()
    };
    let is_inherited = |file: &String| file.starts_with("/etc/");
    assert!(files(daemon.pid()).iter().any(is_inherited), "nothing was inherited: this proves nothing");
    // The last step before it reads.
    wait_until("its descriptors' end", || !files(worker).iter().any(is_inherited));
    assert_eq!(field("NoNewPrivs"), "1");
    // CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SETGID, SETUID, SETPCAP, MKNOD, SETFCAP.
    let most: u64 = [0, 1, 2, 3, 4, 6, 7, 8, 27, 31].iter().map(|bit| 1 << bit).sum();
    for set in ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"] {
        let held = u64::from_str_radix(&field(set), 16).unwrap();
        assert_eq!(held & !most, 0, "{set}: {held:x}");
    }
    let environment = read(worker, "environ");
    let names: Vec<&str> = environment
        .split('\0')
        .filter(|entry| !entry.is_empty())
        .map(|entry| entry.split('=').next().unwrap())
        .collect();
    assert!(names.iter().all(|name| ["HOME", "XDG_CONFIG_HOME"].contains(name)), "{names:?}");
    assert!(read(daemon.pid(), "environ").contains("XFER_TEST_SECRET"));
    let limits = read(worker, "limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    // Standard ones, the control channel and the connection; while it reads keys and modules, those.
    assert!(files(worker).len() <= 7, "{:?}", files(worker));
}

#[test]
fn nonsense_is_dropped_and_told() {
    let place = Place::new();
    let daemon = place.start();
    let mut text = daemon.silent();
    text.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    closed(&mut text);
    let mut lane = daemon.begun(Some(SessionId([7; 16])));
    closed(&mut lane);
    let mut plain = daemon.begun(None);
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    closed(&mut plain);
    drop(daemon.silent());
    daemon.wait_for_metric("refused_total{reason=\"closed\"}", 1);
    daemon.wait_for_metric("refused_total{reason=\"authentication\"}", 1);
    assert_eq!((daemon.refused("preamble"), daemon.refused("unknown_session")), (1, 1));
    wait_until("four told", || daemon.told_refused() == 4);
    assert!(daemon.workers().is_empty());
}

/// One deadline, whether nothing came, the first bytes, or half a handshake.
#[test]
fn who_is_silent_for_too_long_goes() {
    let place = Place::new();
    let daemon = place.start();
    let mut silent = daemon.silent();
    let mut begun = daemon.begun(None);
    let mut half = daemon.begun(None);
    // The head of a TLS record whose body never comes.
    half.write_all(&[22, 3, 1, 2, 0]).unwrap();
    for stream in [&mut silent, &mut begun, &mut half] {
        closed(stream);
    }
    daemon.wait_for_metric("refused_total{reason=\"deadline\"}", 3);
    wait_until("the end of their processes", || daemon.workers().is_empty());
}

#[test]
fn sessions_are_counted_by_key_and_module() {
    let place = Place::new();
    let text = std::fs::read_to_string(place.path("server/xfer/serve.toml")).unwrap();
    place.configure_whole(&format!("[limits]\nsessions_per_key = 1\nsessions = 2\n{text}"));
    let daemon = place.start();
    let client = place.client();
    let held = client.session(&daemon);
    daemon.wait_for_metric("sessions", 1);
    let error = client.sync(&[at(&daemon, "data", "")], here(&place.path("out"))).unwrap_err();
    assert!(error.to_string().contains("too many sessions of this key"), "{error}");
    daemon.wait_for_metric("refused_total{reason=\"key\"}", 1);
    // Strangers do not take what is left.
    let _strangers: Vec<TcpStream> = (0..5).map(|_| daemon.begun(None)).collect();
    drop(held);
    daemon.wait_for_metric("sessions", 0);
    assert!(client.sync(&[at(&daemon, "data", "")], here(&place.path("out"))).is_ok());
}

#[test]
fn a_client_of_an_unfinished_handshake_is_nobody() {
    let place = Place::new();
    let daemon = place.start();
    let stranger = Client::stranger();
    for _ in 0..3 {
        drop(stranger.session(&daemon));
    }
    daemon.wait_for_metric("refused_total{reason=\"authentication\"}", 3);
    assert_eq!(daemon.metric("sessions"), 0);
}
