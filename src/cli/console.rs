//! Standard output and standard error, shared by all threads, with the live display between them.
//!
//! Everything shown passes one lock, so that lines never interleave. On a terminal each line is written at once,
//! unless a live display is up: then lines wait for its next redraw, because drawing it anew for each of thousands of
//! lines would cost more than the copying. Elsewhere lines are written when the buffer is full, when idle and at the end.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::ProgressBar;

/// Bytes that are collected before they are written.
const BUFFER_BYTES: usize = 64 << 10;

struct Streams {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    pending: Vec<u8>,
    bar: Option<ProgressBar>,
    out_closed: bool,
    out_error: Option<io::Error>,
}

/// The two streams.
pub(crate) struct Console {
    streams: Mutex<Streams>,
    terminal: bool,
}

impl Console {
    /// The process's own streams.
    pub(crate) fn standard() -> Console {
        Console::new(Box::new(io::stdout()), Box::new(io::stderr()), io::stdout().is_terminal())
    }

    /// Any streams; `terminal`: somebody reads along.
    pub(crate) fn new(out: Box<dyn Write + Send>, err: Box<dyn Write + Send>, terminal: bool) -> Console {
        let streams = Streams {
            out,
            err,
            pending: Vec::with_capacity(BUFFER_BYTES),
            bar: None,
            out_closed: false,
            out_error: None,
        };
        Console { streams: Mutex::new(streams), terminal }
    }

    /// Whether standard output is a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Shows `bar` from now on, below what is written.
    pub(crate) fn attach(&self, bar: ProgressBar) {
        self.lock().bar = Some(bar);
    }

    /// Takes the live display away.
    pub(crate) fn detach(&self) {
        let mut streams = self.lock();
        if let Some(bar) = streams.bar.take() {
            bar.finish_and_clear();
        }
        streams.flush();
    }

    /// Writes bytes that end a line to standard output.
    pub(crate) fn out(&self, line: &[u8]) {
        let mut streams = self.lock();
        if streams.out_closed {
            return;
        }
        streams.pending.extend_from_slice(line);
        let at_once = self.terminal && streams.bar.is_none();
        if at_once || streams.pending.len() >= BUFFER_BYTES {
            streams.flush();
        }
    }

    /// Writes one line of text to standard output.
    pub(crate) fn out_line(&self, line: &str) {
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        self.out(&bytes);
    }

    /// Writes one line to standard error, after everything that came before it.
    pub(crate) fn err_line(&self, line: &str) {
        let mut streams = self.lock();
        streams.flush();
        let Streams { err, bar, .. } = &mut *streams;
        suspended(bar, || {
            // Nobody is left to be told of a failure to write to standard error.
            let _ = writeln!(err, "{line}");
        });
    }

    /// Writes what waits. Called by a clock.
    pub(crate) fn flush(&self) {
        self.lock().flush();
    }

    /// Whether whoever read standard output went away.
    pub(crate) fn out_closed(&self) -> bool {
        self.lock().out_closed
    }

    /// Writes what waits, and says why output was lost, if it was for another reason than that its reader went away.
    pub(crate) fn finish(&self) -> Option<io::Error> {
        let mut streams = self.lock();
        streams.flush();
        streams.out_error.take()
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        // A panic elsewhere must not silence the report about it.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Streams {
    fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let Streams { out, pending, bar, .. } = self;
        let written = suspended(bar, || out.write_all(pending).and_then(|()| out.flush()));
        self.pending.clear();
        // The copying goes on without its output. A reader that went away is no failure; a full disk is one.
        if let Err(error) = written {
            self.out_closed = true;
            if error.kind() != io::ErrorKind::BrokenPipe {
                self.out_error.get_or_insert(error);
            }
        }
    }
}

fn suspended<T>(bar: &Option<ProgressBar>, write: impl FnOnce() -> T) -> T {
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;

    /// A stream whose bytes can be looked at.
    #[derive(Clone, Default)]
    pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_wait_for_a_flush_and_come_before_a_problem() {
        let both = Captured::default();
        let console = Console::new(Box::new(both.clone()), Box::new(both.clone()), false);
        console.out_line("a");
        assert_eq!(both.text(), "");
        console.err_line("problem");
        console.out_line("b");
        console.flush();
        assert_eq!(both.text(), "a\nproblem\nb\n");
    }

    #[test]
    fn a_terminal_gets_each_line_at_once() {
        let out = Captured::default();
        let console = Console::new(Box::new(out.clone()), Box::new(io::sink()), true);
        console.out_line("a");
        assert_eq!(out.text(), "a\n");
    }

    #[test]
    fn a_closed_pipe_is_remembered_and_harmless() {
        let console = Console::new(Box::new(Closed), Box::new(io::sink()), false);
        console.out_line("a");
        console.flush();
        assert!(console.out_closed());
        assert!(console.finish().is_none());
        console.out_line("b");
        console.detach();
    }

    #[test]
    fn output_that_is_lost_is_told() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let console = Console::new(Box::new(full), Box::new(io::sink()), false);
        console.out_line("a");
        assert_eq!(console.finish().map(|error| error.kind()), Some(io::ErrorKind::StorageFull));
    }

    #[test]
    fn many_threads_never_mix_their_lines() {
        let out = Captured::default();
        let console = Console::new(Box::new(out.clone()), Box::new(io::sink()), false);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let console = &console;
                scope.spawn(move || (0..5000).for_each(|_| console.out_line(&format!("{thread}").repeat(40))));
            }
        });
        console.flush();
        let text = out.text();
        assert_eq!(text.lines().count(), 20_000);
        assert!(text.lines().all(|line| line.len() == 40 && line.bytes().all(|byte| byte == line.as_bytes()[0])));
    }
}
