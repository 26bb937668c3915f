//! How the program ends: exit codes and the one message that goes with a failure.

use crate::model::Outcome;
use crate::sync::SyncError;

/// Exit codes. 23, 24, 25 and 30 are rsync's, so that scripts keep working.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Code {
    /// Everything is as asked.
    Complete = 0,
    /// The job could not go on.
    Failed = 1,
    /// The command line is not understood.
    Usage = 2,
    /// Finished, but some items failed or differ.
    Partial = 23,
    /// Finished, but source files vanished meanwhile.
    Vanished = 24,
    /// Finished, but `--max-delete` stopped the deletion.
    MaxDelete = 25,
    /// A peer was silent for longer than `--timeout`.
    Timeout = 30,
    /// Stopped by a signal.
    Interrupted = 130,
}

impl Code {
    /// All codes in order, for the documentation.
    pub const ALL: [Code; 8] = [
        Code::Complete,
        Code::Failed,
        Code::Usage,
        Code::Partial,
        Code::Vanished,
        Code::MaxDelete,
        Code::Timeout,
        Code::Interrupted,
    ];

    /// The number that the shell sees.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// In a few words.
    pub fn meaning(self) -> &'static str {
        match self {
            Code::Complete => "complete",
            Code::Failed => "failed: the job could not go on",
            Code::Usage => "the command line is not understood",
            Code::Partial => "finished, but some items failed or differ",
            Code::Vanished => "finished, but source files vanished meanwhile",
            Code::MaxDelete => "finished, but --max-delete stopped the deletion",
            Code::Timeout => "timeout: the peer was silent for too long",
            Code::Interrupted => "interrupted by a signal",
        }
    }
}

impl From<Outcome> for Code {
    fn from(outcome: Outcome) -> Code {
        match outcome {
            Outcome::Complete => Code::Complete,
            Outcome::Partial => Code::Partial,
            Outcome::Vanished => Code::Vanished,
            Outcome::MaxDelete => Code::MaxDelete,
            Outcome::Interrupted => Code::Interrupted,
        }
    }
}

impl From<&SyncError> for Code {
    fn from(error: &SyncError) -> Code {
        match error {
            SyncError::Stopped => Code::Interrupted,
            error if error.is_usage() => Code::Usage,
            error if error.is_timeout() => Code::Timeout,
            _ => Code::Failed,
        }
    }
}

/// Why the program ends early: what failed, on what and why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Exit code.
    pub code: Code,
    /// What, on what, why.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Failure {
    /// The command line is wrong.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { code: Code::Usage, message: message.into(), hint: None }
    }

    /// The job could not go on.
    pub fn failed(message: impl Into<String>) -> Failure {
        Failure { code: Code::Failed, message: message.into(), hint: None }
    }

    /// With what to do.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }
}

impl From<&SyncError> for Failure {
    fn from(error: &SyncError) -> Failure {
        Failure { code: error.into(), message: chain_of(error), hint: error.hint() }
    }
}

/// An error and its sources, joined by colons. A source whose words its parent repeats is left out.
pub(crate) fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_rsyncs_where_rsync_has_them() {
        let numbers: Vec<u8> = Code::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(numbers, [0, 1, 2, 23, 24, 25, 30, 130]);
        assert_eq!(Code::from(Outcome::Vanished).number(), 24);
        assert_eq!(Code::from(&SyncError::TimedOut).number(), 30);
    }

    #[test]
    fn the_chain_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot start \"ssh\"")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("no such program"));
        assert_eq!(chain_of(&error), "cannot start \"ssh\": no such program");
    }
}
