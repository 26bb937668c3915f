//! Signatures of the receiver's basis, window by window, a bounded way ahead of what has arrived.

use std::sync::Arc;

use crossbeam_channel::Receiver as Inbox;

use super::intake::Intake;
use super::open_file::OpenFile;
use crate::delta::describe;
use crate::fs;
use crate::limits;
use crate::wire::{FileKey, Message};

/// A file whose basis is to be signed.
pub(super) struct Signing {
    pub(super) key: FileKey,
    pub(super) file: Arc<OpenFile>,
}

/// Segments in one window.
const WINDOW_SEGMENTS: u64 = limits::DELTA_WINDOW_BYTES / limits::SEGMENT_BYTES;

/// Signs files until the session is over.
pub(super) fn sign_all(intake: &Intake, inbox: &Inbox<Signing>) {
    while let Ok(signing) = inbox.recv() {
        sign(intake, &signing);
    }
}

fn sign(intake: &Intake, signing: &Signing) {
    let Some(basis) = &signing.file.basis else { return };
    let length = basis.bytes();
    let mut window = vec![0; limits::DELTA_WINDOW_BYTES as usize];
    for number in 0..length.div_ceil(limits::DELTA_WINDOW_BYTES) {
        let ahead = (limits::DELTA_WINDOWS_AHEAD_MAX as u64 - 1).min(number);
        let give_up = || intake.session.is_ending() || signing.file.is_answered();
        if give_up() || !signing.file.wait_for_segments((number - ahead) * WINDOW_SEGMENTS, give_up) {
            return;
        }
        let offset = number * limits::DELTA_WINDOW_BYTES;
        let wanted = (length - offset).min(limits::DELTA_WINDOW_BYTES) as usize;
        // A basis that cannot be read any more matches nothing; the sender still waits for its windows.
        let read = fs::read_exact_or_eof_at(&basis.file, &mut window[..wanted], offset).unwrap_or(0);
        let (signature, digests) = describe(offset, &window[..read], signing.file.block_bytes);
        for (index, digest) in (offset / limits::SEGMENT_BYTES..).zip(digests) {
            // Not of a segment that could not be read to its end.
            if (index * limits::SEGMENT_BYTES + basis.segment_bytes(index)) - offset <= read as u64 {
                basis.note(index, digest);
            }
        }
        let mut bytes = Vec::new();
        signature.encode(&mut bytes);
        intake.line.say(&Message::Signature { key: signing.key, window: number, bytes });
    }
}
