//! Where the tree is that the source is compared with. Nothing is made, locked or written.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use crate::fs::{Base, Dir};
use crate::model::Name;
use crate::sync::SyncError;

/// The destination, held.
#[derive(Debug)]
pub(in crate::sync) struct Target {
    pub(super) dir: Arc<Dir>,
    /// The name that the one file of the source has there.
    pub(super) rename: Option<Name>,
    /// As the user wrote it, for messages.
    pub(super) shown: Vec<u8>,
    /// The file system's resolution of times.
    pub(super) granularity_ns: u64,
}

impl Target {
    /// Finds the destination as a sync would. `single` names the one item of the source that is no directory, if that is
    /// all there is.
    pub(in crate::sync) fn open_in(base: &Base, shown: &[u8], single: Option<&Name>) -> Result<Target, SyncError> {
        let error = |source| SyncError::Destination { operation: "open", path: shown.to_vec(), source };
        let path = Path::new(std::ffi::OsStr::from_bytes(if shown.is_empty() { b"." } else { shown }));
        let open = |path: &Path| base.open_dir(path.as_os_str().as_bytes());
        let (dir, rename) = match open(path) {
            Ok(dir) => (dir, None),
            Err(source) => {
                let is_file = source.kind() == io::ErrorKind::NotADirectory;
                let may_be_name = is_file || source.kind() == io::ErrorKind::NotFound;
                let name = path.file_name().and_then(|name| Name::new(name.as_bytes()).ok());
                match (single, name) {
                    (Some(_), Some(name)) if may_be_name && shown.last() != Some(&b'/') => {
                        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                        (open(parent.unwrap_or(Path::new("."))).map_err(error)?, Some(name))
                    }
                    _ if is_file => return Err(SyncError::DestinationIsFile { path: shown.to_vec() }),
                    _ => return Err(error(source)),
                }
            }
        };
        let granularity_ns = dir.observed_time_granularity_ns().unwrap_or(1);
        Ok(Target { dir: Arc::new(dir), rename, shown: shown.to_vec(), granularity_ns })
    }
}
