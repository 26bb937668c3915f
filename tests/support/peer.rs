//! A peer that speaks the protocol wrongly: a client of a far end that was started as a child, and a far end for a
//! client that is given as `-e`. What is right in what it says is said with the crate's own encoders; what is wrong, with bytes.
//! This is the one part of the support that uses the crate: it is no judge.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use xfer::plan::options::SyncOptions;
use xfer::wire::{
    Encoder, FRAME_HEADER_BYTES, FarRole, FrameHeader, GREETING_BYTES_MAX, Greeting, Message, MessageKind, Setup,
    SetupPaths, Transport,
};

use super::ssh::FakeShell;
use super::{Temp, run};

/// What the process under test may take until it has ended, once its peer has done its worst.
const LIMIT: Duration = Duration::from_secs(60);

/// A frame of any kind, known or not, with any payload.
pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_le_bytes().to_vec();
    bytes.push(kind);
    bytes.extend_from_slice(payload);
    bytes
}

/// A message as it should be.
pub fn said(message: &Message) -> Vec<u8> {
    frame(message.kind() as u8, &message.encode())
}

/// A frame whose payload is written value by value.
pub fn told(kind: MessageKind, write: impl FnOnce(&mut Encoder<'_>)) -> Vec<u8> {
    let mut payload = Vec::new();
    write(&mut Encoder::new(&mut payload));
    frame(kind as u8, &payload)
}

/// A client's first message.
pub fn setup(role: FarRole, path: &Path, options: SyncOptions) -> Message {
    use std::os::unix::ffi::OsStrExt;
    Message::Setup(Box::new(Setup {
        role,
        paths: SetupPaths { paths: vec![path.as_os_str().as_bytes().to_vec()], sources: vec![b"src/".to_vec()] },
        module: None,
        options,
        transport: Transport::Shell,
        verify: false,
        content_only: false,
        near: None,
    }))
}

/// A far end under test, and the client that it thinks it has.
pub struct FarEnd {
    child: Child,
    stdin: Option<ChildStdin>,
    messages: Receiver<Message>,
    reader: JoinHandle<()>,
    stderr: JoinHandle<Vec<u8>>,
    peak_kib: u64,
    started: Instant,
}

/// How the process under test ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stderr: String,
    /// What it said and nobody took.
    pub messages: Vec<Message>,
    /// Its largest resident memory that was seen.
    pub peak_kib: u64,
}

impl FarEnd {
    /// Starts `xfer serve --stdio` and says nothing.
    pub fn start() -> FarEnd {
        let mut command = Command::new(run::binary());
        command.args(["serve", "--stdio"]).process_group(0).env("LC_ALL", "C");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, messages) = channel();
        let mut stdout = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut head = [0; 13];
            if stdout.read_exact(&mut head).is_err() {
                return;
            }
            let mut rest = vec![0; Greeting::length(&head).unwrap() - head.len()];
            assert!(rest.len() <= GREETING_BYTES_MAX);
            if stdout.read_exact(&mut rest).is_err() {
                return;
            }
            let mut header = [0; FRAME_HEADER_BYTES];
            while stdout.read_exact(&mut header).is_ok() {
                let header = FrameHeader::decode(&header).unwrap();
                let mut payload = vec![0; header.payload_bytes];
                if stdout.read_exact(&mut payload).is_err() {
                    return;
                }
                let _nobody_listens = sender.send(Message::decode(header.kind, payload).unwrap());
            }
        });
        let mut errors = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = errors.read_to_end(&mut bytes);
            bytes
        });
        let stdin = child.stdin.take();
        FarEnd { child, stdin, messages, reader, stderr, peak_kib: 0, started: Instant::now() }
    }

    /// Starts one, greets it as it should be, and says `setup`.
    pub fn set_up(setup: &Message) -> FarEnd {
        let mut far = FarEnd::start();
        far.raw(&Greeting::ours().encode());
        far.say(setup);
        far
    }

    /// Sends bytes. False when the far end has closed its input.
    pub fn raw(&mut self, bytes: &[u8]) -> bool {
        self.look();
        self.stdin.as_mut().is_some_and(|stdin| stdin.write_all(bytes).is_ok())
    }

    /// Sends a message.
    pub fn say(&mut self, message: &Message) -> bool {
        self.raw(&said(message))
    }

    /// The next message that `wanted` wants; others are passed over. `None` when the far end says nothing more.
    pub fn hear<T>(&mut self, mut wanted: impl FnMut(Message) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + LIMIT;
        loop {
            self.look();
            match self.messages.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(message) => {
                    if let Some(found) = wanted(message) {
                        return Some(found);
                    }
                }
                Err(_) => return None,
            }
        }
    }

    fn look(&mut self) {
        if let Some(process) = run::process(self.child.id()) {
            self.peak_kib = self.peak_kib.max(process.peak_kib);
        }
    }

    /// Waits for the end, the far end's input left open: it has to end by itself.
    pub fn ends(self) -> Ended {
        self.wait()
    }

    /// Closes the far end's input and waits for the end.
    pub fn hang_up(mut self) -> Ended {
        self.stdin = None;
        self.wait()
    }

    fn wait(mut self) -> Ended {
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            self.look();
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                let group = Pid::from_raw(self.child.id() as i32).unwrap();
                let _ = rustix::process::kill_process_group(group, Signal::KILL);
                let _ = self.child.wait();
                let stderr = self.stderr.join().unwrap();
                let stderr = String::from_utf8_lossy(&stderr).into_owned();
                panic!("still there after {:?}; stderr: {stderr}", self.started.elapsed());
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        drop(self.stdin.take());
        self.reader.join().expect("the far end speaks the protocol itself");
        Ended {
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stderr: String::from_utf8_lossy(&self.stderr.join().unwrap()).into_owned(),
            messages: self.messages.try_iter().collect(),
            peak_kib: self.peak_kib,
        }
    }
}

impl Ended {
    /// Asserts that it ended by its own word, not by a crash, saying `word` to the user or to its peer, within
    /// `mib_max` of memory. Where its peer was told, the exit code says nothing: nobody sees that of a far end.
    pub fn honestly(&self, word: &str, mib_max: u64) {
        self.in_order(mib_max);
        let told = self.told();
        assert!(self.code > 0 || told.len() > 1, "neither code nor word: {told:?}");
        assert!(told.iter().any(|text| text.contains(word)), "should say {word:?}: code {} {told:?}", self.code);
    }

    /// Asserts that it did not crash, and took no more than `mib_max` of memory; and that this was looked at.
    pub fn in_order(&self, mib_max: u64) {
        let told = self.told();
        assert!(self.code < 126 && !self.stderr.contains("panicked"), "code {} {told:?}", self.code);
        assert!(self.peak_kib > 0 && self.peak_kib <= mib_max << 10, "{} KiB: {told:?}", self.peak_kib);
    }

    /// What it said of its end: to the user, to its peer.
    fn told(&self) -> Vec<&str> {
        let fatal = self.messages.iter().filter_map(|message| match message {
            Message::Fatal { text, .. } => Some(text.as_str()),
            _ => None,
        });
        std::iter::once(self.stderr.as_str()).chain(fatal).collect()
    }
}

/// A far end that says what it was told to say whatever the client says, for `-e`.
pub struct FakeFarEnd {
    shell: FakeShell,
    _words: Temp,
}

impl FakeFarEnd {
    /// Says `bytes` after a proper greeting, and then nothing, until the client hangs up.
    pub fn saying(bytes: &[u8]) -> FakeFarEnd {
        FakeFarEnd::raw(&[&Greeting::ours().encode(), bytes].concat())
    }

    /// Says `bytes`, without a greeting.
    pub fn raw(bytes: &[u8]) -> FakeFarEnd {
        let words = Temp::new();
        let path: PathBuf = words.join("words");
        fs::write(&path, bytes).unwrap();
        FakeFarEnd { shell: FakeShell::running(&format!("cat {}; exec cat >/dev/null", path.display())), _words: words }
    }

    /// `-e …`, for the client's command line.
    pub fn args(&self) -> Vec<std::ffi::OsString> {
        self.shell.args()
    }
}
