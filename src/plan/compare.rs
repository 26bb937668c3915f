//! What is to be done about one name: source entry against what the destination has under it.

use super::mode::{NewEntryDefaults, destination_mode, mode_of_replaced};
use super::options::{Preserve, QuickCheck, SyncOptions};
use crate::model::{Acls, Entry, Kind, Metadata, Timestamp, Xattr};
use crate::monitor::Changes;

/// What the destination has under the name.
#[derive(Debug, Clone, Copy)]
pub struct Existing<'a> {
    /// Its metadata; a link is not followed, unless `-K` lets it stand for its directory.
    pub metadata: &'a Metadata,
    /// Target of a symbolic link.
    pub link_target: Option<&'a [u8]>,
    /// Its access control lists, with `-A`; `None`: it has none.
    pub acls: Option<&'a Acls>,
    /// Its extended attributes, sorted by name, with `-X`; `None`: it has none.
    pub xattrs: Option<&'a [Xattr]>,
}

/// The source's owners as they are called at the destination. `None` leaves what is there: not asked for, or not
/// allowed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Access control lists with their ids mapped, with `-A`; `None`: none.
    pub acls: Option<&'a Acls>,
}

/// What the place of the entry at the destination determines.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Permissions of new entries where they are not carried over.
    pub defaults: NewEntryDefaults,
    /// The finest step of time that the file system keeps, in nanoseconds: 1 on most, 2,000,000,000 on FAT.
    pub time_granularity_ns: u64,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing has the name yet.
    Create,
    /// Something of another kind has the name and gives way first.
    Replace,
    /// Same kind, other content: a file's bytes, a link's target, a device's numbers.
    Update,
    /// A file of the same length, whose digest decides: ask [`compare_checked`] when it is known.
    CheckContent,
    /// Content agrees, [`Target`] says what does not.
    SetMetadata,
    /// Nothing.
    Skip(SkipReason),
}

/// Why nothing is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// All that is carried over agrees.
    UpToDate,
    /// `--existing`: nothing there to update. A directory's content is left out too.
    NotExisting,
    /// `--ignore-existing`: something is there. So is the content of a directory that meets another kind.
    Existing,
    /// `-u`: the destination's is newer.
    Newer,
    /// `--max-size`.
    TooLarge,
    /// `--min-size`.
    TooSmall,
    /// `--append-verify`: the destination's is as long or longer.
    NotShorter,
    /// Links, devices or special files are not asked for.
    KindNotCopied,
}

/// What to set at the destination. With `Create`, `Replace` and `Update` all that the finished entry gets; with
/// `SetMetadata` only what differs. `None` and `false` leave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Target {
    /// Permission bits; never of a symbolic link.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last change of content.
    pub mtime: Option<Timestamp>,
    /// Last access.
    pub atime: Option<Timestamp>,
    /// The wanted access control lists are set, and others removed.
    pub acls: bool,
    /// The entry's extended attributes are set, and others removed.
    pub xattrs: bool,
}

/// The answer for one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What is to be done.
    pub action: Action,
    /// What differs, as rsync's `-i` shows it.
    pub changes: Changes,
    /// What is to be set.
    pub target: Target,
}

impl Decision {
    fn skip(reason: SkipReason) -> Decision {
        Decision { action: Action::Skip(reason), changes: Changes::default(), target: Target::default() }
    }
}

/// `--max-size` and `--min-size`. The sender may ask it too, to spare the receiver; what they leave out stays listed,
/// so that it is not deleted.
pub fn size_skip(kind: Kind, size: u64, options: &SyncOptions) -> Option<SkipReason> {
    if kind != Kind::File {
        None
    } else if options.max_size.is_some_and(|max| size > max) {
        Some(SkipReason::TooLarge)
    } else if options.min_size.is_some_and(|min| size < min) {
        Some(SkipReason::TooSmall)
    } else {
        None
    }
}

/// Whether entries of `kind` are copied at all. Directories always are here; recursion is the walk's business.
pub fn is_kind_copied(kind: Kind, options: &SyncOptions) -> bool {
    match kind {
        Kind::File | Kind::Dir => true,
        Kind::Symlink => options.links.copy_as_links,
        Kind::Block | Kind::Char => options.preserve.devices,
        Kind::Fifo | Kind::Socket => options.preserve.specials,
    }
}

/// Whether the source's mtime is carried over for this kind.
pub fn keeps_mtime(kind: Kind, preserve: &Preserve) -> bool {
    preserve.times
        && !(kind == Kind::Dir && preserve.omit_dir_times)
        && !(kind == Kind::Symlink && preserve.omit_link_times)
}

/// Whether the source's atime is carried over for this kind: reading moves those of directories and links anyway.
pub fn keeps_atime(kind: Kind, preserve: &Preserve) -> bool {
    preserve.atimes && kind != Kind::Dir && kind != Kind::Symlink
}

/// Whether the destination's time agrees with the source's, as far as its file system can hold it and within
/// `--modify-window` (at most that many nanoseconds apart).
pub fn times_agree(source: Timestamp, destination: Timestamp, place: &Place, options: &SyncOptions) -> bool {
    source.truncated(place.time_granularity_ns).within(destination, options.modify_window_ns.unwrap_or(0))
}

/// Decides about `entry`. A file that only its digest can decide about comes back as [`Action::CheckContent`].
pub fn compare(
    entry: &Entry,
    wanted: &Wanted<'_>,
    existing: Option<&Existing<'_>>,
    place: &Place,
    options: &SyncOptions,
) -> Decision {
    decide(&Question { entry, wanted, place, options }, existing, None)
}

/// Decides about a file once its digest was compared.
pub fn compare_checked(
    entry: &Entry,
    wanted: &Wanted<'_>,
    existing: &Existing<'_>,
    place: &Place,
    options: &SyncOptions,
    content_equal: bool,
) -> Decision {
    decide(&Question { entry, wanted, place, options }, Some(existing), Some(content_equal))
}

/// What does not change while one name is decided about.
struct Question<'a> {
    entry: &'a Entry,
    wanted: &'a Wanted<'a>,
    place: &'a Place,
    options: &'a SyncOptions,
}

/// How the content at both ends compares.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Equal,
    Differs,
    Unknown,
}

fn decide(question: &Question<'_>, existing: Option<&Existing<'_>>, checked: Option<bool>) -> Decision {
    let Question { entry, options, .. } = question;
    let kind = entry.metadata.kind;
    let Some(existing) = existing else {
        return match skip_for_rules(question, None) {
            Some(reason) => Decision::skip(reason),
            None => question.as_new(Action::Create),
        };
    };
    if let Some(reason) = skip_for_rules(question, Some(existing.metadata)) {
        return Decision::skip(reason);
    }
    if existing.metadata.kind != kind {
        return question.as_new(Action::Replace);
    }
    match question.content(existing, checked) {
        Content::Equal => question.metadata_only(existing),
        Content::Unknown => Decision { action: Action::CheckContent, ..question.updated(existing) },
        // What is not shorter is not appended to, and is not looked at any further.
        Content::Differs
            if kind == Kind::File && options.append_verify && existing.metadata.size >= entry.metadata.size =>
        {
            Decision::skip(SkipReason::NotShorter)
        }
        Content::Differs => question.updated(existing),
    }
}

/// rsync's transfer rules, in its order: they decide before content is compared, and leave metadata alone too.
fn skip_for_rules(question: &Question<'_>, existing: Option<&Metadata>) -> Option<SkipReason> {
    let Question { entry, place, options, .. } = question;
    let kind = entry.metadata.kind;
    match existing {
        None if options.existing_only => return Some(SkipReason::NotExisting),
        // Two directories always meet: their content is decided about one by one.
        Some(existing) if options.ignore_existing && !(kind == Kind::Dir && existing.kind == Kind::Dir) => {
            return Some(SkipReason::Existing);
        }
        _ => {}
    }
    if !is_kind_copied(kind, options) {
        return Some(SkipReason::KindNotCopied);
    }
    if let Some(reason) = size_skip(kind, entry.metadata.size, options) {
        return Some(reason);
    }
    let existing = existing.filter(|existing| options.update && kind == Kind::File && existing.kind == Kind::File)?;
    let source = entry.metadata.mtime.truncated(place.time_granularity_ns);
    let is_newer = existing.mtime > source && !times_agree(entry.metadata.mtime, existing.mtime, place, options);
    is_newer.then_some(SkipReason::Newer)
}

impl Question<'_> {
    fn kind(&self) -> Kind {
        self.entry.metadata.kind
    }

    /// An entry that is made from nothing.
    fn as_new(&self, action: Action) -> Decision {
        Decision { action, changes: Changes { created: true, ..Changes::default() }, target: self.whole_target(None) }
    }

    /// An entry that is made anew in the place of one of its kind. What the change makes different is what differs.
    fn updated(&self, existing: &Existing<'_>) -> Decision {
        let target = self.whole_target(Some(existing.metadata.mode));
        let mut changes = self.metadata_changes(existing, target.mode);
        changes.mtime_now = target.mtime.is_none();
        match self.kind() {
            Kind::File => {
                changes.size = existing.metadata.size != self.entry.metadata.size;
                changes.content = self.options.quick_check == QuickCheck::Checksum;
            }
            _ => changes.content = true,
        }
        Decision { action: Action::Update, changes, target }
    }

    fn metadata_only(&self, existing: &Existing<'_>) -> Decision {
        let whole = self.whole_target(Some(existing.metadata.mode));
        let wanted_mode = self.mode(Some(existing.metadata.mode));
        let changes = self.metadata_changes(existing, wanted_mode);
        if !changes.any() {
            return Decision::skip(SkipReason::UpToDate);
        }
        // A change of owner clears set-id bits, and one of the access list moves the group's bits: set them again.
        let resets_mode =
            changes.acl || ((changes.owner || changes.group) && wanted_mode.is_some_and(|mode| mode & 0o6000 != 0));
        let target = Target {
            mode: wanted_mode.filter(|_| changes.mode || resets_mode),
            uid: whole.uid.filter(|_| changes.owner),
            gid: whole.gid.filter(|_| changes.group),
            mtime: whole.mtime.filter(|_| changes.mtime),
            atime: whole.atime.filter(|_| changes.atime),
            acls: changes.acl,
            xattrs: changes.xattr,
        };
        Decision { action: Action::SetMetadata, changes, target }
    }

    /// Everything that a finished entry gets.
    fn whole_target(&self, existing_mode: Option<u32>) -> Target {
        let (kind, preserve) = (self.kind(), &self.options.preserve);
        let metadata = &self.entry.metadata;
        Target {
            mode: self.mode(existing_mode).map(|mode| mode_of_replaced(mode, kind, self.options)),
            uid: self.wanted.uid,
            gid: self.wanted.gid,
            mtime: keeps_mtime(kind, preserve).then_some(metadata.mtime),
            atime: keeps_atime(kind, preserve).then_some(metadata.atime),
            acls: preserve.acls && kind != Kind::Symlink,
            xattrs: preserve.xattrs,
        }
    }

    fn mode(&self, existing: Option<u32>) -> Option<u32> {
        let kind = self.kind();
        let mode = self.entry.metadata.mode;
        (kind != Kind::Symlink).then(|| destination_mode(mode, kind, existing, self.place.defaults, self.options))
    }

    fn metadata_changes(&self, existing: &Existing<'_>, wanted_mode: Option<u32>) -> Changes {
        let (kind, preserve) = (self.kind(), &self.options.preserve);
        let (source, there) = (&self.entry.metadata, existing.metadata);
        let no_acls = Acls::default();
        let acls_differ = || self.wanted.acls.unwrap_or(&no_acls) != existing.acls.unwrap_or(&no_acls);
        let xattrs_differ = || self.entry.xattrs.as_deref().unwrap_or_default() != existing.xattrs.unwrap_or_default();
        let agree = |source, there| times_agree(source, there, self.place, self.options);
        Changes {
            mtime: keeps_mtime(kind, preserve) && !agree(source.mtime, there.mtime),
            atime: keeps_atime(kind, preserve) && !agree(source.atime, there.atime),
            mode: wanted_mode.is_some_and(|mode| mode != there.mode),
            owner: self.wanted.uid.is_some_and(|uid| uid != there.uid),
            group: self.wanted.gid.is_some_and(|gid| gid != there.gid),
            acl: preserve.acls && kind != Kind::Symlink && acls_differ(),
            xattr: preserve.xattrs && xattrs_differ(),
            ..Changes::default()
        }
    }

    /// Both are of one kind.
    fn content(&self, existing: &Existing<'_>, checked: Option<bool>) -> Content {
        let (source, there) = (&self.entry.metadata, existing.metadata);
        let known = |equal| if equal { Content::Equal } else { Content::Differs };
        match self.kind() {
            Kind::Dir | Kind::Fifo | Kind::Socket => Content::Equal,
            Kind::Symlink => known(self.entry.link_target.as_deref() == existing.link_target),
            Kind::Block | Kind::Char => known(source.rdev == there.rdev),
            Kind::File if source.size != there.size => Content::Differs,
            Kind::File => match self.options.quick_check {
                QuickCheck::SizeOnly => Content::Equal,
                QuickCheck::SizeAndTime => known(times_agree(source.mtime, there.mtime, self.place, self.options)),
                QuickCheck::Never => Content::Differs,
                QuickCheck::Checksum => checked.map_or(Content::Unknown, known),
            },
        }
    }
}

#[cfg(test)]
mod tests;
