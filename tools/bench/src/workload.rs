//! What is copied: source trees, and what the destination holds before each run. The same bytes, names and times on
//! every machine.

use std::fs::{self, File, FileTimes};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::content::Content;
use crate::error::{Context, Result};

/// Unit of writing, in bytes.
const PIECE_BYTES: usize = 1 << 20;
/// The page of a database file, in bytes.
const PAGE_BYTES: usize = 16 << 10;
/// When the oldest file was written, in seconds since 1970.
const EPOCH_S: u64 = 1_700_000_000;

/// The three trees of a workload.
pub(crate) struct Trees {
    /// What is copied.
    pub(crate) source: PathBuf,
    /// What the destination is made of before each run, with [`Basis::Kept`].
    pub(crate) basis: PathBuf,
    /// Where it is copied to.
    pub(crate) destination: PathBuf,
}

impl Trees {
    /// Beneath `dir`.
    pub(crate) fn beneath(dir: &Path) -> Trees {
        Trees { source: dir.join("source"), basis: dir.join("basis"), destination: dir.join("far/destination") }
    }
}

/// What the destination holds before each run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Basis {
    /// An empty directory.
    Nothing,
    /// The same as the source.
    Equal,
    /// A copy of the basis tree.
    Kept,
}

/// How large a workload is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Size {
    /// Seconds for all of it: for a look whether everything works, not for figures.
    Small,
    /// As the tables say.
    Full,
}

impl Size {
    /// `full`, or its share that is enough for a look.
    fn of(self, full: u64, divisor: u64) -> u64 {
        match self {
            Size::Full => full,
            Size::Small => full / divisor,
        }
    }
}

/// What a workload is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Files of 4 KiB, a thousand to a directory; `changed_every`: one of so many differs at the destination.
    Small { files: u64, basis: Basis, changed_every: Option<u64> },
    /// 12,000 files of log-normal sizes.
    Attachments,
    /// Whole files of random bytes.
    Big { files: u64, bytes: u64 },
    /// One file beside an older version of it.
    Database(Change),
    /// Every kind that `-a` keeps, in few files.
    Mixed,
}

/// How the one file of a database differs from its older version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    /// One page of each hundred.
    Pages,
    /// 1 KiB is inserted at the head.
    Shift,
    /// The same bytes, another mtime.
    Times,
    /// Nothing in common.
    Unrelated,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    /// What the command line calls it.
    pub(crate) name: &'static str,
    /// What it is, for `list`.
    pub(crate) about: &'static str,
    /// Options that every peer with rsync's options gets besides.
    pub(crate) options: &'static [&'static str],
    /// For a link with latency: not among the default workloads of others, and the default there.
    pub(crate) wan: bool,
    /// For a look at correctness: not among the default workloads.
    pub(crate) smoke_only: bool,
    kind: Kind,
}

const fn plain(name: &'static str, about: &'static str, kind: Kind) -> Workload {
    Workload { name, about, options: &[], wan: false, smoke_only: false, kind }
}

const fn small(files: u64, basis: Basis, changed_every: Option<u64>) -> Kind {
    Kind::Small { files, basis, changed_every }
}

/// All workloads, in the order of the table.
pub(crate) const ALL: &[Workload] = &[
    plain("small-new", "100,000 x 4 KiB into nothing", small(100_000, Basis::Nothing, None)),
    plain("small-same", "100,000 x 4 KiB, nothing to do", small(100_000, Basis::Equal, None)),
    plain("small-0.1%", "100,000 x 4 KiB, 100 of them changed", small(100_000, Basis::Kept, Some(1000))),
    plain("attachments", "12,000 files of log-normal sizes, 2 GB, into nothing", Kind::Attachments),
    plain("big-new", "4 x 1 GiB into nothing", Kind::Big { files: 4, bytes: 1 << 30 }),
    plain("big-1%", "2 GiB, 1% of its 16 KiB pages changed", Kind::Database(Change::Pages)),
    Workload {
        options: &["--inplace"],
        ..plain("big-1%-inplace", "the same with --inplace", Kind::Database(Change::Pages))
    },
    plain("big-shift", "2 GiB, 1 KiB inserted at the head", Kind::Database(Change::Shift)),
    plain("equal-mtime", "2 GiB, the same bytes with another mtime", Kind::Database(Change::Times)),
    plain("unrelated", "2 GiB of unrelated bytes under the same name", Kind::Database(Change::Unrelated)),
    Workload {
        wan: true,
        ..plain("wan-big", "4 x 512 MiB into nothing, for --link wan", Kind::Big { files: 4, bytes: 512 << 20 })
    },
    Workload {
        wan: true,
        ..plain("wan-small", "20,000 x 4 KiB into nothing, for --link wan", small(20_000, Basis::Nothing, None))
    },
    Workload {
        smoke_only: true,
        ..plain("mixed", "links, modes, empty files and directories, odd names", Kind::Mixed)
    },
];

impl Workload {
    /// The workload called `name`.
    pub(crate) fn named(name: &str) -> Option<&'static Workload> {
        ALL.iter().find(|workload| workload.name == name)
    }

    /// What the destination holds before each run.
    pub(crate) fn basis(&self) -> Basis {
        match self.kind {
            Kind::Small { basis, .. } => basis,
            Kind::Database(_) => Basis::Kept,
            Kind::Attachments | Kind::Big { .. } | Kind::Mixed => Basis::Nothing,
        }
    }

    /// Whether names hold bytes that some programs cannot store.
    pub(crate) fn has_odd_names(&self) -> bool {
        self.kind == Kind::Mixed
    }

    /// Bytes that the source holds, roughly.
    pub(crate) fn source_bytes(&self, size: Size) -> u64 {
        match self.kind {
            Kind::Small { files, .. } => size.of(files, 100) * 8192,
            Kind::Attachments => size.of(2_000_000_000, 200),
            Kind::Big { files, bytes } => files * size.of(bytes, 256),
            Kind::Database(_) => size.of(2 << 30, 128),
            Kind::Mixed => 1 << 20,
        }
    }

    /// Bytes that all trees hold at the worst moment: a replaced file is there twice until it is renamed.
    pub(crate) fn peak_bytes(&self, size: Size) -> u64 {
        let trees = match self.basis() {
            Basis::Nothing | Basis::Equal => 2,
            Basis::Kept => 4,
        };
        self.source_bytes(size) * trees
    }

    /// Makes source and basis. The destination is not touched.
    pub(crate) fn make(&self, size: Size, trees: &Trees) -> Result<()> {
        make_dir(&trees.source)?;
        match self.kind {
            Kind::Small { files, changed_every, .. } => {
                let files = size.of(files, 100);
                small_files(&trees.source, files, None)?;
                if let Some(every) = changed_every {
                    small_files(&trees.basis, files, Some(every.min(files / 2)))?;
                }
            }
            Kind::Attachments => attachments(&trees.source, size)?,
            Kind::Big { files, bytes } => {
                for file in 0..files {
                    let name = format!("big-{file}");
                    write_file(&trees.source.join(&name), &mut Content::new(&name), size.of(bytes, 256), file)?;
                }
            }
            Kind::Database(change) => database(change, size.of(2 << 30, 128), trees)?,
            Kind::Mixed => mixed(&trees.source)?,
        }
        if self.basis() == Basis::Kept {
            set_dir_times(&trees.basis)?;
        }
        set_dir_times(&trees.source)
    }
}

fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).context(|| format!("create {}", path.display()))
}

/// Sets the mtime to a moment that depends on `age_s` alone; its nanoseconds are not round.
fn set_time(file: &File, path: &Path, age_s: u64) -> Result<()> {
    let nanos = (age_s.wrapping_mul(7_919) % 999_983) * 1_000 + 321;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH_S + age_s) + Duration::from_nanos(nanos);
    file.set_times(FileTimes::new().set_modified(time).set_accessed(time))
        .context(|| format!("set the times of {}", path.display()))
}

/// The same for `dir` and all directories below, last of all, since every name that is made in one moves its time. rsync
/// takes times within one second for equal: what differs must differ by more than that, so no time may be "just now".
fn set_dir_times(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).context(|| format!("list {}", dir.display()))? {
        let entry = entry.context(|| format!("list {}", dir.display()))?;
        if entry.file_type().context(|| format!("look at {}", entry.path().display()))?.is_dir() {
            set_dir_times(&entry.path())?;
        }
    }
    let file = File::open(dir).context(|| format!("open {}", dir.display()))?;
    set_time(&file, dir, 0)
}

/// Writes a file of the stream's next `bytes` bytes.
fn write_file(path: &Path, content: &mut Content, bytes: u64, age_s: u64) -> Result<()> {
    let mut file = File::create(path).context(|| format!("create {}", path.display()))?;
    let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(bytes).unwrap_or(PIECE_BYTES))];
    let mut left = bytes;
    while left > 0 {
        let length = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        content.fill(&mut piece[..length]);
        file.write_all(&piece[..length]).context(|| format!("write {}", path.display()))?;
        left -= length as u64;
    }
    set_time(&file, path, age_s)
}

/// `files` files of 4 KiB; one of each `changed_every` has other bytes and an older mtime.
fn small_files(root: &Path, files: u64, changed_every: Option<u64>) -> Result<()> {
    for directory in 0..files.div_ceil(1000) {
        let dir = root.join(format!("d{directory:03}"));
        make_dir(&dir)?;
        let mut content = Content::new(&format!("small-{directory}"));
        for number in directory * 1000..files.min((directory + 1) * 1000) {
            let path = dir.join(format!("file-{number:06}"));
            let mut bytes = content.bytes(4096);
            let changed = changed_every.is_some_and(|every| number % every == every / 3);
            if changed {
                bytes.iter_mut().for_each(|byte| *byte = !*byte);
            }
            let mut file = File::create(&path).context(|| format!("create {}", path.display()))?;
            file.write_all(&bytes).context(|| format!("write {}", path.display()))?;
            set_time(&file, &path, if changed { number } else { 1_000_000 + number })?;
        }
    }
    Ok(())
}

/// 12,000 files whose sizes are log-normal (σ 1.6, as uploads to a chat or wiki are), 2 GB together.
fn attachments(root: &Path, size: Size) -> Result<()> {
    let (files, total) = (size.of(12_000, 50), size.of(2_000_000_000, 200));
    let mut shape = Content::new("attachment sizes");
    let shares: Vec<f64> = (0..files).map(|_| shape.log_normal(1.6)).collect();
    let unit = total as f64 / shares.iter().sum::<f64>();
    let mut content = Content::new("attachments");
    for (number, share) in (0..files).zip(shares) {
        let dir = root.join(format!("{:02x}/{:x}", number % 256, number / 256 % 16));
        make_dir(&dir)?;
        write_file(&dir.join(format!("attachment-{number:05}")), &mut content, (share * unit) as u64, number)?;
    }
    Ok(())
}

fn database(change: Change, bytes: u64, trees: &Trees) -> Result<()> {
    make_dir(&trees.basis)?;
    let (old, new) = (trees.basis.join("database"), trees.source.join("database"));
    write_file(&old, &mut Content::new("database"), bytes, 0)?;
    if change == Change::Unrelated {
        return write_file(&new, &mut Content::new("another database"), bytes, 3600);
    }
    let mut from = File::open(&old).context(|| format!("open {}", old.display()))?;
    let mut to = File::create(&new).context(|| format!("create {}", new.display()))?;
    if change == Change::Shift {
        to.write_all(&Content::new("head").bytes(1024)).context(|| format!("write {}", new.display()))?;
    }
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = from.read(&mut piece).context(|| format!("read {}", old.display()))?;
        if length == 0 {
            break;
        }
        to.write_all(&piece[..length]).context(|| format!("write {}", new.display()))?;
    }
    if change == Change::Pages {
        let mut choice = Content::new("changed pages");
        for hundred in 0..bytes / PAGE_BYTES as u64 / 100 {
            let page = hundred * 100 + choice.below(100);
            to.seek(SeekFrom::Start(page * PAGE_BYTES as u64)).context(|| format!("seek in {}", new.display()))?;
            to.write_all(&choice.bytes(PAGE_BYTES)).context(|| format!("write {}", new.display()))?;
        }
    }
    set_time(&to, &new, 3600)
}

/// What `-a` keeps, apart from what only root may make.
fn mixed(root: &Path) -> Result<()> {
    let mut content = Content::new("mixed");
    for (name, bytes, mode) in [
        ("empty", 0, 0o644),
        ("read-only", 10, 0o400),
        ("program", 70_000, 0o755),
        ("with space and\nnewline", 5, 0o640),
        ("deep/er/and/deeper/file", 4096, 0o600),
        ("-dash", 3, 0o644),
        ("ümlaut", 300_000, 0o664),
    ] {
        let path = root.join(name);
        if let Some(parent) = path.parent() {
            make_dir(parent)?;
        }
        write_file(&path, &mut content, bytes, bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .context(|| format!("set the mode of {}", path.display()))?;
    }
    make_dir(&root.join("empty directory/empty too"))?;
    for (target, name) in [("program", "link"), ("../mixed/nowhere", "dangling"), ("deep/er", "link to directory")] {
        let path = root.join(name);
        symlink(target, &path).context(|| format!("link {name}"))?;
        let time = rustix::fs::Timespec { tv_sec: EPOCH_S.cast_signed(), tv_nsec: 1_234_567 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            .context(|| format!("set the times of {name}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for (at, workload) in ALL.iter().enumerate() {
            assert!(ALL[at + 1..].iter().all(|other| other.name != workload.name));
            assert_eq!(Workload::named(workload.name).unwrap().about, workload.about);
        }
    }

    #[test]
    fn no_workload_has_a_time_of_today() {
        let dir = tempfile::tempdir().unwrap();
        for workload in ALL {
            let trees = Trees::beneath(&dir.path().join(workload.name));
            workload.make(Size::Small, &trees).unwrap();
            let mut newer = std::process::Command::new("find");
            newer.arg(dir.path().join(workload.name)).args(["-mindepth", "1"]);
            let newer = newer.args(["-newermt", "@1750000000"]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&newer.stdout), "", "{}", workload.name);
        }
    }

    #[test]
    fn one_page_of_a_hundred_changes() {
        let dir = tempfile::tempdir().unwrap();
        let trees = Trees::beneath(dir.path());
        make_dir(&trees.source).unwrap();
        database(Change::Pages, 800 * PAGE_BYTES as u64, &trees).unwrap();
        let (old, new) =
            (fs::read(trees.basis.join("database")).unwrap(), fs::read(trees.source.join("database")).unwrap());
        assert_eq!(old.len(), new.len());
        let changed = old.chunks(PAGE_BYTES).zip(new.chunks(PAGE_BYTES)).filter(|(old, new)| old != new).count();
        assert_eq!(changed, 8);
    }

    #[test]
    fn a_shift_keeps_all_old_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let trees = Trees::beneath(dir.path());
        make_dir(&trees.source).unwrap();
        database(Change::Shift, 3_000_000, &trees).unwrap();
        let (old, new) =
            (fs::read(trees.basis.join("database")).unwrap(), fs::read(trees.source.join("database")).unwrap());
        assert_eq!(new[1024..], old);
    }

    #[test]
    fn small_basis_differs_in_its_share_of_files() {
        let dir = tempfile::tempdir().unwrap();
        small_files(&dir.path().join("new"), 2000, None).unwrap();
        small_files(&dir.path().join("old"), 2000, Some(1000)).unwrap();
        let differ = (0..2000u64).filter(|number| {
            let name = format!("d{:03}/file-{number:06}", number / 1000);
            fs::read(dir.path().join("new").join(&name)).unwrap()
                != fs::read(dir.path().join("old").join(&name)).unwrap()
        });
        assert_eq!(differ.count(), 2);
    }
}
