//! Two ends of a remote shell: one binary on both sides, one pipe each way.

mod delta_in;
mod delta_out;
mod feed;
mod intake;
mod open_file;
mod pump;
mod relay;
mod session_end;
mod verify_in;

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use self::pump::{Ends, read_message};
use super::clock::Stopwatch;
use super::session::Session;
use super::{Connect, StopFlag, SyncError};
use crate::limits;
use crate::model::Stats;
use crate::monitor::Monitor;
use crate::net::{Address, LinkError, LinkReader, LinkWriter, ShellChild, Throttle};
use crate::plan::options::SyncOptions;
use crate::wire::{FarRole, Greeting, Message, NearPlaces, Setup, SetupPaths, agree};

/// What the far binary is started with.
const FAR_ARGUMENTS: [&[u8]; 2] = [b"serve", b"--stdio"];

/// A far end that accepted what it is to do.
struct Far {
    ends: Ends,
    child: ShellChild,
}

/// Starts the far end and tells it what to do.
fn connect(session: &Session, address: &Address, setup: Setup, how: &Connect) -> Result<Far, SyncError> {
    let Address::Shell { user, host, .. } = address else {
        return Err(SyncError::usage("this address does not name a host"));
    };
    let cut = Arc::new(AtomicBool::new(false));
    let link = how.shell.spawn(user.as_deref(), host, &FAR_ARGUMENTS)?;
    let mut child = link.child;
    let mut reader = LinkReader::new(link.stdout, Arc::clone(session.stop.as_atomic())).map_err(SyncError::Setup)?;
    let mut writer = LinkWriter::new(link.stdin, Arc::clone(session.stop.as_atomic())).map_err(SyncError::Setup)?;
    let seconds = how.connect_timeout_s.filter(|&seconds| seconds > 0);
    reader.set_timeout(seconds.map(Duration::from_secs).or(timeout(&session.options)));
    let ours = Greeting::ours();
    let greeted = writer.write_all(&ours.encode());
    child.expect_greeting(&mut reader, Greeting::magic()).map_err(|error| explain(error, session))?;
    greeted.map_err(|error| explain(child.failure(error), session))?;
    let theirs = Greeting::read_rest(|buffer| reader.read_exact(buffer))
        .map_err(|error| explain(child.failure(error), session))??;
    agree(&ours, &theirs)?;
    let listed = setup.role == FarRole::Sender && setup.options.files_from.is_some();
    pump::write_message(&mut writer, &Message::Setup(Box::new(setup))).map_err(SyncError::from_link)?;
    if listed {
        send_paths(&mut writer, session.options.files_from.as_deref().unwrap_or_default())?;
    }
    match read_message(&mut reader).map_err(|error| match error {
        SyncError::Link(error) => explain(child.failure(error), session),
        other => other,
    })? {
        Message::Ready => {}
        Message::Fatal { text, hint, timed_out } => return Err(SyncError::Far { text, hint, timed_out }),
        _ => return Err(crate::wire::FlowError::Unexpected { what: "message" }.into()),
    }
    reader.set_timeout(timeout(&session.options));
    writer.set_timeout(timeout(&session.options));
    // From here on a wish to stop is talked over; only this flag cuts the link.
    reader.set_stop(Arc::clone(&cut));
    writer.set_stop(Arc::clone(&cut));
    Ok(Far { ends: Ends { reader, writer, cut }, child })
}

/// Sends the paths of `--files-from`, as many to a message as fit.
fn send_paths(writer: &mut LinkWriter, paths: &[Vec<u8>]) -> Result<(), SyncError> {
    let mut portion = Vec::new();
    let mut bytes = 0;
    for path in paths {
        if bytes + path.len() > limits::FRAME_BYTES_MAX / 2 {
            let message = Message::Paths { paths: std::mem::take(&mut portion), last: false };
            pump::write_message(writer, &message).map_err(SyncError::from_link)?;
            bytes = 0;
        }
        bytes += path.len() + 5;
        portion.push(path.clone());
    }
    pump::write_message(writer, &Message::Paths { paths: portion, last: true }).map_err(SyncError::from_link)
}

/// Receives what [`send_paths`] sends.
fn receive_paths(reader: &mut LinkReader) -> Result<Vec<Vec<u8>>, SyncError> {
    let mut all = Vec::new();
    let mut bytes = 0;
    loop {
        let Message::Paths { mut paths, last } = read_message(reader)? else {
            return Err(crate::wire::FlowError::Unexpected { what: "message" }.into());
        };
        bytes += paths.iter().map(|path| path.len() as u64 + 24).sum::<u64>();
        if bytes > limits::FILES_FROM_BYTES_MAX {
            return Err(crate::wire::FlowError::Excess { what: "paths" }.into());
        }
        all.append(&mut paths);
        if last {
            return Ok(all);
        }
    }
}

fn explain(error: crate::net::ShellError, session: &Session) -> SyncError {
    if session.stop.requested() { SyncError::Stopped } else { SyncError::from_shell(error) }
}

fn timeout(options: &SyncOptions) -> Option<Duration> {
    options.timeout_s.filter(|&seconds| seconds > 0).map(Duration::from_secs)
}

/// The far end's options: the same, with what only the client does left out.
fn setup(session: &Session, role: FarRole, paths: Vec<Vec<u8>>, sources: &[Vec<u8>]) -> Setup {
    // A list of paths may be long: a sender gets it in messages of its own, a receiver only knows that there is one.
    let files_from = session.options.files_from.as_ref().map(|_| Vec::new());
    let options = SyncOptions { files_from, ..session.options.clone() };
    Setup {
        role,
        paths: SetupPaths { paths, sources: sources.to_vec() },
        options,
        verify: session.verify.is_some(),
        content_only: session.verify.is_some_and(|verify| verify.content_only),
        near: None,
    }
}

/// What a far end needs to know of this side with `--remove-source-files`.
fn near(session: &Session, directories: impl FnOnce() -> Vec<(u32, u32, u64)>) -> Option<NearPlaces> {
    let asked = session.options.remove_source_files && session.verify.is_none();
    asked.then(|| NearPlaces { boot_id: crate::fs::boot_id(), directories: directories() })
}

/// Directories that sources lie in or, as directories, are.
fn source_places(paths: &[Vec<u8>]) -> Vec<(u32, u32, u64)> {
    let contents = |path: &[u8]| path.ends_with(b"/") || path.ends_with(b"/.") || path == b".";
    let parents = paths.iter().filter(|path| !contents(path)).filter_map(|path| place(&parent(path)));
    paths.iter().filter_map(|path| place(path)).chain(parents).collect()
}

/// The directory that a destination is, or lies in where it is none.
fn destination_places(path: &[u8]) -> Vec<(u32, u32, u64)> {
    place(path).or_else(|| place(&parent(path))).into_iter().collect()
}

fn parent(path: &[u8]) -> Vec<u8> {
    let parent = std::path::Path::new(std::ffi::OsStr::from_bytes(path)).parent();
    parent.map(|parent| parent.as_os_str().as_bytes().to_vec()).unwrap_or_default()
}

/// A directory by what it is, whatever it is called.
fn place(path: &[u8]) -> Option<(u32, u32, u64)> {
    let path = if path.is_empty() { &b"."[..] } else { path };
    let dir = crate::fs::Dir::open(std::path::Path::new(std::ffi::OsStr::from_bytes(path))).ok()?;
    dir.metadata().ok().map(|metadata| (metadata.dev.0, metadata.dev.1, metadata.ino))
}

/// `--remove-source-files` where both ends are one place would remove the only copy.
fn refuse_one_place(setup: &Setup) -> Result<(), SyncError> {
    let Some(near) = &setup.near else { return Ok(()) };
    if near.boot_id.is_empty() || near.boot_id != crate::fs::boot_id() {
        return Ok(());
    }
    let far = match setup.role {
        FarRole::Sender => source_places(&setup.paths.paths),
        FarRole::Receiver => setup.paths.paths.iter().flat_map(|path| destination_places(path)).collect(),
    };
    if far.iter().any(|place| near.directories.contains(place)) {
        return Err(SyncError::usage(
            "source and destination are on one machine and share a directory: \
             --remove-source-files could remove the only copy; use local paths",
        ));
    }
    Ok(())
}

/// Sources here, destination there. The far side's totals.
pub(super) fn push(
    session: &Arc<Session>,
    arguments: &[Vec<u8>],
    destination: &Address,
    how: &Connect,
    watch: &Stopwatch,
) -> Result<Stats, SyncError> {
    let mut setup = setup(session, FarRole::Receiver, vec![destination.path().to_vec()], arguments);
    setup.near = near(session, || source_places(arguments));
    let Far { mut ends, child } = connect(session, destination, setup, how)?;
    let throttle = Arc::new(Throttle::new(session.options.bwlimit_bytes_per_s));
    ends.writer.set_throttle(throttle);
    let counters = (ends.writer.byte_counter(), ends.reader.byte_counter());
    let result = feed::run(session, ends, arguments, true, watch);
    end(session, child, result, counters.0.load(Ordering::Relaxed), counters.1.load(Ordering::Relaxed))
}

/// Sources there, destination here (`None` only lists). The far side's totals.
pub(super) fn pull(
    session: &Arc<Session>,
    arguments: &[Vec<u8>],
    source: &Address,
    destination: Option<&[u8]>,
    how: &Connect,
    watch: &Stopwatch,
) -> Result<Stats, SyncError> {
    let mut setup = setup(session, FarRole::Sender, arguments.to_vec(), &[]);
    setup.near = near(session, || destination.map(destination_places).unwrap_or_default());
    let Far { ends, child } = connect(session, source, setup, how)?;
    let counters = (ends.writer.byte_counter(), ends.reader.byte_counter());
    let result = match destination {
        destination if session.verify.is_some() => verify_in::run(session, ends, destination, watch),
        Some(destination) => intake::run(session, ends, destination, arguments, true, watch),
        None => intake::list(session, ends, watch),
    };
    end(session, child, result, counters.0.load(Ordering::Relaxed), counters.1.load(Ordering::Relaxed))
}

/// The session is over: the shell's process ends, and explains a broken link.
fn end(
    session: &Session,
    mut child: ShellChild,
    result: Result<Stats, SyncError>,
    sent: u64,
    received: u64,
) -> Result<Stats, SyncError> {
    session.count(|stats| {
        stats.sent_bytes = sent;
        stats.received_bytes = received;
    });
    match result {
        Ok(stats) => {
            child.wait(Duration::from_millis(limits::STOP_GRACE_MS));
            Ok(stats)
        }
        Err(SyncError::Link(error)) if !session.stop.requested() => Err(SyncError::from_shell(child.failure(error))),
        Err(error) => {
            child.wait(Duration::from_millis(limits::LOCK_RETRY_MS));
            Err(error)
        }
    }
}

/// The far end of a remote shell: speaks on standard input and output until the session ends.
pub fn serve_stdio(stop: &StopFlag) -> Result<(), SyncError> {
    crate::fs::raise_open_files_limit();
    let cut = Arc::new(AtomicBool::new(false));
    let mut reader = LinkReader::stdin(Arc::clone(&cut)).map_err(SyncError::Setup)?;
    let mut writer = LinkWriter::to_stdout(Arc::clone(&cut)).map_err(SyncError::Setup)?;
    let ours = Greeting::ours();
    writer.write_all(&ours.encode()).map_err(SyncError::from_link)?;
    reader.set_timeout(Some(Duration::from_millis(limits::SETUP_TIMEOUT_MS)));
    let theirs = Greeting::read_whole(|buffer| reader.read_exact(buffer)).map_err(SyncError::from_link)??;
    agree(&ours, &theirs)?;
    let Message::Setup(mut setup) = read_message(&mut reader)? else {
        return Err(crate::wire::FlowError::Unexpected { what: "message" }.into());
    };
    if setup.role == FarRole::Sender
        && let Some(paths) = &mut setup.options.files_from
    {
        *paths = receive_paths(&mut reader)?;
    }
    reader.set_timeout(timeout(&setup.options));
    writer.set_timeout(timeout(&setup.options));
    let ends = Ends { reader, writer, cut };
    let result = serve(*setup, ends, stop);
    match result {
        Ok(()) | Err(SyncError::Stopped) => Ok(()),
        Err(error) => Err(error),
    }
}

fn serve(setup: Setup, mut ends: Ends, stop: &StopFlag) -> Result<(), SyncError> {
    if let Err(error) = refuse_one_place(&setup) {
        pump::write_message(&mut ends.writer, &error.for_peer()).map_err(SyncError::from_link)?;
        return Err(error);
    }
    let relay = Arc::new(relay::Relay::new());
    let mut session = Session::build(setup.options, Arc::clone(&relay) as Arc<dyn Monitor>, stop.clone());
    session.verify = setup.verify.then_some(super::verify::VerifyMode { content_only: setup.content_only });
    let session = Arc::new(session);
    let watch = Stopwatch::start();
    pump::write_message(&mut ends.writer, &Message::Ready).map_err(SyncError::from_link)?;
    let throttle = Arc::new(Throttle::new(session.options.bwlimit_bytes_per_s));
    ends.writer.set_throttle(throttle);
    match setup.role {
        FarRole::Sender => feed::serve(&session, ends, &setup.paths.paths, &relay, &watch),
        FarRole::Receiver => {
            let [destination] = &setup.paths.paths[..] else {
                return Err(crate::wire::FlowError::Unexpected { what: "number of paths" }.into());
            };
            if session.verify.is_some() {
                verify_in::serve(&session, ends, destination, &relay, &watch)
            } else {
                intake::serve(&session, ends, destination, &setup.paths.sources, &relay, &watch)
            }
        }
    }
}

impl SyncError {
    pub(super) fn from_link(error: LinkError) -> SyncError {
        match error {
            LinkError::TimedOut { .. } => SyncError::TimedOut,
            LinkError::Stopped => SyncError::Stopped,
            error => SyncError::Link(error),
        }
    }

    fn from_shell(error: crate::net::ShellError) -> SyncError {
        match error {
            crate::net::ShellError::Link { source: LinkError::TimedOut { .. }, .. } => SyncError::TimedOut,
            crate::net::ShellError::Link { source: LinkError::Stopped, .. } => SyncError::Stopped,
            error => SyncError::Shell(error),
        }
    }

    /// What the far side's user is told of an error here.
    fn for_peer(&self) -> Message {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        let mut end = text.len().min(limits::TEXT_BYTES_MAX / 2);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        Message::Fatal { text, hint: self.hint().unwrap_or_default(), timed_out: self.is_timeout() }
    }
}
