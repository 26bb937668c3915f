//! `xfer key`: the pair that says who we are, the hosts that we know, and whom we let in.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::exit::{Code, Failure, chain_of};
use super::trust::HostTrust;
use crate::limits;
use crate::model::display_bytes;
use crate::net::keys::{
    AuthorizedKey, Grant, HostPort, KeyDirs, KnownHosts, Network, authorize_key, create_identity, is_module_name,
    key_and_comment, load_identity, public_line,
};
use crate::net::{Identity, KEY_TYPE, PeerKey, PublicKey, connect_tcp, tls_connect};
use crate::wire::Preamble;

/// Adds `xfer key` with its own commands.
pub(super) fn command() -> Command {
    let system = |help: &'static str| Arg::new("system").long("system").action(ArgAction::SetTrue).help(help);
    let key_words =
        |help: &'static str| Arg::new("key").value_name("KEY").num_args(1..).help(help).allow_hyphen_values(false);
    Command::new("key")
        .about("Keys of this host, of hosts that it knows, and of those that it lets in")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("new")
                .about("Make this host's key pair")
                .arg(
                    Arg::new("force")
                        .long("force")
                        .action(ArgAction::SetTrue)
                        .help("Replace a pair that is there; whoever trusts it has to be told"),
                )
                .arg(
                    Arg::new("comment")
                        .long("comment")
                        .short('C')
                        .value_name("COMMENT")
                        .help("Words kept with the public key (default: user@host)"),
                )
                .arg(system("For the whole machine: in /etc/xfer")),
        )
        .subcommand(
            Command::new("show").about("Print the public key: the line that 'key authorize' and 'key trust' take").arg(
                Arg::new("fingerprint")
                    .long("fingerprint")
                    .action(ArgAction::SetTrue)
                    .help("Print its fingerprint, for people to compare"),
            ),
        )
        .subcommand(
            Command::new("trust")
                .about("Store the key of a daemon's host")
                .arg(Arg::new("host").value_name("HOST[:PORT]").required(true).help("As in xfer://HOST[:PORT]/"))
                .arg(key_words(
                    "The line that 'xfer key show' prints there, a file that holds it, or -; none: connect and ask",
                ))
                .arg(
                    Arg::new("accept-new").long("accept-new").action(ArgAction::SetTrue).conflicts_with("key").help(
                        "Store the key of a host that is not known without asking; a changed one is still refused",
                    ),
                )
                .arg(system("For the whole machine: in /etc/xfer/known_hosts").requires("key")),
        )
        .subcommand(
            Command::new("authorize")
                .about("Let the owner of a key use modules of this host's daemon")
                .arg(key_words("The line that 'xfer key show' prints there, files that hold it, or -").required(true))
                .arg(
                    Arg::new("module")
                        .long("module")
                        .value_name("MODULE")
                        .required(true)
                        .action(ArgAction::Append)
                        .help("A module that the key may use; may be given more than once"),
                )
                .arg(
                    Arg::new("read-only")
                        .long("read-only")
                        .action(ArgAction::SetTrue)
                        .conflicts_with("write-only")
                        .help("It may not write"),
                )
                .arg(Arg::new("write-only").long("write-only").action(ArgAction::SetTrue).help("It may not read"))
                .arg(
                    Arg::new("from")
                        .long("from")
                        .value_name("CIDR")
                        .action(ArgAction::Append)
                        .value_delimiter(',')
                        .help("Only from these addresses, as 10.0.0.0/8; may be given more than once"),
                )
                .arg(system("For the whole machine: in /etc/xfer/authorized_keys")),
        )
}

/// `xfer key …`.
pub(super) fn run(matches: &ArgMatches) -> Result<Code, Failure> {
    match matches.subcommand() {
        Some(("new", matches)) => new(matches),
        Some(("show", matches)) => show(matches),
        Some(("trust", matches)) => trust(matches),
        Some(("authorize", matches)) => authorize(matches),
        _ => Err(Failure::usage("no such command")),
    }
}

fn new(matches: &ArgMatches) -> Result<Code, Failure> {
    let comment = match matches.get_one::<String>("comment") {
        Some(comment) if comment.chars().any(char::is_control) => {
            return Err(Failure::usage("a comment is one line without control characters"));
        }
        Some(comment) => comment.trim().to_owned(),
        None => own_name(),
    };
    let system = matches.get_flag("system");
    let made = create_identity(&KeyDirs::new(None), system, &comment, matches.get_flag("force"));
    let (identity, path) = made.map_err(|error| Failure::from(&error))?;
    let key = identity.public_key();
    print(&format!("{}\n{} {}\n", path.display(), key.fingerprint(), comment))
}

/// `user@host`, as far as the system knows.
fn own_name() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.name);
    let host = nix::unistd::gethostname().ok().map(|host| host.to_string_lossy().into_owned());
    let name = [user, host].into_iter().flatten().collect::<Vec<_>>().join("@");
    name.chars().filter(|character| !character.is_control()).collect()
}

fn show(matches: &ArgMatches) -> Result<Code, Failure> {
    let (identity, comment) = load_identity(&KeyDirs::new(None)).map_err(|error| Failure::from(&error))?;
    let key = identity.public_key();
    if matches.get_flag("fingerprint") {
        let line = format!("{} {comment}", key.fingerprint());
        return print(&format!("{}\n", line.trim_end()));
    }
    print(&format!("{}\n", public_line(&key, &comment)))
}

fn trust(matches: &ArgMatches) -> Result<Code, Failure> {
    let text = matches.get_one::<String>("host").map(String::as_str).unwrap_or_default();
    let host = HostPort::parse(text)
        .map_err(|error| Failure::usage(format!("'{}': {error}", display_bytes(text.as_bytes()))))?;
    let hosts = KnownHosts::new(None);
    if let Some(words) = matches.get_many::<String>("key") {
        let keys = keys_from(&words.map(String::as_str).collect::<Vec<_>>())?;
        let [(key, _)] = keys.as_slice() else {
            return Err(Failure::usage(format!("a host has one key, and {} were given", keys.len())));
        };
        hosts.pin(&host, key, matches.get_flag("system")).map_err(|error| Failure::from(&error))?;
        return print(&format!("{host} {}\n", key.fingerprint()));
    }
    let key = key_of_host(&host)?;
    HostTrust::new(&hosts, matches.get_flag("accept-new")).decide(&host, &key)?;
    print(&format!("{host} {}\n", key.fingerprint()))
}

/// Asks a daemon for its key. The daemon wants to see one too: ours, or one made up for this moment.
fn key_of_host(host: &HostPort) -> Result<PublicKey, Failure> {
    let identity = match load_identity(&KeyDirs::new(None)) {
        Ok((identity, _)) => identity,
        Err(_) => Identity::generate().map_err(|error| Failure::failed(format!("cannot make a key: {error}")))?,
    };
    let deadline = Instant::now() + Duration::from_millis(limits::AUTHENTICATION_TIMEOUT_MS);
    let stop = AtomicBool::new(false);
    let first = Preamble { session: None }.encode();
    let stream = connect_tcp(host.host(), host.port(), &first, deadline, &stop)
        .map_err(|error| Failure::failed(chain_of(&error)))?;
    let channel = tls_connect(stream, &identity, PeerKey::Any, deadline, &stop)
        .map_err(|error| Failure::failed(format!("cannot learn the key of {host}: {}", chain_of(&error))))?;
    Ok(channel.peer_key())
}

fn authorize(matches: &ArgMatches) -> Result<Code, Failure> {
    let words = matches.get_many::<String>("key").unwrap_or_default().map(String::as_str).collect::<Vec<_>>();
    let modules = matches.get_many::<String>("module").unwrap_or_default().cloned().collect::<Vec<_>>();
    if let Some(bad) = modules.iter().find(|name| !is_module_name(name)) {
        return Err(Failure::usage(format!("'{}' is no module name", display_bytes(bad.as_bytes()))));
    }
    let from = matches.get_many::<String>("from").unwrap_or_default().map(|text| {
        Network::parse(text.trim()).ok_or_else(|| {
            Failure::usage(format!("'{}' is no network", display_bytes(text.as_bytes())))
                .with_hint("write an address, or ADDRESS/BITS without bits behind the prefix, as 10.0.0.0/8")
        })
    });
    let from = from.collect::<Result<Vec<_>, _>>()?;
    let dirs = KeyDirs::new(None);
    let mut told = String::new();
    for (key, comment) in keys_from(&words)? {
        let rights = AuthorizedKey {
            modules: Some(modules.clone()),
            read_only: matches.get_flag("read-only"),
            write_only: matches.get_flag("write-only"),
            comment: comment.clone(),
        };
        let grant = Grant { key, from: from.clone(), rights };
        let path = authorize_key(&dirs, matches.get_flag("system"), &grant).map_err(|error| Failure::from(&error))?;
        let line = format!("{}: {} {comment}", path.display(), key.fingerprint());
        told.push_str(line.trim_end());
        told.push('\n');
    }
    print(&told)
}

/// The keys that arguments name: one line, whole or in words; files; `-` for standard input.
fn keys_from(words: &[&str]) -> Result<Vec<(PublicKey, String)>, Failure> {
    if words.first() == Some(&KEY_TYPE) {
        return keys_in("the command line", &words.join(" "));
    }
    let mut keys = Vec::new();
    for word in words {
        if word.starts_with(KEY_TYPE) {
            keys.extend(keys_in("the command line", word)?);
            continue;
        }
        let (shown, text) = match *word {
            "-" => ("standard input".to_owned(), text_of(&mut io::stdin())),
            path => (display_bytes(path.as_bytes()), File::open(path).and_then(|mut file| text_of(&mut file))),
        };
        let text = text.map_err(|error| {
            Failure::failed(format!("cannot read {shown}: {error}"))
                .with_hint(format!("a key is a line that begins with '{KEY_TYPE}', or a file that holds one"))
        })?;
        keys.extend(keys_in(&shown, &text)?);
    }
    Ok(keys)
}

fn text_of(source: &mut impl Read) -> io::Result<String> {
    let mut text = String::new();
    source.take(limits::KEY_FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn keys_in(place: &str, text: &str) -> Result<Vec<(PublicKey, String)>, Failure> {
    if text.contains("PRIVATE KEY") {
        return Err(Failure::failed(format!("{place} holds a private key: give the public one (identity.pub)")));
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys = lines.map(|line| {
        let (key, comment) = key_and_comment(line).map_err(|error| Failure::failed(format!("{place}: {error}")))?;
        let comment = comment.chars().filter(|character| !character.is_control()).collect();
        Ok((key, comment))
    });
    let keys = keys.collect::<Result<Vec<_>, Failure>>()?;
    if keys.is_empty() { Err(Failure::failed(format!("{place} holds no key"))) } else { Ok(keys) }
}

fn print(text: &str) -> Result<Code, Failure> {
    let mut stdout = io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(Code::Complete),
    }
}
