//! The command line.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};

use crate::error::{Context, Error, Result};
use crate::link::{Link, LinkKind};
use crate::peer::{self, Peer, REFERENCE};
use crate::process::{self, argv};
use crate::report::{Outcome, Report};
use crate::run::{Settings, run};
use crate::wan::line::Line;
use crate::wan::probe;
use crate::workload::{self, Size, Workload};
use crate::{machine, report};

/// Connections that are made to measure the round trip.
const PROBES: usize = 15;

/// Side-by-side benchmarks of xfer and its peers, and an emulated WAN.
#[derive(Parser)]
#[command(name = "xfer-bench", version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Measures workloads with peers that take turns; each result is judged
    Run(RunArguments),
    /// Looks in seconds whether everything works: all small workloads, once, on each link that can be made here
    Smoke {
        #[command(flatten)]
        common: Common,
    },
    /// Brings up an emulated WAN and proves its delay and rate, or holds it for other programs
    Wan(WanArguments),
    /// Says which workloads and peers there are
    List,
    /// The receiving end of the proof of a line
    #[command(hide = true)]
    WanSink { address: SocketAddr, streams: usize },
    /// The sending end of the proof of a line
    #[command(hide = true)]
    WanSend { address: SocketAddr, streams: usize, seconds: f64 },
}

#[derive(clap::Args)]
struct Common {
    /// The binary of xfer [default: the one beside this program, else the one in PATH]
    #[arg(long, value_name = "FILE")]
    xfer: Option<PathBuf>,
    /// Where trees are made, in a directory of their own
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    dir: PathBuf,
    /// Seconds after which a run is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    limit_s: u64,
    /// Writes all figures, run by run
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
struct RunArguments {
    #[command(flatten)]
    common: Common,
    /// A workload; may be given several times [default: all that suit the link]
    #[arg(long, short, value_name = "NAME", value_delimiter = ',')]
    workload: Vec<String>,
    /// A peer; may be given several times [default: all]
    #[arg(long, short, value_name = "NAME", value_delimiter = ',')]
    peer: Vec<String>,
    /// A further variant of xfer, as `four=--lanes 4` or `old=@/path/to/xfer`; names that end with -daemon use xfer serve
    #[arg(long, value_name = "NAME=[@BINARY] OPTIONS")]
    variant: Vec<String>,
    /// How many times each peer does each workload
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// How large workloads are
    #[arg(long, value_enum, default_value_t = Size::Full)]
    size: Size,
    /// loopback, netns, or wan:RTT_MS,RATE_MBIT,LOSS_PERCENT
    #[arg(long, value_name = "LINK", default_value = "loopback")]
    link: LinkKind,
    /// TCP's congestion control in the namespaces, as cubic or bbr [default: the kernel's]
    #[arg(long, value_name = "NAME")]
    congestion: Option<String>,
}

#[derive(clap::Args)]
struct WanArguments {
    /// RTT_MS,RATE_MBIT,LOSS_PERCENT; the loss is each way's
    #[arg(default_value = "50,1000,0")]
    line: Line,
    /// Bytes that wait for each direction before packets are dropped [default: rate times round trip]
    #[arg(long, value_name = "BYTES")]
    queue_bytes: Option<u64>,
    /// TCP's congestion control at both ends, as cubic or bbr [default: the kernel's]
    #[arg(long, value_name = "NAME")]
    congestion: Option<String>,
    /// TCP streams of the proof
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    streams: u16,
    /// Length of the proof
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    seconds: f64,
    /// Proves nothing; holds the line until SIGINT, for other programs
    #[arg(long)]
    hold: bool,
}

/// Parses, runs, and says how it ended.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = process::set_up().and_then(|()| match arguments.action {
        Action::Run(arguments) => measure(arguments),
        Action::Smoke { common } => smoke(&common),
        Action::Wan(arguments) => wan(&arguments),
        Action::List => {
            list();
            Ok(true)
        }
        Action::WanSink { address, streams } => probe::sink(address, PROBES, streams).map(|(bytes, seconds)| {
            println!("{bytes} {seconds}");
            true
        }),
        Action::WanSend { address, streams, seconds } => wan_send(address, streams, seconds).map(|()| true),
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            let mut told = Vec::new();
            while let Some(error) = cause {
                told.push(error.to_string());
                cause = error.source();
            }
            eprintln!("xfer-bench: {}", told.join(": "));
            ExitCode::from(if matches!(error, Error::Interrupted) { 130 } else { 2 })
        }
    }
}

fn list() {
    println!("workloads:");
    for workload in workload::ALL {
        println!("  {:16} {}", workload.name, workload.about);
    }
    println!("peers:");
    for peer in peer::known(Path::new("xfer")) {
        println!("  {:16} {}", peer.name, peer.missing().filter(|_| peer.binary().is_none()).unwrap_or_default());
    }
}

/// The binary of xfer, as an absolute path: the far end starts it in another directory.
fn binary(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        return fs::canonicalize(given).context(|| format!("find {}", given.display()));
    }
    let own = std::env::current_exe().context(|| "find this program".to_owned())?;
    let beside = own.with_file_name("xfer");
    if beside.is_file() {
        return Ok(beside);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("xfer")).find(|file| file.is_file());
    Ok(found.unwrap_or(beside))
}

/// This tool's own command line.
fn own_command() -> String {
    let words = argv(std::iter::once("xfer-bench".into()).chain(std::env::args_os().skip(1)));
    process::shown(&words)
}

fn peers(names: &[String], variants: &[String], binary: &Path) -> Result<Vec<Peer>> {
    let known = peer::known(binary);
    let own = variants.iter().map(|text| peer::variant(text, binary).map_err(Error::Refused));
    let own = own.collect::<Result<Vec<_>>>()?;
    let mut chosen: Vec<Peer> = match names {
        [] => known,
        names => names
            .iter()
            .map(|name| {
                let found = known.iter().find(|peer| peer.name == *name).cloned();
                found.ok_or_else(|| Error::Refused(format!("there is no peer `{name}`: see xfer-bench list")))
            })
            .collect::<Result<_>>()?,
    };
    chosen.extend(own);
    for (at, peer) in chosen.iter().enumerate() {
        if chosen[at + 1..].iter().any(|other| other.name == peer.name) {
            return Err(Error::Refused(format!("the peer `{}` is given twice", peer.name)));
        }
    }
    Ok(chosen)
}

fn workloads(names: &[String], link: LinkKind) -> Result<Vec<&'static Workload>> {
    if names.is_empty() {
        let wan = matches!(link, LinkKind::Wan(_));
        return Ok(workload::ALL.iter().filter(|workload| workload.wan == wan && !workload.smoke_only).collect());
    }
    let find = |name: &String| {
        Workload::named(name)
            .ok_or_else(|| Error::Refused(format!("there is no workload `{name}`: see xfer-bench list")))
    };
    names.iter().map(find).collect()
}

fn measure(arguments: RunArguments) -> Result<bool> {
    let binary = binary(arguments.common.xfer.as_deref())?;
    let settings = Settings {
        workloads: workloads(&arguments.workload, arguments.link)?,
        peers: peers(&arguments.peer, &arguments.variant, &binary)?,
        runs: arguments.runs.into(),
        size: arguments.size,
        link: arguments.link,
        congestion: arguments.congestion,
        dir: arguments.common.dir,
        limit: Duration::from_secs(arguments.common.limit_s),
        command: own_command(),
    };
    let (report, ended) = run(&settings)?;
    println!("{}", report.markdown(REFERENCE));
    write_json(arguments.common.json.as_deref(), &[&report])?;
    ended.map(|()| report.is_good())
}

fn write_json(path: Option<&Path>, reports: &[&Report]) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(reports).context(|| "write the report as JSON".to_owned())?;
    fs::write(path, text + "\n").context(|| format!("write {}", path.display()))
}

fn smoke(common: &Common) -> Result<bool> {
    let binary = binary(common.xfer.as_deref())?;
    let line = Line::new(20.0, 200.0, 0.5).map_err(Error::Refused)?;
    let may_wan = rustix::process::geteuid().is_root() && process::found("ip") && Path::new("/dev/net/tun").exists();
    let mut reports = Vec::new();
    for link in [LinkKind::Loopback, LinkKind::Namespaces, LinkKind::Wan(line)] {
        let is_loopback = link == LinkKind::Loopback;
        if !is_loopback && !may_wan {
            eprintln!("NOT RUN: {link}: it wants root, `ip` (iproute2) and /dev/net/tun");
            continue;
        }
        let suited = |workload: &&Workload| if is_loopback { !workload.wan } else { workload.wan };
        let settings = Settings {
            workloads: workload::ALL.iter().filter(suited).collect(),
            peers: peer::known(&binary),
            runs: 1,
            size: Size::Small,
            link,
            congestion: None,
            dir: common.dir.clone(),
            limit: Duration::from_secs(common.limit_s),
            command: own_command(),
        };
        let (report, ended) = run(&settings)?;
        println!("{}", report.markdown(REFERENCE));
        ended?;
        reports.push((report, settings.peers));
    }
    write_json(common.json.as_deref(), &reports.iter().map(|(report, _)| report).collect::<Vec<_>>())?;
    let mut is_good = true;
    for (report, peers) in &reports {
        is_good &= report.is_good();
        for peer in peers.iter().filter(|peer| peer.required) {
            let measured = |row: &report::Row| row.peer == peer.name && matches!(row.outcome, Outcome::Measured { .. });
            if !report.rows.iter().any(measured) {
                println!("FAILED: {} did not run at all over {}", peer.name, report.link);
                is_good = false;
            }
        }
    }
    let judged =
        |report: &Report| report.rows.iter().filter(|row| matches!(row.outcome, Outcome::Measured { .. })).count();
    let count: usize = reports.iter().map(|(report, _)| judged(report)).sum();
    println!("smoke: {count} results judged right; {}", if is_good { "all passed" } else { "FAILED" });
    Ok(is_good)
}

fn wan(arguments: &WanArguments) -> Result<bool> {
    let mut line = arguments.line;
    line.queue_bytes = arguments.queue_bytes.unwrap_or(line.queue_bytes);
    let link = Link::up(LinkKind::Wan(line), arguments.congestion.as_deref())?;
    println!("{}, TCP {}", link.kind, link.congestion());
    if arguments.hold {
        if let Some((near, far)) = link.prefixes() {
            println!("near: {near} COMMAND\nfar ({}): {far} COMMAND\nSIGINT ends it", link.far_address());
        }
        loop {
            std::thread::sleep(Duration::from_millis(100));
            if process::check_interrupted().is_err() {
                break;
            }
        }
    } else {
        prove(&link, arguments)?;
    }
    for note in machine::line_notes(&link)? {
        println!("{note}");
    }
    Ok(true)
}

/// Round trips and throughput, by TCP between both ends.
fn prove(link: &Link, arguments: &WanArguments) -> Result<()> {
    let own = std::env::current_exe().context(|| "find this program".to_owned())?;
    let address = SocketAddr::new(link.far_address(), link.far_port(1)?);
    let (address, streams) = (address.to_string(), arguments.streams.to_string());
    let seconds = arguments.seconds.to_string();
    let call = |words: &[&str]| [argv([&own]), argv(words.iter().copied())].concat();
    let sink = call(&["wan-sink", &address, &streams]);
    let send = call(&["wan-send", &address, &streams, &seconds]);
    let (started, cpu_before) = (Instant::now(), process::own_cpu());
    let sink = link.far(&sink).stdout(std::process::Stdio::piped()).spawn().context(|| "start the sink".to_owned())?;
    let sent = link.near(&send).output().context(|| "start the sender".to_owned())?;
    if !sent.status.success() {
        return Err(Error::Refused(format!("the sender failed: {}", String::from_utf8_lossy(&sent.stderr).trim())));
    }
    let taken = sink.wait_with_output().context(|| "wait for the sink".to_owned())?;
    let cpu = process::own_cpu().since(cpu_before).total_s() / started.elapsed().as_secs_f64();
    print!("{}", String::from_utf8_lossy(&sent.stdout));
    let text = String::from_utf8_lossy(&taken.stdout).into_owned();
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    let [bytes, took_s] = numbers[..] else {
        return Err(Error::Refused(format!("the sink failed: `{text}`")));
    };
    let rate = bytes * 8.0 / took_s / 1e6;
    println!(
        "TCP, {} streams: {:.0} MB in {took_s:.2} s, {rate:.1} Mbit/s of payload, {:.1}% of the line",
        arguments.streams,
        bytes / 1e6,
        100.0 * rate / arguments.line.rate_mbit
    );
    println!("the emulator took {:.0}% of one core", 100.0 * cpu);
    Ok(())
}

fn wan_send(address: SocketAddr, streams: usize, seconds: f64) -> Result<()> {
    let trips = probe::round_trips(address, PROBES)?;
    let (min, median, max) = (trips[0], report::median(trips.iter().copied()), trips[trips.len() - 1]);
    println!("TCP handshakes, {PROBES}: median {:.2} ms, {:.2} to {:.2}", median * 1e3, min * 1e3, max * 1e3);
    probe::send(address, streams, seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_wan_has_workloads_of_its_own() {
        let names = |link: &str| -> Vec<&str> {
            workloads(&[], link.parse().unwrap()).unwrap().iter().map(|workload| workload.name).collect()
        };
        assert_eq!(names("wan:50,1000,0"), ["wan-big", "wan-small"]);
        assert!(names("loopback").contains(&"small-new") && !names("loopback").contains(&"mixed"));
        assert!(workloads(&["nothing".to_owned()], LinkKind::Loopback).is_err());
    }

    #[test]
    fn peers_are_refused_twice_or_unknown() {
        let some = |names: &[&str], variants: &[&str]| {
            let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
            peers(&owned(names), &owned(variants), Path::new("/x"))
        };
        assert_eq!(some(&["xfer"], &["four=--lanes 4"]).unwrap().len(), 2);
        assert!(some(&["xfer", "xfer"], &[]).is_err());
        assert!(some(&["nobody"], &[]).is_err());
    }
}
