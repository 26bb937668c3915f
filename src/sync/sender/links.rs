//! Symbolic links in the source: which are followed. Whether one leads out of the copied tree is judged lexically, as rsync
//! defines it: this chooses what is copied, it is no confinement. Where links may lead is up to their directory's base.

use std::io;

use crate::fs::{self, Dir};
use crate::model::{Kind, Metadata, Name, RelPath};
use crate::plan::options::LinkPolicy;

/// What a link is taken for.
pub(super) enum Link {
    Target(Box<[u8]>),
    Followed(Metadata),
    /// Links are not copied: the receiver says so.
    Ignored,
}

/// Looks at the link `name` in `dir`, which is `path` in the transfer. `leads_further`: something below it was named.
pub(super) fn look(
    dir: &Dir,
    name: &Name,
    path: &RelPath,
    leads_further: bool,
    policy: &LinkPolicy,
) -> io::Result<Link> {
    if policy.follow_all || leads_further {
        return dir.stat_following(name).map(Link::Followed);
    }
    if policy.follow_dirs {
        match dir.stat_following(name) {
            Ok(metadata) if metadata.kind == Kind::Dir => return Ok(Link::Followed(metadata)),
            // Whether it is a directory must not even be told.
            Err(error) if fs::is_confined(&error) => return Err(error),
            _ => {}
        }
    }
    if !policy.copy_as_links && !policy.follow_unsafe {
        return Ok(Link::Ignored);
    }
    let target = dir.read_link(name)?;
    if policy.follow_unsafe && is_unsafe(&target, path.as_bytes()) {
        return dir.stat_following(name).map(Link::Followed);
    }
    Ok(Link::Target(target.into()))
}

/// Whether a link at `path` (relative to the transfer's root) with `target` points outside the transfer: absolute, or
/// climbing higher than the link lies deep.
pub(crate) fn is_unsafe(target: &[u8], path: &[u8]) -> bool {
    if target.is_empty() || target[0] == b'/' {
        return true;
    }
    let mut depth: i64 = 0;
    // A ".." in the link's own path makes the depth unknowable: counted from there on only.
    for component in path.split(|&byte| byte == b'/').filter(|component| !component.is_empty()) {
        match component {
            b"." => {}
            b".." => depth = 0,
            _ => depth += 1,
        }
    }
    // The link's own name is no directory.
    depth -= 1;
    let mut seen_name = false;
    for component in target.split(|&byte| byte == b'/').filter(|component| !component.is_empty()) {
        match component {
            b"." => {}
            b".." => {
                // ".." after a name would climb out of wherever that name leads.
                if seen_name {
                    return true;
                }
                depth -= 1;
                if depth < 0 {
                    return true;
                }
            }
            _ => {
                seen_name = true;
                depth += 1;
            }
        }
    }
    depth < 0
}

#[cfg(test)]
mod tests {
    use super::is_unsafe;

    #[test]
    fn links_that_climb_out_are_unsafe() {
        for (target, path, expected) in [
            (&b"/etc/passwd"[..], &b"a"[..], true),
            (b"b", b"a", false),
            (b"../b", b"a", true),
            (b"../b", b"d/a", false),
            (b"../../b", b"d/a", true),
            (b"../../b", b"d/e/a", false),
            (b"x/../../b", b"d/a", true),
            (b"x/../b", b"d/a", true),
            (b"..", b"d/a", false),
            (b"..", b"a", true),
            (b"", b"a", true),
        ] {
            assert_eq!(is_unsafe(target, path), expected, "{target:?} at {path:?}");
        }
    }
}
