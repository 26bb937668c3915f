//! What the command line names and the client reads: lists, filter files, the environment. Bounded.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

/// Where lists and the environment come from. Tests give their own.
pub(crate) trait Inputs {
    /// A file's content, or standard input for `-`; fails where it holds more than `bytes_max`.
    fn read(&mut self, path: &[u8], bytes_max: u64) -> Result<Vec<u8>, String>;
    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<Vec<u8>>;
    /// The process's umask.
    fn umask(&self) -> u32;
}

/// The real ones.
pub(crate) struct System {
    stdin_taken: bool,
}

impl System {
    /// Nothing read yet.
    pub(crate) fn new() -> System {
        System { stdin_taken: false }
    }
}

impl Inputs for System {
    fn read(&mut self, path: &[u8], bytes_max: u64) -> Result<Vec<u8>, String> {
        let from: Box<dyn Read> = if path == b"-" {
            if std::mem::replace(&mut self.stdin_taken, true) {
                return Err("standard input can be read once only".to_owned());
            }
            Box::new(io::stdin())
        } else {
            Box::new(File::open(OsStr::from_bytes(path)).map_err(|error| words(&error))?)
        };
        let mut content = Vec::new();
        from.take(bytes_max.saturating_add(1)).read_to_end(&mut content).map_err(|error| words(&error))?;
        if content.len() as u64 > bytes_max {
            return Err(format!("larger than {bytes_max} bytes"));
        }
        Ok(content)
    }

    fn variable(&self, name: &str) -> Option<Vec<u8>> {
        std::env::var_os(name).map(|value| value.as_bytes().to_vec()).filter(|value| !value.is_empty())
    }

    fn umask(&self) -> u32 {
        // Asking the kernel by setting it would let a file of another thread slip through with the wrong bits.
        std::fs::read_to_string("/proc/self/status").ok().and_then(|status| umask_of(&status)).unwrap_or(0o022)
    }
}

fn umask_of(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(line.trim(), 8).ok()
}

fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// The paths in the content of a `--files-from` list: one a line, or NUL-separated; blank ones and comments (`#`, `;`)
/// are left out, as in rsync. The paths' own form is the engine's business.
pub(crate) fn paths_of_list(content: &[u8], from0: bool) -> Vec<Vec<u8>> {
    content
        .split(|&byte| if from0 { byte == 0 } else { byte == b'\n' || byte == b'\r' })
        .filter(|line| !matches!(line.first(), None | Some(b'#' | b';')))
        .map(<[u8]>::to_vec)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_rsync_reads_them() {
        assert_eq!(
            paths_of_list(b"a\n\n#c\n;d\r\nb c\n/e/\n", false),
            [b"a".to_vec(), b"b c".to_vec(), b"/e/".to_vec()]
        );
        assert_eq!(paths_of_list(b"a\nb\0#c\0\0d", true), [b"a\nb".to_vec(), b"d".to_vec()]);
    }

    #[test]
    fn files_are_bounded_and_standard_input_is_read_once() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        io::Write::write_all(&mut file, b"12345").unwrap();
        let path = file.path().as_os_str().as_bytes();
        assert_eq!(System::new().read(path, 5).unwrap(), b"12345");
        assert!(System::new().read(path, 4).unwrap_err().contains("larger"));
        assert_eq!(System::new().read(b"/nonexistent", 4).unwrap_err(), "No such file or directory");
        assert!(System { stdin_taken: true }.read(b"-", 4).is_err());
        assert_eq!(umask_of("Name:\tx\nUmask:\t0027\n"), Some(0o027));
        assert!(System::new().umask() <= 0o777);
    }
}
