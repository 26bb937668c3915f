//! The user's wish to stop, seen by every thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set once, by a signal or by an error that ends the run.
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Not set.
    pub fn new() -> StopFlag {
        StopFlag::default()
    }

    /// Asks everyone to stop.
    pub fn request(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether someone asked.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// The flag itself, for those below this room.
    pub fn as_atomic(&self) -> &Arc<AtomicBool> {
        &self.0
    }
}
