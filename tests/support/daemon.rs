//! A daemon as its operator starts it, and its users' configurations.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::Temp;
use super::run::{Call, binary, xfer};
use super::sockets::wait_until;

/// A user with keys of their own.
pub struct User(Temp);

impl User {
    /// One with a new key.
    pub fn new() -> User {
        let user = User(Temp::new());
        user.call(xfer(["key", "new", "--comment", "tester"])).expect(0);
        user
    }

    /// `call`, made by this user.
    pub fn call(&self, call: Call) -> Call {
        call.env("HOME", self.0.path()).env("XDG_CONFIG_HOME", self.0.path())
    }

    /// The line of their public key.
    pub fn line(&self) -> String {
        self.call(xfer(["key", "show"])).expect(0).out().trim_end().to_owned()
    }

    /// A file of their configuration.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join("xfer").join(name)
    }
}

/// A daemon on loopback; killed when dropped.
pub struct Daemon {
    child: Child,
    home: User,
    port: u16,
}

impl Daemon {
    /// Serves `modules` (`NAME=PATH[,rw]`) to `client`, who may use all of them.
    pub fn start(modules: &[String], client: &User) -> Daemon {
        Daemon::start_at(User::new(), 0, modules, client)
    }

    fn start_at(home: User, port: u16, modules: &[String], client: &User) -> Daemon {
        let names: Vec<&str> = modules.iter().map(|module| module.split('=').next().unwrap()).collect();
        let authorize = xfer(["key", "authorize", &client.line()]);
        home.call(names.iter().fold(authorize, |call, name| call.args(["--module", name]))).expect(0);
        let mut command = Command::new(binary());
        command.args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--log"]).arg(home.0.join("log"));
        for module in modules {
            command.args(["--module", module]);
        }
        let child = command
            .env("HOME", home.0.path())
            .env("XDG_CONFIG_HOME", home.0.path())
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut daemon = Daemon { child, home, port };
        wait_until("a daemon that listens", || {
            let log = daemon.log();
            let port = log.split("listening on 127.0.0.1:").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
            daemon.port = port.unwrap_or_default();
            port.is_some()
        });
        daemon
    }

    /// Ends it and starts one with another key on the same port.
    pub fn with_another_key(mut self, modules: &[String], client: &User) -> Daemon {
        self.end();
        Daemon::start_at(User::new(), self.port, modules, client)
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// An address on it.
    pub fn at(&self, tail: &str) -> String {
        format!("xfer://127.0.0.1:{}/{tail}", self.port)
    }

    /// All that it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.0.join("log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
    }
}
