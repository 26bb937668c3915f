//! Directories that are open while they are needed: descriptors are a bounded good.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::fs::Dir;
use crate::model::RelPath;

/// How many descriptors directories may hold open. Past it they are opened again by path, beneath their root.
#[derive(Debug)]
pub(super) struct HandleBudget {
    held: AtomicUsize,
    max: usize,
}

impl HandleBudget {
    pub(super) fn new(max: usize) -> Arc<HandleBudget> {
        Arc::new(HandleBudget { held: AtomicUsize::new(0), max })
    }

    fn take(&self) -> bool {
        let taken = self.held.fetch_add(1, Ordering::Relaxed) < self.max;
        if !taken {
            self.held.fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }

    fn give_back(&self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a directory below a root is reached again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// No symbolic link in any component.
    Strict,
    /// Symbolic links are followed as long as they stay beneath the root (`-K`).
    Beneath,
    /// Symbolic links are followed (the sender's `-L`, `-k`): anywhere, or as far as the root's base lets them lead.
    Anywhere,
}

/// A directory below a root, opened when first asked for and kept open while the budget allows.
#[derive(Debug)]
pub(super) struct HeldDir {
    root: Arc<Dir>,
    path: RelPath,
    reach: Reach,
    budget: Arc<HandleBudget>,
    open: Mutex<Option<Arc<Dir>>>,
}

impl HeldDir {
    pub(super) fn new(root: Arc<Dir>, path: RelPath, reach: Reach, budget: Arc<HandleBudget>) -> HeldDir {
        HeldDir { root, path, reach, budget, open: Mutex::new(None) }
    }

    /// The root itself, which stays open.
    pub(super) fn at_root(root: Arc<Dir>, budget: Arc<HandleBudget>) -> HeldDir {
        HeldDir::new(root, RelPath::root(), Reach::Strict, budget)
    }

    /// One component further down.
    pub(super) fn child(&self, name: &crate::model::Name, reach: Reach) -> HeldDir {
        let reach = if self.reach == Reach::Strict { reach } else { self.reach };
        HeldDir::new(Arc::clone(&self.root), self.path.join(name), reach, Arc::clone(&self.budget))
    }

    /// The open directory.
    pub(super) fn get(&self) -> io::Result<Arc<Dir>> {
        if self.path.is_root() {
            return Ok(Arc::clone(&self.root));
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dir) = &*open {
            return Ok(Arc::clone(dir));
        }
        let dir = self.reopen()?;
        if self.budget.take() {
            *open = Some(Arc::clone(&dir));
        }
        Ok(dir)
    }

    /// As [`HeldDir::get`], and what is opened for it is not kept.
    pub(super) fn get_briefly(&self) -> io::Result<Arc<Dir>> {
        if self.path.is_root() {
            return Ok(Arc::clone(&self.root));
        }
        self.held().map_or_else(|| self.reopen(), Ok)
    }

    fn reopen(&self) -> io::Result<Arc<Dir>> {
        Ok(Arc::new(match self.reach {
            Reach::Strict => self.root.open_beneath(&self.path)?,
            Reach::Beneath => {
                let dir = self.root.open_beneath_following(&self.path)?;
                if dir.is_hidden() {
                    return Err(crate::fs::hidden());
                }
                dir
            }
            Reach::Anywhere => {
                let mut components = self.path.components();
                let first = components.next().ok_or(io::ErrorKind::NotFound)?;
                components
                    .try_fold(self.root.open_child_following(&first)?, |dir, name| dir.open_child_following(&name))?
            }
        }))
    }

    /// The directory, if it is open.
    pub(super) fn held(&self) -> Option<Arc<Dir>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what was opened some other way, if nothing is kept yet; false where the budget is spent.
    pub(super) fn hold(&self, dir: &Arc<Dir>) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.is_none() && self.budget.take() {
            *open = Some(Arc::clone(dir));
        }
        open.is_some()
    }

    /// Whether the budget would let one more directory be kept just now.
    pub(super) fn may_hold(&self) -> bool {
        self.budget.held.load(Ordering::Relaxed) < self.budget.max
    }

    /// Closes the descriptor; it is opened again when asked for.
    pub(super) fn close(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.take().is_some() {
            self.budget.give_back();
        }
    }
}

impl Drop for HeldDir {
    fn drop(&mut self) {
        self.close();
    }
}
