//! Which symbolic links lead out of the copied tree. Lexical, as rsync defines it: this chooses what is copied, it is no
//! confinement.

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
