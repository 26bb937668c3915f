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
    assert!(daemon.count("gave way to a newer connection") == 1, "{}", daemon.log());
    drop(session);
}

/// A preamble costs a process: there are few of them, and an honest client still gets one.
#[test]
fn processes_for_the_unknown_are_few() {
    let place = Place::new();
    let daemon = place.start();
    let begun: Vec<TcpStream> = (0..60).map(|_| daemon.begun(None)).collect();
    wait_until("sixty beginnings", || daemon.metric("connections_total") >= 60 && daemon.refused("displaced") >= 28);
    assert!(daemon.workers().len() <= 32 + 28, "processes grow with connections");
    wait_until("the end of those displaced", || daemon.workers().len() <= 32);
    assert_eq!(place.client().sync(&[at(&daemon, "data", "")], here(&place.path("out"))).unwrap(), Outcome::Complete);
    drop(begun);
}

#[test]
fn nonsense_is_dropped_with_one_line_each() {
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
    wait_until("four lines", || daemon.count("refused 127.0.0.1:") == 4);
    daemon.line("does not speak TLS");
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
