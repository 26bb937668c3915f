//! What a directory holds: kinds, metadata, entries.

use serde::{Deserialize, Serialize};

use super::{Acls, Name};

/// The kind of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Block device.
    Block,
    /// Character device.
    Char,
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Socket,
}

impl Kind {
    /// All kinds, in the order of their wire codes.
    pub const ALL: [Kind; 7] =
        [Kind::File, Kind::Dir, Kind::Symlink, Kind::Block, Kind::Char, Kind::Fifo, Kind::Socket];

    /// Block or character device.
    pub fn is_device(self) -> bool {
        matches!(self, Kind::Block | Kind::Char)
    }

    /// Named pipe or socket.
    pub fn is_special(self) -> bool {
        matches!(self, Kind::Fifo | Kind::Socket)
    }

    /// The letter of `ls -l`: `-`, `d`, `l`, `b`, `c`, `p`, `s`.
    pub fn letter(self) -> char {
        match self {
            Kind::File => '-',
            Kind::Dir => 'd',
            Kind::Symlink => 'l',
            Kind::Block => 'b',
            Kind::Char => 'c',
            Kind::Fifo => 'p',
            Kind::Socket => 's',
        }
    }
}

/// A point in time: seconds since 1970 and nanoseconds in `0..1_000_000_000`, as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 00:00 UTC; negative before.
    pub seconds: i64,
    /// Nanoseconds within the second, always counted forwards.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// From both parts.
    pub const fn new(seconds: i64, nanoseconds: u32) -> Timestamp {
        Timestamp { seconds, nanoseconds }
    }

    /// Nanoseconds since 1970. 128 bits: the kernel's 64-bit seconds do not fit otherwise.
    pub fn total_nanoseconds(self) -> i128 {
        i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanoseconds)
    }

    /// Whether both are at most `window_ns` apart.
    pub fn within(self, other: Timestamp, window_ns: u64) -> bool {
        self.total_nanoseconds().abs_diff(other.total_nanoseconds()) <= u128::from(window_ns)
    }

    /// This time rounded down to a multiple of `granularity_ns` (1 leaves it as it is).
    pub fn truncated(self, granularity_ns: u64) -> Timestamp {
        if granularity_ns <= 1 {
            return self;
        }
        let granularity = i128::from(granularity_ns);
        let total = self.total_nanoseconds().div_euclid(granularity) * granularity;
        Timestamp {
            seconds: total.div_euclid(1_000_000_000) as i64,
            nanoseconds: total.rem_euclid(1_000_000_000) as u32,
        }
    }
}

/// An inode's metadata, as `statx` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// Kind of inode.
    pub kind: Kind,
    /// Permission bits, set-id and sticky bits included: `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes; of a symbolic link, of its target.
    pub size: u64,
    /// Bytes on disk, in units of 512: less than `size` where a file has holes.
    pub blocks: u64,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the inode; cannot be set, so it shows what mtime hides.
    pub ctime: Timestamp,
    /// Major and minor number of a device; 0 otherwise.
    pub rdev: (u32, u32),
    /// File system that holds the inode: major and minor number.
    pub dev: (u32, u32),
    /// Inode number.
    pub ino: u64,
    /// Names of this inode.
    pub nlink: u32,
}

impl Metadata {
    /// Whether `other` is the same inode with the same content, as far as the kernel can tell: device, inode, length,
    /// mtime and ctime.
    pub fn same_content_as(&self, other: &Metadata) -> bool {
        self.kind == other.kind
            && self.dev == other.dev
            && self.ino == other.ino
            && self.size == other.size
            && self.mtime == other.mtime
            && self.ctime == other.ctime
    }
}

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// Name with its namespace, such as `user.comment`.
    pub name: Box<[u8]>,
    /// Value; may be empty.
    pub value: Box<[u8]>,
}

/// All extended attributes of an inode that are carried, sorted by name, access control lists left out.
pub type Xattrs = Vec<Xattr>;

/// Membership of an inode with several names in the transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HardLink {
    /// Number of the group within the session; all names of one inode carry the same.
    pub group: u64,
}

/// One name in a directory, with all that is needed to recreate it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name in its directory.
    pub name: Name,
    /// Metadata, after the sender's link policy (what a followed link points to).
    pub metadata: Metadata,
    /// Target of a symbolic link that is copied as a link.
    pub link_target: Option<Box<[u8]>>,
    /// Present with `-H` for inodes with several names.
    pub hard_link: Option<HardLink>,
    /// Present with `-A`.
    pub acls: Option<Acls>,
    /// Present with `-X`.
    pub xattrs: Option<Xattrs>,
}

/// Numbers by kind, as rsync's `--stats` shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KindCounts {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Devices.
    pub devices: u64,
    /// Named pipes and sockets.
    pub specials: u64,
}

impl KindCounts {
    /// Counts one of `kind`.
    pub fn add(&mut self, kind: Kind) {
        match kind {
            Kind::File => self.files += 1,
            Kind::Dir => self.dirs += 1,
            Kind::Symlink => self.symlinks += 1,
            Kind::Block | Kind::Char => self.devices += 1,
            Kind::Fifo | Kind::Socket => self.specials += 1,
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &KindCounts) {
        self.files += other.files;
        self.dirs += other.dirs;
        self.symlinks += other.symlinks;
        self.devices += other.devices;
        self.specials += other.specials;
    }

    /// All kinds together.
    pub fn total(&self) -> u64 {
        self.files + self.dirs + self.symlinks + self.devices + self.specials
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_compare_and_truncate() {
        let before = Timestamp::new(-1, 999_999_999);
        let epoch = Timestamp::new(0, 0);
        assert!(before < epoch);
        assert!(before.within(epoch, 1));
        assert!(!before.within(epoch, 0));
        assert_eq!(before.truncated(1_000_000_000), Timestamp::new(-1, 0));
        assert_eq!(Timestamp::new(5, 123_456_789).truncated(100), Timestamp::new(5, 123_456_700));
    }
}
