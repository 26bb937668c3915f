//! The table of flags.

use super::Scope;

/// Which paragraph of the help a flag stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the headings say it")]
pub(crate) enum Group {
    Tree,
    Metadata,
    Decision,
    Deletion,
    Filter,
    Content,
    Destination,
    Connection,
    Output,
}

impl Group {
    /// As the help shows it.
    pub(crate) fn heading(self) -> &'static str {
        match self {
            Group::Tree => "What is copied",
            Group::Metadata => "Metadata",
            Group::Decision => "Which files need an update",
            Group::Deletion => "Deletion (always after the transfer)",
            Group::Filter => "Filters",
            Group::Content => "How content travels",
            Group::Destination => "At the destination",
            Group::Connection => "Connection",
            Group::Output => "Output",
        }
    }
}

/// Every flag that xfer has. A flag that is given reaches [`crate::cli`]'s settings by a match over all of these, so
/// none can be parsed and forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the table below says what each is")]
pub(crate) enum Flag {
    Archive,
    Recursive,
    Dirs,
    Relative,
    NoImpliedDirs,
    OneFileSystem,
    PruneEmptyDirs,
    FilesFrom,
    From0,
    MaxSize,
    MinSize,
    IgnoreMissingArgs,
    AllowEmptySource,
    Live,
    Links,
    CopyLinks,
    CopyDirLinks,
    KeepDirLinks,
    CopyUnsafeLinks,
    SafeLinks,
    HardLinks,
    Perms,
    Executability,
    Times,
    Owner,
    Group,
    Devices,
    Specials,
    DevicesAndSpecials,
    Acls,
    Xattrs,
    Atimes,
    OmitDirTimes,
    OmitLinkTimes,
    NumericIds,
    UserMap,
    GroupMap,
    Chown,
    Chmod,
    NoSetid,
    Checksum,
    Update,
    IgnoreTimes,
    SizeOnly,
    ModifyWindow,
    Existing,
    IgnoreExisting,
    ContentOnly,
    Delete,
    DeleteBefore,
    DeleteDuring,
    DeleteDelay,
    DeleteAfter,
    DeleteExcluded,
    MaxDelete,
    IgnoreErrors,
    Force,
    Exclude,
    Include,
    ExcludeFrom,
    IncludeFrom,
    Filter,
    PerDirectory,
    WholeFile,
    Inplace,
    AppendVerify,
    Sparse,
    Compress,
    CompressChoice,
    CompressLevel,
    Bwlimit,
    Backup,
    BackupDir,
    Suffix,
    Partial,
    PartialDir,
    CompareDest,
    CopyDest,
    LinkDest,
    Mkpath,
    Fsync,
    RemoveSourceFiles,
    FailFast,
    DryRun,
    ListOnly,
    Shell,
    XferPath,
    Timeout,
    ConnectTimeout,
    Transport,
    Lanes,
    LanePorts,
    AcceptNew,
    AlwaysSo,
    Verbose,
    Quiet,
    Itemize,
    HumanReadable,
    Progress,
    PartialProgress,
    Info,
    Stats,
    OutFormat,
    LogFile,
    LogFileFormat,
    Json,
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FlagSpec {
    /// Which flag.
    pub(crate) flag: Flag,
    /// `--long`.
    pub(crate) long: &'static str,
    /// `-s`.
    pub(crate) short: Option<char>,
    /// Other long names.
    pub(crate) aliases: &'static [&'static str],
    /// Long names that turn it off.
    pub(crate) negative: &'static [&'static str],
    /// Name of the value, where it takes one.
    pub(crate) value: Option<&'static str>,
    /// Paragraph of the help.
    pub(crate) group: Group,
    /// Not shown by the help.
    pub(crate) hidden: bool,
    /// Only the short name is the user's; the long one is our identifier.
    pub(crate) short_only: bool,
    /// `sync` has it.
    pub(crate) in_sync: bool,
    /// `verify` has it.
    pub(crate) in_verify: bool,
    /// One line of help.
    pub(crate) help: &'static str,
}

impl FlagSpec {
    const fn new(flag: Flag, group: Group, long: &'static str, help: &'static str) -> FlagSpec {
        FlagSpec {
            flag,
            long,
            short: None,
            aliases: &[],
            negative: &[],
            value: None,
            group,
            hidden: false,
            short_only: false,
            in_sync: true,
            in_verify: false,
            help,
        }
    }

    const fn short(mut self, short: char) -> FlagSpec {
        self.short = Some(short);
        self
    }

    const fn alias(mut self, aliases: &'static [&'static str]) -> FlagSpec {
        self.aliases = aliases;
        self
    }

    const fn no(mut self, negative: &'static [&'static str]) -> FlagSpec {
        self.negative = negative;
        self
    }

    const fn value(mut self, name: &'static str) -> FlagSpec {
        self.value = Some(name);
        self
    }

    const fn hidden(mut self) -> FlagSpec {
        self.hidden = true;
        self
    }

    const fn short_only(mut self, short: char) -> FlagSpec {
        self.short = Some(short);
        self.short_only = true;
        self
    }

    const fn only_verify(mut self) -> FlagSpec {
        self.in_sync = false;
        self.in_verify = true;
        self
    }

    /// Whether a command has the flag.
    pub(crate) fn is_in(&self, scope: Scope) -> bool {
        match scope {
            Scope::Sync => self.in_sync,
            Scope::Verify => self.in_verify,
        }
    }

    const fn verify(mut self) -> FlagSpec {
        self.in_verify = true;
        self
    }
}

use Flag as F;
use Group as G;

const fn row(flag: Flag, group: Group, long: &'static str, help: &'static str) -> FlagSpec {
    FlagSpec::new(flag, group, long, help)
}

/// All flags, in the order of the help.
pub(crate) const FLAGS: &[FlagSpec] = &[
    row(F::Archive, G::Tree, "archive", "Archive: -rlptgoD (not -H, -A, -X, -U)").short('a').verify(),
    row(F::Recursive, G::Tree, "recursive", "Descend into directories")
        .short('r')
        .no(&["no-recursive", "no-r"])
        .verify(),
    row(F::Dirs, G::Tree, "dirs", "Copy directories themselves without descending")
        .short('d')
        .no(&["no-dirs", "no-d"])
        .verify(),
    row(F::Relative, G::Tree, "relative", "Recreate the paths as given")
        .short('R')
        .no(&["no-relative", "no-R"])
        .verify(),
    row(F::NoImpliedDirs, G::Tree, "no-implied-dirs", "With -R: leave the directories on the way as they are")
        .alias(&["no-i-d"])
        .no(&["implied-dirs", "i-d"])
        .verify(),
    row(F::OneFileSystem, G::Tree, "one-file-system", "Stay on one file system; twice: leave mount points out")
        .short('x')
        .no(&["no-one-file-system", "no-x"])
        .verify(),
    row(F::PruneEmptyDirs, G::Tree, "prune-empty-dirs", "Leave out directories that hold nothing to copy")
        .short('m')
        .no(&["no-prune-empty-dirs", "no-m"])
        .verify(),
    row(F::FilesFrom, G::Tree, "files-from", "Copy only the paths in FILE ('-': standard input); implies -R -d")
        .value("FILE")
        .verify(),
    row(F::From0, G::Tree, "from0", "Lists and filter files are separated by NUL bytes")
        .short('0')
        .no(&["no-from0"])
        .verify(),
    row(F::MaxSize, G::Tree, "max-size", "Leave out larger files").value("SIZE").verify(),
    row(F::MinSize, G::Tree, "min-size", "Leave out smaller files").value("SIZE").verify(),
    row(F::IgnoreMissingArgs, G::Tree, "ignore-missing-args", "A source that does not exist is no error"),
    row(F::AllowEmptySource, G::Tree, "allow-empty-source", "Delete even where the source's root is empty"),
    row(F::Live, G::Tree, "live", "Commit files that change while they are read; the next run looks again"),
    row(F::Links, G::Tree, "links", "Copy symbolic links as links").short('l').no(&["no-links", "no-l"]).verify(),
    row(F::CopyLinks, G::Tree, "copy-links", "Copy what symbolic links point to").short('L').verify(),
    row(F::CopyDirLinks, G::Tree, "copy-dirlinks", "Copy what links to directories point to").short('k').verify(),
    row(F::KeepDirLinks, G::Tree, "keep-dirlinks", "At the destination, a link to a directory serves as one")
        .short('K'),
    row(F::CopyUnsafeLinks, G::Tree, "copy-unsafe-links", "Copy what links that leave the tree point to").verify(),
    row(F::SafeLinks, G::Tree, "safe-links", "Leave out links that point outside the tree").verify(),
    row(F::HardLinks, G::Tree, "hard-links", "Keep hard links").short('H').no(&["no-hard-links", "no-H"]).verify(),
    // Metadata.
    row(F::Perms, G::Metadata, "perms", "Keep permissions").short('p').no(&["no-perms", "no-p"]).verify(),
    row(F::Executability, G::Metadata, "executability", "Keep executability only").short('E').verify(),
    row(F::Times, G::Metadata, "times", "Keep modification times").short('t').no(&["no-times", "no-t"]).verify(),
    row(F::Owner, G::Metadata, "owner", "Keep the owner (root only)").short('o').no(&["no-owner", "no-o"]).verify(),
    row(F::Group, G::Metadata, "group", "Keep the group").short('g').no(&["no-group", "no-g"]).verify(),
    row(F::Devices, G::Metadata, "devices", "Keep device files (root only)").no(&["no-devices"]).verify(),
    row(F::Specials, G::Metadata, "specials", "Keep named pipes and sockets").no(&["no-specials"]).verify(),
    row(F::DevicesAndSpecials, G::Metadata, "devices-and-specials", "Same as --devices --specials")
        .short_only('D')
        .no(&["no-D"])
        .verify(),
    row(F::Acls, G::Metadata, "acls", "Keep access control lists; implies -p")
        .short('A')
        .no(&["no-acls", "no-A"])
        .verify(),
    row(F::Xattrs, G::Metadata, "xattrs", "Keep extended attributes").short('X').no(&["no-xattrs", "no-X"]).verify(),
    row(F::Atimes, G::Metadata, "atimes", "Keep access times").short('U').no(&["no-atimes", "no-U"]),
    row(F::OmitDirTimes, G::Metadata, "omit-dir-times", "Leave times of directories alone")
        .short('O')
        .no(&["no-omit-dir-times", "no-O"])
        .verify(),
    row(F::OmitLinkTimes, G::Metadata, "omit-link-times", "Leave times of symbolic links alone")
        .short('J')
        .no(&["no-omit-link-times", "no-J"])
        .verify(),
    row(F::NumericIds, G::Metadata, "numeric-ids", "Carry ids as numbers, not by name")
        .no(&["no-numeric-ids"])
        .verify(),
    row(F::UserMap, G::Metadata, "usermap", "Map owners: FROM:TO,...").value("MAP").verify(),
    row(F::GroupMap, G::Metadata, "groupmap", "Map groups: FROM:TO,...").value("MAP").verify(),
    row(F::Chown, G::Metadata, "chown", "Give everything this owner, group or both").value("USER:GROUP").verify(),
    row(F::Chmod, G::Metadata, "chmod", "Change permissions on the way: D755,F644,u+rwX,...").value("RULES").verify(),
    row(F::NoSetid, G::Metadata, "no-setid", "Drop set-user-ID and set-group-ID bits").verify(),
    // Decision.
    row(F::Checksum, G::Decision, "checksum", "Compare content by digest, not length and time")
        .short('c')
        .no(&["no-checksum", "no-c"]),
    row(F::Update, G::Decision, "update", "Skip files that are newer at the destination").short('u'),
    row(F::IgnoreTimes, G::Decision, "ignore-times", "Update even where length and time agree").short('I'),
    row(F::SizeOnly, G::Decision, "size-only", "Files of the same length are taken for equal"),
    row(F::ModifyWindow, G::Decision, "modify-window", "Times this far apart are taken for equal (default: exact)")
        .short('@')
        .value("SECONDS")
        .verify(),
    row(F::Existing, G::Decision, "existing", "Create nothing new").alias(&["ignore-non-existing"]),
    row(F::IgnoreExisting, G::Decision, "ignore-existing", "Change nothing that exists"),
    row(F::ContentOnly, G::Decision, "content-only", "Compare names, kinds and content only").only_verify(),
    // Deletion.
    row(F::Delete, G::Deletion, "delete", "Delete what the source does not have"),
    row(F::DeleteBefore, G::Deletion, "delete-before", "Same as --delete"),
    row(F::DeleteDuring, G::Deletion, "delete-during", "Same as --delete").alias(&["del"]),
    row(F::DeleteDelay, G::Deletion, "delete-delay", "Same as --delete"),
    row(F::DeleteAfter, G::Deletion, "delete-after", "Same as --delete"),
    row(F::DeleteExcluded, G::Deletion, "delete-excluded", "Delete excluded files too; implies --delete"),
    row(F::MaxDelete, G::Deletion, "max-delete", "Delete at most this many; code 25 when there are more").value("NUM"),
    row(F::IgnoreErrors, G::Deletion, "ignore-errors", "Delete although the source could not be read in full")
        .no(&["no-ignore-errors"]),
    row(F::Force, G::Deletion, "force", "A directory that is not empty gives way to a file").no(&["no-force"]),
    // Filters.
    row(F::Exclude, G::Filter, "exclude", "Leave out what matches").value("PATTERN").verify(),
    row(F::Include, G::Filter, "include", "Do not leave out what matches").value("PATTERN").verify(),
    row(F::ExcludeFrom, G::Filter, "exclude-from", "Read patterns from FILE").value("FILE").verify(),
    row(F::IncludeFrom, G::Filter, "include-from", "Read patterns from FILE").value("FILE").verify(),
    row(F::Filter, G::Filter, "filter", "Add a filter rule").short('f').value("RULE").verify(),
    row(F::PerDirectory, G::Filter, "per-directory", "Obey .rsync-filter files; twice: leave those files out")
        .short_only('F')
        .verify(),
    // Content.
    row(F::WholeFile, G::Content, "whole-file", "Send whole files, no deltas")
        .short('W')
        .no(&["no-whole-file", "no-W"]),
    row(F::Inplace, G::Content, "inplace", "Patch files in place (a crash leaves a mixture until the next run)")
        .no(&["no-inplace"]),
    row(
        F::AppendVerify,
        G::Content,
        "append-verify",
        "Append to shorter files, verified as a whole; implies --inplace",
    )
    .no(&["no-append"]),
    row(F::Sparse, G::Content, "sparse", "Turn runs of zeros into holes").short('S').no(&["no-sparse", "no-S"]),
    row(F::Compress, G::Content, "compress", "Compress what travels").short('z').no(&["no-compress", "no-z"]).verify(),
    row(F::CompressChoice, G::Content, "compress-choice", "zstd, lz4 or none; implies -z")
        .alias(&["zc"])
        .value("NAME")
        .verify(),
    row(F::CompressLevel, G::Content, "compress-level", "zstd's level, 1 to 19; implies -z")
        .alias(&["zl"])
        .value("NUM")
        .verify(),
    row(F::Bwlimit, G::Content, "bwlimit", "Bytes a second at most, in KiB or with a unit")
        .value("RATE")
        .no(&["no-bwlimit"])
        .verify(),
    // Destination.
    row(F::Backup, G::Destination, "backup", "Keep what is replaced or deleted").short('b').no(&["no-backup"]),
    row(F::BackupDir, G::Destination, "backup-dir", "Keep it in DIR; implies -b").value("DIR"),
    row(F::Suffix, G::Destination, "suffix", "Suffix of backups (default: ~, none with --backup-dir)").value("SUFFIX"),
    row(F::Partial, G::Destination, "partial", "Keep what arrived of a file when interrupted").no(&["no-partial"]),
    row(F::PartialDir, G::Destination, "partial-dir", "Keep it in DIR; implies --partial").value("DIR"),
    row(F::CompareDest, G::Destination, "compare-dest", "Skip files that DIR has").value("DIR"),
    row(F::CopyDest, G::Destination, "copy-dest", "Copy files that DIR has from there").value("DIR"),
    row(F::LinkDest, G::Destination, "link-dest", "Hard-link files that DIR has").value("DIR"),
    row(F::Mkpath, G::Destination, "mkpath", "Create the destination's missing parents").no(&["no-mkpath"]),
    row(F::Fsync, G::Destination, "fsync", "Bring everything to stable storage before it is reported"),
    row(F::RemoveSourceFiles, G::Destination, "remove-source-files", "Remove files from the source once they arrived")
        .alias(&["remove-sent-files"]),
    row(F::FailFast, G::Destination, "fail-fast", "Stop at the first problem"),
    row(F::DryRun, G::Destination, "dry-run", "Show what would be done, change nothing").short('n'),
    row(F::ListOnly, G::Destination, "list-only", "List the source, copy nothing"),
    // Connection.
    row(F::Shell, G::Connection, "rsh", "Remote shell (default: $XFER_RSH, $RSYNC_RSH or ssh)")
        .short('e')
        .value("COMMAND")
        .verify(),
    row(F::XferPath, G::Connection, "xfer-path", "The program to run there (default: xfer)")
        .alias(&["rsync-path"])
        .value("PROGRAM")
        .verify(),
    row(F::Timeout, G::Connection, "timeout", "Give up on a peer that is silent for so long; 0: never")
        .value("SECONDS")
        .no(&["no-timeout"])
        .verify(),
    row(F::ConnectTimeout, G::Connection, "contimeout", "Give up on a connection that takes so long; 0: never")
        .value("SECONDS")
        .no(&["no-contimeout"])
        .verify(),
    row(
        F::Transport,
        G::Connection,
        "transport",
        "Content goes over: auto (direct lanes, else the shell), direct, shell",
    )
    .value("WHICH"),
    row(F::Lanes, G::Connection, "lanes", "Direct connections, 1 to 8 (default: by cores and link)").value("N"),
    row(F::LanePorts, G::Connection, "lane-ports", "Ports to listen on for direct connections, for firewalls")
        .value("FROM-TO"),
    row(F::AcceptNew, G::Connection, "accept-new", "Trust a daemon that was never met before, without asking").verify(),
    row(F::AlwaysSo, G::Connection, "secluded-args", "Accepted: arguments never pass through the far shell")
        .short('s')
        .alias(&["protect-args", "inc-recursive", "i-r"])
        .verify(),
    // What rsync can turn off and xfer never turns on.
    row(F::AlwaysSo, G::Connection, "no-fuzzy", "Accepted: always so")
        .alias(&[
            "no-y",
            "no-super",
            "no-iconv",
            "no-delay-updates",
            "no-write-devices",
            "no-munge-links",
            "no-crtimes",
            "no-N",
            "no-open-noatime",
            "no-old-args",
            "no-blocking-io",
            "no-8-bit-output",
            "no-8",
            "no-insecure-links",
            "no-drop-D",
        ])
        .hidden(),
    // Output.
    row(F::Verbose, G::Output, "verbose", "Name what is copied; twice: also what is not")
        .short('v')
        .no(&["no-verbose", "no-v"])
        .verify(),
    row(F::Quiet, G::Output, "quiet", "Nothing but errors").short('q').verify(),
    row(F::Itemize, G::Output, "itemize-changes", "Show what changed of each item; twice: unchanged ones too")
        .short('i')
        .no(&["no-itemize-changes", "no-i"]),
    row(F::HumanReadable, G::Output, "human-readable", "Numbers with units of 1000; twice: of 1024")
        .short('h')
        .no(&["no-human-readable", "no-h"])
        .verify(),
    row(F::Progress, G::Output, "progress", "Show progress, and name what is copied").no(&["no-progress"]).verify(),
    row(F::PartialProgress, G::Output, "partial-progress", "Same as --partial --progress").short_only('P'),
    row(
        F::Info,
        G::Output,
        "info",
        "Choose output: name, del, stats, flist, progress, progress2, ... each with a level",
    )
    .value("FLAGS"),
    row(F::Stats, G::Output, "stats", "Show statistics at the end"),
    row(F::OutFormat, G::Output, "out-format", "Show items in this format (%i %n%L ...)")
        .alias(&["log-format"])
        .value("FORMAT"),
    row(F::LogFile, G::Output, "log-file", "Log to FILE").value("FILE").verify(),
    row(F::LogFileFormat, G::Output, "log-file-format", "Format of items in the log (default: %i %n%L)")
        .value("FORMAT"),
    row(F::Json, G::Output, "json", "One JSON event a line on standard output").verify(),
];
