//! The listener of a run: shows events as they happen, and the totals at the end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use jiff::tz::TimeZone;

use super::console::Console;
use super::exit::{Code, Failure};
use super::logfile::LogFile;
use super::progress::{self, Live, Meters, progress_line};
use super::render::{
    Format, FormatContext, Human, JsonEvent, JsonPath, Levels, ProblemTally, ProgressSnapshot, closing_line, list_line,
    log_totals_line, name_with_slash, stats_block, totals,
};
use super::settings::{ProgressStyle, Recursive, Settings};
use crate::model::{Kind, Problem, ProblemKind, Stats};
use crate::monitor::{Action, Counters, Event, Item, Monitor};
use crate::sync::StopFlag;

/// What is shown and how.
pub(crate) struct Face {
    levels: Levels,
    human: Human,
    out_format: Option<Format>,
    log: Option<(LogFile, Format)>,
    json: bool,
    quiet: bool,
    list_only: bool,
    dry_run: bool,
    show_targets: bool,
    receiving: bool,
    recursive: bool,
    zone: TimeZone,
    console: Console,
    tally: Mutex<ProblemTally>,
    counters: Counters,
    started: Instant,
    finished: AtomicBool,
}

/// A run's last numbers.
pub(crate) struct Ending<'a> {
    /// Totals.
    pub(crate) stats: &'a Stats,
    /// Exit code.
    pub(crate) code: Code,
    /// Time of the run.
    pub(crate) elapsed_ms: u64,
    /// Time until the source was listed.
    pub(crate) listing_ms: u64,
}

impl Face {
    /// For `settings`. Fails where the log cannot be opened.
    pub(crate) fn new(settings: &Settings, receiving: bool, console: Console) -> Result<Face, Failure> {
        let log = match &settings.log_file {
            Some(path) => {
                let format = settings.log_file_format.clone().unwrap_or_else(Format::itemized);
                Some((LogFile::open(path)?, format))
            }
            None => None,
        };
        let levels = Levels::of(settings);
        let out_format = settings.out_format.clone().or_else(|| (settings.itemize > 0).then(Format::itemized));
        Ok(Face {
            levels,
            human: Human::of_level(settings.human),
            out_format,
            log,
            json: settings.json,
            quiet: settings.quiet,
            list_only: settings.list_only,
            dry_run: settings.dry_run,
            show_targets: settings.links.copy_as_links,
            receiving,
            recursive: settings.recursive != Recursive::No,
            zone: TimeZone::system(),
            console,
            tally: Mutex::default(),
            counters: Counters::default(),
            started: Instant::now(),
            finished: AtomicBool::new(false),
        })
    }

    /// The streams.
    pub(crate) fn console(&self) -> &Console {
        &self.console
    }

    /// Whether this is JSON's output.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether nothing but errors is shown.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Opens the output.
    pub(crate) fn begin(&self, command: &'static str, sources: &[String], destination: Option<&String>) {
        if self.json {
            self.json_line(&JsonEvent::Start {
                version: env!("CARGO_PKG_VERSION"),
                command,
                sources: sources.to_vec(),
                destination: destination.cloned(),
                dry_run: self.dry_run,
            });
        } else if self.levels.flist && !self.list_only {
            self.console.out_line(match (self.receiving, self.recursive) {
                (true, _) => "receiving incremental file list",
                (false, true) => "sending incremental file list",
                (false, false) => "building file list ... done",
            });
        }
        if let Some((log, _)) = &self.log {
            log.line(if self.receiving { "receiving file list" } else { "building file list" });
        }
    }

    /// Closes the output of a run that got to its end.
    pub(crate) fn end(&self, ending: &Ending<'_>) {
        self.finished.store(true, Ordering::Relaxed);
        self.console.detach();
        let stats = ending.stats;
        if !self.json {
            self.show_totals(ending);
        }
        for line in self.remarks(stats) {
            self.console.err_line(&format!("xfer: {line}"));
        }
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        if ending.code != Code::Complete {
            for line in tally.closing_groups() {
                self.console.err_line(&format!("xfer: {line}"));
            }
        }
        let closing = closing_line(&tally, ending.code);
        if let Some(line) = &closing {
            self.console.err_line(&format!("xfer: {line}"));
        }
        if let Some((log, _)) = &self.log {
            if self.levels.stats > 1 {
                stats_block(stats, ending.listing_ms, self.human).iter().for_each(|line| log.line(line));
            }
            if self.levels.stats > 0 {
                totals(stats, ending.elapsed_ms, self.human, self.dry_run).iter().for_each(|line| log.line(line));
            } else {
                log.line(&log_totals_line(stats));
            }
            if let Some(line) = &closing {
                log.line(&format!("xfer: {line}"));
            }
        }
    }

    /// The last line of `--json`.
    pub(crate) fn json_line(&self, event: &JsonEvent) {
        self.console.out(&event.to_line());
    }

    /// Problems so far that have an effect on the exit code.
    pub(crate) fn problem_count(&self) -> u64 {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).count()
    }

    /// Tells of a job that could not go on.
    pub(crate) fn fail(&self, failure: &Failure) {
        self.finished.store(true, Ordering::Relaxed);
        self.console.detach();
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        for line in tally.summary() {
            self.console.err_line(&format!("xfer: {line}"));
        }
        for line in failure_lines(failure) {
            self.console.err_line(&line);
            if let Some((log, _)) = &self.log {
                log.line(&line);
            }
        }
        if self.json {
            self.json_line(&JsonEvent::Error {
                message: failure.message.clone(),
                hint: failure.hint.clone(),
                exit_code: failure.code.number(),
            });
            let elapsed_ms = self.started.elapsed().as_millis() as u64;
            self.json_line(&JsonEvent::summary(failure.code, tally.count(), elapsed_ms, None));
        }
        self.console.flush();
    }

    fn show_totals(&self, ending: &Ending<'_>) {
        if self.levels.progress != ProgressStyle::Off && !self.list_only {
            let now = ProgressSnapshot::of(&self.counters);
            let mut meters = Meters::default();
            let none = ProgressSnapshot { bytes_transferred: 0, bytes_done: 0, ..now.clone() };
            meters.push(0, &none);
            meters.push(ending.elapsed_ms.max(1), &now);
            self.console.out_line(&progress_line(&now, &meters, self.human));
        }
        if self.levels.stats > 1 {
            self.console.out_line("");
            for line in stats_block(ending.stats, ending.listing_ms, self.human) {
                self.console.out_line(&line);
            }
        }
        if self.levels.stats > 0 {
            self.console.out_line("");
            for line in totals(ending.stats, ending.elapsed_ms, self.human, self.dry_run) {
                self.console.out_line(&line);
            }
        }
        self.console.flush();
    }

    fn remarks(&self, stats: &Stats) -> Vec<String> {
        let mut lines = Vec::new();
        if stats.max_delete_reached {
            lines.push(format!(
                "deletion stopped at the --max-delete limit: {} extraneous items stay",
                stats.deletions_withheld
            ));
        } else if stats.deletions_withheld > 0 {
            lines.push(format!("{} extraneous items were not deleted", stats.deletions_withheld));
        }
        if stats.live_files > 0 {
            lines.push(format!(
                "{} files changed while they were read and were copied as found (--live): run it again",
                stats.live_files
            ));
        }
        lines
    }

    fn item(&self, item: &Item) {
        if self.json {
            self.json_line(&JsonEvent::item(item));
        } else if let Some(line) = self.item_line(item) {
            self.console.out_line(&line);
        }
        if let Some((log, format)) = self.log.as_ref().filter(|_| is_significant(item) && !self.list_only) {
            log.item(&format.render(item, &self.format_context()));
        }
    }

    /// What rsync shows of an item with the same flags.
    fn item_line(&self, item: &Item) -> Option<String> {
        if self.quiet {
            return None;
        }
        if self.list_only {
            return Some(list_line(item, self.human, self.show_targets, &self.zone));
        }
        let deleted = item.action == Action::Deleted;
        if let Some(format) = self.out_format.as_ref().filter(|format| format.has_itemized()) {
            let wanted = is_significant(item) || self.levels.itemize > 1 || self.levels.name > 1;
            return wanted.then(|| format.render(item, &self.format_context()));
        }
        if deleted {
            return match &self.out_format {
                Some(format) if format.names_the_action() => Some(format.render(item, &self.format_context())),
                Some(_) => Some(format!("deleting {}", name_with_slash(item))),
                None => self.levels.del.then(|| format!("deleting {}", name_with_slash(item))),
            };
        }
        let level = if self.out_format.is_some() { self.levels.name.max(1) } else { self.levels.name };
        // A change of attributes alone is named for directories only, unless everything is.
        let named = match item.action {
            Action::Unchanged | Action::HardLinked if !item.changes.any() => false,
            Action::Unchanged => item.kind == Kind::Dir || level > 1,
            _ => true,
        };
        if !named {
            let up_to_date = level > 1 && item.kind != Kind::Dir;
            return up_to_date.then(|| format!("{} is uptodate", name_with_slash(item)));
        }
        match &self.out_format {
            Some(format) => Some(format.render(item, &self.format_context())),
            None if level == 0 => None,
            None => {
                let tail = super::render::link_tail(item);
                Some(format!("{}{tail}", name_with_slash(item)))
            }
        }
    }

    fn format_context(&self) -> FormatContext<'_> {
        FormatContext { receiving: self.receiving, pid: std::process::id(), zone: &self.zone }
    }

    fn problem(&self, problem: &Problem) {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).add(problem);
        if self.json {
            self.json_line(&JsonEvent::problem(problem));
        }
        let line = match problem.kind {
            ProblemKind::Warning => format!("xfer: warning: {problem}"),
            _ => format!("xfer: {problem}"),
        };
        self.console.err_line(&line);
        if let Some((log, _)) = &self.log {
            log.line(&line);
        }
    }

    fn message(&self, message: &str, notice: bool) {
        if self.json {
            let message = message.to_owned();
            self.json_line(&if notice { JsonEvent::Notice { message } } else { JsonEvent::Detail { message } });
        }
        if notice {
            self.console.err_line(&format!("xfer: {message}"));
        } else if !self.json && self.levels.details {
            self.console.out_line(message);
        }
        if let Some((log, _)) = &self.log {
            log.line(message);
        }
    }
}

/// Whether rsync would itemize it at `-i`.
fn is_significant(item: &Item) -> bool {
    item.changes.any() || !matches!(item.action, Action::Unchanged | Action::HardLinked)
}

/// A failure as it is written to standard error.
pub(crate) fn failure_lines(failure: &Failure) -> Vec<String> {
    let mut lines = vec![format!("xfer: {}", failure.message)];
    if let Some(hint) = &failure.hint {
        lines.push(format!("xfer: hint: {hint}"));
    }
    lines
}

impl Monitor for Face {
    fn event(&self, event: Event) {
        match event {
            Event::Item(item) => self.item(&item),
            Event::Problem(problem) => self.problem(&problem),
            Event::Notice(message) => self.message(&message, true),
            Event::Detail(message) => self.message(&message, false),
            Event::Phase(phase) if self.json => self.json_line(&JsonEvent::Phase { phase }),
            Event::Phase(_) => {}
        }
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// The clock of a face: writes what waits, draws progress. Ends, with the live display, when it is dropped.
pub(crate) struct Clock {
    face: Arc<Face>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Clock {
    /// Starts it. Where nobody reads the output of a listing or a dry run any more, `stop` is requested: there is
    /// nothing else to do.
    pub(crate) fn start(face: &Arc<Face>, stop: &StopFlag) -> Clock {
        let (sender, receiver) = bounded(0);
        let (owner, face, stop_flag) = (Arc::clone(face), Arc::clone(face), stop.clone());
        let live =
            (face.levels.progress != ProgressStyle::Off && face.console.is_terminal() && !face.json).then(Live::new);
        if let Some(live) = &live {
            face.console.attach(live.bar());
        }
        let run = move || {
            let mut meters = Meters::default();
            let mut last_told = Duration::ZERO;
            while let Err(RecvTimeoutError::Timeout) = receiver.recv_timeout(progress::TICK) {
                face.console.flush();
                if face.console.out_closed() && (face.list_only || face.dry_run) {
                    stop_flag.request();
                }
                let now = ProgressSnapshot::of(&face.counters);
                let elapsed = face.started.elapsed();
                meters.push(elapsed.as_millis() as u64, &now);
                if face.finished.load(Ordering::Relaxed) {
                    continue;
                }
                if let Some(live) = &live {
                    live.draw(&now, &face.counters.current(), &meters);
                } else if face.json && elapsed - last_told >= progress::JSON_INTERVAL {
                    last_told = elapsed;
                    let current = JsonPath::new(&face.counters.current());
                    face.json_line(&JsonEvent::Progress { counters: now, current });
                } else if face.shows_plain_progress() && elapsed - last_told >= progress::PLAIN_INTERVAL {
                    last_told = elapsed;
                    face.console.out_line(&progress_line(&now, &meters, face.human));
                    face.console.flush();
                }
                if let Some((log, _)) = &face.log {
                    log.flush();
                }
            }
        };
        let thread = std::thread::Builder::new().name("display".to_owned()).spawn(run).ok();
        Clock { face: owner, stop: Some(sender), thread }
    }
}

impl Face {
    fn shows_plain_progress(&self) -> bool {
        self.levels.progress != ProgressStyle::Off && !self.json && !self.console.is_terminal()
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // Also when the run ends in a panic: the terminal is left as it was.
        self.face.console.detach();
    }
}

#[cfg(test)]
#[path = "face_tests.rs"]
mod tests;
