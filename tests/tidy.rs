//! The rules of the house that a program can hold: who imports whom, how long a file may be, what is never written.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests stand outside the rooms")]

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from the top down: a room imports only rooms above it.
const ROOMS: &[&str] = &[
    "limits", "model", "monitor", "plan", "delta", "wire", "blob", "fs", "net", "store", "state", "sync", "backfill",
    "cutover", "cli",
];

/// Jobs never import each other: the face wires them together.
const JOBS: &[&str] = &["sync", "backfill", "cutover"];

/// Lines that a file may have.
const LINES_MAX: usize = 800;

/// Files that may be longer: path and reason. Empty is the goal.
const LONGER: &[(&str, &str)] = &[];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files beneath `dir`, as paths relative to the crate with their text.
fn sources(dir: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![root().join(dir)];
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// The code alone: comments and the insides of string literals become spaces, lines stay.
fn code_of(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
    while at < bytes.len() {
        let rest = |n: usize| bytes.get(at + n).copied().unwrap_or('\0');
        let word_before = at > 0 && (bytes[at - 1].is_alphanumeric() || bytes[at - 1] == '_');
        if rest(0) == '/' && rest(1) == '/' {
            while at < bytes.len() && bytes[at] != '\n' {
                code.push(' ');
                at += 1;
            }
        } else if rest(0) == '/' && rest(1) == '*' {
            let mut depth = 0;
            loop {
                let pair = (bytes.get(at).copied(), bytes.get(at + 1).copied());
                match pair {
                    (Some('/'), Some('*')) => depth += 1,
                    (Some('*'), Some('/')) => depth -= 1,
                    (None, _) => break,
                    _ => {
                        code.push(blank(bytes[at]));
                        at += 1;
                        continue;
                    }
                }
                code.push_str("  ");
                at += 2;
                if depth == 0 {
                    break;
                }
            }
        } else if rest(0) == 'r'
            && !word_before
            && (rest(1) == '"' || (rest(1) == '#' && (rest(2) == '"' || rest(2) == '#')))
        {
            let mut hashes = 0;
            while rest(1 + hashes) == '#' {
                hashes += 1;
            }
            let end: String = format!("\"{}", "#".repeat(hashes));
            at += 2 + hashes;
            let tail: String = bytes[at.min(bytes.len())..].iter().collect();
            let length = tail.find(&end).map_or(tail.len(), |found| found + end.len());
            let inside: Vec<char> = tail[..length].chars().collect();
            code.extend(inside.iter().map(|&c| blank(c)));
            at += inside.len();
        } else if rest(0) == '"' {
            code.push('"');
            at += 1;
            while at < bytes.len() && bytes[at] != '"' {
                if bytes[at] == '\\' {
                    code.push(' ');
                    at += 1;
                }
                if at < bytes.len() {
                    code.push(blank(bytes[at]));
                    at += 1;
                }
            }
            code.push('"');
            at += 1;
        } else if rest(0) == '\'' && ((rest(1) == '\\') || rest(2) == '\'') {
            // A character literal, not a lifetime.
            let mut end = at + 2;
            while end < bytes.len() && bytes[end] != '\'' || (end == at + 2 && bytes[at + 1] == '\\') {
                end += 1;
            }
            code.extend(std::iter::repeat_n(' ', end + 1 - at));
            at = end + 1;
        } else {
            code.push(bytes[at]);
            at += 1;
        }
    }
    code
}

/// The room of a file in `src/`; `None` for the crate's own root files.
fn room_of(path: &str) -> Option<&str> {
    let inner = path.strip_prefix("src/")?;
    let room = inner.split('/').next()?.trim_end_matches(".rs");
    (room != "lib" && room != "main").then_some(room)
}

/// The rooms that code names by `crate::…`, grouped imports included, or by climbing out with `super`.
fn imported(path: &str, code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let flat: String = code.split_whitespace().collect::<Vec<_>>().join(" ").replace(" :: ", "::").replace(":: ", "::");
    for (at, _) in flat.match_indices("crate::") {
        let before = flat[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        names_after(&flat[at + "crate::".len()..], &mut found);
    }
    // `super` out of the room: the file's own depth beneath the root says how many lead there; a test module inside
    // the file adds one.
    let inner = path.strip_prefix("src/").unwrap_or(path).trim_end_matches(".rs");
    let depth = inner.split('/').filter(|part| *part != "mod").count();
    let (outside, inside) = flat.split_once("mod tests {").unwrap_or((&flat, ""));
    for (text, extra) in [(outside, 0), (inside, 1)] {
        let climb = "super::".repeat(depth + extra);
        let mut from = 0;
        while let Some(start) = text[from..].find(&climb) {
            let after = from + start + climb.len();
            names_after(&text[after..], &mut found);
            from = after;
        }
    }
    found
}

/// The first path segments of what follows `crate::`: one name, or those of a group.
fn names_after(text: &str, found: &mut Vec<String>) {
    let name =
        |text: &str| -> String { text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    if !text.starts_with('{') {
        found.push(name(text));
        return;
    }
    let (mut depth, mut fresh) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '{' => {
                depth += 1;
                fresh = depth == 1;
            }
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return;
                }
            }
            ',' => fresh = depth == 1,
            ' ' => {}
            _ if fresh => {
                found.push(name(&text[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
}

/// Everything wrong with one file of `src/`, by the import table.
fn import_faults(path: &str, text: &str) -> Vec<String> {
    let Some(room) = room_of(path) else { return Vec::new() };
    let Some(place) = ROOMS.iter().position(|name| *name == room) else {
        return vec![format!("{path}: the room `{room}` is not in the table")];
    };
    let mut faults = Vec::new();
    for name in imported(path, &code_of(text)) {
        match ROOMS.iter().position(|room| *room == name) {
            Some(other) if other > place => faults.push(format!("{path}: `{room}` must not know `{name}`")),
            Some(other) if other != place && JOBS.contains(&room) && JOBS.contains(&ROOMS[other]) => {
                faults.push(format!("{path}: the jobs `{room}` and `{name}` must not know each other"));
            }
            Some(_) => {}
            None => faults.push(format!("{path}: `crate::{name}` is not a room")),
        }
    }
    faults.sort();
    faults.dedup();
    faults
}

/// Everything wrong with one file, by the other rules.
fn other_faults(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > LINES_MAX && !LONGER.iter().any(|(name, _)| *name == path) {
        faults.push(format!("{path}: {lines} lines, at most {LINES_MAX} are allowed: it is two files"));
    }
    let code = code_of(text);
    let has = |word: &str| {
        code.match_indices(word)
            .any(|(at, _)| !code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_'))
    };
    for word in ["todo!", "unimplemented!"] {
        if has(word) {
            faults.push(format!("{path}: `{word}`: nothing is left undone"));
        }
    }
    if has("#[ignore") {
        faults.push(format!("{path}: `#[ignore]`: no test skips itself"));
    }
    if path.starts_with("src/") && room_of(path) != Some("cli") && !path.starts_with("src/cli") {
        for word in ["println!", "eprintln!", "print!", "eprint!", "dbg!", "stdout(", "stderr("] {
            let outside_tests = code.split("#[cfg(test)]").next().unwrap_or(&code);
            let printed = outside_tests.match_indices(word).any(|(at, _)| {
                let before = outside_tests[..at].chars().next_back();
                // `.stdout(…)` configures a child process.
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.')
            });
            // The far end of a remote shell speaks the protocol there: a link, not text.
            let is_link = path == "src/net/link.rs" && word == "stdout(";
            if printed && !is_link {
                faults.push(format!("{path}: `{word}`: only the face prints"));
            }
        }
    }
    faults
}

fn none(faults: Vec<String>) {
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn rooms_import_only_rooms_above_them() {
    let sources = sources("src");
    assert!(sources.len() > 10, "the sources were not found");
    none(sources.iter().flat_map(|(path, text)| import_faults(path, text)).collect());
}

#[test]
fn files_are_short_complete_and_quiet() {
    let all = ["src", "tests", "benches"].into_iter().flat_map(sources);
    none(all.flat_map(|(path, text)| other_faults(&path, &text)).collect());
}

#[test]
fn exceptions_have_a_reason_and_a_file() {
    for (path, reason) in LONGER {
        assert!(reason.len() > 20, "{path} needs a reason");
        assert!(root().join(path).exists(), "{path} is gone: so is its exception");
    }
}

/// Everything in `src/` belongs to a room of the table.
#[test]
fn every_module_is_a_room() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    for line in code_of(&lib).lines() {
        if let Some(name) = line.trim().strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) {
            assert!(ROOMS.contains(&name), "`{name}` is not in the table of rooms");
            let file = Path::new("src").join(format!("{name}.rs"));
            assert!(root().join("src").join(name).is_dir() || root().join(file).is_file());
        }
    }
}

#[test]
fn violations_are_caught() {
    let caught = |path: &str, text: &str| !import_faults(path, text).is_empty();
    assert!(caught("src/plan/a.rs", "use crate::fs::Dir;"));
    assert!(caught("src/plan/a.rs", "use crate::{limits, model::{Name, Kind}, net::Address};"));
    assert!(caught("src/plan/a.rs", "use crate::{\n    limits,\n    sync,\n};"));
    assert!(caught("src/plan/a.rs", "fn f(x: &crate::cli::Args) {}"));
    assert!(caught("src/plan/a.rs", "use super::super::sync::run;"));
    assert!(caught("src/plan/mod.rs", "use super::sync::run;"));
    assert!(caught("src/plan/deep/a.rs", "use super::super::super::wire::Frame;"));
    assert!(caught("src/plan/a.rs", "mod tests { use super::super::super::wire::Frame; }"));
    assert!(caught("src/sync/a.rs", "use crate::backfill::run;"));
    assert!(caught("src/cutover/a.rs", "use crate::sync::run;"));
    assert!(caught("src/junk/a.rs", ""));
    assert!(caught("src/fs/a.rs", "use crate::misc::x;"));
    assert!(caught("src/limits.rs", "use crate::model::Name;"));

    let fine = |path: &str, text: &str| none(import_faults(path, text));
    fine("src/plan/a.rs", "use crate::{limits, model::{Name, fs}, plan::filter};");
    fine("src/plan/a.rs", "use super::super::model::Name; use super::filter::sync;");
    fine(
        "src/plan/a.rs",
        "// use crate::fs::Dir;\n/* crate::fs */ const X: &str = \"crate::sync\"; /// [`crate::fs`]\n",
    );
    fine("src/plan/a.rs", "const X: char = '\"'; use crate::limits; const Y: char = '\\''; use crate::model;");
    fine("src/plan/a.rs", "mod tests { use super::super::filter; }");
    fine("src/cli/a.rs", "use crate::{sync, backfill, cutover, fs};");
    fine("src/main.rs", "fn main() { xfer::cli::main() }");

    let wrong = |path: &str, text: &str| !other_faults(path, text).is_empty();
    let mark = ["to", "do!()"].concat();
    assert!(wrong("src/plan/a.rs", &format!("fn f() {{ {mark} }}")));
    assert!(wrong("tests/a.rs", &["#[ig", "nore]\nfn f() {}"].concat()));
    assert!(wrong("src/plan/a.rs", "fn f() { println!(\"x\") }"));
    assert!(wrong("src/sync/a.rs", "fn f() { let x = std::io::stdout(); }"));
    assert!(wrong("src/plan/a.rs", &"\n".repeat(LINES_MAX + 1)));
    assert!(!wrong("src/cli/a.rs", "fn f() { println!(\"x\") }"));
    assert!(!wrong("src/net/a.rs", "fn f() { command.stdout(pipe) }"));
    assert!(!wrong("src/plan/a.rs", "// println!\nconst X: &str = r#\"println!(\"\"#;"));
    assert!(!wrong("src/plan/a.rs", &"\n".repeat(LINES_MAX)));
}
