//! What a daemon is configured to do: TOML, checked to the last value before anything begins.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::limits;
use crate::net::keys::key_and_comment;
use crate::net::{DAEMON_PORT_DEFAULT, PublicKey};
use crate::plan::filter::FilterRules;

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{reason}", line_text(*line), key_text(key))]
pub struct ConfigError {
    /// Line in the text, counted from 1.
    pub line: Option<usize>,
    /// The key that holds it, where one does.
    pub key: Option<String>,
    /// What is wrong and what would be right.
    pub reason: String,
}

fn line_text(line: Option<usize>) -> String {
    line.map(|line| format!("line {line}: ")).unwrap_or_default()
}

fn key_text(key: &Option<String>) -> String {
    key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default()
}

/// Which ways data may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Clients may only read.
    #[default]
    ReadOnly,
    /// Clients may only write.
    WriteOnly,
    /// Both.
    ReadWrite,
}

impl Access {
    /// Whether clients may read.
    pub fn may_read(self) -> bool {
        self != Access::WriteOnly
    }

    /// Whether clients may write.
    pub fn may_write(self) -> bool {
        self != Access::ReadOnly
    }

    /// What both allow; `None` where that is nothing.
    pub fn and(self, other: Access) -> Option<Access> {
        match (self, other) {
            (one, Access::ReadWrite) => Some(one),
            (Access::ReadWrite, other) => Some(other),
            (one, other) => (one == other).then_some(one),
        }
    }

    /// As configurations and listings say it.
    pub fn name(self) -> &'static str {
        match self {
            Access::ReadOnly => "read-only",
            Access::WriteOnly => "write-only",
            Access::ReadWrite => "read-write",
        }
    }
}

/// A user or group, as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Principal {
    /// By number.
    Id(u32),
    /// By name, looked up when the configuration is taken into use.
    Name(String),
    /// Whoever owns the module's path when the configuration is taken into use, where the daemon runs as root: what
    /// modules of the command line have. No configuration can say it.
    PathOwner,
}

/// A tree that is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// What clients call it.
    pub name: String,
    /// Where it is; absolute.
    pub path: PathBuf,
    /// For listings.
    pub comment: String,
    /// Which ways data may go.
    pub access: Access,
    /// Keys that may use it besides those of `authorized_keys`.
    pub keys: Vec<ModuleKey>,
    /// Whom a session runs as; `None`: as the daemon, which must not be root's then.
    pub uid: Option<Principal>,
    /// See [`Module::uid`]; `None` with a `uid`: that user's own group.
    pub gid: Option<Principal>,
    /// Owners go by number only.
    pub numeric_ids: bool,
    /// Set-user-ID and set-group-ID bits of what clients write are dropped; `None`: unless sessions run as root.
    pub no_setid: Option<bool>,
    /// Sessions at once.
    pub max_connections: Option<usize>,
    /// Filter rules in rsync's syntax that no client can override, each of them checked.
    pub filters: Vec<String>,
    /// Symbolic links that a client wants followed may lead out of the module.
    pub copy_links_outside: bool,
    /// Seconds of silence after which a session ends, for clients that ask for none or for more.
    pub timeout_s: Option<u64>,
}

impl Module {
    fn new(name: String, path: PathBuf) -> Module {
        Module {
            name,
            path,
            comment: String::new(),
            access: Access::default(),
            keys: Vec::new(),
            uid: None,
            gid: None,
            numeric_ids: false,
            no_setid: None,
            max_connections: None,
            filters: Vec::new(),
            copy_links_outside: false,
            timeout_s: None,
        }
    }

    /// Reads `NAME=PATH[,ro|,wo|,rw]`; sessions run as the path's owner where they can. A path with a comma in its last component but none of these is taken whole.
    pub fn parse(text: &str) -> Result<Module, String> {
        let (name, path) = text.split_once('=').ok_or("write NAME=PATH, with ,ro or ,wo or ,rw after it")?;
        check_name(name)?;
        let (path, access) = match path.rsplit_once(',') {
            Some((path, "ro")) => (path, Access::ReadOnly),
            Some((path, "wo")) => (path, Access::WriteOnly),
            Some((path, "rw")) => (path, Access::ReadWrite),
            _ => (path, Access::ReadOnly),
        };
        if path.is_empty() || path.contains('\0') {
            return Err("the module's path is missing".to_owned());
        }
        let uid = Some(Principal::PathOwner);
        Ok(Module { access, uid, ..Module::new(name.to_owned(), PathBuf::from(path)) })
    }
}

/// A key, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleKey {
    /// The key.
    pub key: PublicKey,
    /// What stands behind it.
    pub comment: String,
}

impl ModuleKey {
    fn parse(text: &str) -> Result<ModuleKey, String> {
        let (key, comment) = key_and_comment(text).map_err(|error| error.to_string())?;
        Ok(ModuleKey { key, comment: comment.to_owned() })
    }
}

/// Bounds of a daemon: each at most what `limits.rs` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeLimits {
    /// Connections held at once.
    pub connections: usize,
    /// Connections of one address at once.
    pub connections_per_address: usize,
    /// Connections that have not said who they are.
    pub unauthenticated: usize,
    /// Sessions at once.
    pub sessions: usize,
    /// Sessions of one key at once.
    pub sessions_per_key: usize,
}

impl Default for ServeLimits {
    fn default() -> ServeLimits {
        ServeLimits {
            connections: limits::SERVE_CONNECTIONS_MAX,
            connections_per_address: limits::SERVE_CONNECTIONS_PER_ADDRESS_MAX,
            unauthenticated: limits::SERVE_UNAUTHENTICATED_MAX,
            sessions: limits::SERVE_SESSIONS_MAX,
            sessions_per_key: limits::SERVE_SESSIONS_PER_KEY_MAX,
        }
    }
}

/// A whole configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// Where to listen; empty: the default port on all addresses.
    pub listen: Vec<SocketAddr>,
    /// Bounds.
    pub limits: ServeLimits,
    /// File for the log; `None`: standard error.
    pub log: Option<PathBuf>,
    /// Where the metrics' page is.
    pub metrics: Option<SocketAddr>,
    /// What is served; names differ.
    pub modules: Vec<Module>,
}

impl Config {
    /// Adds a module; its name must be new.
    pub fn add(&mut self, module: Module) -> Result<(), String> {
        if self.modules.iter().any(|other| other.name == module.name) {
            return Err(format!("there are two modules \"{}\"", module.name));
        }
        self.modules.push(module);
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    listen: Vec<Spanned<String>>,
    #[serde(default)]
    limits: WrittenLimits,
    log: Option<Spanned<String>>,
    metrics: Option<Spanned<String>>,
    #[serde(default)]
    module: Vec<WrittenModule>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct WrittenLimits {
    connections: Option<Spanned<i64>>,
    connections_per_address: Option<Spanned<i64>>,
    unauthenticated: Option<Spanned<i64>>,
    sessions: Option<Spanned<i64>>,
    sessions_per_key: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenModule {
    name: Spanned<String>,
    path: Spanned<String>,
    #[serde(default)]
    comment: String,
    #[serde(default)]
    access: Access,
    #[serde(default)]
    keys: Vec<Spanned<String>>,
    uid: Option<Spanned<WrittenPrincipal>>,
    gid: Option<Spanned<WrittenPrincipal>>,
    #[serde(default)]
    numeric_ids: bool,
    no_setid: Option<bool>,
    max_connections: Option<Spanned<i64>>,
    #[serde(default)]
    filters: Vec<Spanned<String>>,
    #[serde(default)]
    copy_links_outside: bool,
    timeout: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a name or a number")]
enum WrittenPrincipal {
    Id(i64),
    Name(String),
}

/// Reads a configuration.
pub fn parse_config(text: &str) -> Result<Config, ConfigError> {
    let lines = Lines(text);
    if text.len() as u64 > limits::SERVE_CONFIG_BYTES_MAX {
        return Err(lines.error(None, None, format!("longer than {} bytes", limits::SERVE_CONFIG_BYTES_MAX)));
    }
    let written: Written =
        toml::from_str(text).map_err(|error| lines.error(error.span(), None, error.message().to_owned()))?;
    if written.listen.len() > limits::SERVE_LISTENERS_MAX {
        return Err(lines.error(None, Some("listen"), format!("at most {}", limits::SERVE_LISTENERS_MAX)));
    }
    if written.module.len() > limits::SERVE_MODULES_MAX {
        return Err(lines.error(None, Some("module"), format!("at most {}", limits::SERVE_MODULES_MAX)));
    }
    let mut config = Config { limits: read_limits(&lines, &written.limits)?, ..Config::default() };
    for address in &written.listen {
        config.listen.push(lines.check("listen", address, |text| parse_listen(text))?);
    }
    config.log = written.log.as_ref().map(|path| lines.check("log", path, |path| absolute(path))).transpose()?;
    config.metrics =
        written.metrics.as_ref().map(|text| lines.check("metrics", text, |text| parse_metrics(text))).transpose()?;
    for module in written.module {
        let span = module.name.span();
        let module = read_module(&lines, module)?;
        config.add(module).map_err(|reason| lines.error(Some(span), Some("name"), reason))?;
    }
    Ok(config)
}

fn read_limits(lines: &Lines<'_>, written: &WrittenLimits) -> Result<ServeLimits, ConfigError> {
    let widest = ServeLimits::default();
    let read = |key, value: &Option<Spanned<i64>>, widest| {
        value.as_ref().map_or(Ok(widest), |value| lines.check(key, value, |value| count(*value, widest)))
    };
    Ok(ServeLimits {
        connections: read("connections", &written.connections, widest.connections)?,
        connections_per_address: read(
            "connections_per_address",
            &written.connections_per_address,
            widest.connections_per_address,
        )?,
        unauthenticated: read("unauthenticated", &written.unauthenticated, widest.unauthenticated)?,
        sessions: read("sessions", &written.sessions, widest.sessions)?,
        sessions_per_key: read("sessions_per_key", &written.sessions_per_key, widest.sessions_per_key)?,
    })
}

fn read_module(lines: &Lines<'_>, written: WrittenModule) -> Result<Module, ConfigError> {
    lines.check("name", &written.name, |name| check_name(name))?;
    let path = lines.check("path", &written.path, |path| absolute(path))?;
    let principal = |key, value: &Option<Spanned<WrittenPrincipal>>| {
        value.as_ref().map(|value| lines.check(key, value, read_principal)).transpose()
    };
    let mut module = Module::new(written.name.get_ref().clone(), path);
    module.uid = principal("uid", &written.uid)?;
    module.gid = principal("gid", &written.gid)?;
    module.comment = written.comment;
    module.access = written.access;
    module.numeric_ids = written.numeric_ids;
    module.no_setid = written.no_setid;
    module.copy_links_outside = written.copy_links_outside;
    for key in &written.keys {
        module.keys.push(lines.check("keys", key, |key| ModuleKey::parse(key))?);
    }
    if let Some(value) = &written.max_connections {
        let most = limits::SERVE_SESSIONS_MAX;
        module.max_connections = Some(lines.check("max_connections", value, |value| count(*value, most))?);
    }
    if let Some(value) = &written.timeout {
        let seconds = lines.check("timeout", value, |value| count(*value, limits::SERVE_TIMEOUT_S_MAX))?;
        module.timeout_s = Some(seconds as u64);
    }
    let mut rules = FilterRules::new();
    for rule in &written.filters {
        let mut refuse = |_: &[u8]| Err("merge files are not read here: write the rules themselves".to_owned());
        lines.check("filters", rule, |text| {
            if is_merge(text) {
                return Err("merge files would let whoever writes into the module change its rules".to_owned());
            }
            rules.push_filter(text.as_bytes(), &mut refuse).map_err(|error| error.to_string())
        })?;
        module.filters.push(rule.get_ref().clone());
    }
    Ok(module)
}

/// Rules that name files which hold further rules, or forget what came before.
fn is_merge(rule: &str) -> bool {
    let word: String = rule.trim_start().chars().take_while(|c| c.is_ascii_alphabetic()).collect();
    matches!(word.as_str(), "merge" | "dir") || rule.trim_start().starts_with(['.', ':'])
}

fn read_principal(written: &WrittenPrincipal) -> Result<Principal, String> {
    match written {
        // The highest number stands for "leave as it is" in the system's calls.
        WrittenPrincipal::Id(id) => u32::try_from(*id)
            .ok()
            .filter(|id| *id != u32::MAX)
            .map(Principal::Id)
            .ok_or_else(|| "not a user's or group's number".to_owned()),
        WrittenPrincipal::Name(name) if name.is_empty() || name.contains('\0') => Err("not a name".to_owned()),
        WrittenPrincipal::Name(name) => Ok(Principal::Name(name.clone())),
    }
}

fn count(value: i64, most: usize) -> Result<usize, String> {
    usize::try_from(value).ok().filter(|value| (1..=most).contains(value)).ok_or_else(|| format!("from 1 to {most}"))
}

fn absolute(path: &str) -> Result<PathBuf, String> {
    if path.starts_with('/') && !path.contains('\0') {
        Ok(PathBuf::from(path))
    } else {
        Err("not an absolute path".to_owned())
    }
}

/// Module names are the first component of an address, stand in quotes in `authorized_keys`, and are shown.
fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > limits::MODULE_NAME_BYTES_MAX {
        return Err(format!("a module's name has 1 to {} bytes", limits::MODULE_NAME_BYTES_MAX));
    }
    let bad = |c: char| c.is_control() || c.is_whitespace() || "/\\\"',=[]".contains(c);
    if name.contains(bad) || name.starts_with(['-', '.', '#']) {
        return Err("a module's name has no spaces, slashes, quotes, commas, brackets or '=', and does not begin \
                    with '-', '.' or '#'"
            .to_owned());
    }
    Ok(())
}

/// Reads an address to listen on: `ADDR:PORT`, `ADDR`, `:PORT` or `*:PORT` (all addresses), `localhost`.
pub fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    parse_address(text, IpAddr::V6(Ipv6Addr::UNSPECIFIED), Some(DAEMON_PORT_DEFAULT))
}

/// Reads where the metrics' page is to be: `ADDR:PORT`, or `PORT` or `:PORT` on the loopback.
pub fn parse_metrics(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse() {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    parse_address(text, IpAddr::V4(Ipv4Addr::LOCALHOST), None)
}

fn parse_address(text: &str, without: IpAddr, default_port: Option<u16>) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let (Ok(ip), Some(port)) = (bare.parse::<IpAddr>(), default_port) {
        return Ok(SocketAddr::new(ip, port));
    }
    let (host, port) = match (text.rsplit_once(':'), default_port) {
        (Some((host, port)), _) => (host, port.parse().ok()),
        (None, default) => (text, default),
    };
    let ip = match host {
        "" => Some(without),
        "*" => Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => None,
    };
    match (ip, port) {
        (Some(ip), Some(port)) => Ok(SocketAddr::new(ip, port)),
        _ => Err(format!(
            "\"{}\" is not an address: write IP:PORT, [IPV6]:PORT or *:PORT (host names are not looked up)",
            text.escape_debug()
        )),
    }
}

/// Finds lines of a text.
struct Lines<'t>(&'t str);

impl Lines<'_> {
    fn error(&self, span: Option<Range<usize>>, key: Option<&str>, reason: impl Into<String>) -> ConfigError {
        let line = span.and_then(|span| self.0.get(..span.start)).map(|before| before.matches('\n').count() + 1);
        ConfigError { line, key: key.map(str::to_owned), reason: reason.into() }
    }

    fn check<T, U>(
        &self,
        key: &str,
        value: &Spanned<T>,
        read: impl FnOnce(&T) -> Result<U, String>,
    ) -> Result<U, ConfigError> {
        read(value.get_ref()).map_err(|reason| self.error(Some(value.span()), Some(key), reason))
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
