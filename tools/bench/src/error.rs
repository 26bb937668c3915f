//! What ends a benchmark.

use std::io;

/// The one error of this tool: all of it is reported to a person and ends the run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An operation of the system failed.
    #[error("{what}")]
    Io {
        /// Operation and subject.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A program that prepares something ended badly.
    #[error("`{command}` ended with {status}: {said}")]
    Command {
        /// Its command line.
        command: String,
        /// How it ended.
        status: String,
        /// The end of what it wrote to standard error.
        said: String,
    },
    /// This cannot be done as asked; the text says what to do.
    #[error("{0}")]
    Refused(String),
    /// SIGINT or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

/// Result with this tool's error.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Adds operation and subject to what the system said.
pub(crate) trait Context<T> {
    /// `what` is "read /proc/1/stat" and the like.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { what: what(), source: source.into() })
    }
}
