//! `--json`: one event a line. Field names are promised in `docs/json.md`.

use serde::Serialize;

use super::super::exit::Code;
use crate::model::{Kind, Operation, Problem, ProblemKind, Stats};
use crate::monitor::{Action, Changes, Counters, Item, Phase};

/// Raw bytes of a path. `path` is exact where it is UTF-8; else `path_hex` is, and `path` is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct JsonPath {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
}

impl JsonPath {
    /// From raw bytes.
    pub(crate) fn new(bytes: &[u8]) -> JsonPath {
        match std::str::from_utf8(bytes) {
            Ok(text) => JsonPath { path: text.to_owned(), path_hex: None },
            Err(_) => {
                let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                JsonPath { path: String::from_utf8_lossy(bytes).into_owned(), path_hex: Some(hex) }
            }
        }
    }
}

/// Running totals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ProgressSnapshot {
    pub(crate) entries_listed: u64,
    pub(crate) bytes_listed: u64,
    pub(crate) entries_done: u64,
    pub(crate) bytes_done: u64,
    pub(crate) files_transferred: u64,
    pub(crate) bytes_transferred: u64,
    pub(crate) deleted: u64,
    pub(crate) problems: u64,
    pub(crate) listing_complete: bool,
}

impl ProgressSnapshot {
    /// What the counters say now.
    pub(crate) fn of(counters: &Counters) -> ProgressSnapshot {
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        ProgressSnapshot {
            entries_listed: read(&counters.entries_listed),
            bytes_listed: read(&counters.bytes_listed),
            entries_done: read(&counters.entries_done),
            bytes_done: read(&counters.bytes_done),
            files_transferred: read(&counters.files_transferred),
            bytes_transferred: read(&counters.bytes_transferred),
            deleted: read(&counters.deleted),
            problems: read(&counters.problems),
            listing_complete: read(&counters.listing_complete) != 0,
        }
    }
}

/// One line.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum JsonEvent {
    /// First of all.
    Start {
        version: &'static str,
        command: &'static str,
        sources: Vec<String>,
        destination: Option<String>,
        dry_run: bool,
    },
    /// An entry was dealt with.
    Item {
        #[serde(flatten)]
        path: JsonPath,
        kind: Kind,
        action: Action,
        changes: Vec<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        link_target: Option<JsonPath>,
        #[serde(skip_serializing_if = "Option::is_none")]
        hard_link_to: Option<JsonPath>,
        size: u64,
        mtime_s: i64,
        mtime_ns: u32,
        mode: u32,
        uid: u32,
        gid: u32,
        literal_bytes: u64,
        dry_run: bool,
    },
    /// One item failed.
    Problem {
        kind: ProblemKind,
        operation: Operation,
        #[serde(flatten)]
        path: JsonPath,
        reason: String,
        errno: Option<i32>,
        message: String,
    },
    /// Something to know.
    Notice { message: String },
    /// A detail.
    Detail { message: String },
    /// What the run is doing.
    Phase { phase: Phase },
    /// Running totals.
    Progress {
        #[serde(flatten)]
        counters: ProgressSnapshot,
        current: JsonPath,
    },
    /// The job could not go on.
    Error { message: String, hint: Option<String>, exit_code: u8 },
    /// Last of all.
    Summary {
        exit_code: u8,
        meaning: &'static str,
        problems: u64,
        elapsed_ms: u64,
        stats: Option<Box<Stats>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        equal: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tree_digest: Option<String>,
    },
}

impl JsonEvent {
    /// Of an item.
    pub(crate) fn item(item: &Item) -> JsonEvent {
        JsonEvent::Item {
            path: JsonPath::new(&item.path),
            kind: item.kind,
            action: item.action,
            changes: changed_names(&item.changes),
            link_target: item.link_target.as_deref().map(JsonPath::new),
            hard_link_to: item.hard_link_to.as_deref().map(JsonPath::new),
            size: item.size,
            mtime_s: item.mtime.seconds,
            mtime_ns: item.mtime.nanoseconds,
            mode: item.mode,
            uid: item.uid,
            gid: item.gid,
            literal_bytes: item.literal_bytes,
            dry_run: item.dry_run,
        }
    }

    /// Of a problem.
    pub(crate) fn problem(problem: &Problem) -> JsonEvent {
        JsonEvent::Problem {
            kind: problem.kind,
            operation: problem.operation,
            path: JsonPath::new(&problem.path),
            reason: problem.reason.clone(),
            errno: problem.errno,
            message: problem.to_string(),
        }
    }

    /// Of the end.
    pub(crate) fn summary(code: Code, problems: u64, elapsed_ms: u64, stats: Option<&Stats>) -> JsonEvent {
        JsonEvent::Summary {
            exit_code: code.number(),
            meaning: code.meaning(),
            problems,
            elapsed_ms,
            stats: stats.map(|stats| Box::new(stats.clone())),
            equal: None,
            tree_digest: None,
        }
    }

    /// The line, with its end.
    pub(crate) fn to_line(&self) -> Vec<u8> {
        // These types hold nothing that JSON cannot: serialising them to memory does not fail.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

fn changed_names(changes: &Changes) -> Vec<&'static str> {
    [
        (changes.created, "created"),
        (changes.content, "content"),
        (changes.size, "size"),
        (changes.mtime, "mtime"),
        (changes.mtime_now, "mtime_now"),
        (changes.mode, "mode"),
        (changes.owner, "owner"),
        (changes.group, "group"),
        (changes.atime, "atime"),
        (changes.acl, "acl"),
        (changes.xattr, "xattr"),
    ]
    .into_iter()
    .filter_map(|(differs, name)| differs.then_some(name))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::super::items::tests::item;
    use super::*;

    fn text(event: &JsonEvent) -> String {
        String::from_utf8(event.to_line()).unwrap()
    }

    #[test]
    fn field_names_are_stable() {
        let mut file = item("a", Kind::File, Action::Received);
        file.path = b"caf\xc3\xa9\n".to_vec();
        file.changes.size = true;
        file.changes.mtime = true;
        insta::assert_snapshot!(text(&JsonEvent::item(&file)), @r#"{"event":"item","path":"café\n","kind":"file","action":"received","changes":["size","mtime"],"size":1234567,"mtime_s":1577934245,"mtime_ns":123000000,"mode":420,"uid":0,"gid":7,"literal_bytes":99,"dry_run":false}"#);
        let problem = Problem::new(ProblemKind::Source, Operation::Open, b"x\xff".to_vec(), "Permission denied");
        insta::assert_snapshot!(text(&JsonEvent::problem(&problem)), @r#"{"event":"problem","kind":"source","operation":"open","path":"x�","path_hex":"78ff","reason":"Permission denied","errno":null,"message":"cannot open \"x\\#377\": Permission denied"}"#);
        insta::assert_snapshot!(text(&JsonEvent::Phase { phase: Phase::Deleting }), @r#"{"event":"phase","phase":"deleting"}"#);
        let progress =
            JsonEvent::Progress { counters: ProgressSnapshot::of(&Counters::default()), current: JsonPath::new(b"a") };
        insta::assert_snapshot!(text(&progress), @r#"{"event":"progress","entries_listed":0,"bytes_listed":0,"entries_done":0,"bytes_done":0,"files_transferred":0,"bytes_transferred":0,"deleted":0,"problems":0,"listing_complete":false,"current":{"path":"a"}}"#);
        insta::assert_snapshot!(text(&JsonEvent::summary(Code::Partial, 2, 15, None)), @r#"{"event":"summary","exit_code":23,"meaning":"finished, but some items failed or differ","problems":2,"elapsed_ms":15,"stats":null}"#);
    }
}
