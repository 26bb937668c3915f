//! A daemon that a test starts, and what clients need to reach it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use xfer::model::Outcome;
use xfer::monitor::Recorder;
use xfer::net::keys::{KeyDirs, create_identity};
use xfer::net::{Address, Identity, PeerKey, PublicKey, RemoteShell, TlsChannel, tls_connect};
use xfer::plan::options::{Recursion, SyncOptions};
use xfer::sync::{Connect, DaemonKeys, LaneWish, StopFlag, SyncError, SyncRequest, Transport};
use xfer::wire::{Preamble, SessionId};

/// No wait of a test is longer: a hang is a failure.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Asks `is` until it says yes.
#[track_caller]
pub fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !is() {
        assert!(Instant::now() < end, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// These tests run as root, like the daemons that serve several users.
pub const AS_US: &str = "uid = \"root\"";

/// Directories of one test, and its daemon's configuration.
pub struct Place {
    temp: tempfile::TempDir,
}

impl Place {
    /// A module `data` with a few files, a client whose key may use everything, and nothing running.
    pub fn new() -> Place {
        let temp = tempfile::Builder::new().prefix("xfer-test-").tempdir().unwrap();
        let place = Place { temp };
        for dir in ["data/sub", "server/xfer", "client"] {
            fs::create_dir_all(place.path(dir)).unwrap();
        }
        for number in 0..5 {
            fs::write(place.path(&format!("data/sub/{number}")), format!("content {number}")).unwrap();
        }
        create_identity(&KeyDirs::new(Some(&place.path("server/xfer"))), false, "", false).unwrap();
        place.authorize(&[""], &place.client().identity);
        place.configure("");
        place
    }

    pub fn path(&self, tail: &str) -> PathBuf {
        self.temp.path().join(tail)
    }

    /// The usual client; the same each time.
    pub fn client(&self) -> Client {
        let dirs = KeyDirs::new(Some(&self.path("client")));
        let _ = create_identity(&dirs, false, "", false);
        Client { identity: xfer::net::keys::load_identity(&dirs).unwrap().0 }
    }

    /// Makes `authorized_keys` anew: one line for each of `options`.
    pub fn authorize(&self, options: &[&str], identity: &Identity) {
        let lines: Vec<String> = options
            .iter()
            .map(|options| {
                format!("{options}{}{} tester", if options.is_empty() { "" } else { " " }, identity.public_key())
            })
            .collect();
        write_private(&self.path("server/xfer/authorized_keys"), &format!("{}\n", lines.join("\n")));
    }

    /// The module `data`, read-write, with `more` lines in it.
    pub fn configure(&self, more: &str) {
        let data = self.path("data");
        let uid = if more.contains("uid = ") { "" } else { AS_US };
        self.configure_whole(&format!(
            "[[module]]\nname = \"data\"\npath = \"{}\"\naccess = \"read-write\"\n{uid}\n{more}\n",
            data.display()
        ));
    }

    pub fn configure_whole(&self, text: &str) {
        write_private(&self.path("server/xfer/serve.toml"), text);
    }

    /// The program itself as the usual client, which knows `daemon`'s key.
    pub fn xfer(&self, daemon: &Daemon) -> Command {
        let home = self.path("home/xfer");
        fs::create_dir_all(&home).unwrap();
        self.client();
        fs::copy(self.path("client/identity"), home.join("identity")).unwrap();
        let identity = xfer::net::keys::load_identity(&KeyDirs::new(Some(&self.path("server/xfer")))).unwrap().0;
        let address = daemon.address();
        let line = format!("{address} {}\n", identity.public_key());
        write_private(&home.join("known_hosts"), &line);
        let mut command = Command::new(env!("CARGO_BIN_EXE_xfer"));
        command.env("XDG_CONFIG_HOME", self.path("home"));
        command
    }

    pub fn start(&self) -> Daemon {
        self.start_with(&["--listen", "127.0.0.1:0", "--metrics", "0"], |_| {})
    }

    pub fn start_with(&self, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Daemon {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xfer"));
        command.arg("serve").args(arguments);
        self.start_command(command, change)
    }

    pub fn start_command(&self, mut command: Command, change: impl FnOnce(&mut Command)) -> Daemon {
        command
            .env("XDG_CONFIG_HOME", self.path("server"))
            .env_remove("NOTIFY_SOCKET")
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let lines = child.stderr.take();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            let Some(lines) = lines else { return };
            let mut lines = BufReader::new(lines);
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
                kept.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        Daemon { child, log }
    }
}

fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let _ = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// A daemon that runs. Killed when dropped.
pub struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
    }
}

impl Daemon {
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Where it listens, from standard output, where the test took that.
    pub fn port_on_stdout(&mut self) -> SocketAddr {
        let mut line = String::new();
        BufReader::new(self.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        line.trim_end().strip_prefix("listening on ").unwrap().parse().unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line with `text`, and gives it.
    #[track_caller]
    pub fn line(&self, text: &str) -> String {
        wait_until(&format!("a line with \"{text}\""), || self.log().contains(text));
        self.log().lines().find(|line| line.contains(text)).unwrap().to_owned()
    }

    /// Lines with `text` so far.
    pub fn count(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    #[track_caller]
    fn address_after(&self, text: &str) -> SocketAddr {
        let line = self.line(text);
        line.split(text).nth(1).unwrap().trim_end_matches("/metrics").parse().unwrap()
    }

    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        self.address_after("listening on ")
    }

    /// A sample of the metrics' page.
    #[track_caller]
    pub fn metric(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(self.address_after("metrics on http://")).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let start = format!("xfer_serve_{name} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&start));
        value.unwrap_or_else(|| panic!("{name} in {page}")).parse().unwrap()
    }

    #[track_caller]
    pub fn wait_for_metric(&self, name: &str, value: u64) {
        wait_until(&format!("{name} {value}"), || self.metric(name) == value);
    }

    /// Refusals of one reason.
    #[track_caller]
    pub fn refused(&self, reason: &str) -> u64 {
        self.metric(&format!("refused_total{{reason=\"{reason}\"}}"))
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the daemon's end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Its workers' process numbers.
    pub fn workers(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid());
        let children = fs::read_to_string(path).unwrap_or_default();
        children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    /// A connection that has sent nothing.
    pub fn silent(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// As [`Daemon::begun`], from another address of this machine.
    pub fn begun_from(&self, from: std::net::Ipv4Addr) -> TcpStream {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &SocketAddr::from((from, 0))).unwrap();
        connect(&socket, &self.address()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.write_all(&Preamble { session: None }.encode()).unwrap();
        stream
    }

    /// Connections whose refusal the log tells, by itself or with others.
    pub fn told_refused(&self) -> u64 {
        let log = self.log();
        let count = |line: &str| -> u64 {
            let Some((_, rest)) = line.split_once("refused ") else { return 0 };
            let more = rest.split_once(" more of ").map(|(count, _)| count.parse().unwrap());
            more.unwrap_or(1)
        };
        log.lines().map(count).sum()
    }

    /// A connection that has sent the first bytes.
    pub fn begun(&self, session: Option<SessionId>) -> TcpStream {
        let mut stream = self.silent();
        stream.write_all(&Preamble { session }.encode()).unwrap();
        stream
    }
}

/// Waits until the other end has closed a connection.
#[track_caller]
pub fn closed(stream: &mut TcpStream) {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("not closed: {error}"),
        }
    }
}

/// Whether the other end has not closed a connection.
pub fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let open = stream.peek(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
    open
}

/// Somebody with a key.
#[derive(Debug, Clone)]
pub struct Client {
    pub identity: Identity,
}

impl DaemonKeys for Client {
    fn identity(&self) -> Result<Arc<Identity>, String> {
        Ok(Arc::new(self.identity.clone()))
    }

    fn trust(&self, _: &str, _: u16, _: &PublicKey) -> Result<(), String> {
        Ok(())
    }
}

impl Client {
    pub fn stranger() -> Client {
        Client { identity: Identity::generate().unwrap() }
    }

    /// A session that has proven its key and says nothing more. It lasts until this is dropped.
    #[track_caller]
    pub fn session(&self, daemon: &Daemon) -> TlsChannel {
        let stop = AtomicBool::new(false);
        tls_connect(daemon.begun(None), &self.identity, PeerKey::Any, Instant::now() + LIMIT, &stop).unwrap()
    }

    /// Copies as `xfer sync -rlptgo` would, over lanes as far as they come about.
    pub fn sync(&self, sources: &[Address], destination: Address) -> Result<Outcome, SyncError> {
        self.sync_with(sources, destination, |_| {})
    }

    pub fn sync_with(
        &self,
        sources: &[Address],
        destination: Address,
        change: impl FnOnce(&mut SyncOptions),
    ) -> Result<Outcome, SyncError> {
        let mut options = SyncOptions { recursion: Recursion::Deep, ..SyncOptions::default() };
        options.preserve.times = true;
        options.preserve.perms = true;
        options.preserve.owner = true;
        options.preserve.group = true;
        options.links.copy_as_links = true;
        change(&mut options);
        let connect = Connect {
            shell: RemoteShell::default(),
            connect_timeout_s: Some(LIMIT.as_secs()),
            lanes: LaneWish { transport: Transport::Auto, lanes: None, ports: None },
            keys: Some(Arc::new(self.clone())),
        };
        let request = SyncRequest { sources: sources.to_vec(), destination: Some(destination), options, connect };
        let report = xfer::sync::run(&request, Arc::new(Recorder::new()), &StopFlag::new())?;
        Ok(report.outcome)
    }
}

/// A path in a module of `daemon`.
pub fn at(daemon: &Daemon, module: &str, path: &str) -> Address {
    let address = daemon.address();
    Address::Daemon {
        host: address.ip().to_string(),
        port: address.port(),
        module: module.as_bytes().to_vec(),
        path: path.as_bytes().to_vec(),
    }
}

/// A path here.
pub fn here(path: &Path) -> Address {
    Address::Local(path.to_str().unwrap().as_bytes().to_vec())
}
