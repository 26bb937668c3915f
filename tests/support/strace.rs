//! Faults injected into system calls, with the proof that they fired.

use std::path::PathBuf;

use super::run::{Call, Output};
use super::{Temp, need};

/// What strace is to do: `inject` values such as `openat2:error=ENOSYS` or `openat:error=ENOENT:when=7`.
pub struct Faults<'a> {
    pub inject: &'a [&'a str],
    /// Only calls on this path: as a whole, by its last name relative to a held directory, or by a descriptor of it.
    pub path: Option<PathBuf>,
}

/// Runs `call` under strace; the second value is the log.
pub fn traced(call: Call, faults: &Faults<'_>) -> (Output, String) {
    need("strace", "strace");
    let temp = Temp::new();
    let log = temp.join("log");
    let mut words: Vec<std::ffi::OsString> = ["strace", "-f", "-qq", "-o"].map(Into::into).to_vec();
    words.push(log.clone().into());
    if let Some(path) = &faults.path {
        words.extend(["-P".into(), path.into(), "-P".into(), path.file_name().unwrap().into()]);
    }
    for fault in faults.inject {
        words.push("-e".into());
        words.push(format!("inject={fault}").into());
    }
    let calls: Vec<&str> = faults.inject.iter().map(|fault| fault.split(':').next().unwrap()).collect();
    words.push("-e".into());
    words.push(format!("trace={}", calls.join(",")).into());
    let output = call.under(words).run();
    let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
    (output, text)
}

/// As [`traced`]; panics when any of the faults did not fire.
pub fn with_faults(call: Call, faults: &Faults<'_>) -> Output {
    let (output, log) = traced(call, faults);
    for fault in faults.inject {
        let fired = fault.split(':').next().unwrap().split(',').any(|name| {
            log.lines().any(|line| line.contains(&format!("{name}(")) && line.contains("INJECTED"))
                || log.lines().any(|line| line.contains(&format!("{name} resumed")) && line.contains("INJECTED"))
        });
        assert!(fired, "the fault {fault} did not fire\n{}\n{log}", output.describe());
    }
    output
}
