//! What a session's process can still do once it has confined itself: tried for real, each time in a process of its own
//! that has one thread (which is why this program brings its own `main`).
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the answers of the confined process are its output")]
#![allow(clippy::disallowed_methods, reason = "tests stand outside the rooms")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use xfer::sync::serve::{Needs, confine};

const CHILD: &str = "XFER_TEST_SANDBOX";

/// A module with a neighbour.
struct Place {
    _temp: tempfile::TempDir,
    top: PathBuf,
}

impl Place {
    fn new() -> Place {
        let temp = tempfile::tempdir().unwrap();
        let top = temp.path().canonicalize().unwrap();
        fs::set_permissions(&top, PermissionsExt::from_mode(0o755)).unwrap();
        for dir in ["module", "module/sub", "outside"] {
            fs::create_dir(top.join(dir)).unwrap();
            fs::set_permissions(top.join(dir), PermissionsExt::from_mode(0o777)).unwrap();
        }
        for file in ["module/file", "outside/file"] {
            fs::write(top.join(file), "content").unwrap();
            fs::set_permissions(top.join(file), PermissionsExt::from_mode(0o666)).unwrap();
        }
        fs::write(top.join("module/secret"), "content").unwrap();
        fs::set_permissions(top.join("module/secret"), PermissionsExt::from_mode(0o600)).unwrap();
        fs::copy("/bin/true", top.join("module/program")).unwrap();
        std::os::unix::fs::symlink("/bin/true", top.join("module/link")).unwrap();
        Place { _temp: temp, top }
    }

    /// What a process that confined itself by `needs` says of each attempt.
    fn confined(&self, needs: &str) -> Answers {
        let child = Command::new(std::env::current_exe().unwrap())
            .env(CHILD, format!("{needs} {}", self.top.display()))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(child.status.success(), "{needs}: {child:?}");
        Answers(String::from_utf8(child.stdout).unwrap())
    }
}

struct Answers(String);

impl Answers {
    #[track_caller]
    fn of(&self, what: &str) -> &str {
        let start = format!("{what} = ");
        self.0.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("{what} in {}", self.0))
    }

    #[track_caller]
    fn can(&self, what: &str) {
        assert_eq!(self.of(what), "done", "{what}");
    }

    #[track_caller]
    fn cannot(&self, what: &str) {
        assert_ne!(self.of(what), "done", "{what}");
    }
}

/// In the child: confines itself, and tries everything.
fn child(told: &str) {
    let mut words = told.split(' ');
    let (kind, uid, top) = (words.next().unwrap(), words.next().unwrap(), Path::new(words.next().unwrap()));
    let uid = uid.parse().ok();
    let needs = Needs { write: kind == "write", read_anywhere: kind == "anywhere", uid, gid: uid };
    let root = fs::File::open(top.join("module")).unwrap();
    let mut out = std::io::stdout();
    let missing = confine(&root, needs).unwrap();
    let mut tell = |what: &str, result: Result<(), std::io::Error>| {
        let text = result.map_or_else(|error| error.to_string(), |()| "done".to_owned());
        writeln!(out, "{what} = {text}").unwrap();
    };
    tell("landlock", missing.map_or(Ok(()), |text| Err(std::io::Error::other(text))));
    tell("read inside", fs::read(top.join("module/file")).map(drop));
    tell("read another's inside", fs::read(top.join("module/secret")).map(drop));
    tell("list inside", fs::read_dir(top.join("module")).map(drop));
    tell("read outside", fs::read(top.join("outside/file")).map(drop));
    tell("list outside", fs::read_dir(top.join("outside")).map(drop));
    tell("read /etc/passwd", fs::read("/etc/passwd").map(drop));
    tell("read /proc", fs::read("/proc/1/status").map(drop));
    tell("write inside", fs::write(top.join("module/new"), "x"));
    tell("rename between directories", fs::rename(top.join("module/new"), top.join("module/sub/new")));
    tell("link between directories", fs::hard_link(top.join("module/sub/new"), top.join("module/again")));
    tell("change owner inside", std::os::unix::fs::chown(top.join("module/file"), Some(1234), Some(1234)));
    tell("write outside", fs::write(top.join("outside/file"), "changed"));
    tell("create outside", fs::write(top.join("outside/new"), "x"));
    tell("rename to outside", fs::rename(top.join("module/sub/new"), top.join("outside/moved")));
    tell("run /bin/true", Command::new("/bin/true").status().map(drop));
    tell("run a program inside", Command::new(top.join("module/program")).status().map(drop));
    tell("run a link inside", Command::new(top.join("module/link")).status().map(drop));
    tell("listen", std::net::TcpListener::bind("127.0.0.1:0").map(drop));
    tell("connect", std::net::TcpStream::connect("127.0.0.1:9").map(drop));
    let parent = rustix::process::getppid().unwrap();
    tell("signal its parent", rustix::process::test_kill_process(parent).map_err(Into::into));
    tell("become root", nix::unistd::setuid(nix::unistd::Uid::from_raw(0)).map_err(Into::into));
    let status = |name: &str| {
        // From the kernel, though /proc is shut: the thread's own identity.
        match name {
            "uid" => rustix::process::getuid().as_raw(),
            _ => rustix::process::getgid().as_raw(),
        }
    };
    println!("uid = {}\ngid = {}", status("uid"), status("gid"));
    let groups: Vec<u32> = rustix::process::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
    println!("groups = {groups:?}");
    let held = rustix::thread::capabilities(None).unwrap();
    println!("capabilities = {:?}", held.effective | held.permitted | held.inheritable);
    println!("no new privileges = {}", rustix::thread::no_new_privs().unwrap());
    println!("dumpable = {:?}", rustix::process::dumpable_behavior().unwrap());
    println!("core = {:?}", rustix::process::getrlimit(rustix::process::Resource::Core).maximum);
    // A thread that begins now is confined, too.
    let inherited = std::thread::spawn(|| fs::read("/etc/passwd").is_err()).join().unwrap();
    println!("threads inherit = {inherited}");
}

fn nothing_else(answers: &Answers) {
    for what in [
        "list outside",
        "write outside",
        "create outside",
        "rename to outside",
        "run /bin/true",
        "run a program inside",
        "run a link inside",
        "listen",
        "connect",
        "signal its parent",
    ] {
        answers.cannot(what);
    }
    assert_eq!(answers.of("no new privileges"), "true");
    assert_eq!(answers.of("dumpable"), "NotDumpable");
    assert_eq!(answers.of("core"), "Some(0)");
}

fn a_reader_only_reads() {
    let place = Place::new();
    let answers = place.confined("read -");
    answers.can("landlock");
    for what in ["read inside", "list inside", "read another's inside"] {
        answers.can(what);
    }
    nothing_else(&answers);
    for what in ["read outside", "read /etc/passwd", "read /proc", "write inside", "change owner inside"] {
        answers.cannot(what);
    }
    assert_eq!(answers.of("threads inherit"), "true");
    assert_eq!(answers.of("capabilities"), "CapabilitySet(DAC_READ_SEARCH)");
    assert_eq!(fs::read_to_string(place.top.join("outside/file")).unwrap(), "content");
    assert!(!place.top.join("module/new").exists());
}

fn a_writer_stays_inside_and_keeps_owners() {
    let place = Place::new();
    let answers = place.confined("write -");
    let inside = ["read inside", "write inside", "rename between directories", "link between directories"];
    inside.iter().chain(&["change owner inside"]).for_each(|what| answers.can(what));
    nothing_else(&answers);
    for what in ["read outside", "read /etc/passwd"] {
        answers.cannot(what);
    }
    assert_eq!(fs::metadata(place.top.join("module/file")).unwrap().uid(), 1234);
    assert_eq!(fs::read_to_string(place.top.join("outside/file")).unwrap(), "content");
    assert!(!place.top.join("outside/moved").exists() && !place.top.join("outside/new").exists());
    let kept = answers.of("capabilities");
    assert!(kept.contains("CHOWN") && kept.contains("MKNOD"), "{kept}");
    for gone in ["SYS_ADMIN", "SETUID", "SYS_PTRACE", "NET_ADMIN", "KILL", "SYS_CHROOT"] {
        assert!(!kept.contains(gone), "{kept}");
    }
}

fn another_user_has_no_way_back() {
    let place = Place::new();
    let answers = place.confined("write 4321");
    answers.can("write inside");
    nothing_else(&answers);
    for what in ["read another's inside", "change owner inside", "become root", "read /etc/passwd"] {
        answers.cannot(what);
    }
    assert_eq!((answers.of("uid"), answers.of("gid")), ("4321", "4321"));
    assert_eq!(answers.of("groups"), "[4321]");
    assert_eq!(answers.of("capabilities"), "CapabilitySet(0x0)");
    assert_eq!(fs::metadata(place.top.join("module/again")).unwrap().uid(), 4321);
}

fn links_may_be_followed_out_where_the_module_says_so() {
    let place = Place::new();
    let answers = place.confined("anywhere -");
    for what in ["read inside", "read outside", "read /etc/passwd", "list outside"] {
        answers.can(what);
    }
    for what in ["write inside", "write outside", "create outside", "run /bin/true", "run a program inside"] {
        answers.cannot(what);
    }
}

/// A thread that is there already would keep its rights: then nothing begins.
fn a_process_with_threads_is_refused() {
    let (_keep, wait) = std::sync::mpsc::channel::<()>();
    let _thread = std::thread::spawn(move || wait.recv());
    let root = fs::File::open("/").unwrap();
    let error = confine(&root, Needs { write: false, read_anywhere: false, uid: None, gid: None }).unwrap_err();
    assert!(format!("{error:?}").contains("instead of one"), "{error:?}");
}

fn main() {
    if let Ok(told) = std::env::var(CHILD) {
        return child(&told);
    }
    assert!(rustix::process::geteuid().is_root(), "this test changes users: run it as root (sudo -E tools/test)");
    let tests: [(&str, fn()); 5] = [
        ("a_reader_only_reads", a_reader_only_reads),
        ("a_writer_stays_inside_and_keeps_owners", a_writer_stays_inside_and_keeps_owners),
        ("another_user_has_no_way_back", another_user_has_no_way_back),
        ("links_may_be_followed_out_where_the_module_says_so", links_may_be_followed_out_where_the_module_says_so),
        ("a_process_with_threads_is_refused", a_process_with_threads_is_refused),
    ];
    for (name, test) in tests {
        test();
        println!("test {name} ... ok");
    }
    println!("test result: ok. {} passed; 0 failed", tests.len());
}
