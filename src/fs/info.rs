//! What a directory's file system is like: room left, and how finely it keeps times.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, StatxFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::dir::{Dir, metadata_of};
use super::stage::{create_named, create_unnamed};
use crate::model::Timestamp;

/// Room on a file system. What a user's quota leaves may be less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this process may still use: root's reserve is counted for root only.
    pub free_bytes: u64,
    /// Inodes that may still be made; `None` where the file system has no fixed number.
    pub free_inodes: Option<u64>,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Where it is mounted, or its device number where that is not known: raw bytes, for messages.
    pub place: Vec<u8>,
}

impl Dir {
    /// Room left on this directory's file system.
    pub fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::fstatvfs(self)?;
        let free_blocks = if super::am_root() { stat.f_bfree } else { stat.f_bavail };
        let free_inodes = if super::am_root() { stat.f_ffree } else { stat.f_favail };
        Ok(Space {
            free_bytes: free_blocks.saturating_mul(stat.f_frsize),
            free_inodes: (stat.f_files > 0).then_some(free_inodes),
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            place: self.place()?,
        })
    }

    fn place(&self) -> io::Result<Vec<u8>> {
        let (major, minor) = self.metadata()?.dev;
        let mount_id = rustix::fs::statx(self, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
            .ok()
            .filter(|raw| raw.stx_mask & StatxFlags::MNT_ID.bits() != 0)
            .map(|raw| raw.stx_mnt_id);
        let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        let device = format!("{major}:{minor}");
        Ok(mount_point(&table, mount_id, device.as_bytes()).unwrap_or_else(|| format!("device {device}").into_bytes()))
    }

    /// The step in which this file system keeps times, in nanoseconds: 1 for most, 2 s for FAT. Where the type does
    /// not say, a nameless or hidden file is given a time and asked for it; where that cannot be (read-only), 1.
    pub fn time_granularity_ns(&self) -> io::Result<u64> {
        match self.known_granularity_ns()? {
            Some(known_ns) if known_ns == WINDOWS_STEP_NS => Ok(known_ns.max(self.probe_granularity_ns()?)),
            Some(known_ns) => Ok(known_ns),
            None => self.probe_granularity_ns(),
        }
    }

    /// What the file system's type says of its times; of Windows' only what they are at best.
    fn known_granularity_ns(&self) -> io::Result<Option<u64>> {
        const SECOND: u64 = 1_000_000_000;
        Ok(match rustix::fs::fstatfs(self)?.f_type as u64 & 0xffff_ffff {
            // tmpfs, ramfs, xfs, btrfs, f2fs, bcachefs, zfs
            0x0102_1994 | 0x8584_58f6 | 0x5846_5342 | 0x9123_683e | 0xf2f5_2010 | 0xca45_1a4e | 0x2fc1_2fc1 => Some(1),
            // FAT
            0x4d44 => Some(2 * SECOND),
            // exFAT: the field has 10 ms on top of 2 s
            0x2011_bab0 => Some(SECOND / 100),
            // HFS, HFS+; minix in all its versions
            0x4244 | 0x482b | 0x137f | 0x138f | 0x2468 | 0x2478 | 0x4d5a => Some(SECOND),
            // NTFS (both drivers), CIFS, SMB2: Windows counts 100 ns
            0x7366_746e | 0x5346_544e | 0xff53_4d42 | 0xfe53_4d42 => Some(WINDOWS_STEP_NS),
            // ext2 to ext4 depends on the inode size, NFS and FUSE on the far end, overlayfs on what lies beneath
            _ => None,
        })
    }

    /// As [`Dir::time_granularity_ns`], without writing anything: where the type does not say, the ctimes that the kernel
    /// gave this directory and some of its entries show it. Nobody can set those.
    pub fn observed_time_granularity_ns(&self) -> io::Result<u64> {
        if let Some(known_ns) = self.known_granularity_ns()? {
            return Ok(known_ns);
        }
        let mut ctimes = vec![self.metadata()?.ctime];
        for (name, _) in self.list()?.iter().take(OBSERVED_ENTRIES_MAX) {
            if let Ok(name) = crate::model::Name::new(name)
                && let Ok(metadata) = self.stat(&name)
            {
                ctimes.push(metadata.ctime);
            }
        }
        Ok(step_of(&ctimes))
    }

    fn probe_granularity_ns(&self) -> io::Result<u64> {
        match self.probe() {
            Ok(granularity_ns) => Ok(granularity_ns),
            Err(error)
                if matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::ROFS | Errno::ACCESS | Errno::PERM | Errno::NOSPC | Errno::DQUOT)
                ) =>
            {
                Ok(1)
            }
            Err(error) => Err(error),
        }
    }

    fn probe(&self) -> io::Result<u64> {
        if let Some(file) = create_unnamed(self, 0o600)? {
            return probe_with(&file);
        }
        let (file, name) = create_named(self, 0o600)?;
        let result = probe_with(&file);
        self.unlink(&name)?;
        result
    }
}

/// An odd second, and a digit other than 0 in each place below it.
const PROBE: Timestamp = Timestamp::new(1_600_000_001, 123_456_789);

fn probe_with(file: &File) -> io::Result<u64> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: PROBE.seconds, tv_nsec: PROBE.nanoseconds.into() },
    };
    rustix::fs::futimens(file.as_fd(), &times)?;
    Ok(granularity_of(metadata_of(file)?.mtime))
}

/// The steps in which file systems keep times.
const STEPS_NS: [u64; 8] = [1, 100, 1000, 1_000_000, 10_000_000, 1_000_000_000, 2_000_000_000, 60_000_000_000];

/// Windows' own step of time.
const WINDOWS_STEP_NS: u64 = 100;

/// Entries whose ctimes are looked at: one alone may end in zeros by chance.
const OBSERVED_ENTRIES_MAX: usize = 8;

/// The coarsest known step, up to two seconds, that all of `times` are multiples of.
fn step_of(times: &[Timestamp]) -> u64 {
    let fits = |step_ns: &u64| times.iter().all(|time| time.truncated(*step_ns) == *time);
    STEPS_NS.into_iter().rev().filter(|&step_ns| step_ns <= 2_000_000_000).find(fits).unwrap_or(1)
}

/// The finest known step that makes `kept` of [`PROBE`], whether it cuts off or rounds.
fn granularity_of(kept: Timestamp) -> u64 {
    STEPS_NS
        .into_iter()
        .find(|&step_ns| {
            kept.truncated(step_ns) == kept
                && kept.total_nanoseconds().abs_diff(PROBE.total_nanoseconds()) < step_ns.into()
        })
        .unwrap_or(60_000_000_000)
}

/// The mount point in a `mountinfo` table (proc(5)) by mount id, else the last one of that device. Mount points are
/// written there with blanks and backslashes as `\ooo`.
fn mount_point(table: &[u8], mount_id: Option<u64>, device: &[u8]) -> Option<Vec<u8>> {
    let mut by_device = None;
    for line in table.split(|&byte| byte == b'\n') {
        let mut fields = line.split(|&byte| byte == b' ');
        let (Some(id), Some(_parent), Some(line_device), Some(_root), Some(point)) =
            (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if mount_id.is_some_and(|mount_id| id == mount_id.to_string().as_bytes()) {
            return Some(unescape(point));
        }
        if line_device == device {
            by_device = Some(point);
        }
    }
    by_device.map(unescape)
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| tail.get(..3)).flatten().and_then(|digits| {
            let value = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()?;
            Some(value)
        });
        match octal {
            Some(value) => {
                plain.push(value);
                rest = &tail[3..];
            }
            None => {
                plain.push(byte);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_what_all_times_are_multiples_of() {
        let times = |nanoseconds: &[u32]| -> Vec<Timestamp> {
            nanoseconds.iter().map(|&nanoseconds| Timestamp::new(1_600_000_001, nanoseconds)).collect()
        };
        assert_eq!(step_of(&times(&[0, 0])), 1_000_000_000);
        assert_eq!(step_of(&times(&[0, 10_000_000])), 10_000_000);
        assert_eq!(step_of(&times(&[500, 123_456_700])), 100);
        assert_eq!(step_of(&times(&[500, 123_456_789])), 1);
        assert_eq!(step_of(&[Timestamp::new(2, 0)]), 2_000_000_000);
    }

    #[test]
    fn steps_are_told_from_what_is_left_of_a_time() {
        for (seconds, nanoseconds, step_ns) in [
            (1_600_000_001, 123_456_789, 1),
            (1_600_000_001, 123_456_700, 100),
            (1_600_000_001, 123_456_800, 100),
            (1_600_000_001, 123_456_000, 1000),
            (1_600_000_001, 123_000_000, 1_000_000),
            (1_600_000_001, 120_000_000, 10_000_000),
            (1_600_000_001, 0, 1_000_000_000),
            (1_600_000_000, 0, 2_000_000_000),
            (1_600_000_002, 0, 1_000_000_000),
        ] {
            assert_eq!(granularity_of(Timestamp::new(seconds, nanoseconds)), step_ns, "{seconds}.{nanoseconds}");
        }
    }

    #[test]
    fn mount_points_are_found_by_id_then_by_device() {
        let table = b"22 1 8:1 / / rw - ext4 /dev/a rw\n23 22 8:2 / /with\\040blank rw - ext4 /dev/b rw\n\
            24 22 8:2 /sub /bind rw - ext4 /dev/b rw\n\n25 x\n";
        assert_eq!(mount_point(table, Some(23), b"9:9").as_deref(), Some(&b"/with blank"[..]));
        assert_eq!(mount_point(table, None, b"8:2").as_deref(), Some(&b"/bind"[..]));
        assert_eq!(mount_point(table, Some(99), b"8:1").as_deref(), Some(&b"/"[..]));
        assert_eq!(mount_point(table, None, b"9:9"), None);
        assert_eq!(unescape(b"\\"), b"\\");
        assert_eq!(unescape(b"\\400x"), b"\\400x");
    }
}
