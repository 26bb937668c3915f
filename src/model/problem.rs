//! Problems: one item failed, the run goes on.

use serde::{Deserialize, Serialize};

use super::display_bytes;

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each name says what it is")]
pub enum Operation {
    Open,
    List,
    Stat,
    Read,
    ReadLink,
    ReadXattrs,
    Create,
    Write,
    Digest,
    SetOwner,
    SetMode,
    SetTimes,
    SetAcl,
    SetXattrs,
    Link,
    Rename,
    Backup,
    Sync,
    Delete,
    RemoveSource,
    Follow,
    Filter,
    Transfer,
}

impl Operation {
    /// As a verb phrase for `cannot …`.
    pub fn verb(self) -> &'static str {
        match self {
            Operation::Open => "open",
            Operation::List => "list directory",
            Operation::Stat => "read metadata of",
            Operation::Read => "read",
            Operation::ReadLink => "read link",
            Operation::ReadXattrs => "read extended attributes of",
            Operation::Create => "create",
            Operation::Write => "write",
            Operation::Digest => "verify",
            Operation::SetOwner => "set owner of",
            Operation::SetMode => "set permissions of",
            Operation::SetTimes => "set times of",
            Operation::SetAcl => "set access control list of",
            Operation::SetXattrs => "set extended attributes of",
            Operation::Link => "hard-link",
            Operation::Rename => "rename",
            Operation::Backup => "back up",
            Operation::Sync => "sync to disk",
            Operation::Delete => "delete",
            Operation::RemoveSource => "remove from the source",
            Operation::Follow => "follow link",
            Operation::Filter => "read filter file",
            Operation::Transfer => "transfer",
        }
    }
}

/// Which consequences a problem has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The source could not be read in full: code 23, and no deletion.
    Source,
    /// The destination could not be written: code 23.
    Destination,
    /// A source file vanished after it was listed: code 24, deletion goes on.
    Vanished,
    /// A source file kept changing while it was read: code 23.
    Changed,
    /// Told, with no effect on the exit code.
    Warning,
    /// Source and destination differ (`verify`): code 23.
    Differs,
}

/// One item that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Consequences.
    pub kind: ProblemKind,
    /// What was being done.
    pub operation: Operation,
    /// On what: raw bytes as the user would name it.
    pub path: Vec<u8>,
    /// Why, in words: the system's error text or our own.
    pub reason: String,
    /// The system's error number, where the reason came from a system call.
    pub errno: Option<i32>,
}

impl Problem {
    /// From a system error. "No such file" while reading a source is the caller's to turn into `Vanished`.
    pub fn from_io(
        kind: ProblemKind,
        operation: Operation,
        path: impl Into<Vec<u8>>,
        error: &std::io::Error,
    ) -> Problem {
        Problem { kind, operation, path: path.into(), reason: reason_of(error), errno: error.raw_os_error() }
    }

    /// With a reason of our own.
    pub fn new(
        kind: ProblemKind,
        operation: Operation,
        path: impl Into<Vec<u8>>,
        reason: impl Into<String>,
    ) -> Problem {
        Problem { kind, operation, path: path.into(), reason: reason.into(), errno: None }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = if self.path.is_empty() { ".".to_owned() } else { display_bytes(&self.path) };
        match self.kind {
            ProblemKind::Vanished => write!(f, "file has vanished: \"{path}\""),
            ProblemKind::Changed => write!(f, "file changed while it was read: \"{path}\": {}", self.reason),
            ProblemKind::Warning => write!(f, "\"{path}\": {}", self.reason),
            ProblemKind::Differs => write!(f, "differs: \"{path}\": {}", self.reason),
            ProblemKind::Source | ProblemKind::Destination => {
                write!(f, "cannot {} \"{path}\": {}", self.operation.verb(), self.reason)
            }
        }
    }
}

/// The system's words without Rust's "(os error N)".
fn reason_of(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
