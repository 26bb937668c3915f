//! Waiting for a socket until a deadline, with an eye on a stop flag.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::limits;

/// Why a wait ended without the socket being ready.
#[derive(Debug)]
pub(super) enum WaitError {
    TimedOut,
    Stopped,
    Io(io::Error),
}

/// Waits until the descriptor may be tried again. An error or a hang-up counts as ready: the call that follows tells.
pub(super) fn wait_until(
    fd: impl AsFd,
    flags: PollFlags,
    deadline: Instant,
    stop: &AtomicBool,
) -> Result<(), WaitError> {
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(WaitError::Stopped);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(WaitError::TimedOut);
        }
        let wait = left.min(Duration::from_millis(limits::STOP_POLL_MS));
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
        match poll(&mut [PollFd::new(&fd, flags)], Some(&wait)) {
            Ok(ready) if ready > 0 => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(WaitError::Io(error.into())),
        }
    }
}
