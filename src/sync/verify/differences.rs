//! Differences in words. What the destination has comes first.

use crate::fs::{self, Dir};
use crate::model::{Acls, Entry, Kind, Metadata, Name, Timestamp, Xattr, Xattrs, display_bytes};
use crate::monitor::Changes;
use crate::plan::compare::Wanted;

/// Names of differing extended attributes that are told one by one.
const XATTRS_NAMED_MAX: usize = 8;

/// What the destination has under a name.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) metadata: Metadata,
    pub(super) link_target: Option<Vec<u8>>,
    pub(super) acls: Option<Acls>,
    pub(super) xattrs: Option<Xattrs>,
}

impl Found {
    /// Reads what `entry` is compared with, where the kinds agree.
    pub(super) fn read(
        metadata: Metadata,
        entry: &Entry,
        link_target: impl FnOnce() -> std::io::Result<Vec<u8>>,
        target: fs::Target<'_>,
    ) -> std::io::Result<Found> {
        let kind = metadata.kind;
        let mut found = Found { metadata, link_target: None, acls: None, xattrs: None };
        if kind == entry.metadata.kind {
            if kind == Kind::Symlink {
                found.link_target = Some(link_target()?);
            }
            if entry.acls.is_some() {
                found.acls = Some(fs::read_acls(target, kind)?);
            }
            if entry.xattrs.is_some() {
                found.xattrs = Some(fs::read_xattrs(target, kind, fs::am_root())?);
            }
        }
        Ok(found)
    }

    /// What `dir` has under `name`; `None` where there is nothing.
    pub(super) fn at(dir: &Dir, name: &Name, entry: &Entry) -> std::io::Result<Option<Found>> {
        let metadata = match dir.stat(name) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Found::read(metadata, entry, || dir.read_link(name), fs::Target::At(dir, name)).map(Some)
    }
}

/// All that `changes` names, in words.
pub(super) fn describe(entry: &Entry, wanted: &Wanted<'_>, mode: u32, found: &Found, changes: &Changes) -> Vec<String> {
    let (source, there) = (&entry.metadata, &found.metadata);
    let mut reasons = Vec::new();
    if source.kind == Kind::Symlink && changes.content {
        reasons.push(format!(
            "link target \"{}\", source \"{}\"",
            display_bytes(found.link_target.as_deref().unwrap_or_default()),
            display_bytes(entry.link_target.as_deref().unwrap_or_default()),
        ));
    }
    if source.kind.is_device() && changes.content {
        let numbers = |(major, minor): (u32, u32)| format!("{major}:{minor}");
        reasons.push(format!("device {}, source {}", numbers(there.rdev), numbers(source.rdev)));
    }
    if source.kind == Kind::File && changes.size {
        reasons.push(format!("content differs: {} bytes, source {}", there.size, source.size));
    }
    if changes.mode {
        reasons.push(format!("mode {:04o}, source {:04o}", there.mode, mode));
    }
    if changes.owner {
        reasons.push(format!("owner {}, source {}", there.uid, wanted.uid.unwrap_or(source.uid)));
    }
    if changes.group {
        reasons.push(format!("group {}, source {}", there.gid, wanted.gid.unwrap_or(source.gid)));
    }
    if changes.mtime {
        reasons.push(format!("mtime {}, source {}", time(there.mtime), time(source.mtime)));
    }
    if changes.atime {
        reasons.push(format!("atime {}, source {}", time(there.atime), time(source.atime)));
    }
    if changes.acl {
        reasons.push("access control list differs".to_owned());
    }
    if changes.xattr {
        let of_source = entry.xattrs.as_deref().unwrap_or_default();
        reasons.extend(xattrs(of_source, found.xattrs.as_deref().unwrap_or_default()));
    }
    reasons
}

/// Which attributes differ; both sorted by name.
fn xattrs(source: &[Xattr], there: &[Xattr]) -> Vec<String> {
    let of =
        |list: &[Xattr], name: &[u8]| list.iter().find(|xattr| *xattr.name == *name).map(|xattr| xattr.value.clone());
    let mut reasons = Vec::new();
    for xattr in source {
        let shown = display_bytes(&xattr.name);
        match of(there, &xattr.name) {
            None => reasons.push(format!("extended attribute {shown} only in the source")),
            Some(value) if value != xattr.value => reasons.push(format!("extended attribute {shown} differs")),
            Some(_) => {}
        }
    }
    for xattr in there.iter().filter(|xattr| of(source, &xattr.name).is_none()) {
        reasons.push(format!("extended attribute {} only in the destination", display_bytes(&xattr.name)));
    }
    if reasons.len() > XATTRS_NAMED_MAX {
        let further = reasons.len() - XATTRS_NAMED_MAX;
        reasons.truncate(XATTRS_NAMED_MAX);
        reasons.push(format!("{further} more extended attributes"));
    }
    reasons
}

/// Kinds that differ.
pub(super) fn kinds(there: Kind, source: Kind) -> String {
    format!("is {}, {} in the source", kind(there), kind(source))
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "a regular file",
        Kind::Dir => "a directory",
        Kind::Symlink => "a symbolic link",
        Kind::Block => "a block device",
        Kind::Char => "a character device",
        Kind::Fifo => "a named pipe",
        Kind::Socket => "a socket",
    }
}

/// In UTC, to the nanosecond.
fn time(time: Timestamp) -> String {
    let plain = || format!("{}.{:09}", time.seconds, time.nanoseconds);
    // Before 1970 the two parts of a jiff time have one sign; it normalises ours, which never have.
    jiff::Timestamp::from_nanosecond(time.total_nanoseconds()).map_or_else(|_| plain(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_to_the_nanosecond() {
        assert_eq!(time(Timestamp::new(0, 0)), "1970-01-01T00:00:00Z");
        assert_eq!(time(Timestamp::new(1_600_000_001, 1)), "2020-09-13T12:26:41.000000001Z");
        assert_eq!(time(Timestamp::new(-1, 500_000_000)), "1969-12-31T23:59:59.5Z");
        assert_eq!(time(Timestamp::new(i64::MAX, 5)), "9223372036854775807.000000005");
    }

    #[test]
    fn attributes_are_named() {
        let list = |pairs: &[(&str, &str)]| -> Xattrs {
            let xattr =
                |(name, value): &(&str, &str)| Xattr { name: name.as_bytes().into(), value: value.as_bytes().into() };
            pairs.iter().map(xattr).collect()
        };
        let told = xattrs(&list(&[("user.a", "1"), ("user.b", "1")]), &list(&[("user.b", "2"), ("user.c", "")]));
        assert_eq!(
            told,
            [
                "extended attribute user.a only in the source",
                "extended attribute user.b differs",
                "extended attribute user.c only in the destination"
            ]
        );
        let many: Vec<(String, &str)> = (0..20).map(|index| (format!("user.{index:02}"), "")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (&name[..], *value)).collect();
        assert_eq!(xattrs(&list(&many), &[]).last().unwrap(), "12 more extended attributes");
    }
}
