//! Buffers of frames, used again: what is freed after every frame is mapped and cleared anew for the next.

use std::sync::{Mutex, PoisonError};

use crate::limits;

/// Buffers that are kept: those of all queues of a session, and one for each thread.
const KEPT_MAX: usize = 2 * limits::WORKERS_MAX;

/// Buffers that nobody uses just now. Threads take and give back in any order.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// An empty buffer, with room where one was given back.
    pub(super) fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Takes a buffer back; its content is forgotten.
    pub(super) fn give(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX && buffer.capacity() > 0 && buffer.capacity() <= limits::FRAME_BYTES_MAX * 2 {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_with_its_room() {
        let buffers = Buffers::default();
        assert_eq!(buffers.take().capacity(), 0);
        buffers.give(vec![7; 100_000]);
        let again = buffers.take();
        assert!(again.is_empty() && again.capacity() >= 100_000);
        for _ in 0..10 * KEPT_MAX {
            buffers.give(vec![1]);
        }
        assert_eq!(buffers.0.lock().unwrap().len(), KEPT_MAX);
    }
}
