//! Whole rule sets over small trees. What is expected is what rsync 3.5 did with the same tree and rules.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::RelPath;

/// Files and their content by path; directories follow from them.
type Tree = BTreeMap<Vec<u8>, Vec<u8>>;

fn tree(files: &[(&str, &str)]) -> Tree {
    files.iter().map(|(path, content)| (path.as_bytes().to_vec(), content.as_bytes().to_vec())).collect()
}

fn place(side: Side) -> FilterPlace {
    FilterPlace { side, delete_excluded: false, root_path: b"/m/top/src".to_vec(), root_is_above: false }
}

fn rules(filters: &[&str]) -> FilterRules {
    let mut rules = FilterRules::new();
    for filter in filters {
        rules.push_filter(filter.as_bytes(), &mut |_| Err("no files here".to_owned())).unwrap();
    }
    rules
}

fn read(tree: &Tree, dir: MergeDir<'_>, name: &[u8]) -> Option<Vec<u8>> {
    let mut path = match dir {
        MergeDir::Above(dir) => dir.to_vec(),
        MergeDir::Inside(dir) => dir.as_bytes().to_vec(),
    };
    if !path.is_empty() && path != b"/" {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    tree.get(&path).cloned()
}

/// All paths that are excluded without an excluded directory above them, directories with a slash.
fn excluded(rules: &FilterRules, place: &FilterPlace, tree: &Tree) -> String {
    let filter = DirFilter::root(rules, place, &mut |dir, name| Ok(read(tree, dir, name))).unwrap();
    let mut found = Vec::new();
    walk(&filter, &RelPath::root(), tree, &mut found);
    found.sort();
    found.join(" ")
}

fn walk(above: &DirFilter, dir: &RelPath, tree: &Tree, found: &mut Vec<String>) {
    let filter = above.enter(dir, &mut |dir, name| Ok(read(tree, dir, name))).unwrap();
    let mut children: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
    for path in tree.keys().filter(|path| !path.starts_with(b"/")) {
        let rest = if dir.is_root() {
            Some(&path[..])
        } else {
            path.strip_prefix(dir.as_bytes()).and_then(|rest| rest.strip_prefix(b"/"))
        };
        let Some(rest) = rest else { continue };
        let mut parts = rest.splitn(2, |&byte| byte == b'/');
        let name = parts.next().unwrap();
        children.insert(name.to_vec(), parts.next().is_some());
    }
    for (name, is_dir) in children {
        let path = dir.join(&crate::model::Name::new(&name).unwrap());
        if filter.verdict(&path, is_dir).is_excluded() {
            found.push(format!("{path}{}", if is_dir { "/" } else { "" }));
        } else if is_dir {
            walk(&filter, &path, tree, found);
        }
    }
}

/// The tree of the per-directory tests, with `extra` files.
fn sample(extra: &[(&str, &str)]) -> Tree {
    let mut all = tree(extra);
    for dir in ["", "a/", "a/b/", "a/b/c/", "x/"] {
        for name in ["f1", "f2", "f3", "f4", "g"] {
            all.insert(format!("{dir}{name}").into_bytes(), Vec::new());
        }
    }
    all
}

fn hidden(filters: &[&str], extra: &[(&str, &str)]) -> String {
    excluded(&rules(filters), &place(Side::Sender), &sample(extra))
}

#[test]
fn per_directory_rules_are_inherited_newest_first() {
    let files = [(".r", "- /f1\n- f2\n"), ("a/.r", "+ f2\n- b/f3\n- /b/f4\n- a/g\n")];
    assert_eq!(hidden(&[": .r"], &files), "a/b/f3 a/b/f4 a/g f1 f2 x/f2");
    assert_eq!(hidden(&[":s .r"], &files), "a/b/f3 a/b/f4 a/g f1 f2 x/f2");
    assert_eq!(hidden(&[":n .r"], &files), "a/g f1 f2");
    assert_eq!(hidden(&[":- .r"], &files), "");
    assert_eq!(hidden(&[":r .r"], &files), "");
}

#[test]
fn a_clear_in_a_file_ends_what_it_inherits_and_nothing_else() {
    let files = [(".r", "- /f1\n- f2\n"), ("a/.r", "+ f2\n- b/f3\n- /b/f4\n- a/g\n"), ("a/b/.r", "!\n- g\n")];
    assert_eq!(hidden(&[": .r"], &files), "a/b/c/g a/b/g a/g f1 f2 x/f2");
    let files = [(".s", "- f2\n"), (".r", "- f1\n!\n- f4\n")];
    assert_eq!(
        hidden(&["- f3", ": .s", ": .r"], &files),
        "a/b/c/f2 a/b/c/f3 a/b/c/f4 a/b/f2 a/b/f3 a/b/f4 a/f2 a/f3 a/f4 f2 f3 f4 x/f2 x/f3 x/f4"
    );
}

#[test]
fn merge_files_merge_others_of_their_directory() {
    let files = [(".r", ". inc\n"), ("inc", "- f1\n"), ("a/.r", ""), ("a/inc", "- f2\n")];
    assert_eq!(hidden(&[": .r"], &files), "a/b/c/f1 a/b/f1 a/f1 f1 x/f1");
    let files = [(".r", ". a/inc\n"), ("a/inc", "- f2\n")];
    assert_eq!(hidden(&[": .r"], &files), "a/b/c/f2 a/b/f2 a/f2 f2 x/f2");
}

#[test]
fn a_file_can_name_further_per_directory_files() {
    let files = [
        (".r", "- f1\n: .k\n- f3\n"),
        (".k", "- f4\n"),
        ("a/.r", ""),
        ("a/.k", "+ f4\n- g\n+ f1\n+ f3\n"),
        ("x/.r", "- g\n"),
    ];
    assert_eq!(hidden(&[": .r"], &files), "a/b/c/f1 a/b/c/g a/b/f1 a/b/g a/f1 a/g f1 f3 f4 x/f1 x/f3 x/f4 x/g");
    // One that names itself adds nothing, and ends.
    assert_eq!(hidden(&[": .r"], &[(".r", ": .r\n- f1\n")]), "a/b/c/f1 a/b/f1 a/f1 f1 x/f1");
    // After a clear it is named anew.
    let files = [(".r", ": .k\n"), ("a/.r", "!\n: .k\n"), ("a/.k", "- g\n")];
    assert_eq!(hidden(&[": .r"], &files), "a/b/c/g a/b/g a/g");
}

#[test]
fn a_name_with_a_path_is_searched_for_above_the_transfer() {
    let files = [(".r", "- f1\n"), ("/m/top/.r", "- f2\n"), ("/m/.r", "- f3\n"), ("/.r", "- f4\n"), ("x/.r", "- g\n")];
    let all = "a/b/c/f1 a/b/c/f2 a/b/c/f3 a/b/c/f4 a/b/f1 a/b/f2 a/b/f3 a/b/f4 a/f1 a/f2 a/f3 a/f4 \
               f1 f2 f3 f4 x/f1 x/f2 x/f3 x/f4 x/g";
    assert_eq!(hidden(&[": /.r"], &files), all);
    let from_m = "a/b/c/f1 a/b/c/f2 a/b/c/f3 a/b/f1 a/b/f2 a/b/f3 a/f1 a/f2 a/f3 f1 f2 f3 x/f1 x/f2 x/f3 x/g";
    assert_eq!(hidden(&[": ../../.r"], &files), from_m);
    assert_eq!(hidden(&[": /m/.r"], &files), from_m);
    let from_top = "a/b/c/f1 a/b/c/f2 a/b/f1 a/b/f2 a/f1 a/f2 f1 f2 x/f1 x/f2 x/g";
    assert_eq!(hidden(&[": ../.r"], &files), from_top);
    for plain in [": .r", ": ./.r", ": x/.r", ": /nonexist/.r"] {
        assert_eq!(hidden(&[plain], &files), "a/b/c/f1 a/b/f1 a/f1 f1 x/f1 x/g", "{plain}");
    }
    assert_eq!(hidden(&[":n /.r"], &files), "f1 x/g");
}

#[test]
fn rules_from_above_are_anchored_where_they_stand() {
    let files = [("/m/top/.r", "- /src/f2\n- /f4\n- src/f3\n- top/src/f1\n- x/g\n")];
    assert_eq!(hidden(&[": /.r"], &files), "f2 x/g");
    let named = FilterPlace { root_path: b"/m/top".to_vec(), root_is_above: true, ..place(Side::Sender) };
    let files = tree(&[("/m/top/.r", "- /src/f2\n- f3\n"), ("src/f2", ""), ("src/f3", ""), ("src/a/f2", "")]);
    let filter = DirFilter::root(&rules(&[": /.r"]), &named, &mut |dir, name| Ok(read(&files, dir, name))).unwrap();
    let verdict = |path: &[u8]| filter.verdict(&RelPath::new(path).unwrap(), false).is_excluded();
    assert!(verdict(b"src/f2") && verdict(b"src/f3") && !verdict(b"src/a/f2"));
}

#[test]
fn the_slash_modifier_matches_the_absolute_path() {
    let at = |filter: &str| hidden(&[filter], &[]);
    assert_eq!(at("-/ /m/top/src/f1"), "f1");
    assert_eq!(at("-/ /m/top/src/a/f*"), "a/f1 a/f2 a/f3 a/f4");
    assert_eq!(at("-/ m/top/src/f1"), "f1");
    assert_eq!(at("-/ src/f1"), "f1");
    assert_eq!(at("-/ src/f[1]"), "f1");
    assert_eq!(at("-/ /src/f1"), "");
    assert_eq!(at("-/ f1"), "a/b/c/f1 a/b/f1 a/f1 f1 x/f1");
    assert_eq!(at("-/ /**/f1"), "a/b/c/f1 a/b/f1 a/f1 f1 x/f1");
}

#[test]
fn order_decides_between_command_line_and_files() {
    let files = [(".r", "- f1\n")];
    assert_eq!(hidden(&["+ f1", ": .r"], &files), "");
    assert_eq!(hidden(&[": .r", "+ f1"], &files), "a/b/c/f1 a/b/f1 a/f1 f1 x/f1");
    let files = [(".r", "+ f1\n- f2")];
    assert_eq!(hidden(&[": .r", "- f1", ": .r", "- f2"], &files), "a/b/c/f2 a/b/f2 a/f2 f2 x/f2");
    assert_eq!(hidden(&["- f2", "!", "-! a/***", "- f4"], &[]), "a/b/c/f4 a/b/f4 a/f4 f1 f2 f3 f4 g x/");
}

#[test]
fn protection_follows_sides_and_delete_excluded() {
    let files = tree(&[("foo", ""), ("bar", ""), (".r", "- bar\n")]);
    let protected = |filters: &[&str], delete_excluded: bool| {
        excluded(&rules(filters), &FilterPlace { delete_excluded, ..place(Side::Receiver) }, &files)
    };
    assert_eq!(protected(&["- foo"], false), "foo");
    assert_eq!(protected(&["- foo"], true), "");
    for side in ["-r foo", "P foo", "-sr foo", "protect foo"] {
        assert_eq!(protected(&[side], true), "foo", "{side}");
    }
    for side in ["-s foo", "H foo", "hide foo"] {
        assert_eq!(protected(&[side], false), "", "{side}");
    }
    assert_eq!(protected(&["R foo", "- foo"], false), "");
    assert_eq!(protected(&["S foo", "- foo"], false), "foo");
    assert_eq!(protected(&[": .r"], false), "bar");
    assert_eq!(protected(&[": .r"], true), "");
    assert_eq!(protected(&[":r .r"], true), "bar");
    assert_eq!(protected(&[":e .r"], false), ".r bar");
    assert_eq!(protected(&[":e .r"], true), "");
    let perishable = rules(&["-p foo"]);
    let filter = DirFilter::root(&perishable, &place(Side::Receiver), &mut |_, _| Ok(None)).unwrap();
    let path = RelPath::new(b"foo").unwrap();
    assert_eq!(filter.verdict(&path, false), Verdict::Excluded);
    assert_eq!(filter.verdict_in_deleted(&path, false), Verdict::Included);
}

#[test]
fn attribute_rules_judge_attributes_only() {
    let filter = DirFilter::root(&rules(&["-x! user.*", "- user.a"]), &place(Side::Sender), &mut |_, _| Ok(None));
    let filter = filter.unwrap();
    assert_eq!(filter.xattr_verdict(b"user.a"), Some(Verdict::Included));
    assert_eq!(filter.xattr_verdict(b"trusted.a"), Some(Verdict::Excluded));
    assert_eq!(filter.verdict(&RelPath::new(b"trusted.a").unwrap(), false), Verdict::Included);
    assert_eq!(filter.verdict(&RelPath::new(b"user.a").unwrap(), false), Verdict::Excluded);
    let none = DirFilter::root(&FilterRules::new(), &place(Side::Sender), &mut |_, _| Ok(None)).unwrap();
    assert_eq!(none.xattr_verdict(b"user.a"), None);
}

/// Canonical texts of the rules that a file gives.
fn texts(push: impl FnOnce(&mut FilterRules) -> Result<(), FilterError>) -> Vec<String> {
    let mut rules = FilterRules::new();
    push(&mut rules).unwrap();
    Portable::from(rules).rules
}

#[test]
fn files_are_read_as_rsync_reads_them() {
    let exclude_from = |content: &str| texts(|rules| rules.push_exclude_from(b"f", content.as_bytes()));
    assert_eq!(exclude_from("#x\n;x\n\nfoo\r\nbar\rx"), ["-, foo", "-, bar", "-, x"]);
    assert_eq!(exclude_from(" lead\ntrail \n"), ["-,  lead", "-, trail "]);
    assert_eq!(exclude_from("- foo\n+ bar\n-x\n-_y\n"), ["-, foo", "+, bar", "-, -x", "-, -_y"]);
    assert_eq!(exclude_from("foo\n!\nx\n!y\n! \n"), ["-, x", "-, !y", "-, ! "]);
    assert_eq!(texts(|rules| rules.push_include_from(b"f", b"- foo\n*\n")), ["-, foo", "+, *"]);
    let from0 = texts(|rules| {
        rules.set_nul_separated(true);
        rules.push_exclude_from(b"f", b"foo\0#x\0bar\0x\ny")
    });
    assert_eq!(from0, ["-, foo", "-, bar", "-, x\ny"]);
    let merge = |rule: &str, content: &str| {
        texts(|rules| rules.push_filter(rule.as_bytes(), &mut |_| Ok(content.as_bytes().to_vec())))
    };
    assert_eq!(merge(". f", "- #x\n#c\nH foo\n"), ["-, #x", "-,s foo"]);
    assert_eq!(merge(".- f", "+ bar\n!\n"), ["-, + bar", "-, !"]);
    assert_eq!(merge(".-w f", "#x foo\n"), ["-, #x", "-, foo"]);
    assert_eq!(merge(".w f", "- foo + bar\n-_x"), ["-, foo", "+, bar", "-, x"]);
    assert_eq!(merge(".C f", "+ foo\n- bar\nx"), ["-, +", "-, foo", "-, -", "-, bar", "-, x"]);
    assert_eq!(merge(".C f", "foo\n!\nx"), ["-, x"]);
    assert_eq!(merge(".s/p f", "- foo"), ["-,s/p foo"]);
    assert_eq!(merge(".e f", "- foo"), ["-, f", "-, foo"]);
    assert_eq!(merge(":C", ""), [":,Cnw .cvsignore"]);
    assert_eq!(texts(|rules| rules.push_exclude(b"")), [""; 0]);
    assert_eq!(texts(|rules| rules.push_exclude(b"-foo")), ["-, -foo"]);
    assert_eq!(texts(|rules| rules.push_include(b"- foo")), ["-, foo"]);
    let defaults = texts(|rules| {
        rules.push_per_directory_default(1)?;
        rules.push_per_directory_default(2)?;
        rules.push_per_directory_default(3)
    });
    assert_eq!(defaults, [":, /.rsync-filter", "-, .rsync-filter"]);
}

#[test]
fn malformed_rules_are_refused_with_their_place() {
    let kind = |text: &str| {
        let mut rules = FilterRules::new();
        rules.push_filter(text.as_bytes(), &mut |_| Err("gone".to_owned())).map_err(|error| error.kind)
    };
    for good in ["-_foo", "-, foo", "-,s foo", "-rs_foo", "exclude,r foo", "clear", "H,! foo", "-ss foo", ":,e foo"] {
        assert_eq!(kind(good), Ok(()), "{good}");
    }
    for unknown in ["foo", "excludes foo", "dir-mergex foo", " - foo"] {
        assert_eq!(kind(unknown), Err(FilterErrorKind::UnknownRule), "{unknown}");
    }
    for (text, modifier) in [
        ("-foo", b'f'),
        ("Hs foo", b's'),
        ("hide,s foo", b's'),
        ("-e foo", b'e'),
        ("-- foo", b'-'),
        (":+- f", b'-'),
        (":-C f", b'C'),
        (":! f", b'!'),
        ("-sp, foo", b','),
        ("merge,nofile", b'o'),
    ] {
        assert_eq!(kind(text), Err(FilterErrorKind::Modifier(modifier)), "{text}");
    }
    for text in ["-", "- ", "exclude", ".", "merge", ":"] {
        assert_eq!(kind(text), Err(FilterErrorKind::Incomplete), "{text}");
    }
    for text in ["!x", "! x", "clear x", "clear,s"] {
        assert_eq!(kind(text), Err(FilterErrorKind::ClearWithArgument), "{text}");
    }
    assert_eq!(kind("-C"), Err(FilterErrorKind::CvsDefaults));
    assert_eq!(kind(". f"), Err(FilterErrorKind::Unreadable("gone".to_owned())));

    let mut rules = FilterRules::new();
    let error = rules.push_filter(b".s conf", &mut |_| Ok(b"- ok\n\nH foo\n".to_vec())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "filter rule \"H foo\" (conf, line 3): the side is already set by the rule that merges this file"
    );
    let mut forever = |_: &[u8]| Ok(b". again".to_vec());
    let error = FilterRules::new().push_filter(b". f", &mut forever).unwrap_err();
    assert_eq!(error.kind, FilterErrorKind::NestedTooDeep);
    let long = [b"- ".to_vec(), vec![b'x'; limits::FILTER_PATTERN_BYTES_MAX + 1]].concat();
    assert_eq!(FilterRules::new().push_exclude(&long).unwrap_err().kind, FilterErrorKind::PatternTooLong);

    let tree = tree(&[("a/.r", "- ok\nbad\n"), ("a/f", "")]);
    let filter = DirFilter::root(&self::rules(&[": .r"]), &place(Side::Sender), &mut |_, _| Ok(None)).unwrap();
    let inside = RelPath::new(b"a").unwrap();
    let error = filter.enter(&inside, &mut |dir, name| Ok(read(&tree, dir, name))).unwrap_err();
    assert_eq!(error.to_string(), "filter rule \"bad\" (a/.r, line 2): unknown filter rule");
}

#[test]
fn endless_files_are_bounded() {
    let mut many = FilterRules::new();
    let content = b"x\n".repeat(limits::FILTER_RULES_MAX + 1);
    assert_eq!(many.push_exclude_from(b"f", &content).unwrap_err().kind, FilterErrorKind::TooManyRules);
    let mut merges = FilterRules::new();
    let error = (0..1000).find_map(|n| merges.push_filter(format!(": .r{n}").as_bytes(), &mut |_| Ok(vec![])).err());
    assert_eq!(error.unwrap().kind, FilterErrorKind::TooManyMerges);
    // Every file names the next one.
    let filter = DirFilter::root(&rules(&[": .0"]), &place(Side::Sender), &mut |_, _| Ok(None)).unwrap();
    let error = filter.enter(&RelPath::root(), &mut |_, name| {
        let number: usize = std::str::from_utf8(&name[1..]).unwrap().parse().unwrap();
        Ok(Some(format!(": .{}\n", number + 1).into_bytes()))
    });
    assert_eq!(error.unwrap_err().kind, FilterErrorKind::TooManyMerges);
}

/// Each file merges the next one twice: shallow, without a single rule, and yet without an end.
#[test]
fn files_that_merge_each_other_twice_are_bounded() {
    let mut reads = 0;
    let mut double = |name: &[u8]| {
        reads += 1;
        let next = char::from(name[0]) as u32 + 1;
        let next = char::from_u32(next).filter(|next| *next <= 'z');
        next.map_or(Vec::new(), |next| format!(". {next}\n. {next}\n").into_bytes())
    };
    let error = FilterRules::new().push_filter(b". a", &mut |name| Ok(double(name))).unwrap_err();
    assert_eq!(error.kind, FilterErrorKind::TooManyFiles);
    let filter = DirFilter::root(&rules(&[": a"]), &place(Side::Receiver), &mut |_, _| Ok(None)).unwrap();
    let error = filter.enter(&RelPath::root(), &mut |_, name| Ok(Some(double(name)))).unwrap_err();
    assert_eq!(error.kind, FilterErrorKind::TooManyFiles);
    assert!(reads <= 2 * limits::FILTER_MERGE_FILES_MAX + 2, "{reads}");

    // Few files, much to read in each.
    let comments = [b"#\n".repeat(limits::FILTER_FILE_BYTES_MAX as usize / 8), b". f\n".to_vec()].concat();
    let mut reads = 0;
    let error = FilterRules::new().push_filter(b". f", &mut |_| {
        reads += 1;
        Ok(comments.clone())
    });
    assert_eq!((error.unwrap_err().kind, reads), (FilterErrorKind::FileTooLarge, 4));
}

#[test]
fn directories_without_merge_files_share_everything() {
    let filter = DirFilter::root(&rules(&["- x", ": .r"]), &place(Side::Sender), &mut |_, _| Ok(None)).unwrap();
    assert_eq!(filter.merge_file_names(), [b".r"]);
    let mut asked = 0;
    let inside = filter
        .enter(&RelPath::new(b"a").unwrap(), &mut |dir, name| {
            asked += 1;
            assert_eq!((dir, name), (MergeDir::Inside(&RelPath::new(b"a").unwrap()), &b".r"[..]));
            Ok(None)
        })
        .unwrap();
    assert_eq!(asked, 1);
    assert!(inside.has_merge_files());
    fn shared<T: Send + Sync + Clone>(_: &T) {}
    shared(&inside);
}

#[test]
fn hostile_values_are_refused_when_read() {
    let refused = |json: &str| serde_json::from_str::<FilterRules>(json).is_err();
    assert!(refused(r#"{"rules":[". /etc/passwd"],"nul_separated":false}"#));
    assert!(refused(r#"{"rules":["!"],"nul_separated":false}"#));
    assert!(refused(r#"{"rules":["- \u0100"],"nul_separated":false}"#));
    assert!(refused(r#"{"rules":[],"nul_separated":false,"more":1}"#));
    assert!(!refused(r#"{"rules":["- a"],"nul_separated":false}"#));
}

proptest! {
    #[test]
    fn rules_cross_the_wire_unchanged(
        filters in proptest::collection::vec(
            ("[-+]|H|P|S|R", "[/!p]{0,3}", proptest::collection::vec(1u8..=255, 1..20)), 0..20),
        merge in proptest::option::of(("[-+C]?", "[nwe/psr]{0,4}", "[a-z./]{0,6}[a-z.]")),
        nul_separated: bool,
    ) {
        let mut rules = FilterRules::new();
        rules.set_nul_separated(nul_separated);
        for (kind, modifiers, pattern) in filters {
            let text = [kind.as_bytes(), b",", modifiers.as_bytes(), b" ", &pattern].concat();
            rules.push_filter(&text, &mut |_| Ok(Vec::new())).unwrap();
        }
        if let Some((kind, modifiers, name)) = merge {
            rules.push_filter(format!(":{kind}{modifiers} {name}").as_bytes(), &mut |_| Ok(Vec::new())).unwrap();
        }
        let json = serde_json::to_string(&rules).unwrap();
        prop_assert_eq!(serde_json::from_str::<FilterRules>(&json).unwrap(), rules);
    }

    #[test]
    fn no_text_panics(text in proptest::collection::vec(any::<u8>(), 0..60), path in "[a-z]{1,3}(/[a-z]{1,3}){0,3}") {
        let mut rules = FilterRules::new();
        let _ = rules.push_filter(&text, &mut |_| Ok(text.clone()));
        let _ = rules.push_exclude_from(b"f", &text);
        let filter = DirFilter::root(&rules, &place(Side::Sender), &mut |_, _| Ok(Some(text.clone())));
        if let Ok(filter) = filter {
            filter.verdict(&RelPath::new(path.as_bytes()).unwrap(), true);
        }
    }
}
