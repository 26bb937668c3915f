//! This machine: what it is, what is installed, whether there is room.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use crate::error::{Context, Error, Result};
use crate::link::Link;
use crate::peer::Peer;
use crate::process::{command, found};

/// Memory left for the peers themselves, in bytes, beside trees that lie in memory.
const SPARE_BYTES: u64 = 1 << 30;

/// Today, as ISO 8601.
pub(crate) fn today() -> String {
    jiff::Zoned::now().date().to_string()
}

/// A field of `/proc/meminfo`, in bytes.
fn memory_bytes(field: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

/// Cores, memory, kernel, and how busy it is.
pub(crate) fn described() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = memory_bytes("MemTotal").unwrap_or(0) >> 30;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    format!("{cores} cores, {memory} GiB, Linux {}, load {load} at the start", kernel.trim())
}

/// The first line of what programs say about themselves.
pub(crate) fn versions(peers: &[Peer]) -> Vec<String> {
    let mut versions = Vec::new();
    for (program, option) in [("rsync", "--version"), ("ssh", "-V"), ("rclone", "--version")] {
        if found(program) {
            versions.extend(version(Path::new(program), option));
        }
    }
    let mut binaries: Vec<&Path> = peers.iter().filter_map(Peer::binary).filter(|binary| binary.is_file()).collect();
    binaries.sort();
    binaries.dedup();
    for binary in binaries {
        versions.extend(version(binary, "--version").map(|text| format!("{text} ({})", binary.display())));
    }
    versions
}

fn version(program: &Path, option: &str) -> Option<String> {
    let output = command(&[program.as_os_str(), option.as_ref()]).output().ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().next()?;
    Some(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Refuses a workload that does not fit: into the file system, and into memory if that is where the file system lies.
pub(crate) fn need_space(dir: &Path, bytes: u64, name: &str) -> Result<()> {
    let found = rustix::fs::statvfs(dir).context(|| format!("look at the file system of {}", dir.display()))?;
    let free = found.f_bavail * found.f_frsize;
    let kind = rustix::fs::statfs(dir).context(|| format!("look at the file system of {}", dir.display()))?.f_type;
    // TMPFS_MAGIC of linux/magic.h.
    let in_memory = kind == 0x0102_1994;
    let free =
        if in_memory { free.min(memory_bytes("MemAvailable").unwrap_or(0).saturating_sub(SPARE_BYTES)) } else { free };
    if bytes <= free {
        return Ok(());
    }
    let (bytes, free) = (bytes >> 20, free >> 20);
    Err(Error::Refused(format!(
        "{name} wants {bytes} MiB in {}, {free} are free: give another --dir, or --size small",
        dir.display()
    )))
}

/// What an emulated line has done, and what makes its figures doubtful.
pub(crate) fn line_notes(link: &Link) -> Result<Vec<String>> {
    let Some(emulator) = &link.emulator else { return Ok(Vec::new()) };
    let mut notes = Vec::new();
    for (counters, way) in emulator.counters.iter().zip(["near to far", "far to near"]) {
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        notes.push(format!(
            "line, {way}: {} packets arrived, {} dropped by the full queue, {} lost at random, {} late by more than 1 ms, {} refused",
            count(&counters.arrived),
            count(&counters.dropped),
            count(&counters.lost),
            count(&counters.late),
            count(&counters.refused),
        ));
    }
    let overruns = link.overrun_packets()?;
    if overruns > 0 {
        notes.push(format!("{overruns} packets were dropped before the emulator read them: the machine was too busy"));
    }
    Ok(notes)
}
