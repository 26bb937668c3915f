//! Two ends of a remote shell: one binary on both sides, one pipe each way.

mod answer;
mod arriving;
mod basis;
mod between;
mod daemon;
mod delta_in;
mod delta_out;
mod feed;
mod intake;
mod lanes;
mod open_file;
mod out_frame;
mod pump;
mod relay;
mod session_end;
mod spread;
mod verify_in;

use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use self::daemon::ReachedDaemon;
use self::lanes::Follow;
pub use self::lanes::LaneWish;
pub(in crate::sync) use self::lanes::{Door, LaneSource};
use self::lanes::{LanePlan, Lead};
use self::pump::{Ends, Line, Outgoing, read_message};
use self::relay::Relay;
use super::clock::Stopwatch;
use super::session::Session;
use super::{Connect, StopFlag, SyncError};
use crate::fs::Base;
use crate::limits;
use crate::model::Stats;
use crate::monitor::Monitor;
use crate::net::{Address, Identity, LinkError, LinkReader, LinkWriter, PublicKey, ShellChild, Throttle};
use crate::plan::options::SyncOptions;
use crate::wire::{FarRole, Greeting, Message, ModuleLine, NearPlaces, Setup, SetupPaths, Transport, agree};

/// What the far binary is started with.
const FAR_ARGUMENTS: [&[u8]; 2] = [b"serve", b"--stdio"];

/// One end's part in a session, of whatever role.
struct Part<'a> {
    session: &'a Arc<Session>,
    ends: Ends,
    watch: &'a Stopwatch,
    /// At a far end: what it tells its client through.
    relay: Option<&'a Arc<Relay>>,
    lanes: LanePlan,
    throttle: &'a Arc<Throttle>,
    traffic: &'a Traffic,
}

impl Part<'_> {
    /// Queues for everything that is to be said.
    fn line(&self) -> (Line, Outgoing) {
        let (line, outgoing) = Line::new();
        if let Some(relay) = self.relay {
            relay.attach(line.clone());
        }
        (line, outgoing)
    }

    /// Before the work began: a far end tells its client why there will be none.
    fn give_up(&mut self, error: SyncError) -> SyncError {
        if self.relay.is_some() {
            let _peer_may_be_gone = pump::write_message(&mut self.ends.writer, &error.for_peer());
        }
        error
    }
}

/// Bytes that all connections of a session carry.
#[derive(Debug, Default)]
pub(in crate::sync) struct Traffic {
    sent: Mutex<Vec<Arc<AtomicU64>>>,
    received: Mutex<Vec<Arc<AtomicU64>>>,
}

impl Traffic {
    fn of(ends: &Ends) -> Traffic {
        let traffic = Traffic::default();
        traffic.add(ends);
        traffic
    }

    fn add(&self, ends: &Ends) {
        self.add_sent(ends.writer.byte_counter());
        self.add_received(ends.reader.byte_counter());
    }

    /// Bytes sent and bytes received so far.
    pub(in crate::sync) fn totals(&self) -> (u64, u64) {
        let sum = |counters: &Mutex<Vec<Arc<AtomicU64>>>| -> u64 {
            let counters = counters.lock().unwrap_or_else(PoisonError::into_inner);
            counters.iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
        };
        (sum(&self.sent), sum(&self.received))
    }

    fn add_sent(&self, counter: Arc<AtomicU64>) {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).push(counter);
    }

    fn add_received(&self, counter: Arc<AtomicU64>) {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).push(counter);
    }

    fn note(&self, session: &Session) {
        let (sent, received) = self.totals();
        session.count(|stats| {
            stats.sent_bytes = sent;
            stats.received_bytes = received;
        });
    }
}

/// A far end that accepted what it is to do.
struct Far {
    ends: Ends,
    /// The remote shell, where it was reached through one.
    child: Option<ShellChild>,
    lanes: LanePlan,
}

/// Starts the far end and tells it what to do.
fn connect(session: &Session, address: &Address, mut setup: Setup, how: &Connect) -> Result<Far, SyncError> {
    let cut = Arc::new(AtomicBool::new(false));
    let stop = || Arc::clone(session.stop.as_atomic());
    // Digests and lists are small: they need no lanes.
    if setup.verify || setup.options.list_only {
        setup.transport = Transport::Shell;
    }
    let wish = LaneWish { transport: setup.transport, ..how.lanes.clone() };
    let seconds = how.connect_timeout_s.filter(|&seconds| seconds > 0);
    let connect_timeout = seconds.map(Duration::from_secs).or(timeout(&session.options));
    let (mut reader, mut writer, mut reached) = match address {
        Address::Shell { user, host, .. } => {
            let link = how.shell.spawn(user.as_deref(), host, &FAR_ARGUMENTS)?;
            let reader = LinkReader::new(link.stdout, stop()).map_err(SyncError::Setup)?;
            let writer = LinkWriter::new(link.stdin, stop()).map_err(SyncError::Setup)?;
            (reader, writer, Reached::Shell(link.child))
        }
        Address::Daemon { host, port, .. } => {
            let reached = daemon::reach(&session.stop, host, *port, how, connect_timeout)?;
            let host_key = reached.host_key;
            let identity = reached.identity;
            (reached.reader, reached.writer, Reached::Daemon { identity, host_key })
        }
        Address::Local(_) => return Err(SyncError::usage("this address does not name a host")),
    };
    reader.set_timeout(connect_timeout);
    match &mut reached {
        Reached::Shell(child) => {
            let ours = Greeting::ours();
            let greeted = writer.write_all(&ours.encode());
            child.expect_greeting(&mut reader, Greeting::magic()).map_err(|error| explain(error, session))?;
            greeted.map_err(|error| explain(child.failure(error), session))?;
            let theirs = Greeting::read_rest(|buffer| reader.read_exact(buffer))
                .map_err(|error| explain(child.failure(error), session))??;
            agree(&ours, &theirs)?;
        }
        Reached::Daemon { .. } => daemon::greet(&mut reader, &mut writer)?,
    }
    let listed = setup.role == FarRole::Sender && setup.options.files_from.is_some();
    pump::write_message(&mut writer, &Message::Setup(Box::new(setup))).map_err(SyncError::from_link)?;
    if listed {
        send_paths(&mut writer, session.options.files_from.as_deref().unwrap_or_default())?;
    }
    let lane_key = match read_message(&mut reader).map_err(|error| match error {
        SyncError::Link(error) => reached.failure(error, session),
        other => other,
    })? {
        Message::Ready { lane_key } => lane_key.map(PublicKey),
        Message::Fatal { text, hint, timed_out } => return Err(SyncError::Far { text, hint, timed_out }),
        _ => return Err(crate::wire::FlowError::Unexpected { what: "message" }.into()),
    };
    reader.set_timeout(timeout(&session.options));
    writer.set_timeout(timeout(&session.options));
    // From here on a wish to stop is talked over; only this flag cuts the link.
    reader.set_stop(Arc::clone(&cut));
    writer.set_stop(Arc::clone(&cut));
    let lanes = match lane_key {
        Some(far_key) if wish.transport != Transport::Shell => {
            LanePlan::Lead(Box::new(reached.lead(session, address, how, wish, far_key)?))
        }
        _ => LanePlan::None,
    };
    let child = match reached {
        Reached::Shell(child) => Some(child),
        Reached::Daemon { .. } => None,
    };
    Ok(Far { ends: Ends { reader, writer, cut }, child, lanes })
}

/// The modules of a daemon that we may use.
pub fn list_modules(address: &Address, how: &Connect, stop: &StopFlag) -> Result<Vec<ModuleLine>, SyncError> {
    let Address::Daemon { host, port, .. } = address else {
        return Err(SyncError::usage("only a daemon has modules"));
    };
    let timeout = how.connect_timeout_s.filter(|&seconds| seconds > 0).map(Duration::from_secs);
    let ReachedDaemon { mut reader, mut writer, .. } = daemon::reach(stop, host, *port, how, timeout)?;
    reader.set_timeout(timeout);
    daemon::greet(&mut reader, &mut writer)?;
    let setup = Setup {
        role: FarRole::Sender,
        paths: SetupPaths { paths: Vec::new(), sources: Vec::new() },
        module: Some(String::new()),
        options: SyncOptions::default(),
        transport: Transport::Shell,
        verify: false,
        content_only: false,
        near: None,
    };
    pump::write_message(&mut writer, &Message::Setup(Box::new(setup))).map_err(SyncError::from_link)?;
    match read_message(&mut reader)? {
        Message::Modules(modules) => Ok(modules),
        Message::Fatal { text, hint, timed_out } => Err(SyncError::Far { text, hint, timed_out }),
        _ => Err(crate::wire::FlowError::Unexpected { what: "message" }.into()),
    }
}

/// What the far end was reached through.
enum Reached {
    Shell(ShellChild),
    Daemon { identity: Arc<Identity>, host_key: PublicKey },
}

impl Reached {
    fn failure(&mut self, error: LinkError, session: &Session) -> SyncError {
        match self {
            Reached::Shell(child) => explain(child.failure(error), session),
            Reached::Daemon { .. } => SyncError::from_link(error),
        }
    }

    /// What the client does to get lanes.
    fn lead(
        &self,
        session: &Session,
        address: &Address,
        how: &Connect,
        wish: LaneWish,
        far_key: PublicKey,
    ) -> Result<Lead, SyncError> {
        let timeout = timeout(&session.options);
        match (self, address) {
            (Reached::Daemon { identity, host_key }, Address::Daemon { host, port, .. }) => {
                let hosts = vec![host.clone()];
                let identity = Arc::clone(identity);
                let daemon_port = Some(*port);
                Ok(Lead {
                    wish,
                    identity,
                    far_key: *host_key,
                    hosts: Box::new(move || hosts.clone()),
                    daemon_port,
                    timeout,
                })
            }
            (_, address) => {
                let identity = Arc::new(Identity::generate().map_err(SyncError::Setup)?);
                let (shell, address) = (how.shell.clone(), address.clone());
                let hosts = Box::new(move || hosts_of(&shell, &address));
                Ok(Lead { wish, identity, far_key, hosts, daemon_port: None, timeout })
            }
        }
    }
}

/// Names by which the shell's host may be reached: what ssh makes of it, else as the user wrote it.
fn hosts_of(shell: &crate::net::RemoteShell, address: &Address) -> Vec<String> {
    let Address::Shell { user, host, .. } = address else { return Vec::new() };
    let by_ssh = crate::net::ssh_hostname(shell, user.as_deref(), host);
    by_ssh.or_else(|| String::from_utf8(host.clone()).ok()).into_iter().collect()
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
fn setup(
    session: &Session,
    role: FarRole,
    paths: Vec<Vec<u8>>,
    sources: &[Vec<u8>],
    far: &Address,
    how: &Connect,
) -> Setup {
    // A list of paths may be long: a sender gets it in messages of its own, a receiver only knows that there is one.
    let files_from = session.options.files_from.as_ref().map(|_| Vec::new());
    let options = SyncOptions { files_from, ..session.options.clone() };
    Setup {
        role,
        paths: SetupPaths { paths, sources: sources.to_vec() },
        module: match far {
            Address::Daemon { module, .. } => Some(String::from_utf8_lossy(module).into_owned()),
            _ => None,
        },
        transport: how.lanes.transport,
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
fn source_places(base: &Base, paths: &[Vec<u8>]) -> Vec<(u32, u32, u64)> {
    let contents = |path: &[u8]| path.ends_with(b"/") || path.ends_with(b"/.") || path == b".";
    let parents = paths.iter().filter(|path| !contents(path)).filter_map(|path| place(base, &parent(path)));
    paths.iter().filter_map(|path| place(base, path)).chain(parents).collect()
}

/// The directory that a destination is, or lies in where it is none.
fn destination_places(base: &Base, path: &[u8]) -> Vec<(u32, u32, u64)> {
    place(base, path).or_else(|| place(base, &parent(path))).into_iter().collect()
}

fn parent(path: &[u8]) -> Vec<u8> {
    let parent = std::path::Path::new(std::ffi::OsStr::from_bytes(path)).parent();
    parent.map(|parent| parent.as_os_str().as_bytes().to_vec()).unwrap_or_default()
}

/// A directory by what it is, whatever it is called.
fn place(base: &Base, path: &[u8]) -> Option<(u32, u32, u64)> {
    let dir = base.open_dir(path).ok()?;
    dir.metadata().ok().map(|metadata| (metadata.dev.0, metadata.dev.1, metadata.ino))
}

/// `--remove-source-files` where both ends are one place would remove the only copy.
fn refuse_one_place(setup: &Setup, base: &Base) -> Result<(), SyncError> {
    let Some(near) = &setup.near else { return Ok(()) };
    if near.boot_id.is_empty() || near.boot_id != crate::fs::boot_id() {
        return Ok(());
    }
    let far = match setup.role {
        FarRole::Sender => source_places(base, &setup.paths.paths),
        FarRole::Receiver => setup.paths.paths.iter().flat_map(|path| destination_places(base, path)).collect(),
    };
    if far.iter().any(|place| near.directories.contains(place)) {
        return Err(SyncError::usage(
            "source and destination are on one machine and share a directory: \
             --remove-source-files could remove the only copy; use local paths",
        ));
    }
    Ok(())
}

/// A session with at least one end far away. The totals of the far side, or of both.
pub(super) fn run(
    session: &Arc<Session>,
    ends: &super::Ends<'_>,
    arguments: &[Vec<u8>],
    destination: Option<&[u8]>,
    how: &Connect,
    watch: &Stopwatch,
) -> Result<Stats, SyncError> {
    match ends {
        super::Ends::Push(address) => push(session, arguments, address, how, watch),
        super::Ends::Pull(address) => pull(session, arguments, address, destination, how, watch),
        super::Ends::Between(source, address) => between::run(session, arguments, source, address, how, watch),
        super::Ends::Here => Err(SyncError::usage("no host is named")),
    }
}

/// Sources here, destination there. The far side's totals.
fn push(
    session: &Arc<Session>,
    arguments: &[Vec<u8>],
    destination: &Address,
    how: &Connect,
    watch: &Stopwatch,
) -> Result<Stats, SyncError> {
    let mut setup = setup(session, FarRole::Receiver, vec![destination.path().to_vec()], arguments, destination, how);
    setup.near = near(session, || source_places(&session.base, arguments));
    let far = connect(session, destination, setup, how)?;
    take_part(session, far, watch, |part| feed::run(part, arguments))
}

/// Sources there, destination here (`None` only lists). The far side's totals.
fn pull(
    session: &Arc<Session>,
    arguments: &[Vec<u8>],
    source: &Address,
    destination: Option<&[u8]>,
    how: &Connect,
    watch: &Stopwatch,
) -> Result<Stats, SyncError> {
    let mut setup = setup(session, FarRole::Sender, arguments.to_vec(), &[], source, how);
    setup.near = near(session, || destination.map(|path| destination_places(&session.base, path)).unwrap_or_default());
    let far = connect(session, source, setup, how)?;
    take_part(session, far, watch, |part| match destination {
        destination if session.verify.is_some() => verify_in::run(part, destination),
        Some(destination) => intake::run(part, destination, arguments),
        None => intake::list(part),
    })
}

/// Runs the client's part to its end: then the shell's process ends too, and explains a broken link.
fn take_part(
    session: &Arc<Session>,
    far: Far,
    watch: &Stopwatch,
    work: impl FnOnce(Part<'_>) -> Result<Stats, SyncError>,
) -> Result<Stats, SyncError> {
    let Far { mut ends, mut child, lanes } = far;
    let throttle = Arc::new(Throttle::new(session.options.bwlimit_bytes_per_s));
    ends.writer.set_throttle(Arc::clone(&throttle));
    let traffic = Traffic::of(&ends);
    let part = Part { session, ends, watch, relay: None, lanes, throttle: &throttle, traffic: &traffic };
    let result = work(part);
    traffic.note(session);
    let Some(child) = &mut child else { return result };
    match result {
        Ok(stats) => {
            child.wait(limits::ms(limits::STOP_GRACE_MS));
            Ok(stats)
        }
        Err(SyncError::Link(error)) if !session.stop.requested() => Err(SyncError::from_shell(child.failure(error))),
        Err(error) => {
            child.wait(limits::ms(limits::LOCK_RETRY_MS));
            Err(error)
        }
    }
}

/// The far end of a remote shell: speaks on standard input and output until the session ends.
pub fn serve_stdio(stop: &StopFlag) -> Result<(), SyncError> {
    let cut = Arc::new(AtomicBool::new(false));
    let reader = LinkReader::stdin(Arc::clone(&cut)).map_err(SyncError::Setup)?;
    let writer = LinkWriter::to_stdout(Arc::clone(&cut)).map_err(SyncError::Setup)?;
    let identity = Arc::new(Identity::generate().map_err(SyncError::Setup)?);
    let served = Served { ends: Ends { reader, writer, cut }, identity, door: Door::Own };
    match serve_on(served, &mut AsUser, stop) {
        Ok(_) => Ok(()),
        // Whoever stopped it knows, and an error that was told over there is told.
        Err(Broken { error: SyncError::Stopped, .. } | Broken { told: true, .. }) => Ok(()),
        Err(Broken { error, .. }) => Err(error),
    }
}

/// A session that did not come to its end.
pub(in crate::sync) struct Broken {
    /// Why.
    pub(in crate::sync) error: SyncError,
    /// What it had done by then, at this side.
    pub(in crate::sync) stats: Box<Stats>,
    /// It was said to the peer, which may be gone.
    told: bool,
}

impl From<SyncError> for Broken {
    fn from(error: SyncError) -> Broken {
        Broken { error, stats: Box::default(), told: false }
    }
}

/// A client's connection to a far end.
pub(in crate::sync) struct Served {
    ends: Ends,
    identity: Arc<Identity>,
    door: Door,
}

impl Served {
    /// Both directions of the control lane, who this end is, and how further lanes reach it. `cut` ends every wait.
    pub(in crate::sync) fn new(
        reader: LinkReader,
        writer: LinkWriter,
        cut: Arc<AtomicBool>,
        identity: Arc<Identity>,
        door: Door,
    ) -> Served {
        Served { ends: Ends { reader, writer, cut }, identity, door }
    }
}

/// Who decides what a client may do.
pub(in crate::sync) trait Gatekeeper {
    /// Looks at what the client wants, before anything of it is done: changes it to what it may, or refuses. The
    /// process has one thread still.
    fn admit(&mut self, setup: &mut Setup) -> Result<Admission, SyncError>;
    /// The modules that the client may use; asked for by an empty module name.
    fn modules(&mut self) -> Vec<crate::wire::ModuleLine>;
    /// Hears what happens, besides the client.
    fn counters(&self) -> Option<Arc<crate::monitor::Counters>> {
        None
    }
    /// Where bytes are counted, where someone else looks at them.
    fn traffic(&self) -> Arc<Traffic> {
        Arc::default()
    }
}

/// What a client was admitted to.
pub(in crate::sync) struct Admission {
    /// Where its paths begin.
    pub(in crate::sync) base: crate::fs::Base,
    /// It must not hear names of what is there already.
    pub(in crate::sync) hides_names: bool,
}

/// Over a remote shell the user may do what the shell lets him.
struct AsUser;

impl Gatekeeper for AsUser {
    fn admit(&mut self, setup: &mut Setup) -> Result<Admission, SyncError> {
        match setup.module {
            None => Ok(Admission { base: crate::fs::Base::Process, hides_names: false }),
            Some(_) => Err(SyncError::usage("there are no modules at the end of a remote shell")),
        }
    }

    fn modules(&mut self) -> Vec<crate::wire::ModuleLine> {
        Vec::new()
    }
}

/// Serves one client until its session ends. This side's totals.
pub(in crate::sync) fn serve_on(
    served: Served,
    gatekeeper: &mut dyn Gatekeeper,
    stop: &StopFlag,
) -> Result<Stats, Broken> {
    crate::fs::raise_open_files_limit();
    let Served { ends: Ends { mut reader, mut writer, cut }, identity, door } = served;
    let ours = Greeting::ours();
    writer.write_all(&ours.encode()).map_err(SyncError::from_link)?;
    reader.set_timeout(Some(limits::ms(limits::SETUP_TIMEOUT_MS)));
    let theirs = Greeting::read_whole(|buffer| reader.read_exact(buffer))
        .map_err(SyncError::from_link)?
        .map_err(SyncError::from)?;
    agree(&ours, &theirs).map_err(SyncError::from)?;
    let Message::Setup(mut setup) = read_message(&mut reader)? else {
        return Err(SyncError::from(crate::wire::FlowError::Unexpected { what: "message" }).into());
    };
    reader.set_timeout(timeout(&setup.options));
    writer.set_timeout(timeout(&setup.options));
    if setup.module.as_deref() == Some("") {
        let modules = Message::Modules(gatekeeper.modules());
        pump::write_message(&mut writer, &modules).map_err(SyncError::from_link)?;
        // A client that has its answer may be gone already.
        let _client_is_gone = writer.close();
        return Ok(Stats::default());
    }
    let admitted = gatekeeper.admit(&mut setup);
    let admitted = admitted.and_then(|admission| refuse_one_place(&setup, &admission.base).map(|()| admission));
    let admission = match admitted {
        Ok(admission) => admission,
        Err(error) => {
            pump::write_message(&mut writer, &error.for_peer()).map_err(SyncError::from_link)?;
            let _client_is_gone = writer.close();
            linger(&mut reader);
            return Err(error.into());
        }
    };
    if setup.role == FarRole::Sender
        && let Some(paths) = &mut setup.options.files_from
    {
        *paths = receive_paths(&mut reader)?;
    }
    // The gatekeeper may have shortened it.
    reader.set_timeout(timeout(&setup.options));
    writer.set_timeout(timeout(&setup.options));
    let ends = Ends { reader, writer, cut };
    serve(*setup, ends, admission, gatekeeper, identity, door, stop)
}

/// Reads on for a while: a socket that is closed with unread bytes in it resets the connection, and what was said last
/// would be lost with it.
fn linger(reader: &mut LinkReader) {
    let watch = Stopwatch::start();
    let mut rest = vec![0; limits::LINK_READ_AHEAD_BYTES];
    reader.set_timeout(Some(limits::ms(limits::REFUSAL_TIMEOUT_MS)));
    while watch.elapsed_ms() < limits::REFUSAL_TIMEOUT_MS && reader.read_some(&mut rest).is_ok() {}
}

fn serve(
    setup: Setup,
    mut ends: Ends,
    admission: Admission,
    gatekeeper: &dyn Gatekeeper,
    identity: Arc<Identity>,
    door: Door,
    stop: &StopFlag,
) -> Result<Stats, Broken> {
    let relay = Arc::new(Relay::new(gatekeeper.counters(), admission.hides_names));
    let mut session = Session::build(setup.options, Arc::clone(&relay) as Arc<dyn Monitor>, stop.clone());
    session.verify = setup.verify.then_some(super::verify::VerifyMode { content_only: setup.content_only });
    session.base = admission.base;
    let session = Arc::new(session);
    let watch = Stopwatch::start();
    let wants_lanes = setup.transport != Transport::Shell;
    let ready = Message::Ready { lane_key: wants_lanes.then(|| identity.public_key().0) };
    pump::write_message(&mut ends.writer, &ready).map_err(SyncError::from_link)?;
    let throttle = Arc::new(Throttle::new(session.options.bwlimit_bytes_per_s));
    ends.writer.set_throttle(Arc::clone(&throttle));
    let follow = Follow { identity, transport: setup.transport, door, timeout: timeout(&session.options) };
    let lanes = if wants_lanes { LanePlan::Follow(follow) } else { LanePlan::None };
    let traffic = gatekeeper.traffic();
    traffic.add(&ends);
    let part = Part {
        session: &session,
        ends,
        watch: &watch,
        relay: Some(&relay),
        lanes,
        throttle: &throttle,
        traffic: &traffic,
    };
    let result = match setup.role {
        FarRole::Sender => feed::run(part, &setup.paths.paths),
        FarRole::Receiver => {
            let [destination] = &setup.paths.paths[..] else {
                return Err(SyncError::from(crate::wire::FlowError::Unexpected { what: "number of paths" }).into());
            };
            if session.verify.is_some() {
                verify_in::run(part, Some(destination))
            } else {
                intake::run(part, destination, &setup.paths.sources)
            }
        }
    };
    traffic.note(&session);
    match result {
        Ok(_) => Ok(session.stats()),
        Err(error) => Err(Broken { error, stats: Box::new(session.stats()), told: session.has_failed() }),
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
