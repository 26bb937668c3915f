//! The judge of two trees: independent code that compares everything that can be told of an entry.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::disk;

/// Leaves a path (relative, raw bytes) out of the comparison, with all beneath it.
pub type Ignore = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// What is compared. [`Judge::strict`] compares everything but holes.
pub struct Judge {
    pub content: bool,
    pub mode: bool,
    pub owner: bool,
    pub group: bool,
    pub times_files: bool,
    pub times_dirs: bool,
    pub times_links: bool,
    pub xattrs: bool,
    pub acls: bool,
    pub hard_links: bool,
    /// Regular files must not use more than this many bytes of disk beyond their twin (holes are kept).
    pub holes: bool,
    /// Attributes of the two roots themselves.
    pub root: bool,
    /// What only the second tree has is no difference.
    pub extra_allowed: bool,
    /// Links, devices and specials may be left out of the second tree: the options do not carry them over.
    pub skip_links: bool,
    pub skip_devices: bool,
    pub skip_specials: bool,
    /// Times at or after this (seconds) count as "now", and equal to each other.
    pub now_from: Option<i64>,
    pub ignore: Vec<Ignore>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    File,
    Dir,
    Link,
    Fifo,
    Socket,
    Char,
    Block,
}

struct Record {
    kind: Kind,
    metadata: fs::Metadata,
    path: PathBuf,
}

impl Judge {
    /// Everything but holes.
    pub fn strict() -> Judge {
        Judge {
            content: true,
            mode: true,
            owner: true,
            group: true,
            times_files: true,
            times_dirs: true,
            times_links: true,
            xattrs: true,
            acls: true,
            hard_links: true,
            holes: false,
            root: true,
            extra_allowed: false,
            skip_links: false,
            skip_devices: false,
            skip_specials: false,
            now_from: None,
            ignore: Vec::new(),
        }
    }

    /// Names, kinds, content and link targets only.
    pub fn content_only() -> Judge {
        Judge { mode: false, owner: false, group: false, root: false, hard_links: false, ..Judge::strict() }
            .without_times()
            .without_xattrs()
    }

    /// No times at all.
    pub fn without_times(self) -> Judge {
        Judge { times_files: false, times_dirs: false, times_links: false, ..self }
    }

    /// Neither extended attributes nor ACLs.
    pub fn without_xattrs(self) -> Judge {
        Judge { xattrs: false, acls: false, ..self }
    }

    /// Leaves out what `ignore` says, with all beneath it.
    pub fn ignoring(mut self, ignore: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> Judge {
        self.ignore.push(Box::new(ignore));
        self
    }

    /// Panics with the differences, when there are any.
    pub fn assert(&self, source: &Path, destination: &Path) {
        let found = self.differences(source, destination);
        assert!(found.is_empty(), "{source:?} and {destination:?} differ:\n{}", shorten(&found));
    }

    /// As an error text, for runs over many seeds.
    pub fn check(&self, source: &Path, destination: &Path) -> Result<(), String> {
        let found = self.differences(source, destination);
        if found.is_empty() { Ok(()) } else { Err(shorten(&found)) }
    }

    /// Every difference, one text each.
    pub fn differences(&self, source: &Path, destination: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut left = self.records(source, &mut found);
        let mut right = self.records(destination, &mut found);
        let skipped: Vec<Vec<u8>> = left
            .iter()
            .filter(|(_, record)| match record.kind {
                Kind::Link => self.skip_links,
                Kind::Fifo | Kind::Socket => self.skip_specials,
                Kind::Char | Kind::Block => self.skip_devices,
                Kind::File | Kind::Dir => false,
            })
            .map(|(path, _)| path.clone())
            .collect();
        for path in skipped {
            left.remove(&path);
            right.retain(|other, _| {
                !(other == &path || (other.starts_with(&path) && other.get(path.len()) == Some(&b'/')))
            });
        }
        if self.extra_allowed {
            right.retain(|path, _| left.contains_key(path));
        }
        for (path, one) in &left {
            let Some(other) = right.get(path) else {
                found.push(format!("missing: {} ({:?})", show(path), one.kind));
                continue;
            };
            if path.is_empty() && !self.root {
                continue;
            }
            self.compare(path, one, other, &mut found);
        }
        for (path, other) in &right {
            if !left.contains_key(path) {
                found.push(format!("extra: {} ({:?})", show(path), other.kind));
            }
        }
        if self.hard_links {
            let (one, two) = (groups(&left), groups(&right));
            for group in one.difference(&two) {
                found.push(format!("hard-link group only in the first: {}", show_group(group)));
            }
            for group in two.difference(&one) {
                found.push(format!("hard-link group only in the second: {}", show_group(group)));
            }
        }
        found
    }

    fn records(&self, root: &Path, found: &mut Vec<String>) -> BTreeMap<Vec<u8>, Record> {
        let mut records = BTreeMap::new();
        self.record(root, Vec::new(), &mut records, found);
        records
    }

    fn record(&self, path: &Path, relative: Vec<u8>, records: &mut BTreeMap<Vec<u8>, Record>, found: &mut Vec<String>) {
        if !relative.is_empty() && self.ignore.iter().any(|ignore| ignore(&relative)) {
            return;
        }
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) => return found.push(format!("cannot stat {path:?}: {error}")),
        };
        let kind = kind_of(&metadata);
        records.insert(relative.clone(), Record { kind, metadata, path: path.to_path_buf() });
        if kind != Kind::Dir {
            return;
        }
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => return found.push(format!("cannot list {path:?}: {error}")),
        };
        for entry in entries {
            match entry {
                Ok(entry) => {
                    let name = entry.file_name();
                    let mut child = relative.clone();
                    if !child.is_empty() {
                        child.push(b'/');
                    }
                    child.extend_from_slice(name.as_bytes());
                    self.record(&path.join(&name), child, records, found);
                }
                Err(error) => found.push(format!("cannot list {path:?}: {error}")),
            }
        }
    }

    fn compare(&self, path: &[u8], one: &Record, other: &Record, found: &mut Vec<String>) {
        let mut differ = |what: &str, a: String, b: String| {
            if a != b {
                found.push(format!("{what} of {}: {a} / {b}", show(path)));
            }
        };
        let (a, b) = (&one.metadata, &other.metadata);
        if one.kind != other.kind {
            return differ("kind", format!("{:?}", one.kind), format!("{:?}", other.kind));
        }
        if self.mode && one.kind != Kind::Link {
            differ("mode", format!("{:o}", a.mode() & 0o7777), format!("{:o}", b.mode() & 0o7777));
        }
        if self.owner {
            differ("uid", a.uid().to_string(), b.uid().to_string());
        }
        if self.group {
            differ("gid", a.gid().to_string(), b.gid().to_string());
        }
        let times = match one.kind {
            Kind::Dir => self.times_dirs,
            Kind::Link => self.times_links,
            _ => self.times_files,
        };
        let both_now = self.now_from.is_some_and(|from| a.mtime() >= from && b.mtime() >= from);
        if times && !both_now {
            differ("mtime", time_text(a), time_text(b));
        }
        if matches!(one.kind, Kind::Char | Kind::Block) {
            differ("device number", a.rdev().to_string(), b.rdev().to_string());
        }
        if one.kind == Kind::Link {
            let (a, b) = (fs::read_link(&one.path), fs::read_link(&other.path));
            differ("target", format!("{a:?}"), format!("{b:?}"));
        }
        if self.xattrs || self.acls {
            let (a, b) = (self.attributes(&one.path), self.attributes(&other.path));
            differ("extended attributes", a, b);
        }
        if one.kind == Kind::File && self.content {
            differ("length", a.len().to_string(), b.len().to_string());
            if a.len() == b.len()
                && let Some(text) = first_difference(&one.path, &other.path)
            {
                differ("content", text, String::new());
            }
        }
        if one.kind == Kind::File && self.holes && b.blocks() * 512 > a.blocks() * 512 + (64 << 10) {
            differ("disk use", (a.blocks() * 512).to_string(), (b.blocks() * 512).to_string());
        }
    }

    fn attributes(&self, path: &Path) -> String {
        match disk::xattrs(path) {
            Ok(list) => list
                .into_iter()
                .filter(|(name, _)| if name.starts_with(b"system.posix_acl") { self.acls } else { self.xattrs })
                .map(|(name, value)| format!("{}={} ", show(&name), show(&value)))
                .collect(),
            Err(error) => format!("unreadable: {error}"),
        }
    }
}

fn kind_of(metadata: &fs::Metadata) -> Kind {
    let kind = metadata.file_type();
    if kind.is_file() {
        Kind::File
    } else if kind.is_dir() {
        Kind::Dir
    } else if kind.is_symlink() {
        Kind::Link
    } else if kind.is_fifo() {
        Kind::Fifo
    } else if kind.is_socket() {
        Kind::Socket
    } else if kind.is_char_device() {
        Kind::Char
    } else {
        Kind::Block
    }
}

fn time_text(metadata: &fs::Metadata) -> String {
    format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec())
}

fn groups(records: &BTreeMap<Vec<u8>, Record>) -> BTreeSet<Vec<Vec<u8>>> {
    let mut by_inode: BTreeMap<(u64, u64), Vec<Vec<u8>>> = BTreeMap::new();
    for (path, record) in records {
        if record.kind != Kind::Dir && record.metadata.nlink() > 1 {
            by_inode.entry((record.metadata.dev(), record.metadata.ino())).or_default().push(path.clone());
        }
    }
    by_inode.into_values().filter(|group| group.len() > 1).collect()
}

fn first_difference(one: &Path, other: &Path) -> Option<String> {
    let open = |path: &Path| File::open(path).map_err(|error| format!("cannot open {path:?}: {error}"));
    let (mut one, mut other) = match (open(one), open(other)) {
        (Ok(one), Ok(other)) => (one, other),
        (Err(text), _) | (_, Err(text)) => return Some(text),
    };
    let (mut a, mut b) = (vec![0; 256 << 10], vec![0; 256 << 10]);
    let mut offset = 0;
    loop {
        let (n, m) = match (fill(&mut one, &mut a), fill(&mut other, &mut b)) {
            (Ok(n), Ok(m)) => (n, m),
            (Err(error), _) | (_, Err(error)) => return Some(format!("cannot read at {offset}: {error}")),
        };
        if a[..n] != b[..m] {
            let at = a[..n].iter().zip(&b[..m]).position(|(x, y)| x != y).unwrap_or(n.min(m));
            return Some(format!("differs at byte {}", offset + at));
        }
        if n == 0 {
            return None;
        }
        offset += n;
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

/// Bytes for people: everything but printable ASCII escaped.
pub fn show(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

fn show_group(group: &[Vec<u8>]) -> String {
    group.iter().map(|path| show(path)).collect::<Vec<_>>().join(" = ")
}

fn shorten(found: &[String]) -> String {
    let mut text = found.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n");
    if found.len() > 20 {
        text.push_str(&format!("\n… and {} more", found.len() - 20));
    }
    text
}

/// Asserts that rsync, which looks at everything and at all content, would change nothing.
pub fn rsync_finds_nothing(source: &Path, destination: &Path, flags: &[&str]) {
    super::need("rsync", "rsync");
    let mut with_slash = source.as_os_str().to_owned();
    with_slash.push("/");
    let output = std::process::Command::new("rsync")
        .args(["-aHAXn", "--delete", "-i", "--checksum", "--modify-window=-1"])
        .args(flags)
        .arg(with_slash)
        .arg(destination)
        .output()
        .unwrap();
    let shown: String = String::from_utf8_lossy(&output.stdout).lines().take(20).collect::<Vec<_>>().join("\n");
    assert!(
        output.status.success() && output.stdout.is_empty(),
        "rsync would still change {destination:?}:\n{shown}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
