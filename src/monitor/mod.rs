//! The engine tells a trait what happens; terminals, files and tests listen.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::model::{Kind, Problem, ProblemKind, Timestamp};

/// What a run is doing, for the display.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Starting the far end.
    Connecting,
    /// Walking, comparing and copying, all at once.
    Transferring,
    /// Removing what the source no longer has.
    Deleting,
    /// Bringing data to stable storage.
    Syncing,
    /// Last metadata and reports.
    Finishing,
}

/// What was done to one entry, in the sense of rsync's itemized changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Content sent to the far end: `<`.
    Sent,
    /// Content received, or copied here: `>`.
    Received,
    /// Created or changed here without content (directory, link, device): `c`.
    Changed,
    /// Hard link to another item of the transfer: `h`.
    HardLinked,
    /// At most metadata changed: `.`.
    Unchanged,
    /// Removed at the destination: `*deleting`.
    Deleted,
}

/// Which attributes differed. Each is a letter of rsync's `%i`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Changes {
    /// The item is new here: all letters become `+`.
    pub created: bool,
    /// `c`: content by checksum, or a link's target or a device's numbers.
    pub content: bool,
    /// `s`: length.
    pub size: bool,
    /// `t`: mtime, set to the source's.
    pub mtime: bool,
    /// `T`: mtime, set to the time of the transfer.
    pub mtime_now: bool,
    /// `p`: permissions.
    pub mode: bool,
    /// `o`: owner.
    pub owner: bool,
    /// `g`: group.
    pub group: bool,
    /// `u`: atime.
    pub atime: bool,
    /// `a`: access control lists.
    pub acl: bool,
    /// `x`: extended attributes.
    pub xattr: bool,
}

impl Changes {
    /// Whether anything differed.
    pub fn any(&self) -> bool {
        *self != Changes::default()
    }
}

/// One entry that was dealt with. For a peer's client it crosses the wire as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Path relative to the destination's root, raw bytes; empty for the root.
    pub path: Vec<u8>,
    /// Kind of the entry.
    pub kind: Kind,
    /// What was done.
    pub action: Action,
    /// What differed.
    pub changes: Changes,
    /// Target of a symbolic link.
    pub link_target: Option<Vec<u8>>,
    /// The item of which this is another name.
    pub hard_link_to: Option<Vec<u8>>,
    /// Length in bytes.
    pub size: u64,
    /// Source's mtime.
    pub mtime: Timestamp,
    /// Permission bits.
    pub mode: u32,
    /// Owner at the source.
    pub uid: u32,
    /// Group at the source.
    pub gid: u32,
    /// Bytes of content that crossed over for this item.
    pub literal_bytes: u64,
    /// The whole run is a dry one.
    pub dry_run: bool,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// An entry was dealt with (sent where the options ask for items).
    Item(Item),
    /// One item failed; the run goes on.
    Problem(Problem),
    /// Something that the user should know once; not a failure.
    Notice(String),
    /// A detail for `-v`, such as `skipping directory x`.
    Detail(String),
    /// The run entered a phase.
    Phase(Phase),
}

/// Running totals, for a display that looks at them when it likes.
#[derive(Debug, Default)]
pub struct Counters {
    /// Entries listed in the source so far.
    pub entries_listed: AtomicU64,
    /// Bytes of the regular files listed so far.
    pub bytes_listed: AtomicU64,
    /// Entries dealt with.
    pub entries_done: AtomicU64,
    /// Bytes of the files dealt with, those that needed no transfer included.
    pub bytes_done: AtomicU64,
    /// Regular files whose content was transferred.
    pub files_transferred: AtomicU64,
    /// Bytes of content that crossed over or were copied.
    pub bytes_transferred: AtomicU64,
    /// Items deleted.
    pub deleted: AtomicU64,
    /// Problems met.
    pub problems: AtomicU64,
    /// 1 once the whole source is listed: from then on totals are final.
    pub listing_complete: AtomicU64,
    current: Mutex<Vec<u8>>,
}

impl Counters {
    /// Adds to one of the counters.
    pub fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }

    /// Names what is being done now. Cheap: gives way when the display reads.
    pub fn set_current(&self, path: &[u8]) {
        if let Ok(mut current) = self.current.try_lock() {
            current.clear();
            current.extend_from_slice(path);
        }
    }

    /// What was last named by [`Counters::set_current`].
    pub fn current(&self) -> Vec<u8> {
        self.current.lock().map(|current| current.clone()).unwrap_or_default()
    }
}

/// Listens to a run. Called from many threads; must not block for long.
pub trait Monitor: Send + Sync {
    /// Something happened.
    fn event(&self, event: Event);
    /// The running totals that the engine adds to.
    fn counters(&self) -> &Counters;
}

/// Keeps everything, for tests and for callers that look afterwards.
#[derive(Debug, Default)]
pub struct Recorder {
    events: Mutex<Vec<Event>>,
    counters: Counters,
}

impl Recorder {
    /// Nothing recorded yet.
    pub fn new() -> Recorder {
        Recorder::default()
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().map(|events| events.clone()).unwrap_or_default()
    }

    /// All problems so far.
    pub fn problems(&self) -> Vec<Problem> {
        self.events()
            .into_iter()
            .filter_map(|event| match event {
                Event::Problem(problem) => Some(problem),
                _ => None,
            })
            .collect()
    }

    /// Number of problems of `kind`.
    pub fn count(&self, kind: ProblemKind) -> usize {
        self.problems().iter().filter(|problem| problem.kind == kind).count()
    }
}

impl Monitor for Recorder {
    fn event(&self, event: Event) {
        if let Ok(mut events) = self.events.lock() {
            events.push(event);
        }
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }
}
