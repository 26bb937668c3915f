//! What a daemon tells whoever keeps its log: one line each, with everything that peers chose escaped.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::book::Refusal;
use super::control::Moved;
use crate::limits;
use crate::model::display_bytes;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The daemon cannot do what it should.
    Error,
    /// Someone should look at it.
    Warning,
    /// The course of things.
    Info,
}

/// Who a session is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Number of the session in this log.
    pub session: u64,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Its key.
    pub fingerprint: String,
    /// Whose that is, by `authorized_keys` or the configuration.
    pub comment: String,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServeEvent {
    /// Clients may come.
    Listening {
        /// Where.
        address: SocketAddr,
    },
    /// The metrics' page is there.
    Metrics {
        /// Where.
        address: SocketAddr,
    },
    /// Configuration and keys were read again.
    Reloaded {
        /// Number of modules.
        modules: usize,
    },
    /// They could not be: everything stays as it was.
    ReloadFailed {
        /// Why.
        reason: String,
    },
    /// No new sessions; those that run finish.
    Draining {
        /// How many run.
        sessions: usize,
    },
    /// Sessions are told to end, too.
    Stopping {
        /// How many run.
        sessions: usize,
    },
    /// A connection was not served.
    Refused {
        /// Where it came from.
        peer: SocketAddr,
        /// Why.
        why: Refusal,
        /// More about it.
        detail: Option<String>,
    },
    /// More connections of one address were not served, since its last line.
    RefusedMore {
        /// Where they came from, a /64 in IPv6; `None`: from too many addresses to tell each.
        from: Option<IpAddr>,
        /// Why, and how many each.
        counts: Vec<(Refusal, u64)>,
    },
    /// A session began.
    Began {
        /// For whom.
        client: Client,
        /// Where.
        module: String,
        /// `reads`, `writes` and the like.
        role: String,
        /// As the client wrote them.
        paths: Vec<String>,
    },
    /// A session is over.
    Ended {
        /// For whom.
        client: Client,
        /// Where; `None`: it did not come so far.
        module: Option<String>,
        /// How, in a word or two.
        outcome: String,
        /// What was wrong.
        failure: Option<String>,
        /// How much.
        moved: MovedTotals,
        /// How long, in milliseconds.
        elapsed_ms: u64,
    },
    /// Something about one session or connection that should be known.
    Note {
        /// Whose.
        peer: SocketAddr,
        /// What.
        text: String,
    },
    /// Something failed that concerns the daemon itself.
    Trouble {
        /// What and why.
        text: String,
    },
}

/// What a session moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MovedTotals {
    /// Bytes from the client.
    pub in_bytes: u64,
    /// Bytes to the client.
    pub out_bytes: u64,
    /// Files whose content was transferred.
    pub files: u64,
    /// Items deleted.
    pub deleted: u64,
    /// Items that failed.
    pub problems: u64,
}

impl From<Moved> for MovedTotals {
    fn from(moved: Moved) -> MovedTotals {
        let Moved { in_bytes, out_bytes, files, deleted, problems } = moved;
        MovedTotals { in_bytes, out_bytes, files, deleted, problems }
    }
}

impl ServeEvent {
    /// How much it matters.
    pub fn severity(&self) -> Severity {
        match self {
            ServeEvent::ReloadFailed { .. } | ServeEvent::Trouble { .. } => Severity::Error,
            ServeEvent::Refused { .. } | ServeEvent::RefusedMore { .. } | ServeEvent::Note { .. } => Severity::Warning,
            ServeEvent::Ended { failure: Some(_), .. } => Severity::Warning,
            _ => Severity::Info,
        }
    }

    /// The line, without its end; at most [`limits::LOG_LINE_BYTES_MAX`] bytes.
    pub fn line(&self) -> String {
        super::control::cut(&self.to_string(), limits::LOG_LINE_BYTES_MAX)
    }
}

/// Text that came from outside.
fn safe(text: &str) -> String {
    display_bytes(text.as_bytes())
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} of {} with {}", self.session, self.peer, safe(&self.fingerprint))?;
        if self.comment.is_empty() { Ok(()) } else { write!(f, " ({})", safe(&self.comment)) }
    }
}

impl fmt::Display for ServeEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeEvent::Listening { address } => write!(f, "listening on {address}"),
            ServeEvent::Metrics { address } => write!(f, "metrics on http://{address}/metrics"),
            ServeEvent::Reloaded { modules } => write!(f, "configuration and keys read again: {modules} modules"),
            ServeEvent::ReloadFailed { reason } => {
                write!(f, "the new configuration is not used, the old one stays: {}", safe(reason))
            }
            ServeEvent::Draining { sessions } => write!(f, "no new sessions from now on; {sessions} still run"),
            ServeEvent::Stopping { sessions } => write!(f, "ending at once; {sessions} sessions are told to stop"),
            ServeEvent::Refused { peer, why, detail } => {
                write!(f, "refused {peer}: {}", why.text())?;
                detail.as_ref().map_or(Ok(()), |detail| write!(f, ": {}", safe(detail)))
            }
            ServeEvent::RefusedMore { from, counts } => {
                let sum: u64 = counts.iter().map(|(_, count)| count).sum();
                match from {
                    Some(from) => write!(f, "refused {sum} more of {from}:")?,
                    None => write!(f, "refused {sum} more of other addresses:")?,
                }
                let mut separator = " ";
                counts.iter().try_for_each(|(why, count)| {
                    write!(f, "{}{count} {}", std::mem::replace(&mut separator, "; "), why.text())
                })
            }
            ServeEvent::Began { client, module, role, paths } => {
                write!(f, "{client} {} module \"{}\":", safe(role), safe(module))?;
                paths.iter().try_for_each(|path| write!(f, " \"{}\"", safe(path)))
            }
            ServeEvent::Ended { client, module, outcome, failure, moved, elapsed_ms } => {
                write!(f, "{client} ended")?;
                if let Some(module) = module {
                    write!(f, " in module \"{}\"", safe(module))?;
                }
                write!(f, ": {}", safe(outcome))?;
                if let Some(failure) = failure {
                    write!(f, " ({})", safe(failure))?;
                }
                let MovedTotals { in_bytes, out_bytes, files, deleted, problems } = moved;
                write!(f, "; {files} files, {deleted} deleted, {problems} problems, ")?;
                let (seconds, milliseconds) = (elapsed_ms / 1000, elapsed_ms % 1000);
                write!(f, "{in_bytes} bytes in, {out_bytes} bytes out, {seconds}.{milliseconds:03} s")
            }
            ServeEvent::Note { peer, text } => write!(f, "{peer}: {}", safe(text)),
            ServeEvent::Trouble { text } => f.write_str(&safe(text)),
        }
    }
}

/// Keeps the log. Called on the thread that serves: it must never wait.
pub trait ServeLog: Send + Sync {
    /// One line more, or one more that is lost.
    fn event(&self, event: &ServeEvent);
    /// Lines lost so far.
    fn dropped(&self) -> u64;
    /// The file may have been moved away: open it again.
    fn reopen(&self);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        Client {
            session: 7,
            peer: "192.0.2.1:4000".parse().unwrap(),
            fingerprint: "SHA256:abc".into(),
            comment: "al\nice".into(),
        }
    }

    #[test]
    fn what_peers_choose_is_escaped() {
        let began = ServeEvent::Began {
            client: client(),
            module: "data".into(),
            role: "writes".into(),
            paths: vec!["a\u{1b}[2Jb".into(), "\nsession 8 ended".into()],
        };
        let line = began.line();
        assert!(!line.contains(char::is_control), "{line}");
        assert!(line.starts_with("session 7 of 192.0.2.1:4000 with SHA256:abc (al"), "{line}");
        let note = ServeEvent::Note { peer: client().peer, text: "x".repeat(100_000) };
        assert!(note.line().len() <= limits::LOG_LINE_BYTES_MAX + 4);
    }

    #[test]
    fn merged_refusals_are_counted_by_reason() {
        let counts = vec![(Refusal::Displaced, 120), (Refusal::Closed, 3)];
        let more = ServeEvent::RefusedMore { from: Some(client().peer.ip()), counts };
        let line = "refused 123 more of 192.0.2.1: 120 gave way to a newer connection before it had said who it is; \
                    3 closed before it had begun";
        assert_eq!(more.line(), line);
    }

    #[test]
    fn the_end_says_how_much_and_how() {
        let moved = MovedTotals { in_bytes: 10, out_bytes: 20, files: 3, deleted: 1, problems: 2 };
        let ended = ServeEvent::Ended {
            client: client(),
            module: Some("data".into()),
            outcome: "partial".into(),
            failure: None,
            moved,
            elapsed_ms: 12_005,
        };
        let tail = "in module \"data\": partial; 3 files, 1 deleted, 2 problems, 10 bytes in, 20 bytes out, 12.005 s";
        assert!(ended.line().ends_with(tail), "{}", ended.line());
        assert_eq!(ended.severity(), Severity::Info);
    }
}
