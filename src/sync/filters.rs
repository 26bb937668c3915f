//! Merge files of filter rules, read from directories that are held.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::fs::Dir;
use crate::limits;
use crate::model::{Name, RelPath};
use crate::plan::filter::{FilterError, FilterErrorKind, FilterPlace, Side};
use crate::plan::options::SyncOptions;

/// The tree that a side's filter is about.
pub(super) fn place(side: Side, options: &SyncOptions, root: Option<&Dir>, root_is_above: bool) -> FilterPlace {
    FilterPlace {
        side,
        delete_excluded: options.deletion.excluded_too,
        root_path: root.and_then(|root| root.path().ok()).unwrap_or_default(),
        root_is_above,
    }
}

/// A merge file of a directory; `None` when there is none. A name with slashes leads further down, never out.
pub(super) fn read_in(dir: &Dir, name: &[u8]) -> Result<Option<Vec<u8>>, FilterError> {
    let unreadable = |reason: String| FilterError::of_file(name, FilterErrorKind::Unreadable(reason));
    let path = RelPath::new(name).map_err(|error| unreadable(error.to_string()))?;
    let Some((parent, name)) = path.split_last() else { return Ok(None) };
    let content = match parent.is_root() {
        true => read_small(dir, &name, limits::FILTER_FILE_BYTES_MAX),
        false => match dir.open_beneath(&parent) {
            Ok(dir) => read_small(&dir, &name, limits::FILTER_FILE_BYTES_MAX),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        },
    };
    content.map_err(|error| unreadable(error.to_string()))
}

/// A merge file above the transfer's root, which `: /name` asks for.
pub(super) fn read_above(path: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>, FilterError> {
    match Dir::open(Path::new(OsStr::from_bytes(path))) {
        Ok(dir) => read_in(&dir, name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FilterError::of_file(name, FilterErrorKind::Unreadable(error.to_string()))),
    }
}

/// A small file's content by name; `None` when there is none.
fn read_small(dir: &Dir, name: &Name, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match dir.open_file(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut content)?;
    if content.len() as u64 > max_bytes {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is too large"));
    }
    Ok(Some(content))
}
