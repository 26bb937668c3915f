//! Merge files of filter rules, read from directories that are held.

use std::io::{self, Read};

use crate::fs::{Base, Dir};
use crate::limits;
use crate::model::{Name, RelPath};
use crate::plan::filter::{FilterError, FilterErrorKind, FilterPlace, Side};
use crate::sync::session::Session;

/// The tree that a side's filter is about.
pub(super) fn place(side: Side, session: &Session, root: Option<&Dir>, root_is_above: bool) -> FilterPlace {
    FilterPlace {
        side,
        delete_excluded: session.options.deletion.excluded_too,
        root_path: root.and_then(|root| session.base.path_of(root).ok()).unwrap_or_default(),
        root_is_above,
    }
}

/// A merge file of a directory; `None` when there is none. A name with slashes leads further down, never out.
pub(super) fn read_in(dir: &Dir, name: &[u8]) -> Result<Option<Vec<u8>>, FilterError> {
    let unreadable = |reason: String| FilterError::of_file(name, FilterErrorKind::Unreadable(reason));
    let path = RelPath::new(name).map_err(|error| unreadable(error.to_string()))?;
    let Some((parent, name)) = path.split_last() else { return Ok(None) };
    let mut below: Option<Dir> = None;
    for step in parent.components() {
        let here = below.as_ref().unwrap_or(dir);
        match here.open_child(&step) {
            Ok(_) if here.hides(&step, true) => return Ok(None),
            Ok(next) => below = Some(next),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error.to_string())),
        }
    }
    let content = read_small(below.as_ref().unwrap_or(dir), &name, limits::FILTER_FILE_BYTES_MAX);
    content.map_err(|error| unreadable(error.to_string()))
}

/// A merge file above the transfer's root, which `: /name` asks for.
pub(super) fn read_above(base: &Base, path: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>, FilterError> {
    match base.open_dir(path) {
        Ok(dir) => read_in(&dir, name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FilterError::of_file(name, FilterErrorKind::Unreadable(error.to_string()))),
    }
}

/// A small file's content by name; `None` when there is none.
fn read_small(dir: &Dir, name: &Name, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match dir.open_file(name) {
        // Rules that nobody may read are no rules.
        Ok(_) if dir.hides(name, false) => return Ok(None),
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
