//! Names and relative paths as raw bytes. A value of these types is safe to resolve beneath a root: a name from a
//! peer that is empty, `.`, `..`, or holds `/` or NUL is rejected when it is made, never cleaned.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::limits;

/// Why bytes are not a name or a relative path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A component is empty, or the name is.
    #[error("empty name")]
    Empty,
    /// A component is `.` or `..`.
    #[error("'.' and '..' are not allowed as names")]
    Dots,
    /// A name holds `/`, or any component holds NUL.
    #[error("a name holds '/' or a NUL byte")]
    ForbiddenByte,
    /// A component or the whole is longer than the limit.
    #[error("name or path too long ({bytes} bytes)")]
    TooLong {
        /// Length in bytes.
        bytes: usize,
    },
    /// More components than `limits::DIRECTORY_DEPTH_MAX`.
    #[error("path too deep")]
    TooDeep,
}

/// One path component: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`. Ordered by raw bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Checks and takes `bytes`.
    pub fn new(bytes: &[u8]) -> Result<Name, PathError> {
        check_name(bytes)?;
        Ok(Name(bytes.into()))
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As the standard library's string type, for system calls.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", display_bytes(&self.0))
    }
}

/// Checks one component without making a [`Name`].
fn check_name(bytes: &[u8]) -> Result<(), PathError> {
    if bytes.is_empty() {
        return Err(PathError::Empty);
    }
    if bytes == b"." || bytes == b".." {
        return Err(PathError::Dots);
    }
    if bytes.len() > limits::NAME_BYTES_MAX {
        return Err(PathError::TooLong { bytes: bytes.len() });
    }
    if bytes.iter().any(|&byte| byte == b'/' || byte == 0) {
        return Err(PathError::ForbiddenByte);
    }
    Ok(())
}

/// A path beneath a root: components joined by single `/`, or empty for the root itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(Box<[u8]>);

impl RelPath {
    /// The root itself.
    pub fn root() -> RelPath {
        RelPath::default()
    }

    /// Checks and takes `bytes`; empty is the root.
    pub fn new(bytes: &[u8]) -> Result<RelPath, PathError> {
        if bytes.is_empty() {
            return Ok(RelPath::root());
        }
        if bytes.len() > limits::PATH_BYTES_MAX {
            return Err(PathError::TooLong { bytes: bytes.len() });
        }
        let mut depth = 0;
        for component in bytes.split(|&byte| byte == b'/') {
            check_name(component)?;
            depth += 1;
        }
        if depth > limits::DIRECTORY_DEPTH_MAX {
            return Err(PathError::TooDeep);
        }
        Ok(RelPath(bytes.into()))
    }

    /// This path with one more component.
    pub fn join(&self, name: &Name) -> RelPath {
        if self.is_root() {
            return RelPath(name.0.clone());
        }
        let mut joined = Vec::with_capacity(self.0.len() + 1 + name.0.len());
        joined.extend_from_slice(&self.0);
        joined.push(b'/');
        joined.extend_from_slice(&name.0);
        RelPath(joined.into())
    }

    /// This path followed by all components of `tail`.
    pub fn join_path(&self, tail: &RelPath) -> RelPath {
        tail.components().fold(self.clone(), |path, name| path.join(&name))
    }

    /// Parent and last name; `None` for the root.
    pub fn split_last(&self) -> Option<(RelPath, Name)> {
        if self.is_root() {
            return None;
        }
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => Some((RelPath(self.0[..slash].into()), Name(self.0[slash + 1..].into()))),
            None => Some((RelPath::root(), Name(self.0.clone()))),
        }
    }

    /// The last component; `None` for the root.
    pub fn file_name(&self) -> Option<Name> {
        self.split_last().map(|(_, name)| name)
    }

    /// The components in order.
    pub fn components(&self) -> impl Iterator<Item = Name> + '_ {
        self.0
            .split(|&byte| byte == b'/')
            .filter(|component| !component.is_empty())
            .map(|component| Name(component.into()))
    }

    /// Number of components; 0 for the root.
    pub fn depth(&self) -> usize {
        if self.is_root() { 0 } else { 1 + self.0.iter().filter(|&&byte| byte == b'/').count() }
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The raw bytes, without a leading or trailing slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As a path for system calls; `.` for the root.
    pub fn as_path(&self) -> &Path {
        if self.is_root() { Path::new(".") } else { Path::new(OsStr::from_bytes(&self.0)) }
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", display_bytes(&self.0))
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() { f.write_str(".") } else { f.write_str(&display_bytes(&self.0)) }
    }
}

/// Bytes of a name as people may see them: valid UTF-8 without control characters as it is, every other byte (and the
/// control characters, with which a name could drive a terminal) as `\#ooo`, three octal digits, as rsync writes it.
pub fn display_bytes(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || is_bidi_control(character) {
                let mut encoded = [0; 4];
                for byte in character.encode_utf8(&mut encoded).bytes() {
                    push_octal(&mut shown, byte);
                }
            } else {
                shown.push(character);
            }
        }
        for &byte in chunk.invalid() {
            push_octal(&mut shown, byte);
        }
    }
    shown
}

fn push_octal(shown: &mut String, byte: u8) {
    shown.push_str(&format!("\\#{byte:03o}"));
}

/// Characters that reorder the text around them: a name could be made to look like another one.
fn is_bidi_control(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_directory_are_refused() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b"] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
        assert!(Name::new(&[b'x'; 256]).is_err());
        assert!(Name::new(&[b'x'; 255]).is_ok());
        assert!(Name::new(b"...").is_ok());
        assert!(Name::new(b"\xff\n").is_ok());
    }

    #[test]
    fn paths_are_checked_component_by_component() {
        for bad in [&b"/a"[..], b"a/", b"a//b", b"a/../b", b"./a", b"a\0"] {
            assert!(RelPath::new(bad).is_err(), "{bad:?}");
        }
        let path = RelPath::new(b"a/b/c").unwrap();
        assert_eq!(path.depth(), 3);
        let (parent, name) = path.split_last().unwrap();
        assert_eq!(parent.as_bytes(), b"a/b");
        assert_eq!(name.as_bytes(), b"c");
        assert_eq!(parent.join(&name), path);
        assert_eq!(RelPath::root().join_path(&path), path);
        assert_eq!(RelPath::root().split_last(), None);
    }

    #[test]
    fn names_cannot_drive_a_terminal() {
        assert_eq!(display_bytes("añ b".as_bytes()), "añ b");
        assert_eq!(display_bytes(b"a\x1b[2J"), "a\\#033[2J");
        assert_eq!(display_bytes(b"\xff\n"), "\\#377\\#012");
        assert_eq!(display_bytes("a\u{202e}b".as_bytes()), "a\\#342\\#200\\#256b");
    }
}
