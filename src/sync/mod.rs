//! The sync job: sender, receiver, both on one machine or at the two ends of a remote shell.

mod buffers;
mod clock;
mod content;
mod error;
mod filters;
mod held;
mod inplace;
mod list;
mod local;
mod module;
#[cfg(test)]
mod module_tests;
mod receiver;
mod remote;
mod sender;
pub mod serve;
mod session;
mod stop;
mod verify;

use std::sync::Arc;

pub use self::content::{Compressor, Decompressor};
pub use self::error::SyncError;
pub use self::module::module_base;
pub use self::remote::{LaneWish, list_modules, serve_stdio};
pub use self::stop::StopFlag;
pub use self::verify::{VerifyReport, VerifyRequest, verify};
use crate::model::{Outcome, Stats};
use crate::monitor::{Monitor, Phase};
use crate::net::{Address, RemoteShell};
use crate::plan::options::SyncOptions;
pub use crate::wire::{ModuleLine, Transport};

/// A sync that the user asked for.
#[derive(Debug, Clone)]
pub struct SyncRequest {
    /// Sources, at least one; all here, or all on one host.
    pub sources: Vec<Address>,
    /// The destination; `None` only lists.
    pub destination: Option<Address>,
    /// How.
    pub options: SyncOptions,
    /// How a far end is reached.
    pub connect: Connect,
}

/// How a far end is reached.
#[derive(Debug, Clone)]
pub struct Connect {
    /// `-e` and `--xfer-path`.
    pub shell: RemoteShell,
    /// `--contimeout`: seconds until the far end has to have answered.
    pub connect_timeout_s: Option<u64>,
    /// `--transport`, `--lanes`, `--lane-ports`.
    pub lanes: LaneWish,
    /// Keys for `xfer://` addresses.
    pub keys: Option<Arc<dyn DaemonKeys>>,
}

/// Who we are to a daemon, and which daemons are trusted.
pub trait DaemonKeys: Send + Sync + std::fmt::Debug {
    /// Our own key; why there is none, with what to do about it, in words.
    fn identity(&self) -> Result<Arc<crate::net::Identity>, String>;
    /// Whether the daemon at an address may have that key; why not, in words. May ask the user.
    fn trust(&self, host: &str, port: u16, key: &crate::net::PublicKey) -> Result<(), String>;
}

/// What a run that got to its end did.
#[derive(Debug, Clone)]
pub struct Report {
    /// Totals of both ends.
    pub stats: Stats,
    /// How it ended.
    pub outcome: Outcome,
    /// Duration of the whole, in milliseconds.
    pub elapsed_ms: u64,
    /// Time until the source was listed whole, in milliseconds.
    pub listing_ms: u64,
}

/// Where the two ends are.
enum Ends<'a> {
    Here,
    Push(&'a Address),
    Pull(&'a Address),
    Between(&'a Address, &'a Address),
}

/// Runs a sync to its end, or to the stop that `stop` asks for.
pub fn run(request: &SyncRequest, monitor: Arc<dyn Monitor>, stop: &StopFlag) -> Result<Report, SyncError> {
    let watch = clock::Stopwatch::start();
    crate::fs::raise_open_files_limit();
    monitor.event(crate::monitor::Event::Phase(Phase::Connecting));
    let session = session::Session::new(request.options.clone(), monitor, stop.clone());
    let paths: Vec<Vec<u8>> = request.sources.iter().map(|source| source.path().to_vec()).collect();
    let only_lists = request.options.list_only || request.destination.is_none();
    let ends = ends(&request.sources, request.destination.as_ref())?;
    let far_stats = match (ends, &request.destination) {
        (Ends::Here, _) if only_lists => {
            list::list(&session, &paths);
            Ok(Stats::default())
        }
        (Ends::Here, Some(destination)) => local::run(&session, &paths, destination.path(), &watch),
        (ends, destination) => {
            let destination = destination.as_ref().filter(|_| !only_lists).map(Address::path);
            remote::run(&session, &ends, &paths, destination, &request.connect, &watch)
        }
    };
    let (stats, outcome) = conclude(&session, far_stats)?;
    Ok(Report { stats, outcome, elapsed_ms: watch.elapsed_ms(), listing_ms: session.listing_ms() })
}

/// Totals of all ends and how it ended. A wish to stop is no error, whatever it broke.
fn conclude(session: &session::Session, far_stats: Result<Stats, SyncError>) -> Result<(Stats, Outcome), SyncError> {
    let interrupted = session.stop.requested();
    if let Some(error) = session.take_error()
        && !interrupted
    {
        return Err(error);
    }
    let mut stats = session.stats();
    match far_stats {
        Ok(far) => stats.merge(&far),
        Err(_) if interrupted => {}
        Err(error) => return Err(error),
    }
    let outcome = if interrupted { Outcome::Interrupted } else { stats.outcome() };
    Ok((stats, outcome))
}

/// Which sides are far. Sources are all here or all on one host.
fn ends<'a>(sources: &'a [Address], destination: Option<&'a Address>) -> Result<Ends<'a>, SyncError> {
    let [first, ..] = sources else { return Err(SyncError::usage("no source was named")) };
    let lacks_module = |address: &Address| matches!(address, Address::Daemon { module, .. } if module.is_empty());
    if sources.iter().chain(destination).any(lacks_module) {
        return Err(SyncError::usage(
            "no module is named: write xfer://HOST/MODULE/PATH; xfer://HOST/ alone lists them",
        ));
    }
    let far_destination = destination.filter(|destination| destination.is_remote());
    let far_sources = sources.iter().filter(|source| source.is_remote()).count();
    match (far_sources, far_destination) {
        (0, None) => Ok(Ends::Here),
        (0, Some(destination)) => Ok(Ends::Push(destination)),
        (count, far) if count == sources.len() && sources.iter().all(|source| same_host(source, first)) => {
            Ok(far.map_or(Ends::Pull(first), |destination| Ends::Between(first, destination)))
        }
        _ => Err(SyncError::usage("all remote sources must be on one host, and none local beside them")),
    }
}

fn same_host(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Shell { user, host, .. }, Address::Shell { user: other_user, host: other_host, .. }) => {
            user == other_user && host == other_host
        }
        (
            Address::Daemon { host, port, module, .. },
            Address::Daemon { host: other_host, port: other_port, module: other_module, .. },
        ) => host == other_host && port == other_port && module == other_module,
        _ => false,
    }
}

/// Starts one thread of a run. Where the system has none left, the run fails; those that run already see it and end.
fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    session: &session::Session,
    work: impl FnOnce() -> T + Send + 'scope,
) {
    if let Err(source) = std::thread::Builder::new().spawn_scoped(scope, work) {
        session.fail(SyncError::Threads { source });
    }
}

/// Threads for one kind of work: at least two, since disks answer in parallel whatever the cores.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, crate::limits::WORKERS_MAX)
}

/// Directories that may be held open: a quarter of the descriptors, the rest is for files.
fn handles_max() -> usize {
    let limit = crate::fs::raise_open_files_limit().unwrap_or(u64::MAX);
    (limit / 4).clamp(16, 4096) as usize
}
