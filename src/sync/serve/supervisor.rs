//! The process that listens: it knows who is connected, starts a process for each session, and hands connections on.
//! It reads 24 bytes of a connection and no more.
#![allow(clippy::disallowed_methods, reason = "the supervisor accepts, starts its workers and measures deadlines")]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{LocalSet, spawn_blocking, spawn_local};

use super::book::{Book, ConnectionId, Refusal, Start};
use super::config::{Config, parse_listen};
use super::event::{ServeEvent, ServeLog};
use super::metrics::{Gauges, Metrics, serve_page};
use super::notify::Notify as Manager;
use super::refusals::{Origin, Refusals, Told};
use super::served::Served;
use super::session::{self, Handle};
use super::worker::in_words;
use super::{ServeEnd, ServeError, ServeRequest};
use crate::limits;
use crate::net::DAEMON_PORT_DEFAULT;
use crate::net::keys::ServerKeys;
use crate::wire::{PREAMBLE_BYTES, Preamble, SessionId};

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ending {
    /// Not at all.
    No,
    /// No new sessions.
    Draining,
    /// Sessions are told to end.
    Stopping,
}

/// What all tasks of the supervisor share, on its one thread.
pub(super) struct Shared {
    pub(super) log: Arc<dyn ServeLog>,
    pub(super) metrics: Metrics,
    pub(super) book: RefCell<Book>,
    pub(super) served: RefCell<Rc<Served>>,
    pub(super) ending: watch::Sender<Ending>,
    /// Sessions that lanes may join.
    sessions: RefCell<HashMap<SessionId, Handle>>,
    /// How each connection hears that it has to go.
    held: RefCell<HashMap<ConnectionId, Rc<Notify>>>,
    /// Workers that run, and who waits for the last one.
    workers: Cell<usize>,
    idle: Notify,
    /// Heard by those who wait for a worker.
    room: Notify,
    refusals: RefCell<Refusals>,
}

impl Shared {
    pub(super) fn event(&self, event: &ServeEvent) {
        self.log.event(event);
    }

    /// A connection is not served: counted, and one line. Of one address's many, most share a line.
    pub(super) fn refused(self: &Rc<Shared>, peer: SocketAddr, why: Refusal, detail: Option<String>) {
        self.metrics.refused(why);
        let told = self.refusals.borrow_mut().add(peer.ip(), why);
        if let Told::Now(origin) = told {
            self.event(&ServeEvent::Refused { peer, why, detail });
            let shared = Rc::clone(self);
            spawn_local(async move {
                loop {
                    tokio::time::sleep(limits::ms(limits::SERVE_REFUSALS_MERGED_MS)).await;
                    if !shared.tell_refused(origin) {
                        return;
                    }
                }
            });
        }
    }

    /// Tells of the rest of one address's refusals; false where there was none.
    fn tell_refused(&self, origin: Origin) -> bool {
        let counts = self.refusals.borrow_mut().take(origin);
        let Some(counts) = counts else { return false };
        self.event(&ServeEvent::RefusedMore { from: origin, counts });
        true
    }

    /// A connection left, or said who it is: another may have its place.
    pub(super) fn made_room(&self) {
        self.room.notify_waiters();
    }

    /// Somebody has to give way.
    pub(super) fn displace(&self, id: Option<ConnectionId>) {
        if let Some(gone) = id.and_then(|id| self.held.borrow_mut().remove(&id)) {
            gone.notify_one();
        }
    }

    pub(super) fn is_ending(&self) -> bool {
        *self.ending.borrow() != Ending::No
    }

    pub(super) fn join(&self, session: SessionId, handle: Handle) {
        self.sessions.borrow_mut().insert(session, handle);
    }

    pub(super) fn part(&self, session: SessionId) {
        self.sessions.borrow_mut().remove(&session);
    }

    fn gauges(&self) -> Gauges {
        let book = self.book.borrow();
        Gauges {
            sessions: book.sessions(),
            unauthenticated: book.unauthenticated(),
            draining: self.is_ending(),
            log_lines_dropped: self.log.dropped(),
        }
    }
}

/// Counts a worker for as long as it lives.
pub(super) struct WorkerGuard(Rc<Shared>);

impl WorkerGuard {
    pub(super) fn new(shared: &Rc<Shared>) -> WorkerGuard {
        shared.workers.set(shared.workers.get() + 1);
        WorkerGuard(Rc::clone(shared))
    }
}

impl Drop for WorkerGuard {
    fn drop(&mut self) {
        self.0.workers.set(self.0.workers.get() - 1);
        if self.0.workers.get() == 0 {
            self.0.idle.notify_one();
        }
    }
}

/// Runs a daemon until it is told to end, and its sessions have.
pub fn serve(request: ServeRequest) -> Result<ServeEnd, ServeError> {
    // Core dumps of a supervisor would hold what passes through it.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    crate::fs::raise_open_files_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // The name service may hang: it must not take all memory with it.
        .max_blocking_threads(limits::WORKERS_MAX)
        .build()
        .map_err(ServeError::Runtime)?;
    let ended = LocalSet::new().block_on(&runtime, run(request));
    // A look-up that hangs keeps nobody.
    runtime.shutdown_background();
    ended
}

async fn run(request: ServeRequest) -> Result<ServeEnd, ServeError> {
    let ServeRequest { config, load, sockets, notify_socket, log } = request;
    let mut signals = Signals::new().map_err(ServeError::Runtime)?;
    let (served, problems) = prepare(config.clone()).await.map_err(|reason| ServeError::Config { reason })?;
    problems.into_iter().for_each(|text| log.event(&ServeEvent::Trouble { text }));
    let shared = Rc::new(Shared {
        log,
        metrics: Metrics::default(),
        book: RefCell::new(Book::new(config.limits)),
        served: RefCell::new(Rc::new(served)),
        ending: watch::Sender::new(Ending::No),
        sessions: RefCell::default(),
        held: RefCell::default(),
        workers: Cell::new(0),
        idle: Notify::new(),
        room: Notify::new(),
        refusals: RefCell::default(),
    });
    for listener in listeners(&config, sockets)? {
        let address = listener.local_addr().map_err(ServeError::Runtime)?;
        shared.event(&ServeEvent::Listening { address });
        spawn_local(accept(Rc::clone(&shared), listener));
    }
    if let Some(address) = config.metrics {
        let listener = TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })?;
        let address = listener.local_addr().map_err(ServeError::Runtime)?;
        shared.event(&ServeEvent::Metrics { address });
        let of = Rc::clone(&shared);
        spawn_local(serve_page(listener, Rc::new(move || of.metrics.page(of.gauges()))));
    }
    let manager = Manager::new(notify_socket);
    tell(&shared, manager.ready());
    let mut config = config;
    loop {
        tokio::select! {
            () = signals.ends.next() => break,
            _ = signals.hang_up.recv() => {
                tell(&shared, manager.reloading());
                shared.log.reopen();
                if let Some(new) = reload(&shared, &config, &load).await {
                    config = new;
                }
                tell(&shared, manager.ready());
            }
        }
    }
    let ended = end(&shared, &mut signals, &manager).await;
    let origins = shared.refusals.borrow().origins();
    for origin in origins {
        shared.tell_refused(origin);
    }
    ended
}

/// Takes no new sessions and waits for those that run; on a second signal tells them to end, on a third ends.
async fn end(shared: &Rc<Shared>, signals: &mut Signals, manager: &Manager) -> Result<ServeEnd, ServeError> {
    let sessions = || shared.book.borrow().sessions();
    shared.ending.send_replace(Ending::Draining);
    shared.made_room();
    shared.event(&ServeEvent::Draining { sessions: sessions() });
    tell(shared, manager.stopping(sessions()));
    let mut end = ServeEnd::Drained;
    while shared.workers.get() > 0 {
        tokio::select! {
            () = shared.idle.notified() => {}
            () = signals.ends.next() => {
                if end == ServeEnd::Cut {
                    return Ok(end);
                }
                end = ServeEnd::Cut;
                shared.event(&ServeEvent::Stopping { sessions: sessions() });
                shared.ending.send_replace(Ending::Stopping);
            }
        }
    }
    Ok(end)
}

fn tell(shared: &Shared, told: io::Result<()>) {
    if let Err(error) = told {
        shared.event(&ServeEvent::Trouble { text: format!("cannot tell the service manager: {error}") });
    }
}

/// What a configuration comes to: read, looked up and sealed away from the thread that serves.
async fn prepare(config: Config) -> Result<(Served, Vec<String>), String> {
    let work = move || {
        let keys = ServerKeys::load(None).map_err(|error| in_words(&error))?;
        Ok((Served::new(&config)?, keys.problems))
    };
    spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

type Load = Arc<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// Reads everything again. Where anything is wrong, everything stays as it was.
async fn reload(shared: &Shared, old: &Config, load: &Load) -> Option<Config> {
    let load = Arc::clone(load);
    let loaded = spawn_blocking(move || load()).await.unwrap_or_else(|error| Err(error.to_string()));
    let prepared = match loaded {
        Ok(config) => prepare(config.clone()).await.map(|(served, problems)| (config, served, problems)),
        Err(reason) => Err(reason),
    };
    match prepared {
        Ok((config, served, problems)) => {
            problems.into_iter().for_each(|text| shared.event(&ServeEvent::Trouble { text }));
            for (changed, key) in [
                (config.listen != old.listen, "listen"),
                (config.metrics != old.metrics, "metrics"),
                (config.log != old.log, "log"),
            ] {
                if changed {
                    let text = format!("\"{key}\" has changed: that takes effect at the next start");
                    shared.event(&ServeEvent::Trouble { text });
                }
            }
            shared.book.borrow_mut().set_limits(config.limits);
            *shared.served.borrow_mut() = Rc::new(served);
            shared.metrics.reloaded(true);
            shared.event(&ServeEvent::Reloaded { modules: config.modules.len() });
            // What did not take effect has to differ again next time.
            let Config { listen, metrics, log, .. } = old.clone();
            Some(Config { listen, metrics, log, ..config })
        }
        Err(reason) => {
            shared.metrics.reloaded(false);
            shared.event(&ServeEvent::ReloadFailed { reason });
            None
        }
    }
}

/// Sockets that a service manager opened, or those of the configuration.
fn listeners(config: &Config, sockets: Vec<StdListener>) -> Result<Vec<TcpListener>, ServeError> {
    if !sockets.is_empty() {
        let adopt = |socket: StdListener| {
            socket.set_nonblocking(true)?;
            TcpListener::from_std(socket)
        };
        return sockets.into_iter().map(adopt).collect::<io::Result<Vec<_>>>().map_err(ServeError::Runtime);
    }
    let bind = |address: SocketAddr| {
        let bound = StdListener::bind(address).and_then(|socket| {
            socket.set_nonblocking(true)?;
            TcpListener::from_std(socket)
        });
        bound.map_err(|source| ServeError::Listen { address, source })
    };
    if !config.listen.is_empty() {
        return config.listen.iter().copied().map(bind).collect();
    }
    let Ok(everywhere) = parse_listen(":") else { return Ok(Vec::new()) };
    // A machine without IPv6 has no such address.
    let bound = bind(everywhere).or_else(|_| bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, DAEMON_PORT_DEFAULT))))?;
    Ok(vec![bound])
}

async fn accept(shared: Rc<Shared>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                shared.metrics.accepted();
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let admitted = shared.book.borrow_mut().accept(peer.ip());
                match admitted {
                    Ok((id, gone)) => {
                        shared.displace(gone);
                        spawn_local(connection(Rc::clone(&shared), stream, peer, id));
                    }
                    Err(why) => shared.refused(peer, why, None),
                }
            }
            // The peer went away again, or descriptors ran out: others that end give some back.
            Err(error) => {
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                    shared.event(&ServeEvent::Trouble { text: format!("cannot accept a connection: {error}") });
                    tokio::time::sleep(limits::ms(limits::STOP_POLL_MS)).await;
                }
            }
        }
    }
}

/// Takes a connection out of the books when its task ends, however that comes about.
struct Held {
    shared: Rc<Shared>,
    id: ConnectionId,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.book.borrow_mut().leave(self.id);
        self.shared.held.borrow_mut().remove(&self.id);
        self.shared.made_room();
    }
}

async fn connection(shared: Rc<Shared>, mut stream: TcpStream, peer: SocketAddr, id: ConnectionId) {
    let deadline = Instant::now() + Duration::from_millis(limits::AUTHENTICATION_TIMEOUT_MS);
    let gone = Rc::new(Notify::new());
    shared.held.borrow_mut().insert(id, Rc::clone(&gone));
    let held = Held { shared: Rc::clone(&shared), id };
    let mut first = [0; PREAMBLE_BYTES];
    let preamble = tokio::select! {
        biased;
        () = gone.notified() => Err(Refusal::Displaced),
        read = tokio::time::timeout_at(deadline.into(), stream.read_exact(&mut first)) => match read {
            Err(_) => Err(Refusal::Deadline),
            Ok(Err(_)) => Err(Refusal::Closed),
            Ok(Ok(_)) => Preamble::decode(&first).ok_or(Refusal::Preamble),
        },
    };
    let started = match preamble {
        Err(why) => return shared.refused(peer, why, None),
        Ok(Preamble { session: Some(session) }) => {
            drop(held);
            return hand_on(&shared, stream, peer, session);
        }
        Ok(Preamble { session: None }) => place(&shared, id, &gone, deadline).await,
    };
    match started {
        Ok(displaced) => {
            shared.displace(displaced);
            session::run(&shared, stream, peer, id, &gone, deadline).await;
        }
        Err(why) => shared.refused(peer, why, None),
    }
    drop(held);
}

/// Waits for leave to start a process; the answer, where there is one, has to go for it.
async fn place(
    shared: &Shared,
    id: ConnectionId,
    gone: &Notify,
    deadline: Instant,
) -> Result<Option<ConnectionId>, Refusal> {
    loop {
        // Before the look at the book: nothing that happens after it may be missed.
        let room = shared.room.notified();
        if shared.is_ending() {
            return Err(Refusal::Draining);
        }
        let start = shared.book.borrow_mut().start(id)?;
        if let Start::Now(displaced) = start {
            // Whoever came after this one may be next.
            shared.made_room();
            return Ok(displaced);
        }
        tokio::select! {
            biased;
            () = gone.notified() => return Err(Refusal::Displaced),
            () = tokio::time::sleep_until(deadline.into()) => return Err(Refusal::Deadline),
            () = room => {}
        }
    }
}

/// A lane goes to its session's process.
fn hand_on(shared: &Rc<Shared>, stream: TcpStream, peer: SocketAddr, session: SessionId) {
    let handle = shared.sessions.borrow().get(&session).cloned();
    let handed = match handle {
        None => Err(Refusal::UnknownSession),
        Some(handle) => handle.try_send(stream).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refusal::Lanes,
            mpsc::error::TrySendError::Closed(_) => Refusal::UnknownSession,
        }),
    };
    match handed {
        Ok(()) => shared.metrics.lane(),
        Err(why) => shared.refused(peer, why, None),
    }
}

/// The signals that a daemon listens to.
struct Signals {
    ends: Ends,
    /// SIGHUP: read everything again.
    hang_up: Signal,
}

/// SIGTERM and SIGINT.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        let ends = Ends { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        Ok(Signals { ends, hang_up: signal(SignalKind::hangup())? })
    }
}

impl Ends {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
