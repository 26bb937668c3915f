//! The daemon. A **supervisor** listens, holds who is connected to the bounds, and starts a process for each session;
//! that **worker** finds out who its client is, confines itself to the module, and serves. Nothing that a client sends
//! but 24 bytes is looked at outside of a worker.

mod book;
mod channel;
mod config;
mod control;
mod event;
mod metrics;
mod notify;
mod refusals;
mod sandbox;
mod served;
mod session;
mod supervisor;
mod worker;

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

pub use book::Refusal;
pub use config::{
    Access, Config, ConfigError, Module, ModuleKey, Principal, ServeLimits, parse_config, parse_listen, parse_metrics,
};
pub use event::{Client, MovedTotals, ServeEvent, ServeLog, Severity};
pub use sandbox::{Needs, SandboxError, confine};
pub use supervisor::serve;
pub use worker::{WorkerError, work};

/// A daemon that the user asked for.
pub struct ServeRequest {
    /// What to serve, and how.
    pub config: Config,
    /// Reads it again; why that cannot be done, in words that name the file.
    pub load: Arc<dyn Fn() -> Result<Config, String> + Send + Sync>,
    /// Sockets that a service manager opened; where there are some, nothing else is listened on.
    pub sockets: Vec<TcpListener>,
    /// `NOTIFY_SOCKET`: where a service manager wants to hear how it goes.
    pub notify_socket: Option<OsString>,
    /// Keeps the log.
    pub log: Arc<dyn ServeLog>,
}

/// How a daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServeEnd {
    /// All sessions had finished.
    Drained,
    /// Sessions were ended early, by a second signal.
    Cut,
}

/// Why a daemon could not begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration or the keys cannot be used.
    #[error("{reason}")]
    Config {
        /// What and why.
        reason: String,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system gives something that every daemon needs not.
    #[error("cannot set up the daemon")]
    Runtime(#[source] io::Error),
}
