//! SIGINT, SIGTERM and SIGHUP: the first asks the run to stop, the second ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use super::exit::Code;
use crate::sync::StopFlag;

/// Listens from now on. `told` hears of the first signal, on a thread of its own.
///
/// A signal that was ignored when the program started stays ignored: that is how `nohup` and shells that put a job
/// into the background ask for it.
pub(crate) fn listen(stop: &StopFlag, told: impl Fn() + Send + 'static) -> io::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted: Vec<i32> =
        [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(&status, *signal)).collect();
    let armed = Arc::new(AtomicBool::new(false));
    for &signal in &wanted {
        // In this order: the first signal finds the second action's flag still down.
        flag::register_conditional_shutdown(signal, i32::from(Code::Interrupted.number()), Arc::clone(&armed))?;
        flag::register(signal, Arc::clone(&armed))?;
    }
    let mut signals = Signals::new(&wanted)?;
    let stop = stop.clone();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.forever().next().is_some() {
            stop.request();
            told();
        }
    })?;
    Ok(())
}

/// Whether `/proc/self/status` says that `signal` is ignored.
fn is_ignored(status: &str, signal: i32) -> bool {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    const CHILD: &str = "XFER_TEST_SIGNAL_CHILD";

    /// Does nothing unless it is the process that the test below starts.
    #[test]
    fn child_process() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        let stop = StopFlag::default();
        listen(&stop, || println!("told")).unwrap();
        println!("ready");
        while !stop.requested() {
            std::thread::sleep(Duration::from_millis(5));
        }
        println!("stopping");
        // Work that does not end: only the second signal helps.
        std::thread::sleep(Duration::from_secs(60));
    }

    #[test]
    fn the_first_signal_asks_and_the_second_ends() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["cli::signals::tests::child_process", "--exact", "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = Vec::new();
        for line in lines.map_while(Result::ok) {
            if line.contains("ready") || line.contains("stopping") {
                rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            }
            seen.push(line);
        }
        assert_eq!(child.wait().unwrap().code(), Some(130), "{seen:?}");
        assert!(seen.iter().any(|line| line.contains("stopping")), "{seen:?}");
    }

    #[test]
    fn ignored_signals_are_seen() {
        let status = "Name:\txfer\nSigIgn:\t0000000000001001\n";
        assert!(is_ignored(status, SIGHUP));
        assert!(!is_ignored(status, SIGINT));
        assert!(!is_ignored("", SIGHUP));
    }
}
