//! Directories that are new at the destination, staged whole: made under a stage's name, filled with files that have
//! their final names from the start, and put in place by one rename when all of these are complete.
//!
//! Only a directory's own entries count for that: its parent is often put in place before it, or after it, and either
//! order is right, since everything is done by open descriptors. What a kill leaves unseen is bounded: a directory that
//! holds much is put in place early, and the rest of it goes the way of directories that are there.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Receiver;
use super::node::Node;
use crate::fs::{Dir, stage_dir_name};
use crate::limits;
use crate::model::{Kind, ListedEntry, Name, Operation};

/// A directory that has a stage's name.
#[derive(Debug)]
pub(super) struct Fresh {
    stage: Name,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Entries that are not complete and have their final names.
    in_flight: usize,
    /// Entries so far, and bytes of their content.
    entries: usize,
    bytes: u64,
    /// Nothing more gets its final name before it is complete.
    closed: bool,
    published: bool,
}

impl Fresh {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether whoever asks has to put the directory in place: true once.
    fn take_publishing(&mut self) -> bool {
        let ready = self.closed && self.in_flight == 0 && !self.published;
        self.published |= ready;
        ready
    }
}

/// Something incomplete has its final name in a staged directory, which therefore keeps its stage's name.
pub(super) struct FreshHold {
    receiver: Arc<Receiver>,
    node: Arc<Node>,
}

impl std::fmt::Debug for FreshHold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FreshHold").field("path", &self.node.path).finish_non_exhaustive()
    }
}

impl Drop for FreshHold {
    fn drop(&mut self) {
        let Some(fresh) = self.node.fresh.get() else { return };
        let publishes = {
            let mut state = fresh.state();
            state.in_flight -= 1;
            state.take_publishing()
        };
        if publishes {
            self.receiver.publish(&self.node, fresh);
        }
    }
}

impl Receiver {
    /// Makes the directory of `child` under a stage's name in `dir`; false, and nothing is made, where it has to be made
    /// under its own.
    pub(super) fn stage_directory(&self, child: &Arc<Node>, dir: &Arc<Dir>, listed: &ListedEntry) -> io::Result<bool> {
        let options = &self.session.options;
        // What the sender removes must not be lost with a stage. Under -K a name may lead elsewhere.
        if options.remove_source_files || options.links.keep_dir_links || self.session.is_ending() {
            return Ok(false);
        }
        if !child.dir.may_hold() {
            return Ok(false);
        }
        let stage = stage_dir_name();
        dir.make_dir(&stage, 0o700)?;
        self.disinherit(dir, &stage, listed);
        // RACE: another run that sweeps this directory just now, before the lock is taken, removes the empty stage:
        // the directory is a problem then, and comes with the next run.
        let staged = Arc::new(dir.open_child(&stage)?);
        // The lock shows sweepers that someone lives who fills it. Where there are no locks nobody could know.
        if !staged.try_lock().unwrap_or(false) || !child.dir.hold(&staged) {
            dir.remove_dir(&stage)?;
            return Ok(false);
        }
        let fresh = Fresh { stage: stage.clone(), state: Mutex::default() };
        let _set_once = child.fresh.set(fresh);
        self.staged_directories.lock().unwrap_or_else(PoisonError::into_inner).insert(stage, Arc::clone(child));
        Ok(true)
    }

    /// Whether something of `bytes` may have its final name in a directory before it is complete. It holds what this
    /// gives until it is complete, or gone.
    pub(super) fn enter_fresh(self: &Arc<Receiver>, node: &Arc<Node>, bytes: u64) -> Option<FreshHold> {
        let fresh = node.fresh.get()?;
        let publishes = {
            let mut state = fresh.state();
            state.entries += 1;
            state.bytes = state.bytes.saturating_add(bytes);
            let closed_before = state.closed;
            state.closed |= state.entries >= limits::STAGED_DIRECTORY_ENTRIES_MAX
                || state.bytes >= limits::STAGED_DIRECTORY_BYTES_MAX;
            // A large file takes long and gains nothing: it would only keep the others from being seen.
            if !closed_before && bytes <= limits::SMALL_FILE_BYTES_MAX {
                state.in_flight += 1;
                return Some(FreshHold { receiver: Arc::clone(self), node: Arc::clone(node) });
            }
            state.take_publishing()
        };
        if publishes {
            self.publish(node, fresh);
        }
        None
    }

    /// All entries of a directory are settled, or the run ends: it gets its name when nothing in it is incomplete.
    pub(super) fn close_fresh(&self, node: &Arc<Node>) {
        let Some(fresh) = node.fresh.get() else { return };
        let publishes = {
            let mut state = fresh.state();
            state.closed = true;
            state.take_publishing()
        };
        if publishes {
            self.publish(node, fresh);
        }
    }

    /// The run ends early: what is complete in staged directories is kept.
    pub(super) fn publish_all(&self) {
        let staged: Vec<Arc<Node>> =
            self.staged_directories.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for node in staged {
            self.close_fresh(&node);
        }
    }

    fn publish(&self, node: &Arc<Node>, fresh: &Fresh) {
        let (Some(parent), Some(name)) = (&node.parent, node.path.file_name()) else { return };
        // While one directory is merged into another, nothing in it may get another name.
        let _one_at_a_time = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let result = parent.open().and_then(|above| {
            parent.touch();
            match above.rename_noreplace(&fresh.stage, &above, &name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.merge(node, fresh, &above, &name),
                other => other,
            }
        });
        if let Err(error) = result {
            self.problem(Operation::Rename, &node.path, &error);
        }
        if let Some(dir) = node.dir.held() {
            // A run of its own into this directory need not wait for the rest of this one. A lock that stays goes
            // with the descriptor.
            let _goes_with_the_descriptor = dir.unlock();
        }
        self.staged_directories.lock().unwrap_or_else(PoisonError::into_inner).remove(&fresh.stage);
    }

    /// Someone else has made a directory of this name meanwhile: what is complete goes there, name by name. Names that
    /// are taken there stay as they are, and are problems.
    ///
    /// RACE: a large file that is just being written is linked into the stage, which is gone then: a problem, and the
    /// next run brings it.
    fn merge(&self, node: &Arc<Node>, fresh: &Fresh, above: &Arc<Dir>, name: &Name) -> io::Result<()> {
        let there = Arc::new(above.open_child(name)?);
        let staged = match node.dir.held() {
            Some(staged) => staged,
            None => Arc::new(above.open_child(&fresh.stage)?),
        };
        for (entry, _) in staged.list()?.iter() {
            let Ok(entry) = Name::new(entry) else { continue };
            if let Err(error) = staged.rename_noreplace(&entry, &there, &entry) {
                self.problem(Operation::Rename, &node.path.join(&entry), &error);
            }
        }
        node.dir.close();
        node.dir.hold(&there);
        node.touch();
        // What could not be moved is swept by the next run.
        let _stays_for_the_next_run = above.remove_dir(&fresh.stage);
        Ok(())
    }

    /// Removes a staged directory that a dead run has left in `dir`; false where its writer lives.
    pub(super) fn sweep_staged_directory(&self, dir: &Arc<Dir>, name: &Name) -> io::Result<bool> {
        let staged = Arc::new(dir.open_child(name)?);
        if staged.metadata()?.uid != self.process.0 {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "someone else's"));
        }
        if !staged.try_lock()? {
            return Ok(false);
        }
        self.remove_below(&staged, 0)?;
        dir.remove_dir(name)?;
        Ok(true)
    }

    fn remove_below(&self, dir: &Arc<Dir>, depth: usize) -> io::Result<()> {
        if depth > limits::DIRECTORY_DEPTH_MAX || self.session.is_ending() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.let_owner_write(dir);
        for (name, known) in dir.list()?.iter() {
            let Ok(name) = Name::new(name) else { continue };
            if self.kind_of(dir, &name, known)? == Kind::Dir {
                self.remove_below(&Arc::new(dir.open_child(&name)?), depth + 1)?;
                dir.remove_dir(&name)?;
            } else {
                dir.unlink(&name)?;
            }
        }
        Ok(())
    }
}

/// Whatever way a run ends, what is complete is kept.
impl Drop for Receiver {
    fn drop(&mut self) {
        self.publish_all();
    }
}

impl Node {
    /// A directory that this run made: its path may lead through one that has a stage's name, so it is reached from
    /// the next above that is open, or was there before. `keeps` it open while the budget allows.
    pub(super) fn open_created(&self, keeps: bool) -> io::Result<Arc<Dir>> {
        let mut names = Vec::new();
        let mut current = self;
        let mut dir = loop {
            if let Some(dir) = current.dir.held() {
                break dir;
            }
            match (&current.parent, current.path.file_name()) {
                (Some(parent), Some(name)) if current.created.load(Ordering::Relaxed) => {
                    names.push(name);
                    current = parent;
                }
                _ => break current.dir.get()?,
            }
        };
        for name in names.iter().rev() {
            dir = Arc::new(dir.open_child(name)?);
        }
        if keeps {
            let _within_the_budget = self.dir.hold(&dir);
        }
        Ok(dir)
    }
}
