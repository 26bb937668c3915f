//! What ends a run.

use std::io;

use crate::model::display_bytes;
use crate::net::{LinkError, ShellError};
use crate::wire::{DecodeError, FlowError, HandshakeError};

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// What was asked for makes no sense.
    #[error("{reason}")]
    Usage {
        /// What and why.
        reason: String,
    },
    /// The destination could not be prepared.
    #[error("cannot {operation} the destination \"{}\"", display_bytes(path))]
    Destination {
        /// What was being done.
        operation: &'static str,
        /// As the user wrote it.
        path: Vec<u8>,
        /// Why.
        source: io::Error,
    },
    /// The directory that should hold the destination is missing.
    #[error("the directory that should hold \"{}\" does not exist", display_bytes(path))]
    ParentMissing {
        /// As the user wrote it.
        path: Vec<u8>,
        /// Why.
        source: io::Error,
    },
    /// The destination is a file, and a directory is needed.
    #[error("the destination \"{}\" is not a directory", display_bytes(path))]
    DestinationIsFile {
        /// As the user wrote it.
        path: Vec<u8>,
    },
    /// Another run writes into the destination.
    #[error("another run writes into \"{}\"{}", display_bytes(path), holder_text(*holder, command))]
    Locked {
        /// As the user wrote it.
        path: Vec<u8>,
        /// The process that holds the lock, where the kernel tells.
        holder: Option<u32>,
        /// What it was started as.
        command: Vec<u8>,
    },
    /// The source is empty or missing, and deletion was asked for.
    #[error(
        "the source \"{}\" is empty or missing: nothing was deleted ({extras} items at the destination would be)",
        display_bytes(path)
    )]
    EmptySource {
        /// As the user wrote it.
        path: Vec<u8>,
        /// What would have been deleted, not counting what is below.
        extras: u64,
    },
    /// No room is left.
    #[error(
        "the file system of the destination ({}) is full at \"{}\": {reason}; about {missing_bytes} bytes more are needed",
        display_bytes(file_system),
        display_bytes(path)
    )]
    Full {
        /// The item that did not fit.
        path: Vec<u8>,
        /// Where the file system is mounted.
        file_system: Vec<u8>,
        /// Bytes still to come, less what is free.
        missing_bytes: u64,
        /// In the system's words.
        reason: String,
    },
    /// `--fail-fast`.
    #[error("stopped at the first problem: {problem}")]
    FailFast {
        /// The problem.
        problem: String,
    },
    /// The filter rules cannot be applied.
    #[error("cannot read the filter rules: {reason}")]
    Filter {
        /// Which and why.
        reason: String,
    },
    /// The remote shell, or what it should have started.
    #[error(transparent)]
    Shell(#[from] ShellError),
    /// The connection to the far side.
    #[error("the connection to the far side failed")]
    Link(#[source] LinkError),
    /// Nothing was heard from the far side for too long.
    #[error("nothing was heard from the far side within the time-out")]
    TimedOut,
    /// The far side cannot be understood.
    #[error("the far side does not speak the protocol")]
    Decode(#[from] DecodeError),
    /// The far side breaks the protocol.
    #[error("the far side breaks the protocol")]
    Flow(#[from] FlowError),
    /// The versions do not meet.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The far side said why it cannot go on.
    #[error("{text} (on the far side)")]
    Far {
        /// What failed.
        text: String,
        /// What to do; may be empty.
        hint: String,
        /// It had heard nothing for too long.
        timed_out: bool,
    },
    /// The far side says that it is done before it can be.
    #[error("the far side ended before everything was done")]
    EndedEarly,
    /// A far end was stopped, and not by its client.
    #[error("stopped by a signal")]
    StoppedHere,
    /// More directories wait to be listed than a receiver takes.
    #[error("too many directories wait to be listed ({} at most)", crate::limits::DIRECTORIES_OUTSTANDING_MAX)]
    TooManyDirectories,
    /// `--transport direct`, and no direct lane came about.
    #[error("no direct connection to the other host: {reason}")]
    NoLanes {
        /// What was tried.
        reason: String,
    },
    /// No encrypted connection to a daemon.
    #[error("cannot connect to the daemon at {host} port {port}: {reason}")]
    Daemon {
        /// Host.
        host: String,
        /// TCP port.
        port: u16,
        /// Why, in words.
        reason: String,
    },
    /// A far end's module does not allow it.
    #[error("{reason}")]
    Refused {
        /// What and why.
        reason: String,
    },
    /// Local descriptors for the far end could not be set up.
    #[error("cannot set up the connection")]
    Setup(#[source] io::Error),
    /// The system starts no more threads.
    #[error("cannot start a thread")]
    Threads {
        /// Why.
        source: io::Error,
    },
    /// The run was stopped by a signal.
    #[error("stopped")]
    Stopped,
}

fn holder_text(holder: Option<u32>, command: &[u8]) -> String {
    match holder {
        Some(pid) if command.is_empty() => format!(": process {pid}"),
        Some(pid) => format!(": process {pid} ({})", display_bytes(command)),
        None => String::new(),
    }
}

impl SyncError {
    pub(super) fn usage(reason: impl Into<String>) -> SyncError {
        SyncError::Usage { reason: reason.into() }
    }

    pub(super) fn parent_missing(path: &[u8], source: io::Error) -> SyncError {
        SyncError::ParentMissing { path: path.to_vec(), source }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            SyncError::ParentMissing { .. } => "--mkpath makes missing directories".into(),
            SyncError::Locked { .. } => "wait until it has ended, or stop it".into(),
            SyncError::EmptySource { .. } => {
                "check that the source is mounted and spelled right; --allow-empty-source overrides".into()
            }
            SyncError::Full { .. } => {
                "everything that was complete has stayed; make room and run the same command again".into()
            }
            SyncError::TooManyDirectories => "copy its subdirectories in several runs".into(),
            SyncError::Far { hint, .. } if !hint.is_empty() => hint.clone(),
            SyncError::TimedOut => "the next run goes on from here; --timeout sets how long to wait".into(),
            SyncError::EndedEarly | SyncError::StoppedHere | SyncError::Link(_) => {
                "the next run goes on from here".into()
            }
            _ => return None,
        })
    }

    /// Whether the user asked for something that makes no sense.
    pub fn is_usage(&self) -> bool {
        matches!(self, SyncError::Usage { .. })
    }

    /// Whether it is a time-out.
    pub fn is_timeout(&self) -> bool {
        matches!(self, SyncError::TimedOut | SyncError::Far { timed_out: true, .. })
    }
}
