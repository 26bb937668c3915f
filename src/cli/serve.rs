//! `xfer serve`: the far end of a remote shell, the daemon, and the processes that the daemon starts.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::exit::{Code, Failure, chain_of};
use super::servelog::{LineLog, LogTarget};
use super::signals;
use crate::limits;
use crate::net::keys::KeyDirs;
use crate::sync::serve::{self, Config, Module, ServeEnd, ServeError, ServeRequest};
use crate::sync::{self, StopFlag};

const REMARKS: &str = "Without --config and --module, $XDG_CONFIG_HOME/xfer/serve.toml (or ~/.config/xfer/serve.toml) \
                       is read, then /etc/xfer/serve.toml. SIGTERM and SIGINT let running sessions finish, a second \
                       one ends them; SIGHUP reads configuration and keys again. Clients say \
                       xfer://HOST[:PORT]/MODULE/PATH.";

/// The command's arguments.
pub(crate) fn command() -> Command {
    let value = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("serve")
        .about("Serve modules to clients over encrypted TCP, or be the far end of a remote shell")
        .override_usage(
            "xfer serve [--config FILE] [--listen ADDR:PORT]... [--module NAME=PATH[,ro|,wo|,rw]]...\n       \
             xfer serve --stdio",
        )
        .after_help(REMARKS)
        .arg(
            Arg::new("stdio")
                .long("stdio")
                .action(ArgAction::SetTrue)
                .exclusive(true)
                .help("Speak on standard input and output; a remote shell starts it so"),
        )
        .arg(Arg::new("worker").long("worker").action(ArgAction::SetTrue).exclusive(true).hide(true))
        .arg(value("config", "FILE", "Configuration, in TOML").value_parser(clap::value_parser!(PathBuf)))
        .arg(
            value("listen", "ADDR:PORT", "Listen here instead of where the configuration says; the default is *:7788")
                .action(ArgAction::Append),
        )
        .arg(
            value(
                "module",
                "NAME=PATH[,ro|,wo|,rw]",
                "Serve PATH as NAME, read-only unless said otherwise. When started as root, sessions run as the owner \
                 of PATH: as root only where PATH is root's",
            )
            .action(ArgAction::Append),
        )
        .arg(value("metrics", "[ADDR:]PORT", "Prometheus metrics; on the loopback unless an address is given"))
        .arg(value("log", "FILE", "Log there instead of on standard error").value_parser(clap::value_parser!(PathBuf)))
}

/// Does it.
pub(crate) fn run(matches: &ArgMatches) -> Result<Code, Failure> {
    if matches.get_flag("worker") {
        return match serve::work() {
            Ok(()) => Ok(Code::Complete),
            Err(error) => Err(Failure::failed(chain_of(&error))),
        };
    }
    if matches.get_flag("stdio") {
        let stop = StopFlag::default();
        signals::listen(&stop, || {}).map_err(|error| Failure::failed(format!("cannot listen to signals: {error}")))?;
        return match sync::serve_stdio(&stop) {
            Ok(()) => Ok(Code::Complete),
            Err(error) => Err(Failure::from(&error)),
        };
    }
    daemon(matches)
}

fn daemon(matches: &ArgMatches) -> Result<Code, Failure> {
    // Changes the environment, so before anything else has a thread.
    let sockets = inherited_sockets()?;
    let wanted = Wanted::from(matches)?;
    let config = wanted.load().map_err(Failure::usage)?;
    let any_port = config.listen.iter().any(|address| address.port() == 0);
    let target = match &config.log {
        Some(path) => LogTarget::File(path.clone()),
        None => LogTarget::stderr(),
    };
    let log = Arc::new(LineLog::start(target, any_port)?);
    let load = Arc::new(move || wanted.load());
    let notify_socket = std::env::var_os("NOTIFY_SOCKET");
    let request = ServeRequest { config, load, sockets, notify_socket, log: Arc::clone(&log) as _ };
    let ended = serve::serve(request);
    log.finish();
    match ended {
        Ok(ServeEnd::Drained) => Ok(Code::Complete),
        Ok(ServeEnd::Cut) => Ok(Code::Interrupted),
        Err(error) => Err(explained(&error)),
    }
}

fn explained(error: &ServeError) -> Failure {
    let failure = Failure::failed(chain_of(error));
    match error {
        ServeError::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
            failure.with_hint("another daemon runs there: end it, or choose another --listen")
        }
        ServeError::Listen { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            failure.with_hint("ports below 1024 are for root")
        }
        _ => failure,
    }
}

/// Sockets of a service manager, by `sd_listen_fds(3)`.
fn inherited_sockets() -> Result<Vec<TcpListener>, Failure> {
    let mut given = listenfd::ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..given.len().min(limits::SERVE_LISTENERS_MAX) {
        let wrong = |error| Failure::failed(format!("socket {index} of the service manager cannot be used: {error}"));
        sockets.extend(given.take_tcp_listener(index).map_err(wrong)?);
    }
    Ok(sockets)
}

/// What the command line says; the rest is in the file, which may change.
#[derive(Debug, Default)]
struct Wanted {
    file: Option<PathBuf>,
    listen: Vec<String>,
    modules: Vec<Module>,
    metrics: Option<String>,
    log: Option<PathBuf>,
}

impl Wanted {
    fn from(matches: &ArgMatches) -> Result<Wanted, Failure> {
        let texts = |name: &str| -> Vec<String> { matches.get_many(name).into_iter().flatten().cloned().collect() };
        let here = std::env::current_dir().unwrap_or_default();
        let mut modules = Vec::new();
        for text in texts("module") {
            let mut module = Module::parse(&text)
                .map_err(|reason| Failure::usage(format!("--module {}: {reason}", text.escape_debug())))?;
            // The daemon's processes have another working directory.
            module.path = here.join(&module.path);
            modules.push(module);
        }
        let chosen = matches.get_one::<PathBuf>("config").map(|path| here.join(path));
        let file = match chosen {
            Some(path) => Some(path),
            None if modules.is_empty() => Some(default_file()?),
            None => None,
        };
        Ok(Wanted {
            file,
            listen: texts("listen"),
            modules,
            metrics: matches.get_one::<String>("metrics").cloned(),
            log: matches.get_one::<PathBuf>("log").map(|path| here.join(path)),
        })
    }

    /// The whole configuration, as it is now.
    fn load(&self) -> Result<Config, String> {
        let mut config = match &self.file {
            Some(path) => read_config(path)?,
            None => Config::default(),
        };
        for module in &self.modules {
            config.add(module.clone())?;
        }
        if !self.listen.is_empty() {
            let read = |text: &String| serve::parse_listen(text).map_err(|reason| format!("--listen: {reason}"));
            config.listen = self.listen.iter().map(read).collect::<Result<_, _>>()?;
        }
        if let Some(text) = &self.metrics {
            config.metrics = Some(serve::parse_metrics(text).map_err(|reason| format!("--metrics: {reason}"))?);
        }
        if let Some(path) = &self.log {
            config.log = Some(path.clone());
        }
        if config.modules.is_empty() {
            return Err("there is no module to serve: name one in the configuration, or with --module".to_owned());
        }
        Ok(config)
    }
}

/// Where the configuration is by default: beside the keys.
fn default_file() -> Result<PathBuf, Failure> {
    let dirs = KeyDirs::new(None);
    let candidates: Vec<PathBuf> = [false, true]
        .into_iter()
        .filter_map(|system| dirs.to_write(system).ok())
        .map(|dir| dir.join("serve.toml"))
        .collect();
    let found = candidates.iter().find(|path| path.exists()).cloned();
    found.ok_or_else(|| {
        let tried: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        Failure::usage(format!("there is nothing to serve: no configuration in {}", tried.join(" or ")))
            .with_hint("write one (see docs/serve.md), or name a tree: xfer serve --module NAME=PATH")
    })
}

/// Reads a configuration file, which nobody but its owner or root may have written.
fn read_config(path: &Path) -> Result<Config, String> {
    let name = path.display();
    let cannot = |error: io::Error| format!("cannot read {name}: {error}");
    let file = File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if metadata.uid() != 0 && metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(format!("{name} belongs to user {}: it has to belong to you or to root", metadata.uid()));
    }
    if metadata.is_file() && metadata.mode() & 0o022 != 0 {
        return Err(format!("{name} can be written by others: run 'chmod go-w {name}'"));
    }
    let mut text = String::new();
    file.take(limits::SERVE_CONFIG_BYTES_MAX + 1).read_to_string(&mut text).map_err(cannot)?;
    serve::parse_config(&text).map_err(|error| format!("{name}: {error}"))
}

/// Whether standard error goes to the journal: `JOURNAL_STREAM` names its device and inode.
pub(super) fn is_journal(variable: Option<OsString>) -> bool {
    let Ok(stat) = rustix::fs::fstat(rustix::stdio::stderr()) else { return false };
    variable.is_some_and(|value| value.to_str() == Some(&format!("{}:{}", stat.st_dev, stat.st_ino)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn wanted(arguments: &[&str]) -> Result<Wanted, Failure> {
        let all = ["serve"].iter().chain(arguments);
        Wanted::from(&command().try_get_matches_from(all).unwrap())
    }

    #[test]
    fn the_command_line_outranks_the_file() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("serve.toml");
        std::fs::write(&path, "listen = [\"127.0.0.1:1\"]\n[[module]]\nname = \"a\"\npath = \"/a\"\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let file = path.to_str().unwrap();
        let config = wanted(&["--config", file]).unwrap().load().unwrap();
        assert_eq!(config.listen[0].port(), 1);
        let config = wanted(&["--config", file, "--listen", "[::1]:0", "--module", "b=x,rw", "--metrics", "9100"])
            .unwrap()
            .load()
            .unwrap();
        assert_eq!(config.listen[0].to_string(), "[::1]:0");
        assert_eq!(config.modules.len(), 2);
        assert!(config.modules[1].path.is_absolute());
        assert!(config.metrics.unwrap().ip().is_loopback());
        let twice = wanted(&["--config", file, "--module", "a=/b"]).unwrap().load().unwrap_err();
        assert!(twice.contains("two modules"), "{twice}");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        assert!(wanted(&["--config", file]).unwrap().load().unwrap_err().contains("chmod"));
    }

    #[test]
    fn faults_name_file_line_and_key() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("serve.toml");
        std::fs::write(&path, "\nmetrics = \"nowhere\"\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let error = read_config(&path).unwrap_err();
        let start = format!("{}: line 2: metrics: ", path.display());
        assert!(error.starts_with(&start), "{error}");
        assert!(read_config(&temp.path().join("none")).unwrap_err().contains("cannot read"));
    }

    #[test]
    fn wrong_words_are_usage_errors() {
        assert_eq!(wanted(&["--module", "nonsense"]).unwrap_err().code, Code::Usage);
        assert!(wanted(&["--module", "a=/a", "--listen", "example.org:1"]).unwrap().load().is_err());
        let both = command().try_get_matches_from(["serve", "--stdio", "--module", "a=/a"]);
        assert!(both.is_err());
    }
}
