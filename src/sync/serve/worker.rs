//! One session's process: it finds out who the client is, confines itself, and serves.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::SocketType;

use super::book::Refusal;
use super::channel::Channel;
use super::config::Access;
use super::control::{self, Moved, Order, Report};
use super::sandbox::{self, Needs, SandboxError};
use super::served::{self, KeyRights, ServedModule};
use crate::fs::Dir;
use crate::limits;
use crate::model::{Outcome, Stats, display_bytes};
use crate::monitor::Counters;
use crate::net::keys::ServerKeys;
use crate::net::{LinkReader, LinkWriter, PeerKey, PublicKey, TlsError, tls_accept};
use crate::plan::filter::FilterRules;
use crate::plan::module::{ModulePolicy, ModuleRole};
use crate::sync::remote::{Admission, Broken, Door, Gatekeeper, Served, Traffic, serve_on};
use crate::sync::{StopFlag, SyncError, clock, module_base};
use crate::wire::{FarRole, FrameHeader, Greeting, Message, ModuleLine, Setup};

/// Why a worker could not even begin; its supervisor is told of everything else.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Somebody else started it.
    #[error("this is how xfer serve starts its own processes: nobody else can")]
    NotStartedByServe,
    /// It could not give up what it must not have.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The control channel failed.
    #[error("the control channel failed")]
    Control(#[source] io::Error),
}

/// What one session came to.
struct End {
    outcome: &'static str,
    why: Option<Refusal>,
    failure: Option<String>,
    stats: Stats,
}

impl End {
    fn refused(why: Refusal, failure: Option<String>) -> End {
        End { outcome: "refused", why: Some(why), failure, stats: Stats::default() }
    }
}

/// Serves the one connection that the supervisor at the other end of standard input hands over. The process has one
/// thread when this is called.
pub fn work() -> Result<(), WorkerError> {
    let control = take_control()?;
    // The host's private key will be in this memory, and a peer that is nobody yet talks to it.
    sandbox::strip(&[control.as_fd()])?;
    let started = control::receive::<Order>(&control).map_err(WorkerError::Control)?;
    let Some((Order::Start { session, peer, deadline_ms }, descriptors)) = started else {
        return Err(WorkerError::NotStartedByServe);
    };
    let deadline = clock::after(limits::ms(deadline_ms));
    let Ok([connection, modules]) = <[OwnedFd; 2]>::try_from(descriptors) else {
        return Err(WorkerError::NotStartedByServe);
    };
    let channel = Arc::new(Channel::new(control, session));
    let counted = Counted::default();
    let end = serve(&channel, TcpStream::from(connection), peer, modules, deadline, &counted);
    let counters = counted.moved();
    let moved = Moved {
        files: counters.files.max(end.stats.transferred_files),
        deleted: counters.deleted.max(end.stats.deleted.total()),
        ..counters
    };
    let outcome = end.outcome.to_owned();
    let failure = end.failure.map(|text| control::cut(&text, limits::LOG_LINE_BYTES_MAX));
    // A supervisor that is gone has nobody to tell.
    let _ = channel.report(&Report::Ended { outcome, why: end.why, failure, moved });
    Ok(())
}

/// The control channel is standard input, so that no number has to be passed on; nothing else will read that.
fn take_control() -> Result<OwnedFd, WorkerError> {
    let stdin = io::stdin();
    match rustix::net::sockopt::socket_type(&stdin) {
        Ok(SocketType::SEQPACKET) => {}
        _ => return Err(WorkerError::NotStartedByServe),
    }
    let control = stdin.as_fd().try_clone_to_owned().map_err(WorkerError::Control)?;
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let nothing = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty())
        .map_err(|error| WorkerError::Control(error.into()))?;
    rustix::stdio::dup2_stdin(nothing).map_err(|error| WorkerError::Control(error.into()))?;
    Ok(control)
}

/// What was moved, as far as it can be seen from outside the session.
#[derive(Default, Clone)]
pub(super) struct Counted {
    pub(super) counters: Arc<Counters>,
    /// Of all connections of the session.
    traffic: Arc<Traffic>,
}

impl Counted {
    pub(super) fn moved(&self) -> Moved {
        let (out_bytes, in_bytes) = self.traffic.totals();
        Moved {
            in_bytes,
            out_bytes,
            files: self.counters.files_transferred.load(Ordering::Relaxed),
            deleted: self.counters.deleted.load(Ordering::Relaxed),
            problems: self.counters.problems.load(Ordering::Relaxed),
        }
    }
}

fn serve(
    channel: &Arc<Channel>,
    stream: TcpStream,
    peer: SocketAddr,
    modules: OwnedFd,
    deadline: Instant,
    counted: &Counted,
) -> End {
    let failed = |what: &str, error: &dyn std::error::Error| {
        End::refused(Refusal::Failure, Some(format!("{what}: {}", in_words(error))))
    };
    let keys = match ServerKeys::load(None) {
        Ok(keys) => keys,
        Err(error) => return failed("cannot read this host's keys", &error),
    };
    let modules = match served::unseal(modules) {
        Ok(modules) => modules,
        Err(error) => return failed("cannot read the modules", &error),
    };
    let cut = Arc::new(AtomicBool::new(false));
    let tls = match tls_accept(stream, &keys.identity, PeerKey::Any, deadline, &cut) {
        Ok(tls) => tls,
        Err(TlsError::TimedOut) => return End::refused(Refusal::Deadline, None),
        Err(error) => return End::refused(Refusal::Authentication, Some(in_words(&error))),
    };
    let key = tls.peer_key();
    let rights = KeyRights::of(&keys, &key, peer.ip());
    let identity = Arc::new(keys.identity);
    // Without it a peer that is gone would keep its session for as long as the kernel's patience lasts.
    let _ = tls.set_path_timeout(Some(limits::ms(limits::SERVE_PATH_TIMEOUT_MS)));
    let (reader, writer) = match tls.into_link(Arc::clone(&cut)) {
        Ok(ends) => ends,
        Err(error) => return failed("cannot use the connection", &error),
    };
    let gate = Gate {
        channel: Arc::clone(channel),
        key,
        rights,
        modules,
        counted: counted.clone(),
        stop: StopFlag::new(),
        refusal: None,
    };
    let Some(comment) = gate.comment() else {
        let text = format!("the key {} is not known here", key.fingerprint());
        let hint = format!("on the daemon's host: xfer key authorize '{key}' --module NAME");
        refuse(reader, writer, "the daemon does not know this key", &hint);
        return End::refused(Refusal::Authentication, Some(text));
    };
    let comment = control::cut(&comment, limits::MODULE_NAME_BYTES_MAX);
    let report = Report::Authenticated { key: key.to_string(), fingerprint: key.fingerprint(), comment };
    match channel.ask(&report) {
        Ok(()) => {}
        Err(why) => {
            refuse(reader, writer, &format!("the daemon refuses: {}", why.text()), "try again later");
            return End::refused(why, None);
        }
    }
    run(gate, reader, writer, cut, identity)
}

fn run(
    mut gate: Gate,
    reader: LinkReader,
    writer: LinkWriter,
    cut: Arc<AtomicBool>,
    identity: Arc<crate::net::Identity>,
) -> End {
    let stop = gate.stop.clone();
    // From here on somebody who means this session may end it in order.
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        let _ = signal_hook::flag::register(signal, Arc::clone(stop.as_atomic()));
    }
    let door = Door::Daemon { source: Box::new(gate.channel.lanes()), client_key: gate.key };
    let served = Served::new(reader, writer, cut, identity, door);
    let result = serve_on(served, &mut gate, &stop);
    match result {
        Err(Broken { error, stats, .. }) => match gate.refusal {
            Some(why) => End::refused(why, Some(in_words(&error))),
            None => {
                let (outcome, failure) = match &error {
                    SyncError::Stopped => ("interrupted", None),
                    error if error.is_timeout() => ("timed-out", Some(in_words(error))),
                    error => ("failed", Some(in_words(error))),
                };
                End { outcome, why: None, failure, stats: *stats }
            }
        },
        Ok(stats) => {
            let outcome = match stats.outcome() {
                _ if stop.requested() => "interrupted",
                Outcome::Complete => "complete",
                Outcome::Partial => "partial",
                Outcome::Vanished => "vanished",
                Outcome::MaxDelete => "max-delete",
                Outcome::Interrupted => "interrupted",
            };
            End { outcome, why: None, failure: None, stats }
        }
    }
}

/// Tells a client why it is not served, without reading what it wants: it is nobody yet.
fn refuse(mut reader: LinkReader, mut writer: LinkWriter, text: &str, hint: &str) {
    let message = Message::Fatal { text: text.to_owned(), hint: hint.to_owned(), timed_out: false };
    let payload = message.encode();
    let header = FrameHeader { payload_bytes: payload.len(), kind: message.kind() };
    let limit = limits::ms(limits::REFUSAL_TIMEOUT_MS);
    writer.set_timeout(Some(limit));
    reader.set_timeout(Some(limit));
    let told = writer.write_all(&Greeting::ours().encode()).and_then(|()| {
        writer.write_vectored(&header.encode(), &payload)?;
        writer.close()
    });
    // What it sent meanwhile is read and thrown away: closing before would take back what it was told.
    let until = clock::after(limit);
    let mut buffer = vec![0; limits::LINK_READ_AHEAD_BYTES];
    while told.is_ok() && clock::instant() < until && reader.read_some(&mut buffer).is_ok() {}
}

/// An error with what caused it, in one line.
pub(super) fn in_words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Decides what the client may do, and shuts the door behind it.
struct Gate {
    channel: Arc<Channel>,
    key: PublicKey,
    rights: KeyRights,
    modules: Vec<ServedModule>,
    counted: Counted,
    stop: StopFlag,
    /// Why it was not let in.
    refusal: Option<Refusal>,
}

impl Gate {
    /// Whose key it is; `None` where nobody's here.
    fn comment(&self) -> Option<String> {
        match &self.rights {
            KeyRights::Granted(rights) => return Some(rights.comment.clone()),
            KeyRights::Elsewhere => return None,
            KeyRights::Unnamed => {}
        }
        let known = self.modules.iter().flat_map(|served| &served.module.keys).find(|known| known.key == self.key);
        known.map(|known| known.comment.clone())
    }

    fn refuse(&mut self, why: Refusal, reason: String) -> SyncError {
        self.refusal = Some(why);
        SyncError::Usage { reason }
    }

    /// What the session may do with the module that it names.
    fn may(&mut self, name: &str) -> Result<(ServedModule, Access), SyncError> {
        let found = self.modules.iter().find(|served| served.module.name == name);
        let may = found.and_then(|served| Some((served.clone(), served.access(&self.key, &self.rights)?)));
        // Whether it is not there or not for this key makes no difference that could be seen.
        may.ok_or_else(|| {
            let reason = format!("there is no module \"{}\" for this key", display_bytes(name.as_bytes()));
            self.refuse(Refusal::Forbidden, reason)
        })
    }
}

fn policy_of(served: &ServedModule, access: Access) -> Result<ModulePolicy, String> {
    let mut filters = FilterRules::new();
    for rule in &served.module.filters {
        let mut refuse = |_: &[u8]| Err("merge files are not read here".to_owned());
        filters.push_filter(rule.as_bytes(), &mut refuse).map_err(|error| error.to_string())?;
    }
    Ok(ModulePolicy {
        may_read: access.may_read(),
        may_write: access.may_write(),
        copy_links_outside: served.module.copy_links_outside,
        numeric_ids: served.module.numeric_ids,
        no_setid: served.drops_set_id(),
        filters,
    })
}

/// Seconds of silence: the client's wish, at most what the module allows; 0 is no limit.
fn timeout_of(wish_s: Option<u64>, most_s: Option<u64>) -> Option<u64> {
    match (wish_s.filter(|&seconds| seconds > 0), most_s) {
        (Some(wish), Some(most)) => Some(wish.min(most)),
        (wish, most) => wish.or(most),
    }
}

impl Gatekeeper for Gate {
    fn admit(&mut self, setup: &mut Setup) -> Result<Admission, SyncError> {
        let Some(name) = setup.module.clone() else {
            return Err(self.refuse(Refusal::Forbidden, "a daemon serves modules: name one".to_owned()));
        };
        let (served, access) = self.may(&name)?;
        let policy = policy_of(&served, access).map_err(|reason| self.refuse(Refusal::Failure, reason))?;
        let (role, verb) = match (setup.role, setup.verify) {
            (FarRole::Sender, false) => (ModuleRole::Sender, "reads from"),
            (FarRole::Sender, true) => (ModuleRole::Sender, "compares with"),
            (FarRole::Receiver, false) => (ModuleRole::Receiver, "writes to"),
            (FarRole::Receiver, true) => (ModuleRole::Verifier, "compares with"),
        };
        if setup.role == FarRole::Sender {
            // A module without a path is all that is in it.
            setup.paths.paths.iter_mut().filter(|path| path.is_empty()).for_each(|path| *path = b"./".to_vec());
        }
        setup.options = policy
            .effective(std::mem::take(&mut setup.options), role)
            .map_err(|refusal| self.refuse(Refusal::Forbidden, refusal.to_string()))?;
        setup.options.timeout_s = timeout_of(setup.options.timeout_s, served.module.timeout_s);
        let report = Report::Enter { module: name.clone(), role: verb.to_owned(), paths: shown(&setup.paths.paths) };
        if let Err(why) = self.channel.ask(&report) {
            return Err(self.refuse(why, format!("the daemon refuses: {}", why.text())));
        }
        let cannot =
            |error: &dyn std::error::Error| format!("the module \"{name}\" cannot be served: {}", in_words(error));
        let root =
            Dir::open(Path::new(&served.module.path)).map_err(|error| self.refuse(Refusal::Failure, cannot(&error)))?;
        let write = role == ModuleRole::Receiver || setup.options.remove_source_files;
        // Read now what cannot be read from inside.
        crate::fs::umask();
        crate::fs::boot_id();
        let needs = Needs { write, read_anywhere: served.module.copy_links_outside, uid: served.uid, gid: served.gid };
        let missing = sandbox::confine(&root, needs).map_err(|error| {
            self.channel.note(&format!("session refused: {}", in_words(&error)));
            self.refuse(Refusal::Failure, "the daemon cannot confine itself".to_owned())
        })?;
        if let Some(missing) = missing {
            self.channel.note(&format!("second wall missing: {missing}"));
        }
        let base =
            module_base(root, &policy, role).map_err(|error| self.refuse(Refusal::Failure, error.to_string()))?;
        self.channel
            .start(self.stop.clone(), self.counted.clone())
            .map_err(|error| self.refuse(Refusal::Failure, format!("the daemon cannot start a thread: {error}")))?;
        Ok(Admission { base, hides_names: role == ModuleRole::Receiver && !policy.may_read })
    }

    fn modules(&mut self) -> Vec<ModuleLine> {
        let line = |served: &ServedModule| {
            let access = served.access(&self.key, &self.rights)?;
            Some(ModuleLine {
                name: served.module.name.clone(),
                comment: served.module.comment.clone(),
                may_read: access.may_read(),
                may_write: access.may_write(),
            })
        };
        self.modules.iter().filter_map(line).collect()
    }

    fn counters(&self) -> Option<Arc<Counters>> {
        Some(Arc::clone(&self.counted.counters))
    }

    fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.counted.traffic)
    }
}

/// Paths for the log: the first few, and not all of a long one.
fn shown(paths: &[Vec<u8>]) -> Vec<String> {
    let mut shown: Vec<String> =
        paths.iter().take(PATHS_SHOWN_MAX).map(|path| control::cut(&display_bytes(path), PATH_SHOWN_BYTES)).collect();
    if paths.len() > PATHS_SHOWN_MAX {
        shown.push(format!("and {} more", paths.len() - PATHS_SHOWN_MAX));
    }
    shown
}

/// Paths of one session in the log, and bytes of each: a line stays readable.
const PATHS_SHOWN_MAX: usize = 4;
const PATH_SHOWN_BYTES: usize = 512;

/// Between two looks at the clock.
pub(super) fn progress_interval() -> Duration {
    limits::ms(limits::SERVE_PROGRESS_INTERVAL_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modules_word_on_silence_only_tightens() {
        assert_eq!(timeout_of(None, None), None);
        assert_eq!(timeout_of(Some(0), Some(60)), Some(60));
        assert_eq!(timeout_of(Some(30), Some(60)), Some(30));
        assert_eq!(timeout_of(Some(90), Some(60)), Some(60));
        assert_eq!(timeout_of(Some(90), None), Some(90));
    }

    #[test]
    fn long_lists_of_paths_are_cut() {
        let many: Vec<Vec<u8>> = (0..9).map(|_| vec![b'x'; 5000]).collect();
        let shown = shown(&many);
        assert_eq!(shown.len(), 5);
        assert_eq!(shown[4], "and 5 more");
        assert!(shown.iter().all(|path| path.len() <= PATH_SHOWN_BYTES + 4));
    }
}
