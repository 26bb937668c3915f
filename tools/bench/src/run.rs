//! Benchmarks proper: makes each workload, lets the peers take turns, has every result judged.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Context, Error, Result};
use crate::judge::{Fidelity, Manifest};
use crate::link::{Link, LinkKind};
use crate::machine;
use crate::peer::{Peer, Servers};
use crate::process::{argv, check_interrupted, children_cpu, prepare, servers_cpu, settle, shown, timed};
use crate::report::{Outcome, Report, Row, Run};
use crate::workload::{Basis, Size, Trees, Workload};

/// What is to be measured.
pub(crate) struct Settings {
    pub(crate) workloads: Vec<&'static Workload>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) runs: usize,
    pub(crate) size: Size,
    pub(crate) link: LinkKind,
    /// TCP's congestion control, if not the kernel's default.
    pub(crate) congestion: Option<String>,
    /// Where trees are made, in a directory of their own.
    pub(crate) dir: PathBuf,
    /// After how long a run is killed.
    pub(crate) limit: Duration,
    /// This tool's own command line.
    pub(crate) command: String,
}

/// A directory of its own that goes with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(dir: &Path) -> Result<Scratch> {
        use std::os::unix::fs::DirBuilderExt;
        let path = dir.join(format!("xfer-bench-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path).context(|| format!("create {}", path.display()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("xfer-bench: {} cannot be removed: {error}", self.0.display());
        }
    }
}

/// Says which directories earlier calls have left that were killed.
fn tell_leftovers(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix("xfer-bench-")) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            eprintln!("xfer-bench: a call that was killed has left {}: remove it", entry.path().display());
        }
    }
}

/// A peer with what has happened to it in one workload.
struct Turn<'a> {
    peer: &'a Peer,
    runs: Vec<Run>,
    ended: Option<Outcome>,
}

/// One call of the tool.
struct Bench<'a> {
    settings: &'a Settings,
    link: Link,
    servers: Servers,
    scratch: Scratch,
    notes: Vec<String>,
    /// Peers that can run nothing here, and why.
    absent: Vec<(String, String)>,
}

/// Measures everything that was asked for. Where that ends early, what was measured until then comes with the error.
pub(crate) fn run(settings: &Settings) -> Result<(Report, Result<()>)> {
    tell_leftovers(&settings.dir);
    let scratch = Scratch::new(&settings.dir)?;
    let link = Link::up(settings.link, settings.congestion.as_deref())?;
    let mut bench =
        Bench { settings, link, servers: Servers::default(), scratch, notes: Vec::new(), absent: Vec::new() };
    let mut report = Report {
        date: machine::today(),
        command: settings.command.clone(),
        machine: machine::described(),
        versions: machine::versions(&settings.peers),
        link: format!("{}, TCP {}", settings.link, bench.link.congestion()),
        size: format!("{:?}", settings.size).to_lowercase(),
        rows: Vec::new(),
        notes: Vec::new(),
    };
    bench.start_servers()?;
    let mut ended = Ok(());
    for workload in &settings.workloads {
        match bench.workload(workload) {
            Ok(rows) => report.rows.extend(rows),
            Err(error) => {
                bench.notes.push(format!("ended early, in {}: {error}; what follows was not measured", workload.name));
                ended = Err(error);
                break;
            }
        }
    }
    if ended.is_ok() {
        // Tells what makes the figures of an emulated line doubtful.
        bench.notes.extend(machine::line_notes(&bench.link)?);
    }
    report.notes = bench.notes;
    Ok((report, ended))
}

impl Bench<'_> {
    fn far_dir(&self) -> PathBuf {
        self.scratch.0.join("trees/far")
    }

    /// Starts the servers of all peers; who has none is absent, with the reason.
    fn start_servers(&mut self) -> Result<()> {
        let far = self.far_dir();
        fs::create_dir_all(&far).context(|| format!("create {}", far.display()))?;
        for peer in &self.settings.peers {
            let why = match peer.missing() {
                Some(why) => why,
                None => match peer.start_servers(&mut self.servers, &self.scratch.0, &far, &self.link) {
                    Ok(()) => continue,
                    Err(Error::Interrupted) => return Err(Error::Interrupted),
                    Err(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
                },
            };
            self.is_absent(peer, why);
        }
        Ok(())
    }

    /// From now on this peer is left out; it is told once.
    fn is_absent(&mut self, peer: &Peer, why: String) {
        eprintln!("{}: NOT RUN: {why}", peer.name);
        self.absent.push((peer.name.clone(), why));
    }

    fn workload(&mut self, workload: &Workload) -> Result<Vec<Row>> {
        let mut turns = Vec::new();
        for peer in &self.settings.peers {
            let absent = self.absent.iter().find(|(name, _)| *name == peer.name).map(|(_, why)| why.clone());
            let why = absent.or_else(|| peer.unsuited(workload).map(str::to_owned));
            turns.push(Turn { peer, runs: Vec::new(), ended: why.map(|why| Outcome::NotRun { why }) });
        }
        if turns.iter().any(|turn| turn.ended.is_none()) {
            self.measure(workload, &mut turns)?;
        }
        let rows = turns.into_iter().map(|turn| Row {
            workload: workload.name.to_owned(),
            peer: turn.peer.name.clone(),
            outcome: turn.ended.unwrap_or(Outcome::Measured { runs: turn.runs }),
        });
        Ok(rows.collect())
    }

    fn measure(&mut self, workload: &Workload, turns: &mut [Turn<'_>]) -> Result<()> {
        let root = self.scratch.0.join("trees");
        let trees = Trees::beneath(&root);
        machine::need_space(&root, workload.peak_bytes(self.settings.size), workload.name)?;
        eprintln!("{}: making {}", workload.name, workload.about);
        workload.make(self.settings.size, &trees)?;
        let expected = Manifest::of(&trees.source)?;
        let (names, bytes) = expected.totals();
        eprintln!("{}: {names} names, {:.1} MB", workload.name, bytes as f64 / 1e6);
        // Whether the destination is known to be as the workload wants it before a run.
        let mut is_ready = false;
        for round in 1..=self.settings.runs {
            for turn in turns.iter_mut().filter(|turn| turn.ended.is_none()) {
                if !is_ready {
                    reset(workload, &trees)?;
                }
                is_ready = false;
                match self.turn(workload, turn.peer, &trees, &expected)? {
                    Ok(run) => {
                        let times = format!("{round}/{}: {:.2} s", self.settings.runs, run.wall_s);
                        eprintln!("{} {} {times}", workload.name, turn.peer.name);
                        is_ready = workload.basis() == Basis::Equal && turn.peer.fidelity == Fidelity::Archive;
                        turn.runs.push(run);
                    }
                    Err(outcome) => {
                        eprintln!("{} {} {round}/{}: {outcome:?}", workload.name, turn.peer.name, self.settings.runs);
                        if let (Outcome::NotRun { why }, true) = (&outcome, workload.options.is_empty()) {
                            self.is_absent(turn.peer, why.clone());
                        }
                        turn.ended = Some(outcome);
                    }
                }
            }
        }
        if Manifest::of(&trees.source)? != expected {
            return Err(Error::Refused(format!("{}: a peer has changed the source", workload.name)));
        }
        for tree in [&trees.source, &trees.basis, &trees.destination] {
            remove(tree)?;
        }
        Ok(())
    }

    /// One timed run and its judgement. The inner error is the peer's, the outer one ours.
    fn turn(
        &mut self,
        workload: &Workload,
        peer: &Peer,
        trees: &Trees,
        expected: &Manifest,
    ) -> Result<std::result::Result<Run, Outcome>> {
        let Some(words) = peer.words(&self.servers, trees, workload) else {
            return Ok(Err(Outcome::NotRun { why: "its server does not run".to_owned() }));
        };
        let servers = self.servers.all();
        let link_before = self.link.traffic_bytes()?;
        let (near_before, far_before) = (children_cpu(), servers_cpu(&servers));
        let ended = timed(self.link.near(&words), self.settings.limit)?;
        let left = settle(&servers);
        let (near, far) = (children_cpu().since(near_before), servers_cpu(&servers).since(far_before));
        let link_bytes = self.link.traffic_bytes()?.zip(link_before).map(|(after, before)| after - before);
        if let Some(left) = left {
            self.notes.push(format!("{}, {}: still running after the end: {left}", workload.name, peer.name));
        }
        if ended.timed_out {
            let why = format!("killed after {} s; {}", self.settings.limit.as_secs(), ended.said);
            return Ok(Err(Outcome::Failed { why }));
        }
        if !ended.status.success() {
            if peer.refuses_with(ended.status.code()) {
                let why = format!("the binary refuses: {}", ended.said.lines().next().unwrap_or_default());
                return Ok(Err(Outcome::NotRun { why }));
            }
            let why = format!("{} of `{}`: {}", ended.status, shown(&words), ended.said);
            return Ok(Err(Outcome::Failed { why }));
        }
        let wrong = expected.differences(&Manifest::of(&trees.destination)?, peer.fidelity);
        if !wrong.is_empty() {
            return Ok(Err(Outcome::Failed { why: format!("the result is wrong: {}", wrong.join("; ")) }));
        }
        Ok(Ok(Run { wall_s: ended.wall_s, near, far, link_bytes }))
    }
}

fn remove(tree: &Path) -> Result<()> {
    match fs::remove_dir_all(tree) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Io { what: format!("remove {}", tree.display()), source: error })
        }
        _ => Ok(()),
    }
}

/// Makes the destination what the workload wants it to be before a run.
fn reset(workload: &Workload, trees: &Trees) -> Result<()> {
    check_interrupted()?;
    remove(&trees.destination)?;
    let from = match workload.basis() {
        Basis::Nothing => {
            return fs::create_dir(&trees.destination).context(|| format!("create {}", trees.destination.display()));
        }
        Basis::Equal => &trees.source,
        Basis::Kept => &trees.basis,
    };
    let mut words = argv(["cp", "-aT"]);
    words.extend(argv([from, &trees.destination]));
    prepare(&words).map(drop)
}
