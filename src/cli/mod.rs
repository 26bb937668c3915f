//! The face: arguments, conversion to options, rendering, exit codes. No decisions of the engine.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "lists, logs, the clock of the display and the process's end belong to the face"
)]

mod args;
mod commands;
mod console;
mod convert;
pub mod exit;
mod face;
mod inputs;
mod key;
mod logfile;
mod progress;
mod render;
mod serve;
mod servelog;
mod settings;
mod signals;
mod trust;

use std::ffi::OsString;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Arg, ArgMatches, Command};
use clap_complete::Shell;

use args::Scope;
use exit::{Code, Failure};

/// Runs the program on the process's arguments and streams.
pub fn main() -> ExitCode {
    let panicked = report_panics();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| run(std::env::args_os().collect())));
    let code = outcome.unwrap_or(Code::Failed);
    // A thread of ours that panicked may have left its work undone, whatever the report says.
    let code = if panicked.load(Ordering::SeqCst) && code == Code::Complete { Code::Failed } else { code };
    ExitCode::from(code.number())
}

/// Panics are our bugs: told as such, in one line, once each.
fn report_panics() -> Arc<AtomicBool> {
    let panicked = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&panicked);
    panic::set_hook(Box::new(move |info| {
        flag.store(true, Ordering::SeqCst);
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let what = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let version = env!("CARGO_PKG_VERSION");
        // Not through the console, whose lock the panicking thread may hold.
        let _ = writeln!(
            io::stderr(),
            "xfer: internal error, a bug in xfer {version}: {what} ({place}); please report it with the command line"
        );
    }));
    panicked
}

fn run(arguments: Vec<OsString>) -> Code {
    let matches = match command(Purpose::Parsing).try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            // Help that nobody reads to its end is no failure.
            let _ = error.print();
            return if error.exit_code() == 0 { Code::Complete } else { Code::Usage };
        }
    };
    match dispatch(&matches) {
        Ok(code) => code,
        Err(failure) => {
            let mut stderr = io::stderr();
            for line in face::failure_lines(&failure) {
                let _ = writeln!(stderr, "{line}");
            }
            failure.code
        }
    }
}

fn dispatch(matches: &ArgMatches) -> Result<Code, Failure> {
    match matches.subcommand() {
        Some(("sync", matches)) if asks_for_help(matches) => print_help("sync"),
        Some(("sync", matches)) => commands::sync(matches),
        Some(("verify", matches)) if asks_for_help(matches) => print_help("verify"),
        Some(("verify", matches)) => commands::verify(matches),
        Some(("serve", matches)) => serve::run(matches),
        Some(("key", matches)) => key::run(matches),
        Some(("completions", matches)) => print(&completions(matches)),
        Some(("man", matches)) => print(&manual(matches.get_one::<String>("command").map(String::as_str))?),
        _ => Err(Failure::usage("no such command")),
    }
}

/// As in rsync, `-h` on its own asks for help; beside anything else it is about numbers.
fn asks_for_help(matches: &ArgMatches) -> bool {
    let mut given = matches.ids();
    given.next().is_some_and(|id| id == "human-readable") && given.next().is_none()
}

fn print_help(name: &str) -> Result<Code, Failure> {
    let mut root = command(Purpose::Showing);
    root.build();
    let text = root.find_subcommand_mut(name).map(|found| found.render_help().to_string()).unwrap_or_default();
    print(text.as_bytes())
}

/// A reader that went away before the end of a page is no failure.
fn print(text: &[u8]) -> Result<Code, Failure> {
    let mut stdout = io::stdout();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(Code::Complete),
    }
}

fn completions(matches: &ArgMatches) -> Vec<u8> {
    let mut text = Vec::new();
    if let Some(&shell) = matches.get_one::<Shell>("shell") {
        clap_complete::generate(shell, &mut command(Purpose::Showing), "xfer", &mut text);
    }
    text
}

fn manual(name: Option<&str>) -> Result<Vec<u8>, Failure> {
    let mut root = command(Purpose::Showing);
    root.build();
    let page = match name {
        None => root,
        Some(name) => {
            let found = root
                .find_subcommand(name)
                .ok_or_else(|| Failure::usage(format!("no such command: {}", name.escape_debug())))?;
            // The heading names the page as `man` finds it.
            found.clone().name(format!("xfer-{name}"))
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page)
        .render(&mut text)
        .map_err(|error| Failure::failed(format!("cannot make the manual page: {error}")))?;
    Ok(text)
}

const ABOUT: &str = "Moves a running service's data to a new home, with proof that it arrived";

const SYNC_REMARKS: &str = "SRC/ is the directory's contents, SRC the directory itself. Both may be remote: PATH, \
                            [USER@]HOST:PATH, xfer://HOST[:PORT]/MODULE/PATH. A source without a destination is \
                            listed; xfer://HOST/ lists a daemon's modules.\n\n\
                            --no-OPTION turns off what -a or an earlier flag turned on, as in rsync: --no-o, --no-D, \
                            --no-W ...";
const VERIFY_REMARKS: &str = "Starts from -a: add -H, -A, -X for more, --no-o, --no-t and the like or --content-only \
                              for less. Without DST the digest of SRC is printed.";

/// What a command line is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Arguments are read: options that are refused by name are part of it.
    Parsing,
    /// Help, manual pages, completions: they are not.
    Showing,
}

/// The whole command line.
fn command(purpose: Purpose) -> Command {
    let codes: Vec<String> =
        Code::ALL.iter().map(|code| format!("  {:>3}  {}", code.number(), code.meaning())).collect();
    let codes = format!("Exit codes:\n{}", codes.join("\n"));
    Command::new("xfer")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .propagate_version(true)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(codes.clone())
        .subcommand(
            args::add_arguments(Command::new("sync"), Scope::Sync, purpose)
                .about("Copy trees: rsync's flags and meanings, parallel, verified")
                .override_usage("xfer sync [OPTIONS] SRC... DST")
                .arg_required_else_help(true)
                .after_help(format!("{SYNC_REMARKS}\n\n{codes}")),
        )
        .subcommand(
            args::add_arguments(Command::new("verify"), Scope::Verify, purpose)
                .about("Prove two trees equal by digest, or print the digest of one")
                .override_usage("xfer verify [OPTIONS] SRC [DST]")
                .arg_required_else_help(true)
                .after_help(format!("{VERIFY_REMARKS}\n\n{codes}")),
        )
        .subcommand(serve::command())
        .subcommand(key::command())
        .subcommand(
            Command::new("completions")
                .about("Print completions for a shell")
                .arg(Arg::new("shell").value_name("SHELL").required(true).value_parser(clap::value_parser!(Shell))),
        )
        .subcommand(
            Command::new("man")
                .about("Print a manual page")
                .arg(Arg::new("command").value_name("COMMAND").help("The page of this command; none: of xfer")),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command(Purpose::Parsing).debug_assert();
    }

    #[test]
    fn pages_and_completions_are_generated() {
        let page = |name: Option<&str>| String::from_utf8(manual(name).unwrap()).unwrap();
        assert!(page(Some("sync")).contains("\\-\\-delete\\-excluded"));
        assert!(page(None).contains("xfer\\-verify(1)"));
        assert!(manual(Some("nosuch")).is_err());
        for shell in ["bash", "zsh", "fish"] {
            let matches = command(Purpose::Parsing).try_get_matches_from(["xfer", "completions", shell]).unwrap();
            let text = String::from_utf8(completions(matches.subcommand().unwrap().1)).unwrap();
            assert!(text.contains("delete-excluded"), "{shell}");
            assert!(!text.contains("write-batch"), "{shell}");
        }
    }

    #[test]
    fn help_is_asked_for_by_a_lone_h() {
        let asks = |args: &[&str]| {
            let all = ["xfer", "sync"].iter().chain(args);
            let matches = command(Purpose::Parsing).try_get_matches_from(all).unwrap();
            asks_for_help(matches.subcommand().unwrap().1)
        };
        assert!(asks(&["-h"]));
        assert!(!asks(&["-h", "a"]));
        assert!(!asks(&["-hv"]));
    }

    #[test]
    fn usage_errors_have_their_code() {
        let page = |args: &[&str]| run(args.iter().map(OsString::from).collect());
        assert_eq!(page(&["xfer"]), Code::Usage);
        assert_eq!(page(&["xfer", "sync"]), Code::Usage);
        assert_eq!(page(&["xfer", "sync", "--fuzzy", "a", "b"]), Code::Usage);
        assert_eq!(page(&["xfer", "sync", "--recursiv", "a", "b"]), Code::Usage);
        assert_eq!(page(&["xfer", "serve"]), Code::Usage);
    }
}
