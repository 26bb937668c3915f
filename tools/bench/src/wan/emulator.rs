//! The program between two TUN devices: two threads for each direction, one that reads and decides, one that waits and
//! writes.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::line::{Direction, Fate, Line};
use crate::error::{Context, Result};

/// Bytes that one packet may have; the devices' MTU is below.
const PACKET_BYTES_MAX: usize = 9216;
/// How long an idle thread waits before it looks whether to stop.
const IDLE_MS: i64 = 50;
/// Packets arrive in steps of this length, never early: one wake-up then writes several. At 1 Gbit/s a packet comes every
/// 12 µs, and a wake-up for each would cost more than the packets.
const STEP: Duration = Duration::from_micros(100);

/// What one direction has done.
#[derive(Default, Debug)]
pub(crate) struct Counters {
    /// Packets that arrived.
    pub(crate) arrived: AtomicU64,
    /// Their bytes.
    pub(crate) arrived_bytes: AtomicU64,
    /// Packets that the full queue dropped.
    pub(crate) dropped: AtomicU64,
    /// Packets lost at random.
    pub(crate) lost: AtomicU64,
    /// Packets that the receiving device refused.
    pub(crate) refused: AtomicU64,
    /// Packets that arrived more than a millisecond late: this machine is too busy for the line.
    pub(crate) late: AtomicU64,
}

/// The nice value of the threads between the devices, where it is allowed: a line does not wait for processors.
const NICE: i32 = -15;

/// Lets the calling thread go first. Without the right to, the line is late when the machine is busy, and says so.
fn go_first() {
    let _ = rustix::process::setpriority_process(None, NICE);
}

/// A running line; ends with this value.
pub(crate) struct Emulator {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// From the near to the far device, and back.
    pub(crate) counters: [Arc<Counters>; 2],
}

impl Emulator {
    /// Joins two devices by `line`.
    pub(crate) fn start(near: File, far: File, line: &Line) -> Result<Emulator> {
        let mut emulator = Emulator { stop: Arc::default(), threads: Vec::new(), counters: Default::default() };
        let clone = |file: &File| file.try_clone().context(|| "duplicate a TUN device's descriptor".to_owned());
        let ways = [(clone(&near)?, clone(&far)?, "there"), (far, near, "back")];
        for ((from, to, seed), counters) in ways.into_iter().zip(emulator.counters.clone()) {
            // Bounded by the line itself: what waits is at most its queue and what is on the wire.
            let (sender, receiver) = crossbeam_channel::unbounded();
            let (stop, direction, start) = (emulator.stop.clone(), Direction::new(line, seed), Instant::now());
            let reading = counters.clone();
            emulator.threads.push(thread::spawn(move || read(from, direction, start, &sender, &reading, &stop)));
            emulator.threads.push(thread::spawn(move || write(to, start, &receiver, &counters)));
        }
        Ok(emulator)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A packet and when it arrives.
type Flying = (Duration, Box<[u8]>);

fn read(
    mut from: File,
    mut way: Direction,
    start: Instant,
    to: &Sender<Flying>,
    counters: &Counters,
    stop: &AtomicBool,
) {
    go_first();
    let mut packet = [0; PACKET_BYTES_MAX];
    while !stop.load(Ordering::Relaxed) {
        let length = match from.read(&mut packet) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let timeout = Timespec { tv_sec: 0, tv_nsec: IDLE_MS * 1_000_000 };
                let _ = poll(&mut [PollFd::new(&from, PollFlags::IN)], Some(&timeout));
                continue;
            }
            // The device is not up yet, or not any more.
            Err(_) => {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
        };
        match way.offer(start.elapsed(), length) {
            Fate::Arrives(at) => {
                if to.send((at, packet[..length].into())).is_err() {
                    return;
                }
            }
            Fate::Dropped => drop(counters.dropped.fetch_add(1, Ordering::Relaxed)),
            Fate::Lost => drop(counters.lost.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

fn write(mut to: File, start: Instant, from: &Receiver<Flying>, counters: &Counters) {
    go_first();
    // The kernel may stretch a sleep by the slack, 50 µs by default: four packets of 1500 bytes at 1 Gbit/s.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    for (at, packet) in from {
        let now = start.elapsed();
        if at > now {
            thread::sleep(step_after(at).saturating_sub(now));
        } else if now > at + Duration::from_millis(1) {
            counters.late.fetch_add(1, Ordering::Relaxed);
        }
        match to.write(&packet) {
            // A device takes a packet as a whole or not at all.
            Ok(length) if length == packet.len() => {
                counters.arrived.fetch_add(1, Ordering::Relaxed);
                counters.arrived_bytes.fetch_add(packet.len() as u64, Ordering::Relaxed);
            }
            _ => drop(counters.refused.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// The end of the step in which `at` lies.
fn step_after(at: Duration) -> Duration {
    let step = STEP.as_nanos() as u64;
    Duration::from_nanos((at.as_nanos() as u64).next_multiple_of(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_never_early_and_at_most_one_step_late() {
        for micros in [0, 1, 99, 100, 101, 12_345_678] {
            let at = Duration::from_micros(micros);
            assert!(step_after(at) >= at && step_after(at) < at + STEP);
        }
    }
}
