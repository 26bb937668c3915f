//! `--list-only`: the listings themselves are the result.

use std::sync::Arc;

use super::held::HandleBudget;
use super::sender::sources::Sources;
use super::sender::walk::{PieceSink, SentPiece, Walk};
use super::session::Session;
use crate::model::{DirId, ListedEntry, Piece, RelPath};
use crate::monitor::{Action, Changes, Item, Phase};

/// Paths of the directories whose listings are still to come.
#[derive(Default)]
pub(super) struct Paths(std::sync::Mutex<std::collections::HashMap<DirId, RelPath>>);

impl Paths {
    /// Tells of every entry of a piece.
    pub(super) fn tell(&self, piece: &Piece, session: &Session) {
        let mut paths = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let dir = match piece.last {
            true => paths.remove(&piece.dir),
            false => paths.get(&piece.dir).cloned(),
        }
        .unwrap_or_default();
        let mut child = piece.first_child.0;
        for listed in &piece.entries {
            let path = dir.join(&listed.entry.name);
            if listed.descend {
                paths.insert(DirId(child), path.clone());
                child += 1;
            }
            session.item(item(path.as_bytes(), listed));
        }
    }
}

/// The line of the root itself.
pub(super) fn tell_root(listed: &ListedEntry, session: &Session) {
    session.item(item(b"", listed));
}

fn item(path: &[u8], listed: &ListedEntry) -> Item {
    let entry = &listed.entry;
    Item {
        path: path.to_vec(),
        kind: entry.metadata.kind,
        action: Action::Unchanged,
        changes: Changes::default(),
        link_target: entry.link_target.as_ref().map(|target| target.to_vec()),
        hard_link_to: None,
        size: entry.metadata.size,
        mtime: entry.metadata.mtime,
        mode: entry.metadata.mode,
        uid: entry.metadata.uid,
        gid: entry.metadata.gid,
        literal_bytes: 0,
        dry_run: false,
    }
}

/// Queues pieces: they leave under a lock that releasing them takes.
struct ListSink(crossbeam_channel::Sender<Arc<SentPiece>>);

impl PieceSink for ListSink {
    fn piece(&self, piece: Arc<SentPiece>) {
        // The reader of this queue releases the pieces: credit bounds it.
        let _run_is_over = self.0.send(piece);
    }
}

/// Lists local sources.
pub(super) fn list(session: &Arc<Session>, arguments: &[Vec<u8>]) {
    let budget = HandleBudget::new(super::handles_max());
    let sources = Sources::resolve(arguments, session, &budget);
    if let Some(root) = sources.root_entry(session) {
        tell_root(&root, session);
    }
    session.phase(Phase::Transferring);
    let (told, pieces) = crossbeam_channel::unbounded();
    let walk = Walk::new(Arc::clone(session), Arc::new(ListSink(told)));
    let paths = Paths::default();
    std::thread::scope(|scope| {
        let walk = &walk;
        crate::sync::spawn(scope, session, move || {
            // One thread: the lines come in the tree's order.
            walk.run(&sources, 1);
            walk.close_sink();
        });
        while let Ok(piece) = pieces.recv() {
            paths.tell(&piece.piece, session);
            let released = walk.flow(|flow| flow.on_release(piece.piece.id));
            debug_assert_eq!(released, Ok(()));
        }
    });
}
