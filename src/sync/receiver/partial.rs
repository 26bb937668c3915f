//! `--partial`: what came of a file that did not arrive whole is kept under a hidden name, never its final one, and
//! is the basis of the next attempt.

use std::io;
use std::sync::Arc;

use super::commit::StagedFile;
use super::node::{Node, PieceWork};
use super::{FileTask, Receiver};
use crate::fs::{self, Dir};
use crate::limits;
use crate::model::{Name, RelPath};

/// What a partial file's name begins with.
const PREFIX: &[u8] = b".xfer-partial.";

/// The hidden name for a part of `name`: the name itself behind a prefix, or its digest where that is too long.
fn partial_name(name: &Name) -> Option<Name> {
    let mut hidden = PREFIX.to_vec();
    if PREFIX.len() + name.as_bytes().len() <= limits::NAME_BYTES_MAX {
        hidden.extend_from_slice(name.as_bytes());
    } else {
        hidden.extend_from_slice(blake3::hash(name.as_bytes()).to_hex().as_bytes());
    }
    Name::new(&hidden).ok()
}

impl Receiver {
    /// Whether a name at the destination belongs to partial files that this run may still need.
    pub(super) fn is_partial(&self, name: &Name) -> bool {
        self.session.options.partial
            && (name.as_bytes().starts_with(PREFIX) || self.root.partial_dir.as_ref() == Some(name))
    }

    /// Where the part of `name` lies, or would.
    fn partial_place(&self, node: &Arc<Node>, name: &Name, make: bool) -> io::Result<Option<(Arc<Dir>, Name)>> {
        let dir = node.open()?;
        let Some(partial_dir) = &self.root.partial_dir else {
            return match partial_name(name) {
                Some(hidden) if dir.hides(&hidden, false) => Err(fs::hidden()),
                hidden => Ok(hidden.map(|hidden| (dir, hidden))),
            };
        };
        if dir.hides_below(&RelPath::root().join(partial_dir).join(name), false) || dir.hides(partial_dir, true) {
            return Err(fs::hidden());
        }
        match dir.open_child(partial_dir) {
            Ok(child) => Ok(Some((Arc::new(child), name.clone()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound && make => {
                dir.make_dir(partial_dir, 0o700)?;
                node.touch();
                Ok(Some((Arc::new(dir.open_child(partial_dir)?), name.clone())))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The part that an earlier run kept of a file, opened.
    pub(in crate::sync) fn open_partial(&self, task: &FileTask) -> Option<std::fs::File> {
        if !self.session.options.partial || !task.work.node.is_there() {
            return None;
        }
        let (dir, hidden) = self.partial_place(&task.work.node, task.name(), false).ok()??;
        let (file, metadata) = dir.open_file_with_metadata(&hidden).ok()?;
        (metadata.uid == rustix::process::geteuid().as_raw() && metadata.size > 0).then_some(file)
    }

    /// Keeps what came of a file.
    pub(in crate::sync) fn keep_partial(&self, task: &FileTask, stage: StagedFile) {
        if !self.session.options.partial {
            return;
        }
        let node = &task.work.node;
        let kept = self.partial_place(node, task.name(), true).and_then(|place| match place {
            Some((dir, hidden)) => {
                node.touch();
                stage.keep_as(&dir, &hidden)
            }
            None => Ok(()),
        });
        if let Err(error) = kept {
            self.problem(crate::model::Operation::Write, &task.path(), &error);
        }
    }

    /// The whole file is there: its part is not needed any more.
    pub(super) fn drop_partial(&self, work: &Arc<PieceWork>, name: &Name) {
        let node = &work.node;
        let is_of_the_source = |hidden: &Name| {
            self.root.partial_dir.is_none() && work.piece().entries.iter().any(|listed| listed.entry.name == *hidden)
        };
        if let Ok(Some((dir, hidden))) = self.partial_place(node, name, false)
            && !is_of_the_source(&hidden)
            && dir.unlink(&hidden).is_ok()
        {
            node.touch();
            if let Some(partial_dir) = &self.root.partial_dir
                && let Ok(dir) = node.open()
            {
                // Stays while it holds other parts.
                let _still_in_use = dir.remove_dir(partial_dir);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_hidden_one() {
        let short = Name::new(b"data.db").unwrap();
        assert_eq!(partial_name(&short).unwrap().as_bytes(), b".xfer-partial.data.db");
        let long = Name::new(&[b'x'; 255]).unwrap();
        assert!(partial_name(&long).unwrap().as_bytes().len() <= 255);
    }
}
