//! The sender's knowledge of the basis: the signatures that have arrived and are still held.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::signature::{Block, is_block_size};
use super::{DeltaError, WindowSignature};
use crate::limits;

/// The held windows of one file's basis. A clone is cheap and shares the signatures, so that a segment can be matched
/// on another thread while further windows arrive.
#[derive(Debug, Clone)]
pub struct BasisIndex {
    length: u64,
    block_bytes: u32,
    /// By offset divided by the window size.
    windows: BTreeMap<u64, Arc<WindowSignature>>,
}

impl BasisIndex {
    /// For a basis of `length` bytes, in blocks of `block_bytes`, as the receiver announced them.
    ///
    /// # Errors
    /// When the block size is not a power of two within the limits.
    pub fn new(length: u64, block_bytes: u32) -> Result<BasisIndex, DeltaError> {
        if !is_block_size(block_bytes) {
            return Err(DeltaError::Signature("block size"));
        }
        Ok(BasisIndex { length, block_bytes, windows: BTreeMap::new() })
    }

    /// Adds a window. When more than `limits::DELTA_WINDOWS_HELD_MAX` are held the one nearest to the start is
    /// forgotten, the new one excepted.
    ///
    /// # Errors
    /// When the window does not belong to such a basis. A window that is held already is replaced.
    pub fn insert(&mut self, window: WindowSignature) -> Result<(), DeltaError> {
        if window.block_bytes() != self.block_bytes {
            return Err(DeltaError::Signature("another block size than announced"));
        }
        let left = self.length.saturating_sub(window.offset());
        if left == 0 || u64::from(window.length()) != left.min(limits::DELTA_WINDOW_BYTES) {
            return Err(DeltaError::Signature("a window that does not fit the basis"));
        }
        let number = window.offset() / limits::DELTA_WINDOW_BYTES;
        self.windows.insert(number, Arc::new(window));
        if self.windows.len() > limits::DELTA_WINDOWS_HELD_MAX
            && let Some(oldest) = self.windows.keys().copied().find(|&held| held != number)
        {
            self.windows.remove(&oldest);
        }
        Ok(())
    }

    /// Forgets the windows that end at or before `offset`.
    pub fn forget_before(&mut self, offset: u64) {
        self.windows = self.windows.split_off(&(offset / limits::DELTA_WINDOW_BYTES));
    }

    /// Whether the windows of all basis bytes in `offset..offset + length` are held (bytes behind its end do not count).
    pub fn covers(&self, offset: u64, length: u64) -> bool {
        let end = offset.saturating_add(length).min(self.length);
        if offset >= end {
            return true;
        }
        let numbers = offset / limits::DELTA_WINDOW_BYTES..=(end - 1) / limits::DELTA_WINDOW_BYTES;
        let wanted = numbers.end() - numbers.start() + 1;
        self.windows.range(numbers).count() as u64 == wanted
    }

    /// Length of the basis.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Block size.
    pub fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    /// The block that starts at `offset`, and its length in bytes; `None` when it is not held.
    pub(super) fn block_at(&self, offset: u64) -> Option<(&Block, usize)> {
        if !offset.is_multiple_of(u64::from(self.block_bytes)) {
            return None;
        }
        let window = self.windows.get(&(offset / limits::DELTA_WINDOW_BYTES))?;
        let index = usize::try_from((offset % limits::DELTA_WINDOW_BYTES) / u64::from(self.block_bytes)).ok()?;
        Some((window.blocks().get(index)?, window.block_length(index)))
    }

    /// Full blocks that are not zero, in the windows that come within `radius` bytes of any of `places`: weak sum and offset in the basis.
    pub(super) fn blocks_near(&self, places: &[u64], radius: u64) -> Vec<(u32, u64)> {
        let near = |number: u64| {
            let start = number * limits::DELTA_WINDOW_BYTES;
            let end = start + limits::DELTA_WINDOW_BYTES;
            places.iter().any(|&place| start <= place.saturating_add(radius) && end >= place.saturating_sub(radius))
        };
        let mut blocks = Vec::new();
        for window in self.windows.iter().filter(|(number, _)| near(**number)).map(|(_, window)| window) {
            for (index, block) in window.blocks().iter().enumerate() {
                if !block.is_zero() && window.block_length(index) == self.block_bytes as usize {
                    blocks.push((block.weak, window.offset() + index as u64 * u64::from(self.block_bytes)));
                }
            }
        }
        blocks
    }
}
