//! Where the destination is: rsync's rules for its name, the lock, and what its file system can hold.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fs::{self, Base, DestinationLock, Dir, LockError};
use crate::limits;
use crate::model::{Kind, Name, Operation, Problem, ProblemKind, RelPath, display_bytes};
use crate::monitor::Changes;
use crate::plan::options::SyncOptions;
use crate::sync::SyncError;
use crate::sync::clock::{self, Stopwatch};
use crate::sync::session::Session;

/// The destination, held.
#[derive(Debug)]
pub(in crate::sync) struct DestinationRoot {
    /// Its directory; where it is not there (a dry run), some directory that is never used.
    pub(super) dir: Arc<Dir>,
    /// False in a dry run into a directory that does not exist.
    pub(super) is_there: bool,
    /// The name that the one file of the transfer gets.
    pub(super) rename: Option<Name>,
    /// How `dir` was named in the session's base.
    at: Vec<u8>,
    /// The directory was made by this run.
    pub(super) created: bool,
    /// As the user wrote it, for messages.
    pub(in crate::sync) shown: Vec<u8>,
    /// The file system's resolution of times.
    pub(super) granularity_ns: u64,
    /// Bits that are masked from the modes of new files.
    pub(super) umask: u32,
    /// `--partial-dir`, a single name below each directory.
    pub(super) partial_dir: Option<Name>,
    _lock: Option<DestinationLock>,
}

/// What the destination's name turned out to be.
enum Found {
    Directory(Arc<Dir>),
    /// A file, or nothing, for the one item of the transfer: its directory and its name there.
    Single(Arc<Dir>, Name),
    /// Nothing, in a dry run.
    Nowhere,
}

impl DestinationRoot {
    /// Finds, makes and locks the destination. `single` names the one item of the transfer that is no directory, if
    /// that is all there is; `source_name` is the last name of a single source, to warn of nesting.
    pub(in crate::sync) fn open(
        shown: &[u8],
        single: Option<&Name>,
        session: &Session,
    ) -> Result<DestinationRoot, SyncError> {
        let options = &session.options;
        let error = |operation: &'static str, source: io::Error| SyncError::Destination {
            operation,
            path: shown.to_vec(),
            source,
        };
        let base = &session.base;
        let path = if shown.is_empty() { PathBuf::from(".") } else { PathBuf::from(OsStr::from_bytes(shown)) };
        if options.mkpath && !options.dry_run {
            let parent = if single.is_some() && shown.last() != Some(&b'/') { path.parent() } else { Some(&*path) };
            if let Some(parent) = parent.filter(|parent| !parent.as_os_str().is_empty()) {
                make_path(parent, session).map_err(|source| error("create", source))?;
            }
        }
        let mut created = false;
        let mut at = shown.to_vec();
        let found = match open_dir(base, &path) {
            Ok(dir) => Found::Directory(Arc::new(dir)),
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                if single.is_some() && shown.last() != Some(&b'/') {
                    match split(&path) {
                        Some((parent, name)) => match open_dir(base, &parent) {
                            Ok(dir) => {
                                at = parent.into_os_string().into_vec();
                                Found::Single(Arc::new(dir), name)
                            }
                            Err(source) if options.dry_run && source.kind() == io::ErrorKind::NotFound => {
                                Found::Nowhere
                            }
                            Err(source) => return Err(SyncError::parent_missing(shown, source)),
                        },
                        None => return Err(error("open", source)),
                    }
                } else if options.dry_run {
                    session.detail(|| format!("created directory {}", display_bytes(shown)));
                    Found::Nowhere
                } else {
                    let dir = make_directory(base, &path).map_err(|source| match source.kind() {
                        io::ErrorKind::NotFound => SyncError::parent_missing(shown, source),
                        _ => error("create", source),
                    })?;
                    session.detail(|| format!("created directory {}", display_bytes(shown)));
                    created = true;
                    Found::Directory(Arc::new(dir))
                }
            }
            Err(source) if source.kind() == io::ErrorKind::NotADirectory => match (single, split(&path)) {
                (Some(_), Some((parent, name))) if shown.last() != Some(&b'/') => {
                    let dir = open_dir(base, &parent).map_err(|source| error("open", source))?;
                    at = parent.into_os_string().into_vec();
                    Found::Single(Arc::new(dir), name)
                }
                _ => return Err(SyncError::DestinationIsFile { path: shown.to_vec() }),
            },
            Err(source) => return Err(error("open", source)),
        };
        let (dir, is_there, rename) = match found {
            Found::Directory(dir) => (dir, true, None),
            Found::Single(dir, name) => (dir, true, Some(name)),
            Found::Nowhere => (Arc::new(base.open_dir(b"/").map_err(|source| error("open", source))?), false, None),
        };
        let lock = match is_there && !options.dry_run {
            true => lock(&dir, rename.as_ref(), shown, session)?,
            false => None,
        };
        let granularity_ns = if is_there { dir.time_granularity_ns().unwrap_or(1) } else { 1 };
        let partial_dir = partial_dir(options)?;
        Ok(DestinationRoot {
            dir,
            is_there,
            rename,
            at,
            created,
            shown: shown.to_vec(),
            granularity_ns,
            umask: fs::umask(),
            partial_dir,
            _lock: lock,
        })
    }
}

fn partial_dir(options: &SyncOptions) -> Result<Option<Name>, SyncError> {
    match options.partial_dir.as_deref() {
        None | Some(b"" | b".") => Ok(None),
        Some(dir) => Name::new(dir.strip_suffix(b"/").unwrap_or(dir)).map(Some).map_err(|_| SyncError::Usage {
            reason: "--partial-dir must be a single directory name, such as .xfer-partial: \
                     it is made beside each file, so that the finished file can be renamed into place"
                .into(),
        }),
    }
}

fn open_dir(base: &Base, path: &Path) -> io::Result<Dir> {
    base.open_dir(path.as_os_str().as_bytes())
}

/// Makes one directory, as the user's umask has it.
fn make_directory(base: &Base, path: &Path) -> io::Result<Dir> {
    let (parent, name) = split(path).ok_or(io::ErrorKind::NotFound)?;
    let parent = open_dir(base, &parent)?;
    if parent.hides(&name, true) {
        return Err(fs::hidden());
    }
    parent.make_dir(&name, 0o777)?;
    parent.open_child(&name)
}

/// `--mkpath`: all directories on the way.
fn make_path(path: &Path, session: &Session) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut current = path.to_path_buf();
    while let Err(error) = open_dir(&session.base, &current) {
        if error.kind() != io::ErrorKind::NotFound {
            return Err(error);
        }
        missing.push(current.clone());
        match current.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => current = parent.to_path_buf(),
            None => break,
        }
    }
    for path in missing.iter().rev() {
        match make_directory(&session.base, path) {
            Ok(_) => session.detail(|| format!("created directory {}", display_bytes(path.as_os_str().as_bytes()))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Parent and last name of a path that the user wrote; `None` where there is no last name.
fn split(path: &Path) -> Option<(PathBuf, Name)> {
    let name = Name::new(path.file_name()?.as_bytes()).ok()?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some((parent.to_path_buf(), name))
}

/// One run at a time writes into a destination. Tried again for a while: the far end of a session that was just cut
/// takes a moment to leave.
fn lock(
    dir: &Dir,
    single: Option<&Name>,
    shown: &[u8],
    session: &Session,
) -> Result<Option<DestinationLock>, SyncError> {
    let watch = Stopwatch::start();
    loop {
        let locked = match single {
            None => dir.lock(),
            Some(name) => dir.lock_name(name),
        };
        match locked {
            Ok(lock) => return Ok(Some(lock)),
            Err(LockError::Busy(_)) if watch.elapsed_ms() < limits::LOCK_RETRY_MS && !session.stop.requested() => {
                clock::sleep_ns(50_000_000);
            }
            Err(LockError::Busy(holder)) => {
                // What else runs on the machine is no business of a module's clients.
                let holder = holder.filter(|_| !session.base.is_confined());
                let command = holder.map(fs::process_command).unwrap_or_default();
                return Err(SyncError::Locked { path: shown.to_vec(), holder, command });
            }
            // A file system without locks cannot refuse a second run; that is no reason to refuse the first.
            Err(LockError::Io(_)) => return Ok(None),
        }
    }
}

impl DestinationRoot {
    /// The trap of nesting: `…/data` into `…/data/` makes `data/data`.
    pub(in crate::sync) fn warn_of_nesting(&self, sources: &[Vec<u8>], session: &Session) {
        if self.is_there && !self.created {
            warn_of_nesting(sources, &self.shown, session);
        }
    }
}

fn warn_of_nesting(sources: &[Vec<u8>], destination: &[u8], session: &Session) {
    let [source] = sources else { return };
    if session.options.relative || session.options.files_from.is_some() {
        return;
    }
    let last = |path: &[u8]| {
        let trimmed: &[u8] = match path.iter().rposition(|&byte| byte != b'/') {
            Some(end) => &path[..=end],
            None => &[],
        };
        trimmed.rsplit(|&byte| byte == b'/').next().unwrap_or_default().to_vec()
    };
    let named = last(source);
    if source.ends_with(b"/") || named.is_empty() || named == b"." || named == b".." || named != last(destination) {
        return;
    }
    session.notice(format!(
        "\"{}\" has no trailing slash: it will become \"{}/{}\"; write \"{}/\" to copy its contents instead",
        display_bytes(source),
        display_bytes(destination.strip_suffix(b"/").unwrap_or(destination)),
        display_bytes(&named),
        display_bytes(source),
    ));
}

/// Opens the directory that an alternative or backup path names: absolute in the base, or from the destination on.
pub(super) fn open_auxiliary(base: &Base, root: &DestinationRoot, path: &[u8]) -> io::Result<Arc<Dir>> {
    if path.starts_with(b"/") {
        return base.open_dir(path).map(Arc::new);
    }
    if base.is_confined() {
        return base.open_dir(&[&root.at[..], path].join(&b'/')).map(Arc::new);
    }
    // Relative to the destination, and the user's own word: ".." and links are followed.
    let mut dir = Arc::clone(&root.dir);
    for component in path.split(|&byte| byte == b'/').filter(|component| !component.is_empty()) {
        dir = match component {
            b"." => dir,
            b".." => Arc::new(dir.open_parent()?),
            name => {
                let name = Name::new(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
                Arc::new(dir.open_child_following(&name)?)
            }
        };
    }
    Ok(dir)
}

impl super::Receiver {
    /// Compares the root's own attributes, which it gets last of all.
    pub(super) fn compare_root(&self, node: &Arc<super::node::Node>) {
        if let Some(listed) = &node.listed
            && self.root.is_there
            && !self.root.created
        {
            match self.root.dir.metadata() {
                Ok(metadata) => self.note_existing_directory(node, listed, metadata),
                Err(error) => {
                    self.session.io_problem(ProblemKind::Destination, Operation::Stat, self.root.shown.clone(), &error)
                }
            }
        }
        if node.listed.is_some() && (self.root.created || !self.root.is_there) {
            let created = Changes { created: true, ..Changes::default() };
            node.created.store(self.root.created, std::sync::atomic::Ordering::Relaxed);
            self.session.count(|stats| stats.created.add(Kind::Dir));
            self.tell_directory(node, created);
        }
    }

    /// A problem at the destination, by its path there.
    pub(super) fn problem(&self, operation: Operation, path: &RelPath, error: &io::Error) {
        let mut shown = self.root.shown.clone();
        if self.root.rename.is_none() {
            if !shown.is_empty() && shown.last() != Some(&b'/') {
                shown.push(b'/');
            }
            shown.extend_from_slice(path.as_bytes());
        }
        if let Some(errno) = error.raw_os_error()
            && crate::sync::session::is_no_space(errno)
        {
            self.session.fail(self.full(&shown, error));
        }
        self.session.problem(Problem::from_io(ProblemKind::Destination, operation, shown, error));
    }

    /// The destination is full: which file system, and how much is still to come.
    fn full(&self, path: &[u8], error: &io::Error) -> SyncError {
        let space = self.root.dir.space().ok();
        let counters = self.session.counters();
        let listed = counters.bytes_listed.load(std::sync::atomic::Ordering::Relaxed);
        let done = counters.bytes_done.load(std::sync::atomic::Ordering::Relaxed);
        SyncError::Full {
            path: path.to_vec(),
            file_system: match self.session.base.is_confined() {
                true => b"the module's".to_vec(),
                false => space.as_ref().map(|space| space.place.clone()).unwrap_or_default(),
            },
            missing_bytes: listed.saturating_sub(done).saturating_sub(space.map_or(0, |space| space.free_bytes)),
            reason: error.to_string(),
        }
    }

    /// The kind of an entry that only its name is known of.
    pub(super) fn kind_of(&self, dir: &Dir, name: &Name, known: Option<Kind>) -> io::Result<Kind> {
        match known {
            Some(kind) => Ok(kind),
            None => dir.stat(name).map(|metadata| metadata.kind),
        }
    }
}
