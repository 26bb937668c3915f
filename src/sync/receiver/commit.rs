//! How a file, link or device gets its final name: complete, verified, with its attributes, in one step.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::alternatives::Alternative;
use super::fresh::FreshHold;
use super::node::{Node, PieceWork};
use super::{Receiver, RelPath};
use crate::fs::{self, Dir, Pinned, Stage, Target, stage_name};
use crate::model::{Acls, Entry, Kind, Metadata, Name, Operation, Xattrs};
use crate::monitor::{Action, Changes, Counters};
use crate::sync::sender::read::LIVE_MTIME;
use crate::wire::Content;

/// What the destination has under a name.
#[derive(Debug, Clone)]
pub(in crate::sync) struct Found {
    pub(in crate::sync) metadata: Metadata,
    pub(in crate::sync) link_target: Option<Vec<u8>>,
    pub(in crate::sync) acls: Option<Acls>,
    pub(in crate::sync) xattrs: Option<Xattrs>,
}

impl Found {
    /// Without the attributes that take more calls.
    pub(in crate::sync) fn bare(metadata: Metadata) -> Found {
        Found { metadata, link_target: None, acls: None, xattrs: None }
    }
}

/// A regular file whose content is wanted.
#[derive(Debug)]
pub(in crate::sync) struct FileTask {
    pub(super) work: Arc<PieceWork>,
    pub(in crate::sync) index: u16,
    /// What is there under its name.
    pub(in crate::sync) found: Option<Found>,
    /// What will differ.
    pub(in crate::sync) changes: Changes,
    /// Lengths agree; only the digests tell whether anything is to be done.
    pub(in crate::sync) check: bool,
    /// With `check`: what is compared is not at the destination but in an alternative tree.
    pub(super) alternative: Option<Alternative>,
    /// The inode that is there stands for something else too: the file gets one of its own.
    pub(in crate::sync) apart: bool,
}

impl FileTask {
    pub(super) fn new(
        work: Arc<PieceWork>,
        index: u16,
        found: Option<Found>,
        changes: Changes,
        check: bool,
    ) -> FileTask {
        FileTask { work, index, found, changes, check, alternative: None, apart: false }
    }

    /// A regular file that is there, as a basis.
    pub(in crate::sync) fn basis(&self) -> Option<&Metadata> {
        self.found.as_ref().map(|found| &found.metadata).filter(|metadata| metadata.kind == Kind::File)
    }

    pub(in crate::sync) fn size(&self) -> u64 {
        self.work.listed(self.index).entry.metadata.size
    }

    pub(in crate::sync) fn name(&self) -> &Name {
        self.work.name(self.index)
    }

    /// What the listing says of the content.
    pub(in crate::sync) fn listed_content(&self) -> Content {
        let metadata = &self.work.listed(self.index).entry.metadata;
        Content {
            size: metadata.size,
            mtime: metadata.mtime,
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
        }
    }

    /// The directory that holds it at the destination.
    pub(in crate::sync) fn work_dir(&self) -> io::Result<Arc<Dir>> {
        self.work.node.open()
    }

    /// The file whose content is compared, with `check`.
    pub(in crate::sync) fn open_checked(&self) -> io::Result<std::fs::File> {
        match &self.alternative {
            Some(alternative) => alternative.dir.open_file(self.name()),
            None => self.work_dir()?.open_file(self.name()),
        }
    }

    pub(in crate::sync) fn key(&self) -> crate::wire::FileKey {
        crate::wire::FileKey { piece: self.piece(), index: self.index }
    }

    pub(in crate::sync) fn piece(&self) -> crate::model::PieceId {
        self.work.piece().id
    }

    pub(in crate::sync) fn path(&self) -> RelPath {
        self.work.path(self.index)
    }

    /// The sender's own piece, on one machine.
    pub(in crate::sync) fn sent(&self) -> Option<&Arc<crate::sync::sender::walk::SentPiece>> {
        match &self.work.arrived {
            super::Arrived::Local(sent) => Some(sent),
            super::Arrived::Remote(_) => None,
        }
    }
}

/// Where a file's content is written.
#[derive(Debug)]
pub(in crate::sync) enum Written {
    /// Where nobody sees it under its final name.
    Staged(StagedFile),
    /// Into the file itself (`--inplace`).
    InPlace(InPlaceFile),
}

/// A file that is not there yet.
#[derive(Debug)]
pub(in crate::sync) struct StagedFile {
    stage: Stage,
    /// The permissions that it was made with, where these are the ones that were asked for.
    mode: Option<u32>,
    /// Declared last, dropped last: the directory gets its name after what is incomplete in it is gone.
    _hold: Option<FreshHold>,
}

impl StagedFile {
    pub(in crate::sync) fn file(&self) -> &std::fs::File {
        self.stage.file()
    }

    fn dir(&self) -> &Arc<Dir> {
        self.stage.dir()
    }

    fn commit(self, name: &Name) -> io::Result<()> {
        self.stage.commit(name)
    }

    pub(super) fn keep_as(self, dir: &Dir, name: &Name) -> io::Result<()> {
        self.stage.keep_as(dir, name)
    }
}

/// A file that is overwritten where it is. Until it is complete it is a mixture: left so, it gets an mtime that makes
/// the next run look again.
#[derive(Debug)]
pub(in crate::sync) struct InPlaceFile {
    file: std::fs::File,
    complete: bool,
}

impl Drop for InPlaceFile {
    fn drop(&mut self) {
        if !self.complete {
            let change = fs::MetadataChange { mtime: Some(LIVE_MTIME), ..fs::MetadataChange::default() };
            // Nothing is left to be done about a failure: the file's time is that of the last write then.
            let _best_effort = fs::apply(Target::File(&self.file), Kind::File, &change);
        }
    }
}

impl Written {
    pub(in crate::sync) fn file(&self) -> &std::fs::File {
        match self {
            Written::Staged(staged) => staged.file(),
            Written::InPlace(in_place) => &in_place.file,
        }
    }
}

/// Something complete that waits for a directory of its name to be removed, which the deletion gates decide on.
#[derive(Debug)]
pub(super) struct Deferred {
    pub(super) node: Arc<Node>,
    pub(super) name: Name,
    pub(super) dir: Arc<Dir>,
    /// The name that it has until then; `None` in a dry run.
    pub(super) staged: Option<Name>,
}

/// How a transfer went, for the totals.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::sync) struct Transferred {
    pub(in crate::sync) literal_bytes: u64,
    pub(in crate::sync) matched_bytes: u64,
    /// The file changed while it was read and is committed all the same (`--live`).
    pub(in crate::sync) live: bool,
}

impl Receiver {
    /// Opens what a file's content will be written to.
    pub(in crate::sync) fn open_written(self: &Arc<Receiver>, task: &FileTask) -> io::Result<Written> {
        let dir = self.ensure(&task.work.node)?;
        // A file with other names is replaced: they keep what they had. So is one that is backed up.
        let options = &self.session.options;
        if options.inplace && options.backup.is_none() && task.basis().is_some_and(|basis| basis.nlink == 1) {
            let file = dir.open_file_write(task.name())?;
            let now = fs::metadata_of(&file)?;
            // What was put there after the comparison, or got another name, is not written into.
            if now.nlink == 1 && task.basis().is_some_and(|basis| (basis.dev, basis.ino) == (now.dev, now.ino)) {
                return Ok(Written::InPlace(InPlaceFile { file, complete: false }));
            }
        }
        self.stage_file(task, &dir).map(Written::Staged)
    }

    /// A new file for a task, in the task's directory.
    pub(super) fn stage_file(self: &Arc<Receiver>, task: &FileTask, dir: &Arc<Dir>) -> io::Result<StagedFile> {
        if task.found.is_some() {
            // It has a name that others see, and another owner for now.
            return Ok(StagedFile { stage: Stage::create(dir, true, 0o600)?, mode: None, _hold: None });
        }
        let node = &task.work.node;
        let wanted = self.creation_mode(node, &task.work.listed(task.index).entry);
        let mode = wanted.unwrap_or(0o600);
        let mut hold = self.enter_fresh(node, task.size());
        let stage = match hold.is_some() {
            true => match Stage::create_final(dir, task.name(), mode) {
                // The file system takes two names for one: the second replaces the first.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    hold = None;
                    Stage::create(dir, false, mode)?
                }
                other => other?,
            },
            false => Stage::create(dir, false, mode)?,
        };
        // Some file systems have ideas of their own, and default access control lists: the first of each kind is
        // looked at.
        let unseen = hold.is_some() || !stage.has_name();
        let kept = wanted.filter(|_| unseen).filter(|&wanted| {
            node.kept_mode.load(Ordering::Relaxed) == wanted || {
                let kept = fs::metadata_of(stage.file()).is_ok_and(|metadata| metadata.mode == wanted);
                if kept {
                    node.kept_mode.store(wanted, Ordering::Relaxed);
                }
                kept
            }
        });
        Ok(StagedFile { stage, mode: kept, _hold: hold })
    }

    /// The permissions that a new file can be made with at once. Not with special bits, which a change of owner clears;
    /// nor where the umask would take some away, or something that is set later moves them or depends on them.
    fn creation_mode(&self, node: &Arc<Node>, entry: &Entry) -> Option<u32> {
        if entry.acls.is_some() || entry.xattrs.is_some() {
            return None;
        }
        let mode = self.mode_for(Some(node), entry.metadata.mode, Kind::File, None);
        (mode & (0o7000 | self.root.umask) == 0).then_some(mode)
    }

    /// Commits a file whose content is complete and verified; settles its entry.
    pub(in crate::sync) fn commit(
        self: &Arc<Receiver>,
        task: &FileTask,
        written: Written,
        content: &Content,
        transferred: Transferred,
    ) {
        let (work, index) = (&task.work, task.index);
        match self.try_commit(task, written, content, transferred) {
            Ok(is_whole) => {
                if transferred.live {
                    self.session.count(|stats| stats.live_files += 1);
                    self.session
                        .detail(|| format!("changed while it was read, will be looked at again: {}", task.path()));
                }
                self.count_transfer(task, content, transferred);
                if is_whole && !transferred.live {
                    work.mark_safe(index);
                }
                self.settled_here(work, index, true);
            }
            Err((operation, error)) => self.fail_file(task, operation, &error),
        }
    }

    fn try_commit(
        self: &Arc<Receiver>,
        task: &FileTask,
        written: Written,
        content: &Content,
        transferred: Transferred,
    ) -> Result<bool, (Operation, io::Error)> {
        let options = &self.session.options;
        let work = &task.work;
        let entry = &work.listed(task.index).entry;
        let before_mode = match (&task.found, &written) {
            (Some(found), Written::InPlace(_)) => Some(found.metadata.mode),
            (Some(found), _) if found.metadata.kind == Kind::File => Some(found.metadata.mode),
            _ => None,
        };
        let mut change = self.change_for(Some(&work.node), entry, Some(content), before_mode);
        if transferred.live {
            change.mtime = Some(LIVE_MTIME);
        }
        match (&written, &task.found) {
            (Written::InPlace(_), Some(found)) => {
                // Writing moved its mtime, and cleared set-id bits.
                let mtime = change.mtime;
                change = change.less(&Metadata { mode: 0, ..found.metadata });
                change.mtime = mtime;
            }
            (Written::Staged(staged), _) => {
                self.fit_to_stage(&mut change, &work.node);
                change.less_mode(staged.mode);
            }
            (Written::InPlace(_), None) => {}
        }
        let failures = fs::apply(Target::File(written.file()), Kind::File, &change.as_change());
        let is_whole = failures.is_empty();
        for (operation, error) in failures {
            self.problem(operation, &task.path(), &error);
        }
        if options.fsync {
            written.file().sync_data().map_err(|error| (Operation::Sync, error))?;
        }
        let stage = match written {
            Written::InPlace(mut in_place) => {
                in_place.complete = true;
                if options.partial {
                    self.drop_partial(work, task.name());
                }
                return Ok(is_whole);
            }
            Written::Staged(stage) => stage,
        };
        let name = task.name();
        let beside = self.keeps_backups_beside(&work.node);
        if let Some(found) = &task.found {
            if found.metadata.kind == Kind::Dir && !self.makes_way_at_once(stage.dir(), name) {
                let dir = Arc::clone(stage.dir());
                let staged = stage_name();
                stage.commit(&staged).map_err(|error| (Operation::Rename, error))?;
                self.defer(&work.node, name, dir, Some(staged));
                // Not there yet: the source must keep it.
                return Ok(false);
            }
            if options.backup.is_some() && found.metadata.kind != Kind::Dir {
                let dir = Arc::clone(stage.dir());
                self.back_up(&work.node, &work.node.path, &dir, name, found.metadata.kind)
                    .map_err(|error| (Operation::Backup, error))?;
            }
        }
        work.node.touch();
        stage.commit(name).map_err(|error| (Operation::Rename, error))?;
        work.node.note_committed(name, beside);
        // A directory that this run made has no parts of an earlier one.
        if options.partial && !work.node.created.load(Ordering::Relaxed) {
            self.drop_partial(work, name);
        }
        Ok(is_whole)
    }

    fn count_transfer(&self, task: &FileTask, content: &Content, transferred: Transferred) {
        let created = task.found.is_none();
        self.session.count(|stats| {
            stats.transferred_files += 1;
            stats.transferred_bytes += content.size;
            stats.literal_bytes += transferred.literal_bytes;
            stats.matched_bytes += transferred.matched_bytes;
            if created {
                stats.created.add(Kind::File);
            }
        });
        let counters = self.session.counters();
        Counters::add(&counters.files_transferred, 1);
        Counters::add(&counters.bytes_done, task.size());
        let mut changes = task.changes;
        changes.content |= task.check;
        self.tell(&task.work, task.index, Action::Received, changes, transferred.literal_bytes, None);
    }

    /// The content turned out to be equal: at most attributes are to be set.
    pub(in crate::sync) fn same_content(self: &Arc<Receiver>, task: &FileTask) {
        let (work, index) = (&task.work, task.index);
        if let Some(alternative) = &task.alternative {
            return self.checked_alternative(task, alternative);
        }
        let mut changes = task.changes;
        changes.content = false;
        changes.size = false;
        let done =
            self.session.options.dry_run || !changes.any() || self.set_metadata(work, index, task.found.as_ref());
        self.tell(work, index, Action::Unchanged, changes, 0, None);
        self.count_done(work, index);
        if done && !self.is_source_itself(work, index, task.found.as_ref()) {
            work.mark_safe(index);
        }
        self.settled_here(work, index, done);
    }

    /// A dry run's answer to a file whose content differs.
    pub(in crate::sync) fn pretend_content(self: &Arc<Receiver>, task: &FileTask) {
        let changes = Changes { content: true, ..task.changes };
        self.pretend_transfer(&task.work, task.index, changes);
        self.count_done(&task.work, task.index);
        self.settled_here(&task.work, task.index, true);
    }

    /// What came of a file when the run ends early.
    pub(in crate::sync) fn put_aside(&self, task: &FileTask, written: Written) {
        if let Written::Staged(stage) = written {
            self.keep_partial(task, stage);
        }
    }

    /// A file could not be brought to its end: told, and settled.
    pub(in crate::sync) fn fail_file(self: &Arc<Receiver>, task: &FileTask, operation: Operation, error: &io::Error) {
        self.problem(operation, &task.path(), error);
        self.give_up(task);
    }

    /// A file is left as it was; whoever knows has said why.
    pub(in crate::sync) fn give_up(self: &Arc<Receiver>, task: &FileTask) {
        self.count_done(&task.work, task.index);
        self.settled_here(&task.work, task.index, false);
    }

    /// Makes a link, device, pipe or socket; replaces what is there in one step. False when it failed.
    pub(super) fn make_special(
        self: &Arc<Receiver>,
        work: &Arc<PieceWork>,
        index: u16,
        found: Option<&Found>,
        changes: Changes,
    ) -> bool {
        match self.try_make_special(work, index, found) {
            Ok(is_whole) => {
                let kind = work.listed(index).entry.metadata.kind;
                if found.is_none() {
                    self.session.count(|stats| stats.created.add(kind));
                }
                self.tell(work, index, Action::Changed, changes, 0, None);
                if is_whole {
                    work.mark_safe(index);
                }
                true
            }
            Err((operation, error)) => {
                self.problem(operation, &work.path(index), &error);
                false
            }
        }
    }

    fn try_make_special(
        self: &Arc<Receiver>,
        work: &Arc<PieceWork>,
        index: u16,
        found: Option<&Found>,
    ) -> Result<bool, (Operation, io::Error)> {
        let entry = &work.listed(index).entry;
        let kind = entry.metadata.kind;
        let name = work.name(index);
        let dir = self.ensure(&work.node).map_err(|error| (Operation::Create, error))?;
        let make = |name: &Name| match (&entry.link_target, kind) {
            (Some(target), Kind::Symlink) => dir.make_symlink(target, name),
            _ => dir.make_node(name, kind, 0o600, entry.metadata.rdev),
        };
        // Made under a stage name and renamed: an existing name never vanishes, a new one never shows half its
        // attributes. In a directory that is staged itself nobody sees that.
        let hold = if found.is_none() { self.enter_fresh(&work.node, 0) } else { None };
        let in_place = hold.is_some() && make(name).is_ok();
        let staged = if in_place { name.clone() } else { stage_name() };
        if !in_place {
            make(&staged).map_err(|error| (Operation::Create, error))?;
        }
        work.node.touch();
        let mut change = self.change_for(Some(&work.node), entry, None, None);
        self.fit_to_stage(&mut change, &work.node);
        let mut is_whole = true;
        let pinned = pin_new(&dir, &staged, kind).map_err(|error| {
            let _leaves_a_stage_for_the_next_run = dir.unlink(&staged);
            (Operation::Stat, error)
        })?;
        for (operation, error) in fs::apply(Target::Pinned(&pinned), kind, &change.as_change()) {
            is_whole = false;
            self.problem(operation, &work.path(index), &error);
        }
        let beside = self.keeps_backups_beside(&work.node);
        match found.map(|found| found.metadata.kind) {
            Some(Kind::Dir) if !self.makes_way_at_once(&dir, name) => {
                self.defer(&work.node, name, dir, Some(staged));
                return Ok(false);
            }
            Some(Kind::Dir) => {}
            Some(there) if self.session.options.backup.is_some() => {
                if let Err(error) = self.back_up(&work.node, &work.node.path, &dir, name, there) {
                    let _leaves_a_stage_for_the_next_run = dir.unlink(&staged);
                    return Err((Operation::Backup, error));
                }
            }
            _ => {}
        }
        if !in_place && let Err(error) = dir.rename(&staged, &dir, name) {
            let _leaves_a_stage_for_the_next_run = dir.unlink(&staged);
            return Err((Operation::Rename, error));
        }
        work.node.note_committed(name, beside);
        drop(hold);
        Ok(is_whole)
    }

    /// A directory gives way to something else only when it is empty, or by `--delete` or `--force`.
    pub(super) fn may_replace(&self, work: &Arc<PieceWork>, index: u16, dir: &Arc<Dir>, found: Option<&Found>) -> bool {
        let options = &self.session.options;
        let is_dir = found.is_some_and(|found| found.metadata.kind == Kind::Dir);
        if !is_dir || options.deletion.enabled || options.deletion.force {
            return true;
        }
        let empty = dir.open_child(work.name(index)).and_then(|child| child.list()).is_ok_and(|names| names.is_empty());
        if !empty {
            self.refuse(
                Operation::Create,
                &work.path(index),
                "a directory that is not empty has this name (--delete or --force would remove it)",
            );
        }
        empty
    }

    /// An empty directory gives way without `--delete` or `--force`; true when it did.
    pub(super) fn makes_way_at_once(&self, dir: &Arc<Dir>, name: &Name) -> bool {
        let deletion = &self.session.options.deletion;
        !deletion.enabled && !deletion.force && dir.remove_dir(name).is_ok()
    }

    pub(super) fn defer(&self, node: &Arc<Node>, name: &Name, dir: Arc<Dir>, staged: Option<Name>) {
        node.touch();
        let deferred = Deferred { node: Arc::clone(node), name: name.clone(), dir, staged };
        self.deferred.lock().unwrap_or_else(PoisonError::into_inner).push(deferred);
    }

    /// The name that an entry which is done has now: what waits for a directory to give way has another.
    pub(super) fn present_name(&self, work: &Arc<PieceWork>, index: u16) -> Name {
        let deferred = self.deferred.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |one: &&Deferred| Arc::ptr_eq(&one.node, &work.node) && one.name == *work.name(index);
        match deferred.iter().find(waits) {
            Some(Deferred { staged: Some(staged), .. }) => staged.clone(),
            _ => work.name(index).clone(),
        }
    }

    /// Sets the attributes of something whose content is right. False when something failed.
    pub(super) fn set_metadata(&self, work: &Arc<PieceWork>, index: u16, found: Option<&Found>) -> bool {
        let entry = &work.listed(index).entry;
        let Some(found) = found else { return false };
        let change = self.change_for(Some(&work.node), entry, None, Some(found.metadata.mode)).less(&found.metadata);
        let dir = match work.node.open() {
            Ok(dir) => dir,
            Err(error) => {
                self.problem(Operation::Open, &work.path(index), &error);
                return false;
            }
        };
        if change.is_empty() {
            return true;
        }
        let failures = match pin_same(&dir, work.name(index), &found.metadata) {
            Ok(pinned) => fs::apply(Target::Pinned(&pinned), entry.metadata.kind, &change.as_change()),
            Err(error) => vec![(Operation::Stat, error)],
        };
        let done = failures.is_empty();
        for (operation, error) in failures {
            self.problem(operation, &work.path(index), &error);
        }
        done
    }
}

/// What was found under a name, pinned; an error where something else has the name now.
fn pin_same(dir: &Dir, name: &Name, found: &Metadata) -> io::Result<Pinned> {
    let pinned = Pinned::open(dir, name)?;
    let now = pinned.metadata();
    match (now.dev, now.ino, now.kind) == (found.dev, found.ino, found.kind) {
        true => Ok(pinned),
        false => Err(fs::replaced()),
    }
}

/// What was just made under a stage's name, pinned. Whoever may write into the directory could have put something else
/// there, which must not get the owner and mode of ours.
fn pin_new(dir: &Dir, staged: &Name, kind: Kind) -> io::Result<Pinned> {
    let pinned = Pinned::open(dir, staged)?;
    let now = pinned.metadata();
    // Not by its owner: file systems that map users show another one. A name of a file elsewhere is a second one.
    match now.kind == kind && now.nlink <= 1 {
        true => Ok(pinned),
        false => Err(fs::replaced()),
    }
}
