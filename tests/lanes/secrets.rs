//! What a look at the wire and at the processes shows: no name, no content, no secret.

use std::ffi::OsString;
use std::fs;

use crate::support::daemon::{Daemon, User};
use crate::support::disk::put;
use crate::support::fixture::{self, OLD};
use crate::support::judge::Judge;
use crate::support::rng::Rng;
use crate::support::run::{Call, family, sync};
use crate::support::ssh::{FakeShell, at};
use crate::support::{Temp, need};
use crate::{HERE, contents};

/// Every call that moves bytes, or draws random ones.
const CALLS: &str = "trace=read,pread64,readv,preadv,recvfrom,recvmsg,write,pwrite64,writev,pwritev,sendto,sendmsg,sendmmsg,\
                     getrandom,copy_file_range,splice,sendfile";

/// As strace prints bytes with `-xx`.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

/// Runs `call` and all that it starts under strace. The lines, in which descriptors carry what they are.
fn watched(call: Call, look: impl FnMut(u32)) -> Vec<String> {
    need("strace", "strace");
    let temp = Temp::new();
    let log = temp.join("log");
    let mut words: Vec<OsString> =
        ["strace", "-f", "-qq", "-yy", "-xx", "-s", "2000000", "-e", CALLS].map(Into::into).to_vec();
    words.extend(["-o".into(), log.clone().into()]);
    call.under(words).spawn().wait_looking(look).expect(0);
    fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect()
}

/// Paths of descriptors are strings too; what sockets are is not.
fn is_write_to_pipe(line: &str) -> bool {
    line.contains("write") && (line.contains("<pipe:[") || line.contains(&format!("<{}", hex(b"pipe:["))))
}

fn is_tcp(line: &str) -> bool {
    line.contains("<TCP:[") || line.contains("<TCPv6:[")
}

/// A tree whose names and contents are found again wherever they pass.
struct Marked {
    temp: Temp,
    name: String,
    content: Vec<u8>,
}

impl Marked {
    fn new(seed: u64) -> Marked {
        let mut rng = Rng::new(seed);
        let marked = Marked {
            temp: Temp::new(),
            name: format!("name{:016x}{:016x}", rng.next(), rng.next()),
            content: rng.bytes(24),
        };
        // Small enough for one read, with the mark within; and one in the middle of a big file.
        let mut small = rng.bytes(400);
        small.splice(100..100, marked.content.iter().copied());
        put(marked.temp.join("src").join(&marked.name), small, OLD);
        let mut big = rng.bytes(1 << 20);
        big.splice(700_000..700_000, marked.content.iter().copied());
        put(marked.temp.join("src/big"), big, OLD);
        marked
    }

    /// Lines of those given that show the name, and those that show the content.
    fn seen<'a>(&self, lines: impl Iterator<Item = &'a String> + Clone) -> (usize, usize) {
        let count = |mark: String| lines.clone().filter(|line| line.contains(&mark)).count();
        (count(hex(self.name.as_bytes())), count(hex(&self.content)))
    }
}

#[test]
fn a_direct_lane_shows_neither_names_nor_contents() {
    let shell = FakeShell::new();
    for (seed, push, transport) in [(1, true, "direct"), (2, false, "direct"), (3, true, "shell")] {
        let marked = Marked::new(seed);
        let (src, dst) = (marked.temp.join("src"), marked.temp.join("dst"));
        let ends = match push {
            true => [marked.temp.join("src/").into(), at(HERE, &dst)],
            false => [contents(HERE, &src), dst.clone().into()],
        };
        let options = ["-a", "--lanes", "2", "--transport", transport];
        let lines = watched(sync(options).args(shell.args()).args(ends), |_| {});
        Judge::strict().assert(&src, &dst);
        let (tcp, other): (Vec<&String>, Vec<&String>) = lines.iter().partition(|line| is_tcp(line));
        if transport == "direct" {
            let moved = tcp.iter().filter(|line| line.contains("write") || line.contains("send")).count();
            assert!(moved >= 4, "hardly anything crossed TCP: {moved} calls");
            assert_eq!(marked.seen(tcp.into_iter()), (0, 0));
            // The same eyes saw the content where it was read and written.
            assert!(marked.seen(other.into_iter()).1 >= 3);
        } else {
            assert_eq!(tcp.len(), 0);
            // What crosses the shell's pipe is for the shell to hide: names and contents are seen there.
            let pipes = other.into_iter().filter(|line| is_write_to_pipe(line));
            let (names, contents) = marked.seen(pipes);
            assert!(names >= 1 && contents >= 1, "the watch sees nothing: {names} {contents}");
        }
    }
}

#[test]
fn a_daemons_connections_show_neither_names_nor_contents() {
    let marked = Marked::new(4);
    let user = User::new();
    fs::create_dir(marked.temp.join("module")).unwrap();
    let modules = [format!("m={},rw", marked.temp.join("module").display())];
    let daemon = Daemon::start(&modules, &user);
    for (from, to) in [
        (marked.temp.join("src/").into_os_string(), OsString::from(daemon.at("m/"))),
        (daemon.at("m/").into(), marked.temp.join("pulled").into()),
    ] {
        // Both directions pass the client.
        let call = sync(["-a", "--accept-new", "--lanes", "4", "--transport", "direct"]).args([from, to]);
        let lines = watched(user.call(call), |_| {});
        let (tcp, other): (Vec<&String>, Vec<&String>) = lines.iter().partition(|line| is_tcp(line));
        assert!(tcp.len() > 10, "hardly anything crossed TCP");
        assert_eq!(marked.seen(tcp.into_iter()), (0, 0));
        assert!(marked.seen(other.into_iter()).1 >= 2, "the watch sees nothing");
    }
    Judge::strict().assert(&marked.temp.join("src"), &marked.temp.join("module"));
    Judge::strict().assert(&marked.temp.join("src"), &marked.temp.join("pulled"));
    assert!(!daemon.log().contains(&hex(&marked.content)));
}

/// All random bytes that either end drew for keys and tokens are known here, and looked for where others look.
#[test]
fn secrets_are_in_no_argument_variable_log_or_output() {
    let temp = Temp::new();
    fixture::big_file(&temp.join("src/big"), 6 << 20, 1);
    let shell = FakeShell::new();
    let (log, shown) = (temp.join("log"), temp.join("shown"));
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let call = sync(["-a", "-vv", "--json", "--transport", "direct", "--lanes", "2", "--bwlimit=2M", "--log-file"])
        .args([&log])
        .args(shell.args())
        .args([temp.join("src/").into(), at(HERE, &temp.join("dst"))]);
    // A shell in between keeps what it prints.
    let words = call.words().to_vec();
    let script = format!("\"$@\" > {0} 2>&1", shown.display());
    let call = Call::new("sh").args(["-c", &script, "sh"]).args(&words);
    let lines = watched(call, |root| {
        for process in family(root) {
            for file in ["cmdline", "environ"] {
                if let Ok(bytes) = fs::read(format!("/proc/{}/{file}", process.id))
                    && !seen.contains(&bytes)
                {
                    seen.push(bytes);
                }
            }
        }
    });
    let random: Vec<Vec<u8>> = lines
        .iter()
        .filter_map(|line| line.split_once("getrandom")?.1.split_once('"')?.1.split_once('"'))
        .map(|(text, _)| text.split("\\x").skip(1).map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect())
        .filter(|bytes: &Vec<u8>| bytes.len() >= 32)
        .collect();
    // One of them is the token, which the shell's pipe carried.
    let is_told = |secret: &Vec<u8>| {
        let told = hex(numbers(secret).as_bytes());
        lines.iter().any(|line| is_write_to_pipe(line) && line.contains(&told))
    };
    assert!(random.iter().any(is_told), "no token among {} random values", random.len());
    seen.extend([fs::read(&log).unwrap(), fs::read(&shown).unwrap()]);
    assert!(seen.len() > 8 && seen.last().unwrap().starts_with(b"{"), "hardly anything was looked at");
    for secret in &random {
        let plain = secret.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        for bytes in &seen {
            let text = String::from_utf8_lossy(bytes).to_lowercase();
            assert!(!bytes.windows(secret.len()).any(|window| window == secret) && !text.contains(&plain));
            assert!(!text.contains(&numbers(secret)) && !text.contains(&base64(secret).to_lowercase()), "{text}");
        }
    }
}

/// As JSON has bytes.
fn numbers(bytes: &[u8]) -> String {
    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(",")
}

/// The characters of base64 that depend on these bytes alone.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let number = |six: &[u8]| six.iter().fold(0usize, |number, bit| number << 1 | usize::from(*bit));
    bits.chunks_exact(6).map(|six| ALPHABET[number(six)] as char).collect()
}
