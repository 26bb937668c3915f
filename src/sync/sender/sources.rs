//! What the user named as sources, as one virtual tree: directories that are meant whole, and names picked one by one.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::fs::{self, Dir, Target};
use crate::model::{Entry, Kind, ListedEntry, Name, Operation, Problem, ProblemKind, RelPath};
use crate::plan::options::Recursion;
use crate::sync::SyncError;
use crate::sync::held::{HandleBudget, HeldDir};
use crate::sync::session::Session;

/// Names picked below a directory.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) children: BTreeMap<Name, NamedChild>,
}

/// One picked name.
#[derive(Debug, Default)]
pub(super) struct NamedChild {
    /// The user named this very item, not something below it.
    pub(super) terminal: bool,
    /// With `-d`: the directory's contents too (named with a trailing slash).
    pub(super) contents: bool,
    /// Picked below it.
    pub(super) below: Named,
}

/// One directory of the file system that lies under a directory of the virtual tree.
#[derive(Debug)]
pub(in crate::sync) struct Layer {
    pub(super) dir: HeldDir,
    /// How the user would name the directory, for messages; with a trailing slash, or empty.
    pub(super) shown: Vec<u8>,
    /// All of its names are meant.
    pub(super) whole: bool,
    /// Only these (also when `whole`, for what is below).
    pub(super) named: Option<Arc<NamedBelow>>,
    /// Device on which `-x` keeps the walk.
    pub(super) dev: (u32, u32),
    /// The source argument that this directory is; told when it is empty.
    pub(super) argument: Option<Vec<u8>>,
}

/// A place in a tree of picked names, which many layers share.
#[derive(Debug)]
pub(super) struct NamedBelow {
    top: Arc<Named>,
    path: Vec<Name>,
}

impl NamedBelow {
    fn new(top: Named) -> NamedBelow {
        NamedBelow { top: Arc::new(top), path: Vec::new() }
    }

    pub(super) fn get(&self) -> &Named {
        let mut named = &*self.top;
        for name in &self.path {
            match named.children.get(name) {
                Some(child) => named = &child.below,
                None => return named,
            }
        }
        named
    }

    pub(super) fn child(&self, name: &Name) -> NamedBelow {
        let mut path = self.path.clone();
        path.push(name.clone());
        NamedBelow { top: Arc::clone(&self.top), path }
    }
}

/// All sources, resolved as far as needs no walk.
#[derive(Debug)]
pub(in crate::sync) struct Sources {
    /// Directories under the virtual root, in the order of the arguments.
    pub(in crate::sync) layers: Vec<Arc<Layer>>,
    /// The directory whose attributes the destination's root gets: the first source that names contents.
    pub(super) root_dir: Option<Arc<Dir>>,
    /// The one item that is no directory, if that is all there is.
    pub(in crate::sync) single: Option<Name>,
    /// Arguments that are not there.
    pub(super) missing: Vec<Vec<u8>>,
}

/// An argument taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Argument {
    /// Directory to open, as the user wrote it.
    base: Vec<u8>,
    /// What is picked below it; `None`: the directory's contents.
    picked: Option<RelPath>,
    /// Named with a trailing slash, or as `.`.
    contents: bool,
}

impl Sources {
    /// Resolves the arguments. What cannot be found is told as a problem.
    pub(in crate::sync) fn resolve(arguments: &[Vec<u8>], session: &Session, budget: &Arc<HandleBudget>) -> Sources {
        let options = &session.options;
        let mut sources = Sources { layers: Vec::new(), root_dir: None, single: None, missing: Vec::new() };
        let mut singles = Vec::new();
        let mut others = 0;
        for argument in arguments {
            if let Some(picked) = &options.files_from {
                others += 1;
                sources.add_list(argument, picked, session, budget);
                continue;
            }
            let parsed = match take_apart(argument, options.relative) {
                Ok(parsed) => parsed,
                Err(reason) => {
                    let shown = crate::model::display_bytes(argument);
                    session.fail(SyncError::usage(format!("cannot use the source \"{shown}\": {reason}")));
                    return sources;
                }
            };
            match sources.add(argument, parsed, session, budget) {
                Some(name) => singles.push(name),
                None => others += 1,
            }
        }
        if let (1, 0, false) = (singles.len(), others, options.relative) {
            sources.single = singles.pop();
        }
        sources
    }

    /// Attributes for the destination's root, where a source names contents.
    pub(in crate::sync) fn root_entry(&self, session: &Session) -> Option<ListedEntry> {
        let dir = self.root_dir.as_ref()?;
        let preserve = &session.options.preserve;
        let read = || -> std::io::Result<ListedEntry> {
            let metadata = dir.metadata()?;
            let target = Target::Dir(dir);
            let acls = if preserve.acls { Some(fs::read_acls(target, Kind::Dir)?) } else { None };
            let xattrs = if preserve.xattrs { Some(fs::read_xattrs(target, Kind::Dir, fs::am_root())?) } else { None };
            let name = Name::new(b"root").map_err(std::io::Error::other)?;
            let entry = Entry { name, metadata, link_target: None, hard_link: None, acls, xattrs };
            Ok(ListedEntry { entry, descend: false, implied: false })
        };
        match read() {
            Ok(listed) => {
                session.count(|stats| stats.listed.add(Kind::Dir));
                Some(listed)
            }
            Err(error) => {
                session.io_problem(ProblemKind::Source, Operation::Stat, b".".to_vec(), &error);
                None
            }
        }
    }

    /// Adds one argument; its name when it is an item that is no directory.
    fn add(
        &mut self,
        argument: &[u8],
        parsed: Argument,
        session: &Session,
        budget: &Arc<HandleBudget>,
    ) -> Option<Name> {
        let options = &session.options;
        let dir = match session.base.open_dir(&parsed.base) {
            Ok(dir) => Arc::new(dir),
            Err(error) => {
                self.unreachable(argument, &error, session);
                return None;
            }
        };
        let Some(picked) = parsed.picked else {
            if options.recursion == Recursion::Skip {
                session.detail(|| format!("skipping directory {}", crate::model::display_bytes(argument)));
                return None;
            }
            if self.root_dir.is_none() {
                self.root_dir = Some(Arc::clone(&dir));
            }
            let shown = with_slash(argument);
            self.push(dir, shown, true, None, Some(argument.to_vec()), session, budget);
            return None;
        };
        let mut single = None;
        if picked.depth() == 1
            && let Some(name) = picked.file_name()
        {
            match dir.stat(&name) {
                Ok(metadata) if dir.hides(&name, metadata.kind == Kind::Dir) => {
                    self.unreachable(argument, &fs::hidden(), session);
                    return None;
                }
                Ok(metadata) => {
                    let followed = metadata.kind == Kind::Symlink
                        && (options.links.follow_all || options.links.follow_dirs)
                        && dir.stat_following(&name).is_ok_and(|target| target.kind == Kind::Dir);
                    if metadata.kind != Kind::Dir && !followed {
                        single = Some(name);
                    }
                }
                Err(error) => {
                    self.unreachable(argument, &error, session);
                    return None;
                }
            }
        } else if let Some((parent, name)) = picked.split_last()
            && let Err(error) = walk_to(&dir, &parent).and_then(|parent| parent.stat(&name))
        {
            self.unreachable(argument, &error, session);
            return None;
        }
        let mut named = Named::default();
        insert(&mut named, &picked, parsed.contents);
        let shown =
            if parsed.base == b"." && !argument.starts_with(b"./") { Vec::new() } else { with_slash(&parsed.base) };
        self.push(dir, shown, false, Some(named), None, session, budget);
        single
    }

    /// Adds the paths of `--files-from`, relative to `argument`.
    fn add_list(&mut self, argument: &[u8], paths: &[Vec<u8>], session: &Session, budget: &Arc<HandleBudget>) {
        let dir = match session.base.open_dir(argument) {
            Ok(dir) => Arc::new(dir),
            Err(error) => return self.unreachable(argument, &error, session),
        };
        let mut named = Named::default();
        let mut whole = false;
        let mut leads_through_root = false;
        for path in paths {
            let problem = |reason: String| Problem::new(ProblemKind::Source, Operation::Open, path.clone(), reason);
            // A leading slash is relative to the source here, and "/./" only marks where a name begins.
            let cleaned = clean_listed(path);
            let contents = path.last() == Some(&b'/') || path.ends_with(b"/.");
            match RelPath::new(&cleaned) {
                Ok(path) if path.is_root() => whole = true,
                // Without the path it is an argument like any other: its contents.
                Ok(_) if contents && !session.options.relative => {
                    let base = join(argument, path);
                    let _no_single_item =
                        self.add(&base, Argument { base: base.clone(), picked: None, contents }, session, budget);
                }
                Ok(rel) => {
                    insert(&mut named, &rel, contents);
                    // Such a name leads through the root, whose attributes are then carried over too.
                    leads_through_root |= path.starts_with(b"./") && session.options.implied_dirs;
                }
                Err(error) => session.problem(problem(error.to_string())),
            }
        }
        if !session.options.relative {
            // With --no-relative every path is an item of its own, under its last name.
            let mut flat: BTreeMap<RelPath, Named> = BTreeMap::new();
            flatten(&named, &RelPath::root(), &mut flat);
            for (parent, named) in flat {
                match walk_to(&dir, &parent) {
                    Ok(parent_dir) => {
                        let shown = with_slash(&join(argument, parent.as_bytes()));
                        self.push(parent_dir, shown, false, Some(named), None, session, budget);
                    }
                    Err(error) => session.io_problem(
                        ProblemKind::Source,
                        Operation::Open,
                        join(argument, parent.as_bytes()),
                        &error,
                    ),
                }
            }
            return;
        }
        whole &= session.options.recursion != Recursion::Skip;
        if whole || leads_through_root {
            self.root_dir = Some(Arc::clone(&dir));
        }
        self.push(dir, with_slash(argument), whole, Some(named), None, session, budget);
    }

    #[allow(clippy::too_many_arguments, reason = "each is one field of the layer")]
    fn push(
        &mut self,
        dir: Arc<Dir>,
        shown: Vec<u8>,
        whole: bool,
        named: Option<Named>,
        argument: Option<Vec<u8>>,
        session: &Session,
        budget: &Arc<HandleBudget>,
    ) {
        let dev = match dir.metadata() {
            Ok(metadata) => metadata.dev,
            Err(error) => {
                session.io_problem(ProblemKind::Source, Operation::Stat, shown, &error);
                return;
            }
        };
        self.layers.push(Arc::new(Layer {
            dir: HeldDir::at_root(dir, Arc::clone(budget)),
            shown,
            whole,
            named: named.map(|named| Arc::new(NamedBelow::new(named))),
            dev,
            argument,
        }));
    }

    fn unreachable(&mut self, argument: &[u8], error: &std::io::Error, session: &Session) {
        if error.kind() == std::io::ErrorKind::NotFound && session.options.ignore_missing_args {
            return;
        }
        self.missing.push(argument.to_vec());
        session.io_problem(ProblemKind::Source, Operation::Open, argument, error);
    }
}

/// Opens a directory below `dir`, following links as far as the base lets them lead: it is the user's own path.
fn walk_to(dir: &Arc<Dir>, path: &RelPath) -> std::io::Result<Arc<Dir>> {
    let mut current = Arc::clone(dir);
    for name in path.components() {
        if current.hides(&name, true) {
            return Err(fs::hidden());
        }
        current = Arc::new(current.open_child_following(&name)?);
    }
    Ok(current)
}

fn insert(named: &mut Named, path: &RelPath, contents: bool) {
    let mut current = named;
    let depth = path.depth();
    for (index, name) in path.components().enumerate() {
        let child = current.children.entry(name).or_default();
        if index + 1 == depth {
            child.terminal = true;
            child.contents |= contents;
        }
        current = &mut child.below;
    }
}

/// Picked items by their parent directory.
fn flatten(named: &Named, at: &RelPath, flat: &mut BTreeMap<RelPath, Named>) {
    for (name, child) in &named.children {
        if child.terminal {
            let picked = NamedChild { terminal: true, contents: child.contents, below: Named::default() };
            flat.entry(at.clone()).or_default().children.insert(name.clone(), picked);
        }
        flatten(&child.below, &at.join(name), flat);
    }
}

/// As [`clean`], and `x/..` is nothing, as in the lists that rsync reads; a leading `..` stays, and is refused later.
fn clean_listed(path: &[u8]) -> Vec<u8> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|&byte| byte == b'/').filter(|component| !component.is_empty() && *component != b".") {
        match components.last() {
            Some(&last) if component == b".." && last != b".." => {
                components.pop();
            }
            _ => components.push(component),
        }
    }
    components.join(&b'/')
}

/// Without `.` components, doubled and outer slashes.
fn clean(path: &[u8]) -> Vec<u8> {
    let components: Vec<&[u8]> =
        path.split(|&byte| byte == b'/').filter(|component| !component.is_empty() && *component != b".").collect();
    components.join(&b'/')
}

fn take_apart(argument: &[u8], relative: bool) -> Result<Argument, String> {
    // `host:` and `xfer://host/module`: the contents of where paths begin. An empty local argument never gets here.
    let argument = if argument.is_empty() { b"." } else { argument };
    let last = argument.rsplit(|&byte| byte == b'/').next().unwrap_or(argument);
    let contents = last.is_empty() || last == b"." || last == b"..";
    if !relative {
        if contents {
            return Ok(Argument { base: argument.to_vec(), picked: None, contents });
        }
        let base = match &argument[..argument.len() - last.len()] {
            [] => b".".to_vec(),
            parent => parent.to_vec(),
        };
        let picked = RelPath::new(last).map_err(|error| error.to_string())?;
        return Ok(Argument { base, picked: Some(picked), contents });
    }
    // The part before the first "/./" is left out of the recreated path.
    let marker = argument.windows(3).position(|window| window == b"/./");
    let (base, rest) = match marker {
        Some(position) => (argument[..position.max(1)].to_vec(), &argument[position + 3..]),
        None if argument.starts_with(b"/") => (b"/".to_vec(), argument),
        None => (b".".to_vec(), argument),
    };
    let base = if marker == Some(0) { b"/".to_vec() } else { base };
    let picked = RelPath::new(&clean(rest)).map_err(|error| error.to_string())?;
    if picked.is_root() {
        return Ok(Argument { base, picked: None, contents: true });
    }
    Ok(Argument { base, picked: Some(picked), contents })
}

fn with_slash(path: &[u8]) -> Vec<u8> {
    let mut shown = path.to_vec();
    if shown.last() != Some(&b'/') {
        shown.push(b'/');
    }
    shown
}

fn join(base: &[u8], path: &[u8]) -> Vec<u8> {
    let mut joined = with_slash(base);
    joined.extend_from_slice(path);
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argument(base: &str, picked: Option<&str>, contents: bool) -> Argument {
        let picked = picked.map(|path| RelPath::new(path.as_bytes()).unwrap());
        Argument { base: base.into(), picked, contents }
    }

    #[test]
    fn a_trailing_slash_means_the_contents() {
        for (given, expected) in [
            ("a/b", argument("a/", Some("b"), false)),
            ("a/b/", argument("a/b/", None, true)),
            ("b", argument(".", Some("b"), false)),
            (".", argument(".", None, true)),
            ("a/.", argument("a/.", None, true)),
            ("..", argument("..", None, true)),
            ("/b", argument("/", Some("b"), false)),
            ("/", argument("/", None, true)),
            ("", argument(".", None, true)),
        ] {
            assert_eq!(take_apart(given.as_bytes(), false), Ok(expected), "{given}");
        }
    }

    #[test]
    fn relative_paths_are_recreated_from_the_marker_on() {
        for (given, expected) in [
            ("a/b/c", argument(".", Some("a/b/c"), false)),
            ("/a/b/", argument("/", Some("a/b"), true)),
            ("/x/./a/b", argument("/x", Some("a/b"), false)),
            ("x/.//a//b", argument("x", Some("a/b"), false)),
            ("x/./", argument("x", None, true)),
        ] {
            assert_eq!(take_apart(given.as_bytes(), true), Ok(expected), "{given}");
        }
        assert!(take_apart(b"a/../b", true).is_err());
    }
}
