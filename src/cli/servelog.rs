//! The log of a daemon: lines wait in a bounded queue for a thread that writes them. What does not fit is counted, and
//! the count is told; service never waits for a disk or a terminal.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use jiff::tz::TimeZone;

use super::exit::Failure;
use super::render::log_time;
use crate::limits;
use crate::sync::serve::{ServeEvent, ServeLog, Severity};

/// Where lines go.
#[derive(Debug, Clone)]
pub(crate) enum LogTarget {
    /// A file, appended to.
    File(PathBuf),
    /// Standard error, for people.
    Stderr,
    /// Standard error, for the journal: it adds the time itself, and takes a priority in front.
    Journal,
}

impl LogTarget {
    /// Standard error, as whoever reads it likes it.
    pub(crate) fn stderr() -> LogTarget {
        if super::serve::is_journal(std::env::var_os("JOURNAL_STREAM")) {
            LogTarget::Journal
        } else {
            LogTarget::Stderr
        }
    }

    fn open(&self) -> io::Result<Box<dyn Write + Send>> {
        Ok(match self {
            LogTarget::File(path) => Box::new(open(path)?),
            LogTarget::Stderr | LogTarget::Journal => Box::new(io::stderr()),
        })
    }
}

/// Whose files are copied is nobody else's business.
fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

enum Word {
    Line(Severity, String),
    Reopen,
}

#[derive(Default)]
struct Counts {
    dropped: AtomicU64,
    reopen: AtomicBool,
}

/// The log.
pub(crate) struct LineLog {
    words: Mutex<Option<Sender<Word>>>,
    counts: Arc<Counts>,
    thread: Mutex<Option<(JoinHandle<()>, Receiver<()>)>>,
    /// A port was chosen by the system: whoever started this wants to know it.
    tell_port: bool,
}

impl LineLog {
    /// Opens the target and starts the thread.
    pub(crate) fn start(target: LogTarget, tell_port: bool) -> Result<LineLog, Failure> {
        let out = target.open().map_err(|error| Failure::failed(format!("cannot open the log: {error}")))?;
        LineLog::writing(target, out, tell_port)
    }

    fn writing(target: LogTarget, out: Box<dyn Write + Send>, tell_port: bool) -> Result<LineLog, Failure> {
        let (sender, receiver) = bounded(limits::LOG_LINES_QUEUED_MAX);
        let (ended, end) = bounded(1);
        let counts = Arc::new(Counts::default());
        let of = Arc::clone(&counts);
        let thread = std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            Writer { target, out, counts: of, told: 0, zone: TimeZone::system() }.run(&receiver);
            let _ = ended.send(());
        });
        let thread = thread.map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))?;
        let words = Mutex::new(Some(sender));
        Ok(LineLog { words, counts, thread: Mutex::new(Some((thread, end))), tell_port })
    }

    fn put(&self, word: Word) -> bool {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.as_ref().is_some_and(|words| words.try_send(word).is_ok())
    }

    /// Writes what waits, unless that takes too long.
    pub(crate) fn finish(&self) {
        self.words.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((thread, end)) = thread
            && end.recv_timeout(limits::ms(limits::SHELL_EXIT_GRACE_MS)).is_ok()
        {
            let _ = thread.join();
        }
    }
}

impl ServeLog for LineLog {
    fn event(&self, event: &ServeEvent) {
        if let (ServeEvent::Listening { address }, true) = (event, self.tell_port) {
            let mut out = io::stdout();
            let _ = writeln!(out, "listening on {address}").and_then(|()| out.flush());
        }
        if !self.put(Word::Line(event.severity(), event.line())) {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    fn reopen(&self) {
        self.counts.reopen.store(true, Ordering::Release);
        // Wakes a thread that waits; one that is busy looks anyway.
        let _ = self.put(Word::Reopen);
    }
}

struct Writer {
    target: LogTarget,
    out: Box<dyn Write + Send>,
    counts: Arc<Counts>,
    /// Lost lines that were told of.
    told: u64,
    zone: TimeZone,
}

impl Writer {
    fn run(&mut self, words: &Receiver<Word>) {
        for word in words {
            self.reopen();
            if let Word::Line(severity, line) = word {
                self.line(severity, &line);
            }
            self.tell_lost();
        }
        self.tell_lost();
    }

    /// What was lost, lost since the last time.
    fn tell_lost(&mut self) {
        let lost = self.counts.dropped.load(Ordering::Relaxed);
        if lost > self.told {
            let line = format!("{} log lines were lost: the log is slower than what happens", lost - self.told);
            self.told = lost;
            self.line(Severity::Warning, &line);
        }
    }

    /// After a rotation the old file has another name. Where the new one cannot be opened, the old one goes on.
    fn reopen(&mut self) {
        if self.counts.reopen.swap(false, Ordering::AcqRel)
            && let LogTarget::File(path) = &self.target
            && let Ok(file) = open(path)
        {
            self.out = Box::new(file);
        }
    }

    fn line(&mut self, severity: Severity, line: &str) {
        let text = match self.target {
            LogTarget::Journal => {
                let priority = match severity {
                    Severity::Error => 3,
                    Severity::Warning => 4,
                    Severity::Info => 6,
                };
                format!("<{priority}>{line}\n")
            }
            _ => format!("{} [{}] {line}\n", log_time(&self.zone), std::process::id()),
        };
        // A full disk for logs must not end service; the line is one more that is lost.
        if self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            self.told = self.told.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::console::tests::Captured;
    use super::*;

    fn trouble(text: impl Into<String>) -> ServeEvent {
        ServeEvent::Trouble { text: text.into() }
    }

    /// A stream that stands still until it is let go.
    struct Stuck(Receiver<()>, Captured);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_stands_still_stops_nobody_and_tells_what_was_lost() {
        let (go, wait) = bounded(0);
        let captured = Captured::default();
        let stuck = Box::new(Stuck(wait, captured.clone()));
        let log = LineLog::writing(LogTarget::Stderr, stuck, false).unwrap();
        let sent = limits::LOG_LINES_QUEUED_MAX as u64 + 100;
        for number in 0..sent {
            log.event(&trouble(format!("line {number}")));
        }
        let lost = log.dropped();
        assert!((99..=100).contains(&lost), "{lost}");
        drop(go);
        log.finish();
        let text = captured.text();
        assert!(text.contains(&format!("{lost} log lines were lost")), "the count is not told");
        assert_eq!(text.lines().count() as u64, sent - lost + 1);
    }

    #[test]
    fn a_rotated_file_is_opened_again() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("log");
        let log = LineLog::start(LogTarget::File(path.clone()), false).unwrap();
        log.event(&trouble("first"));
        // The line is written before its file is moved away.
        while std::fs::read_to_string(&path).unwrap().is_empty() {
            std::thread::yield_now();
        }
        std::fs::rename(&path, temp.path().join("log.1")).unwrap();
        log.reopen();
        log.event(&trouble("second\nline"));
        log.finish();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("second") && !text.contains("first"));
        assert!(LineLog::start(LogTarget::File(temp.path().join("no/log")), false).is_err());
    }

    #[test]
    fn the_journal_gets_priorities_and_no_time() {
        let captured = Captured::default();
        let log = LineLog::writing(LogTarget::Journal, Box::new(captured.clone()), false).unwrap();
        log.event(&trouble("fire"));
        log.event(&ServeEvent::Draining { sessions: 0 });
        log.finish();
        assert_eq!(captured.text(), "<3>fire\n<6>no new sessions from now on; 0 still run\n");
    }
}
