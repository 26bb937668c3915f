use super::*;
use crate::cli::args::tests::parse;
use crate::cli::console::tests::Captured;
use crate::model::{KindCounts, Operation, Timestamp};
use crate::monitor::Changes;

struct Shown {
    face: Face,
    out: Captured,
    err: Captured,
}

impl Shown {
    fn new(flags: &[&str]) -> Shown {
        let settings = Settings::from_occurrences(parse(flags).unwrap().occurrences).unwrap();
        let (out, err) = (Captured::default(), Captured::default());
        let console = Console::new(Box::new(out.clone()), Box::new(err.clone()), false);
        Shown { face: Face::new(&settings, false, console).unwrap(), out, err }
    }

    fn run(self, events: Vec<Event>) -> (String, String) {
        self.face.begin("sync", &["s/".to_owned()], Some(&"d".to_owned()));
        events.into_iter().for_each(|event| self.face.event(event));
        self.face.console().flush();
        (self.out.text(), self.err.text())
    }
}

fn item(path: &str, kind: Kind, action: Action, letters: &str) -> Event {
    let mut changes = Changes::default();
    for letter in letters.chars() {
        match letter {
            '+' => changes.created = true,
            'c' => changes.content = true,
            's' => changes.size = true,
            't' => changes.mtime = true,
            'p' => changes.mode = true,
            other => panic!("{other}"),
        }
    }
    let (path, link_target) = match path.split_once(" -> ") {
        Some((path, target)) => (path, Some(target.as_bytes().to_vec())),
        None => (path, None),
    };
    let (path, hard_link_to) = match path.split_once(" => ") {
        Some((path, first)) => (path, Some(first.as_bytes().to_vec())),
        None => (path, None),
    };
    Event::Item(Item {
        path: path.as_bytes().to_vec(),
        kind,
        action,
        changes,
        link_target,
        hard_link_to,
        size: 11,
        mtime: Timestamp::new(1_577_934_245, 0),
        mode: 0o644,
        uid: 0,
        gid: 0,
        literal_bytes: 11,
        dry_run: false,
    })
}

/// A second sync after some changes, as rsync 3.5 tells it with `-aH`: see the texts below.
fn second_sync() -> Vec<Event> {
    vec![
        item("zz/1", Kind::File, Action::Deleted, ""),
        item("zz", Kind::Dir, Action::Deleted, ""),
        item("yy", Kind::File, Action::Deleted, ""),
        item("", Kind::Dir, Action::Unchanged, ""),
        item("a", Kind::File, Action::Unchanged, "p"),
        item("big", Kind::File, Action::Unchanged, ""),
        item("new", Kind::File, Action::Received, "st"),
        item("hard => a", Kind::File, Action::HardLinked, "+"),
        item("tied => a", Kind::File, Action::HardLinked, ""),
        item("link -> big", Kind::Symlink, Action::Changed, "ct"),
        item("empty", Kind::Dir, Action::Changed, "+"),
        item("sub", Kind::Dir, Action::Unchanged, "t"),
    ]
}

#[test]
fn quiet_by_default() {
    assert_eq!(Shown::new(&["-a"]).run(second_sync()).0, "");
    assert_eq!(Shown::new(&["-aivq", "--stats", "--out-format=%n"]).run(second_sync()).0, "");
}

#[test]
fn names_are_rsyncs() {
    insta::assert_snapshot!(Shown::new(&["-aHv"]).run(second_sync()).0, @r"
    sending incremental file list
    deleting zz/1
    deleting zz/
    deleting yy
    new
    hard => a
    link -> big
    empty/
    sub/
    ");
    insta::assert_snapshot!(Shown::new(&["-aHvv"]).run(second_sync()).0, @r"
    sending incremental file list
    deleting zz/1
    deleting zz/
    deleting yy
    a
    big is uptodate
    new
    hard => a
    tied is uptodate
    link -> big
    empty/
    sub/
    ");
}

#[test]
fn itemized_lines_are_rsyncs() {
    insta::assert_snapshot!(Shown::new(&["-aHi"]).run(second_sync()).0, @r"
    *deleting   zz/1
    *deleting   zz/
    *deleting   yy
    .f...p..... a
    >f.st...... new
    hf+++++++++ hard => a
    cLc.t...... link -> big
    cd+++++++++ empty/
    .d..t...... sub/
    ");
    insta::assert_snapshot!(Shown::new(&["-aHii"]).run(second_sync()).0, @r"
    *deleting   zz/1
    *deleting   zz/
    *deleting   yy
    .d          ./
    .f...p..... a
    .f          big
    >f.st...... new
    hf+++++++++ hard => a
    hf          tied => a
    cLc.t...... link -> big
    cd+++++++++ empty/
    .d..t...... sub/
    ");
}

#[test]
fn a_format_of_ones_own_shows_what_names_would() {
    insta::assert_snapshot!(Shown::new(&["-a", "--out-format=%n%L %o %l"]).run(second_sync()).0, @r"
    zz/1 del. 11
    zz/ del. 11
    yy del. 11
    new send 11
    hard => a send 11
    link -> big send 11
    empty/ send 11
    sub/ send 11
    ");
}

#[test]
fn problems_are_told_as_they_happen_and_grouped_at_the_end() {
    let shown = Shown::new(&["-av"]);
    shown.face.event(item("new", Kind::File, Action::Received, "+"));
    for name in ["x\u{1b}", "y"] {
        let problem = Problem::new(ProblemKind::Source, Operation::Open, name, "Permission denied");
        shown.face.event(Event::Problem(problem));
    }
    shown.face.event(Event::Problem(Problem::new(ProblemKind::Warning, Operation::Create, "data", "nested")));
    shown.face.event(Event::Notice("nothing was deleted: the source could not be read in full".to_owned()));
    let stats = Stats { deletions_withheld: 7, source_problems: 2, ..Stats::default() };
    shown.face.end(&Ending { stats: &stats, code: Code::Partial, elapsed_ms: 0, listing_ms: 0 });
    insta::assert_snapshot!(shown.err.text(), @r#"
    xfer: cannot open "x\#033": Permission denied
    xfer: cannot open "y": Permission denied
    xfer: warning: "data": nested
    xfer: nothing was deleted: the source could not be read in full
    xfer: 7 extraneous items were not deleted
    xfer: finished with 2 problems (code 23): 2 items of the source could not be read
    "#);
    insta::assert_snapshot!(shown.out.text(), @r"
    new

    sent 0 bytes  received 0 bytes  0.00 bytes/sec
    total size is 0  speedup is 0.00
    ");
}

#[test]
fn statistics_come_before_totals() {
    let shown = Shown::new(&["-a", "--stats"]);
    let listed = KindCounts { files: 1, dirs: 1, ..KindCounts::default() };
    let stats = Stats { listed, sent_bytes: 10, received_bytes: 5, total_bytes: 30, ..Stats::default() };
    shown.face.end(&Ending { stats: &stats, code: Code::Complete, elapsed_ms: 0, listing_ms: 2 });
    let text = shown.out.text();
    assert!(text.starts_with("\nNumber of files: 2 (reg: 1, dir: 1)\n"), "{text}");
    assert!(
        text.ends_with("\n\nsent 10 bytes  received 5 bytes  30.00 bytes/sec\ntotal size is 30  speedup is 2.00\n")
    );
    assert_eq!(shown.err.text(), "");
}

#[test]
fn listings_show_everything() {
    let (out, _) = Shown::new(&["-rl", "--list-only", "-v"])
        .run(vec![item("", Kind::Dir, Action::Unchanged, ""), item("l -> t", Kind::Symlink, Action::Unchanged, "")]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("drw-r--r--             11 2020/01/0") && lines[0].ends_with(" ."), "{}", lines[0]);
    assert!(lines[1].ends_with(" l -> t"));
}

#[test]
fn json_lines_are_json_and_nothing_else_is_on_stdout() {
    let mut events = second_sync();
    events.push(Event::Detail("skipping directory x".to_owned()));
    events.push(Event::Problem(Problem::new(ProblemKind::Changed, Operation::Read, b"\xff".to_vec(), "grew")));
    let shown = Shown::new(&["-av", "--stats", "--json", "--progress"]);
    let (out, err) = (shown.out.clone(), shown.err.clone());
    shown.face.begin("sync", &["s/".to_owned()], None);
    events.into_iter().for_each(|event| shown.face.event(event));
    shown.face.end(&Ending { stats: &Stats::default(), code: Code::Partial, elapsed_ms: 1, listing_ms: 1 });
    shown.face.fail(&Failure::failed("no route").with_hint("look at the cable"));
    let names: Vec<String> = out
        .text()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names.first().map(String::as_str), Some("start"));
    assert_eq!(names.iter().filter(|name| *name == "item").count(), 12);
    assert_eq!(names[names.len() - 4..], ["detail", "problem", "error", "summary"]);
    assert!(err.text().ends_with("xfer: no route\nxfer: hint: look at the cable\n"));
}

#[test]
fn the_log_has_items_problems_and_totals() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let shown = Shown::new(&["-a", &format!("--log-file={}", path.display())]);
    shown.face.begin("sync", &[], None);
    second_sync().into_iter().for_each(|event| shown.face.event(event));
    shown.face.event(Event::Problem(Problem::new(ProblemKind::Vanished, Operation::Open, "v", "")));
    shown.face.end(&Ending { stats: &Stats::default(), code: Code::Vanished, elapsed_ms: 0, listing_ms: 0 });
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().filter_map(|line| line.split_once("] ").map(|(_, rest)| rest)).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    building file list
    *deleting   zz/1
    *deleting   zz/
    *deleting   yy
    .f...p..... a
    >f.st...... new
    hf+++++++++ hard => a
    cLc.t...... link -> big
    cd+++++++++ empty/
    .d..t...... sub/
    xfer: file has vanished: "v"
    sent 0 bytes  received 0 bytes  total size 0
    xfer: finished with 1 problem (code 24): 1 file vanished
    "#);
    assert_eq!(shown.out.text(), "");
}

#[test]
fn the_clock_flushes_and_stops() {
    let shown = Shown::new(&["-av"]);
    let out = shown.out.clone();
    let face = Arc::new(shown.face);
    let clock = Clock::start(&face, &StopFlag::default());
    face.event(item("a", Kind::File, Action::Received, "+"));
    let deadline = Instant::now() + Duration::from_secs(10);
    while out.text().is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(out.text(), "a\n");
    drop(clock);
}
