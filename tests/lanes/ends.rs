//! How far ends end: with their shell, with their client, never by themselves later.

use rustix::process::Signal;

use crate::HERE;
use crate::support::Temp;
use crate::support::disk::{leftovers, there};
use crate::support::fixture;
use crate::support::judge::Judge;
use crate::support::run::{family, process, signal_process, sync};
use crate::support::sockets::{connections, far_ends, tcp_sockets, wait_until};
use crate::support::ssh::{FakeShell, Sshd, at};

/// The remote shell is killed, not the far end: lanes do not keep that alive.
#[test]
fn a_far_end_dies_with_its_shell() {
    let temp = Temp::new();
    fixture::big_file(&temp.join("src/big"), 40 << 20, 1);
    let sshd = Sshd::start();
    let dst = temp.join("dst");
    let ends = || [temp.join("src/").into(), at("there", &dst)];
    let options = ["-a", "--transport", "direct", "--lanes", "4", "--bwlimit=4M"];
    let mut running = sync(options).args(sshd.args()).args(ends()).spawn();
    let near = running.pid();
    running.until("lanes", || far_ends(sshd.pid()).first().is_some_and(|far| connections(far.id).len() == 4));
    let far = far_ends(sshd.pid())[0].clone();
    let shell = family(near).into_iter().find(|process| process.id != near && process.command.contains("ssh")).unwrap();
    signal_process(shell.id, Signal::KILL);
    let output = running.wait();
    assert!(output.code() == 1 && !output.stderr.is_empty(), "{}", output.describe());
    wait_until("the far end's end", || process(far.id).is_none_or(|now| now.command != far.command));
    assert!(!there(dst.join("big")));
    sync(["-a"]).args(sshd.args()).args(ends()).expect(0);
    Judge::strict().assert(&temp.join("src"), &dst);
    assert_eq!(leftovers(&dst), Vec::<std::path::PathBuf>::new());
}

/// While lanes cannot be made, the far end listens; it still ends with its shell, at once.
#[test]
fn a_listening_far_end_dies_with_its_shell() {
    let temp = Temp::new();
    fixture::big_file(&temp.join("src/big"), 40 << 20, 1);
    // The far end's socket is there, and the client is stopped before it connects.
    let shell = FakeShell::new();
    let options = ["-a", "--transport", "direct", "--bwlimit=4M"];
    let mut running =
        sync(options).args(shell.args()).args([temp.join("src/").into(), at(HERE, &temp.join("dst"))]).spawn();
    let near = running.pid();
    let mut far = None;
    running.until("a far end", || {
        far = far_ends(near).first().cloned();
        far.is_some()
    });
    running.signal(Signal::STOP);
    let far = far.unwrap();
    let listened = tcp_sockets(far.id).iter().any(|socket| socket.listens);
    running.signal(Signal::KILL);
    running.wait();
    wait_until("the far end's end", || process(far.id).is_none_or(|now| now.command != far.command));
    assert!(tcp_sockets(far.id).is_empty(), "listened before: {listened}");
    assert!(!there(temp.join("dst/big")));
}

#[test]
fn an_interrupt_ends_both_ends() {
    let temp = Temp::new();
    fixture::big_file(&temp.join("src/big"), 40 << 20, 1);
    let sshd = Sshd::start();
    let dst = temp.join("dst");
    for signal in [Signal::INT, Signal::TERM] {
        let options = ["-a", "--transport", "direct", "--lanes", "2", "--bwlimit=4M"];
        let mut running = sync(options).args(sshd.args()).args([temp.join("src/").into(), at("there", &dst)]).spawn();
        running.until("lanes", || far_ends(sshd.pid()).first().is_some_and(|far| connections(far.id).len() == 2));
        running.signal(signal);
        running.wait().expect(130);
        wait_until("the far end's end", || far_ends(sshd.pid()).is_empty());
        assert!(!there(dst.join("big")));
        assert_eq!(leftovers(&dst), Vec::<std::path::PathBuf>::new());
    }
}
