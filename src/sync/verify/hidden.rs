//! Which names of the destination do not count: what the filter rules hide from a transfer, or keep from deletion.

use std::sync::Arc;

use super::Verifier;
use super::node::{Node, Place};
use crate::model::{Name, Operation, Problem, ProblemKind};
use crate::plan::filter::{DirFilter, FilterError, MergeDir, Side};
use crate::sync::filters;

impl Verifier {
    /// Whether the rules hide a name that only the destination has.
    pub(super) fn is_hidden(&self, node: &Arc<Node>, name: &Name, is_dir: bool) -> bool {
        if self.session.options.filters.is_empty() {
            return false;
        }
        let path = node.path.join(name);
        match self.filters_of(node) {
            Some(filters) => filters.iter().any(|filter| filter.verdict(&path, is_dir).is_excluded()),
            // Told, and no proof without it.
            None => true,
        }
    }

    /// The rules inside a directory, as the sender and as the receiver of a sync has them.
    fn filters_of<'a>(&self, node: &'a Arc<Node>) -> Option<&'a [DirFilter; 2]> {
        // From the top down and not by recursion: a tree may be deeper than a stack.
        let mut waiting = vec![node];
        let mut above = node.parent.as_ref();
        while let Some(next) = above.filter(|next| next.hidden.get().is_none()) {
            waiting.push(next);
            above = next.parent.as_ref();
        }
        for next in waiting.into_iter().rev() {
            next.hidden.get_or_init(|| self.read_filters(next));
        }
        node.hidden.get()?.as_ref()
    }

    /// As [`Verifier::filters_of`], where those of the directory above are known.
    fn read_filters(&self, node: &Arc<Node>) -> Option<[DirFilter; 2]> {
        let [sender_above, receiver_above] = match &node.parent {
            Some(parent) => parent.hidden.get()?.clone()?.map(Some),
            None => [None, None],
        };
        let sender = self.filter_of(node, Side::Sender, sender_above);
        let filters = sender.and_then(|sender| Ok([sender, self.filter_of(node, Side::Receiver, receiver_above)?]));
        let told = |error: FilterError| {
            let shown = self.shown(&node.path);
            self.session.problem(Problem::new(ProblemKind::Destination, Operation::Filter, shown, error.to_string()));
        };
        filters.map_err(told).ok()
    }

    fn filter_of(&self, node: &Arc<Node>, side: Side, above: Option<DirFilter>) -> Result<DirFilter, FilterError> {
        let mut reader = |dir: MergeDir<'_>, name: &[u8]| self.merge_file(node, side, dir, name);
        let above = match above {
            Some(above) => above,
            None => {
                let root = self.target.as_ref().map(|target| &*target.dir);
                let place = filters::place(side, &self.session, root, self.root_is_above);
                DirFilter::root(&self.session.options.filters, &place, &mut reader)?
            }
        };
        let stays_above = node.parent.is_none() && self.root_is_above;
        if stays_above { Ok(above) } else { above.enter(&node.path, &mut reader) }
    }

    /// The source's merge files count on both sides; the destination's own only protect.
    fn merge_file(
        &self,
        node: &Arc<Node>,
        side: Side,
        dir: MergeDir<'_>,
        name: &[u8],
    ) -> Result<Option<Vec<u8>>, FilterError> {
        if let MergeDir::Above(path) = dir {
            return filters::read_above(&self.session.base, path, name);
        }
        if let Some((_, content)) = node.merge_files.get().into_iter().flatten().find(|(sent, _)| sent == name) {
            return Ok(Some(content.clone()));
        }
        if side == Side::Sender || !matches!(*node.place(), Place::There) {
            return Ok(None);
        }
        match node.dir.as_ref().map(|dir| dir.get()) {
            Some(Ok(dir)) => filters::read_in(&dir, name),
            _ => Ok(None),
        }
    }
}
