//! Peers that do not keep to the protocol, or send what nobody may: the process under test ends with an honest error,
//! in bounded time and memory, and nothing outside its root is touched.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests stand outside the rooms")]

#[path = "../support/mod.rs"]
mod support;

mod far_receiver;
mod far_sender;
mod near;

use std::path::{Path, PathBuf};

use support::Temp;
use support::disk::{get, put};
use xfer::plan::options::{Recursion, SyncOptions};

/// What a far end, or a client, may take at its peak: its buffers, its credit's worth of listings, and the program.
const MIB_MAX: u64 = 128;

/// A directory with a root for the process under test, and a canary beside it.
struct Place {
    temp: Temp,
}

impl Place {
    fn new() -> Place {
        let temp = Temp::new();
        put(temp.join("canary/file"), "untouched", 1_500_000_000);
        put(temp.join("root/old"), "old", 1_500_000_000);
        Place { temp }
    }

    fn root(&self) -> PathBuf {
        self.temp.join("root")
    }

    /// Nothing beside the root is new, gone or other than it was; in the root is only what `names` names.
    fn is_untouched_but(&self, names: &[&str]) {
        assert_eq!(listed(self.temp.path()), ["canary", "root"]);
        assert_eq!(listed(&self.temp.join("canary")), ["file"]);
        assert_eq!(get(self.temp.join("canary/file")), b"untouched");
        assert_eq!(get(self.temp.join("root/old")), b"old");
        let mut all: Vec<&str> = names.iter().copied().chain(["old"]).collect();
        all.sort_unstable();
        assert_eq!(listed(&self.root()), all);
    }

    fn is_untouched(&self) {
        self.is_untouched_but(&[]);
    }
}

fn listed(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn options() -> SyncOptions {
    SyncOptions { recursion: Recursion::Deep, ..SyncOptions::default() }
}
