//! The rules as they stand in one directory.
//!
//! The list in force is a tree: include and exclude rules in order, and in the place of every dir-merge rule the list of what
//! its files have said so far, the newest directory's rules first. Lists are immutable and shared; entering a
//! directory that holds no merge file shares everything.

use std::sync::Arc;

use super::FilterRules;
use super::error::{FilterError, FilterErrorKind};
use super::load::{Loaded, Loader};
use super::rule::{MergeRule, PatternRule, Sides};
use crate::limits;
use crate::model::RelPath;

/// Which question a filter answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Is it hidden from the transfer?
    Sender,
    /// Is it protected from deletion?
    Receiver,
}

/// What the first matching rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Shown to the transfer; at risk of deletion. Also where no rule matches.
    Included,
    /// Hidden from the transfer, on the sender's side; protected from deletion, on the receiver's.
    Excluded,
}

impl Verdict {
    /// Whether it is hidden, or protected.
    pub fn is_excluded(self) -> bool {
        self == Verdict::Excluded
    }
}

/// The tree that is filtered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterPlace {
    /// The question.
    pub side: Side,
    /// `--delete-excluded`: rules that name no side do not protect.
    pub delete_excluded: bool,
    /// Absolute path of the transfer's root on this side, for rules with `/` and for `: /name`.
    pub root_path: Vec<u8>,
    /// The transfer names entries of the root (`SRC` without a trailing slash), so that the root counts as a
    /// directory above the transfer.
    pub root_is_above: bool,
}

/// A directory in which a merge file is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeDir<'a> {
    /// An absolute path, the root's own or above it: asked for only by `: /name` and its like.
    Above(&'a [u8]),
    /// A directory of the transfer, relative to its root.
    Inside(&'a RelPath),
}

/// Reads a merge file: its directory and its name give the content, `None` where no such file exists. A name may hold
/// slashes when a merge file merges another by path; how far such a path may lead is the reader's to decide.
pub type MergeReader<'r> = dyn FnMut(MergeDir<'_>, &[u8]) -> Result<Option<Vec<u8>>, FilterError> + 'r;

/// The filter in force in one directory. Cheap to clone; shared between threads.
#[derive(Debug, Clone)]
pub struct DirFilter {
    place: Arc<Place>,
    list: Arc<List>,
}

#[derive(Debug)]
struct Place {
    side: Side,
    delete_excluded: bool,
    /// The root's absolute path without outer slashes.
    root: Vec<u8>,
    nul_separated: bool,
}

#[derive(Debug, Default)]
struct List {
    nodes: Vec<Node>,
    /// Rules below here, dir-merges and their lists included.
    rules: usize,
    has_merges: bool,
    has_xattr_rules: bool,
}

#[derive(Debug, Clone)]
enum Node {
    Rule(Arc<PatternRule>, Anchor),
    Merge(Arc<MergeRule>, Arc<List>),
}

/// The directory at whose level an anchored pattern begins, as bytes of path that lead to it: all paths that a rule
/// is asked about lie below its directory, so the length says it all.
#[derive(Debug, Clone, Copy)]
enum Anchor {
    Inside(usize),
    /// In the root's absolute path.
    Above(usize),
}

impl List {
    fn new(nodes: Vec<Node>) -> List {
        let mut list = List::default();
        for node in &nodes {
            list.rules += 1;
            match node {
                Node::Rule(rule, _) => list.has_xattr_rules |= rule.xattr,
                Node::Merge(_, inner) => {
                    list.has_merges = true;
                    list.rules += inner.rules;
                    list.has_xattr_rules |= inner.has_xattr_rules;
                }
            }
        }
        List { nodes, ..list }
    }

    fn collect_merge_names(&self, names: &mut Vec<Box<[u8]>>) {
        for node in &self.nodes {
            if let Node::Merge(merge, list) = node {
                names.push(merge.base_name().into());
                list.collect_merge_names(names);
            }
        }
    }
}

impl DirFilter {
    /// The filter above the transfer: nothing of the root is read yet, only what `: /name` asks for above it. It
    /// judges the entries that a transfer names; [`DirFilter::enter`] leads into directories, the root (as
    /// [`RelPath::root`]) among them.
    pub fn root(
        rules: &FilterRules,
        place: &FilterPlace,
        reader: &mut MergeReader<'_>,
    ) -> Result<DirFilter, FilterError> {
        let place_inside = Place {
            side: place.side,
            delete_excluded: place.delete_excluded,
            root: clean_absolute(&place.root_path),
            nul_separated: rules.nul_separated,
        };
        let nodes = place_inside.nodes(&rules.rules, Anchor::Inside(0));
        let mut filter = DirFilter { place: Arc::new(place_inside), list: Arc::new(List::new(nodes)) };
        if filter.list.has_merges {
            filter.search_above(place.root_is_above, reader)?;
        }
        Ok(filter)
    }

    /// The filter inside `path`, a directory directly below this one's, or the root itself. Asks for the merge files
    /// that [`DirFilter::merge_file_names`] names, and for what those name in turn.
    pub fn enter(&self, path: &RelPath, reader: &mut MergeReader<'_>) -> Result<DirFilter, FilterError> {
        if !self.list.has_merges {
            return Ok(self.clone());
        }
        let mut entering = Entering {
            place: &self.place,
            anchor: Anchor::Inside(path.as_bytes().len()),
            dir: MergeDir::Inside(path),
            starts: None,
            reader,
            names: self.merge_names(),
            rules_read: 0,
        };
        let changed = entering.enter_list(&self.list)?;
        self.with_list(changed, path.as_bytes())
    }

    /// Names of the files that [`DirFilter::enter`] looks for.
    pub fn merge_file_names(&self) -> Vec<&[u8]> {
        let mut lists = vec![&*self.list];
        let mut names = Vec::new();
        while let Some(list) = lists.pop() {
            if !list.has_merges {
                continue;
            }
            for node in &list.nodes {
                if let Node::Merge(merge, inner) = node {
                    names.push(merge.base_name());
                    lists.push(inner);
                }
            }
        }
        names
    }

    /// Whether any directory may hold rules of its own.
    pub fn has_merge_files(&self) -> bool {
        self.list.has_merges
    }

    /// The verdict on `path`, relative to the transfer's root, an entry of this filter's directory. The root itself
    /// is never excluded.
    pub fn verdict(&self, path: &RelPath, is_dir: bool) -> Verdict {
        self.judge(path.as_bytes(), is_dir, false)
    }

    /// The verdict on an entry of a directory that is being deleted as a whole: perishable rules do not count.
    pub fn verdict_in_deleted(&self, path: &RelPath, is_dir: bool) -> Verdict {
        self.judge(path.as_bytes(), is_dir, true)
    }

    /// The verdict of the rules with `x` on an extended attribute's name; `None` where there are no such rules, so
    /// that the default for attributes applies.
    pub fn xattr_verdict(&self, name: &[u8]) -> Option<Verdict> {
        if !self.list.has_xattr_rules {
            return None;
        }
        let question = Question { text: name, is_dir: false, in_deleted: false, xattr: true };
        Some(self.first_match(&self.list, &question, &mut None).unwrap_or(Verdict::Included))
    }

    fn judge(&self, path: &[u8], is_dir: bool, in_deleted: bool) -> Verdict {
        if self.list.rules == 0 || path.is_empty() {
            return Verdict::Included;
        }
        let question = Question { text: path, is_dir, in_deleted, xattr: false };
        self.first_match(&self.list, &question, &mut None).unwrap_or(Verdict::Included)
    }

    fn first_match(&self, list: &List, question: &Question<'_>, absolute: &mut Option<Vec<u8>>) -> Option<Verdict> {
        list.nodes.iter().find_map(|node| match node {
            Node::Merge(_, inner) => self.first_match(inner, question, absolute),
            Node::Rule(rule, _) if rule.xattr != question.xattr => None,
            Node::Rule(rule, _) if rule.perishable && question.in_deleted => None,
            Node::Rule(rule, anchor) => {
                let text = match anchor {
                    _ if question.xattr => Some(question.text),
                    _ if rule.absolute => Some(&self.place.absolute(question.text, absolute)[..]),
                    _ if !rule.pattern.is_anchored() => Some(question.text),
                    Anchor::Inside(length) => below(question.text, *length),
                    Anchor::Above(length) => below(self.place.absolute(question.text, absolute), *length),
                };
                let matches = text.is_some_and(|text| rule.pattern.matches(text, question.is_dir) != rule.negated);
                matches.then_some(if rule.include { Verdict::Included } else { Verdict::Excluded })
            }
        })
    }

    /// Reads the files of the directories above that `: /name` and its like ask for, outermost first.
    fn search_above(&mut self, root_is_above: bool, reader: &mut MergeReader<'_>) -> Result<(), FilterError> {
        let root = self.place.root.clone();
        let mut ends: Vec<usize> = Vec::new();
        if !root.is_empty() {
            ends.push(0);
            ends.extend(root.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(slash, _)| slash));
        }
        if root_is_above {
            ends.push(root.len());
        }
        for end in ends {
            let mut dir = vec![b'/'];
            dir.extend_from_slice(&root[..end]);
            let mut entering = Entering {
                place: &self.place,
                anchor: Anchor::Above(end),
                dir: MergeDir::Above(&dir),
                starts: Some(end),
                reader,
                names: self.merge_names(),
                rules_read: 0,
            };
            let changed = entering.enter_list(&self.list)?;
            *self = self.with_list(changed, &dir)?;
        }
        Ok(())
    }

    fn merge_names(&self) -> Vec<Box<[u8]>> {
        let mut names = Vec::new();
        self.list.collect_merge_names(&mut names);
        names
    }

    fn with_list(&self, changed: Option<List>, dir: &[u8]) -> Result<DirFilter, FilterError> {
        let Some(list) = changed else { return Ok(self.clone()) };
        if list.rules > limits::FILTER_RULES_MAX {
            return Err(FilterError::of_file(dir, FilterErrorKind::TooManyRules));
        }
        Ok(DirFilter { place: self.place.clone(), list: Arc::new(list) })
    }
}

struct Question<'a> {
    text: &'a [u8],
    is_dir: bool,
    in_deleted: bool,
    xattr: bool,
}

impl Place {
    /// The rules that say something on this side.
    fn nodes(&self, rules: &[Loaded], anchor: Anchor) -> Vec<Node> {
        let node = |rule: &Loaded| match rule {
            Loaded::Pattern(rule) => self.concerns(rule.sides).then(|| Node::Rule(Arc::new(rule.clone()), anchor)),
            Loaded::DirMerge(merge) => Some(Node::Merge(Arc::new(merge.clone()), Arc::default())),
        };
        rules.iter().filter_map(node).collect()
    }

    fn concerns(&self, sides: Sides) -> bool {
        match (self.side, sides) {
            (_, Sides::Both) | (Side::Sender, Sides::Default | Sides::Sender) | (Side::Receiver, Sides::Receiver) => {
                true
            }
            (Side::Receiver, Sides::Default) => !self.delete_excluded,
            (Side::Sender, Sides::Receiver) | (Side::Receiver, Sides::Sender) => false,
        }
    }

    /// The absolute path of `path` without outer slashes, made once for each question.
    fn absolute<'a>(&self, path: &[u8], cached: &'a mut Option<Vec<u8>>) -> &'a Vec<u8> {
        cached.get_or_insert_with(|| {
            let mut absolute = self.root.clone();
            if !absolute.is_empty() {
                absolute.push(b'/');
            }
            absolute.extend_from_slice(path);
            absolute
        })
    }

    /// How many bytes of the root's path lead to the directory where the rule's search begins; `None` where it
    /// asks for no search, or for one that begins outside of the root's parents.
    fn search_start(&self, merge: &MergeRule) -> Option<usize> {
        let start = merge.search_start()?;
        let mut path = Vec::new();
        if !start.starts_with(b"/") {
            path.extend_from_slice(&self.root);
            path.push(b'/');
        }
        path.extend_from_slice(start);
        let start = clean_absolute(&path);
        let is_parent = start.is_empty()
            || self.root.strip_prefix(&start[..]).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')));
        is_parent.then_some(start.len())
    }
}

/// One directory that is being entered.
struct Entering<'a, 'r> {
    place: &'a Place,
    anchor: Anchor,
    dir: MergeDir<'a>,
    /// Above the transfer: only merge rules whose search has begun by this length of the root's path take part.
    starts: Option<usize>,
    reader: &'a mut MergeReader<'r>,
    names: Vec<Box<[u8]>>,
    rules_read: usize,
}

impl Entering<'_, '_> {
    /// The list inside the directory; `None` where it is the same. Every level of recursion looks for a name of its
    /// own, and [`limits::FILTER_DIR_MERGES_MAX`] bounds those.
    fn enter_list(&mut self, list: &List) -> Result<Option<List>, FilterError> {
        if !list.has_merges {
            return Ok(None);
        }
        let mut nodes: Option<Vec<Node>> = None;
        for (index, node) in list.nodes.iter().enumerate() {
            let Node::Merge(merge, inherited) = node else { continue };
            if let Some(inner) = self.enter_merge(merge, inherited)? {
                nodes.get_or_insert_with(|| list.nodes.clone())[index] = Node::Merge(merge.clone(), Arc::new(inner));
            }
        }
        Ok(nodes.map(List::new))
    }

    /// What a dir-merge rule stands for inside the directory; `None` where it is the same as outside.
    fn enter_merge(&mut self, merge: &Arc<MergeRule>, inherited: &List) -> Result<Option<List>, FilterError> {
        if let Some(length) = self.starts
            && self.place.search_start(merge).is_none_or(|start| length < start)
        {
            return Ok(None);
        }
        let inherited_changed = if merge.not_inherited {
            (!inherited.nodes.is_empty()).then(List::default)
        } else {
            self.enter_list(inherited)?
        };
        let name = merge.base_name();
        let Some(content) = (self.reader)(self.dir, name)? else { return Ok(inherited_changed) };
        let (own, cleared) = self.parse(merge, inherited, &content)?;
        let mut nodes = match self.enter_list(&own)? {
            Some(list) => list.nodes,
            None => own.nodes,
        };
        if !cleared && !merge.not_inherited {
            nodes.extend_from_slice(&inherited_changed.as_ref().unwrap_or(inherited).nodes);
        }
        Ok(Some(List::new(nodes)))
    }

    /// The rules of one merge file, and whether it clears what it would inherit.
    fn parse(&mut self, merge: &MergeRule, inherited: &List, content: &[u8]) -> Result<(List, bool), FilterError> {
        let file = self.path_of(merge.base_name());
        // What the inherited list looks for ends with a `!`; what stands elsewhere does not.
        let mut inherited_names = Vec::new();
        inherited.collect_merge_names(&mut inherited_names);
        let mut outer_names = std::mem::take(&mut self.names);
        outer_names.retain(|name| !inherited_names.contains(name));
        let mut loader = Loader::new(Vec::new(), outer_names, inherited_names, self.place.nul_separated);
        let dir = self.dir;
        let reader = &mut *self.reader;
        let mut read = |name: &[u8]| match reader(dir, name)? {
            Some(content) => Ok(content),
            None => Err(FilterError::of_file(name, FilterErrorKind::Unreadable("no such file".to_owned()))),
        };
        loader.add_file(&file, content, &merge.template, &mut read, 0)?;
        self.rules_read += loader.rules.len();
        if self.rules_read > limits::FILTER_RULES_MAX {
            return Err(FilterError::of_file(&file, FilterErrorKind::TooManyRules));
        }
        let list = List::new(self.place.nodes(&loader.rules, self.anchor));
        let cleared = loader.cleared;
        self.names = loader.into_names();
        Ok((list, cleared))
    }

    /// A merge file's path, for messages.
    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = match self.dir {
            MergeDir::Above(dir) => dir.to_vec(),
            MergeDir::Inside(dir) => dir.as_bytes().to_vec(),
        };
        if !path.is_empty() && !path.ends_with(b"/") {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }
}

/// What of `path` lies below its first `length` bytes.
fn below(path: &[u8], length: usize) -> Option<&[u8]> {
    if length == 0 {
        return Some(path);
    }
    path.get(length..)?.strip_prefix(b"/")
}

/// An absolute path without outer, double and dot components, `..` taken lexically as rsync does.
fn clean_absolute(path: &[u8]) -> Vec<u8> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop();
            }
            name => components.push(name),
        }
    }
    components.join(&b'/')
}
