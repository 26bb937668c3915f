//! `--log-file`: lines with a time and the process, appended.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;

use jiff::tz::TimeZone;

use super::exit::Failure;
use super::render::log_time;
use crate::model::display_bytes;

/// An open log. Items are buffered, everything else is written at once.
pub(crate) struct LogFile {
    file: Mutex<BufWriter<File>>,
    zone: TimeZone,
    pid: u32,
}

impl LogFile {
    /// Opens `path` for appending, made with mode 0666 less the umask where it is not there.
    pub(crate) fn open(path: &OsStr) -> Result<LogFile, Failure> {
        let file = OpenOptions::new().append(true).create(true).open(path).map_err(|error| {
            Failure::failed(format!("cannot open log file \"{}\": {error}", display_bytes(path.as_bytes())))
                .with_hint("give another --log-file, or leave it out")
        })?;
        Ok(LogFile { file: Mutex::new(BufWriter::new(file)), zone: TimeZone::system(), pid: std::process::id() })
    }

    /// One item.
    pub(crate) fn item(&self, line: &str) {
        self.write(line, false);
    }

    /// Anything else.
    pub(crate) fn line(&self, line: &str) {
        self.write(line, true);
    }

    /// Writes what waits.
    pub(crate) fn flush(&self) {
        if let Ok(mut file) = self.file.lock() {
            let _ = file.flush();
        }
    }

    fn write(&self, line: &str, flush: bool) {
        let stamp = log_time(&self.zone);
        if let Ok(mut file) = self.file.lock() {
            // A full disk for logs must not end a copy; what is logged is told on the terminal too.
            let _ = writeln!(file, "{stamp} [{}] {line}", self.pid);
            if flush {
                let _ = file.flush();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_carry_time_and_process_and_are_appended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for text in ["first", "second"] {
            LogFile::open(path.as_os_str()).unwrap().line(text);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        let tail = format!(" [{}] second", std::process::id());
        assert!(lines[1].ends_with(&tail), "{}", lines[1]);
        assert_eq!(lines[1].len(), "2020/01/02 03:04:05".len() + tail.len());
        assert!(LogFile::open(dir.path().as_os_str()).is_err());
    }
}
