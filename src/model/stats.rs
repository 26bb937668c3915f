//! What a run did, in numbers, and how it ended.

use serde::{Deserialize, Serialize};

use super::KindCounts;

/// Totals of a run. Each side fills what it sees; the sums are the run's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Everything listed in the source.
    pub listed: KindCounts,
    /// Created at the destination.
    pub created: KindCounts,
    /// Deleted at the destination.
    pub deleted: KindCounts,
    /// Regular files whose content was transferred.
    pub transferred_files: u64,
    /// Bytes of all regular files and symbolic links listed.
    pub total_bytes: u64,
    /// Bytes of the files transferred.
    pub transferred_bytes: u64,
    /// Bytes of content that crossed over as they are.
    pub literal_bytes: u64,
    /// Bytes of content taken from a file that the destination had.
    pub matched_bytes: u64,
    /// Bytes that listings took on the wire.
    pub listing_bytes: u64,
    /// Bytes sent by the client.
    pub sent_bytes: u64,
    /// Bytes received by the client.
    pub received_bytes: u64,
    /// Files committed although they changed while they were read (`--live`).
    pub live_files: u64,
    /// Extraneous items that a closed gate or a limit left in place.
    pub deletions_withheld: u64,
    /// Problems by consequence: source, destination, vanished, changed, differs.
    pub source_problems: u64,
    /// See [`Stats::source_problems`].
    pub destination_problems: u64,
    /// See [`Stats::source_problems`].
    pub vanished: u64,
    /// See [`Stats::source_problems`].
    pub changed: u64,
    /// See [`Stats::source_problems`].
    pub differs: u64,
    /// Whether `--max-delete` stopped the deletion.
    pub max_delete_reached: bool,
}

impl Stats {
    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Stats) {
        self.listed.merge(&other.listed);
        self.created.merge(&other.created);
        self.deleted.merge(&other.deleted);
        self.transferred_files += other.transferred_files;
        self.total_bytes += other.total_bytes;
        self.transferred_bytes += other.transferred_bytes;
        self.literal_bytes += other.literal_bytes;
        self.matched_bytes += other.matched_bytes;
        self.listing_bytes += other.listing_bytes;
        // Not `sent_bytes` and `received_bytes`: what one end sent is what the other received.
        self.live_files += other.live_files;
        self.deletions_withheld += other.deletions_withheld;
        self.source_problems += other.source_problems;
        self.destination_problems += other.destination_problems;
        self.vanished += other.vanished;
        self.changed += other.changed;
        self.differs += other.differs;
        self.max_delete_reached |= other.max_delete_reached;
    }

    /// How a run with these totals ended.
    pub fn outcome(&self) -> Outcome {
        if self.source_problems + self.destination_problems + self.changed + self.differs > 0 {
            Outcome::Partial
        } else if self.max_delete_reached {
            Outcome::MaxDelete
        } else if self.vanished > 0 {
            Outcome::Vanished
        } else {
            Outcome::Complete
        }
    }
}

/// How a run that got to its end ended. A run that did not is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything is as asked: code 0.
    Complete,
    /// Finished, but some items failed or differ: code 23.
    Partial,
    /// Finished, but source files vanished meanwhile: code 24.
    Vanished,
    /// Finished, but `--max-delete` stopped the deletion: code 25.
    MaxDelete,
    /// Stopped by a signal: code 130.
    Interrupted,
}
