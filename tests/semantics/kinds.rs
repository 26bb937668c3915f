//! Every kind of inode, and every change of kind.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use rustix::fs::FileType;

use crate::support::disk::{mknod, put, set_mtime, there};
use crate::support::fixture::OLD;
use crate::support::judge::Judge;
use crate::support::run::sync;
use crate::support::twin::same;
use crate::support::{Temp, need_root};

const KINDS: &[&str] = &["file", "dir", "full-dir", "link", "fifo", "socket", "char", "block"];

fn make(path: &Path, kind: &str, seconds: i64) {
    match kind {
        "file" => put(path, "content", seconds),
        "dir" => fs::create_dir_all(path).unwrap(),
        "full-dir" => put(path.join("inner/file"), "inner", seconds),
        "link" => symlink("some-target", path).unwrap(),
        "fifo" => mknod(path, FileType::Fifo, 0o644, 0, 0),
        "socket" => mknod(path, FileType::Socket, 0o644, 0, 0),
        "char" => mknod(path, FileType::CharacterDevice, 0o644, 1, 3),
        _ => mknod(path, FileType::BlockDevice, 0o644, 7, 9),
    }
    if kind == "full-dir" {
        set_mtime(&path.join("inner"), seconds, 1);
    }
    set_mtime(path, seconds, 1);
}

#[test]
fn every_change_of_kind() {
    need_root("devices");
    for flags in [&["-a", "--delete"][..], &["-a", "--force"]] {
        let fixture = |dir: &Path| {
            for root in ["src", "dst"] {
                fs::create_dir(dir.join(root)).unwrap();
            }
            for old in KINDS {
                for new in KINDS {
                    let name = format!("{old}-to-{new}");
                    make(&dir.join("dst").join(&name), old, OLD - 10);
                    make(&dir.join("src").join(&name), new, OLD);
                }
            }
            set_mtime(&dir.join("src"), OLD, 0);
        };
        let mut args = flags.to_vec();
        args.extend(["src/", "dst"]);
        let twin = same(fixture, &args).code(0);
        // Without deletion what a directory holds beyond the source's stays.
        let judge = Judge { extra_allowed: flags[1] == "--force", ..Judge::strict() };
        judge.assert(&twin.dir().join("src"), &twin.dir().join("dst"));
    }
}

#[test]
fn a_full_directory_gives_way_only_when_told() {
    let temp = Temp::new();
    put(temp.join("src/name"), "file", OLD);
    put(temp.join("dst/name/inner"), "precious", OLD);
    let output = sync(["-a", "src/", "dst"]).dir(temp.path()).run().expect(23);
    assert!(there(temp.join("dst/name/inner")), "{}", output.describe());
    sync(["-a", "--force", "src/", "dst"]).dir(temp.path()).expect(0);
    assert!(temp.join("dst/name").is_file());
}

#[test]
fn specials_and_devices_only_when_asked_for() {
    need_root("devices");
    let fixture = |dir: &Path| {
        for kind in KINDS {
            fs::create_dir_all(dir.join("src")).unwrap();
            make(&dir.join("src").join(kind), kind, OLD);
        }
    };
    same(fixture, &["-r", "src/", "dst"]).code(0);
    same(fixture, &["-rl", "--devices", "src/", "dst"]).code(0);
    same(fixture, &["-rl", "--specials", "src/", "dst"]).code(0);
    same(fixture, &["-a", "--no-devices", "src/", "dst"]).code(0);
    same(fixture, &["-a", "--no-D", "src/", "dst"]).code(0);
}

#[test]
fn a_device_with_other_numbers_is_made_anew() {
    need_root("devices");
    let fixture = |dir: &Path| {
        for (root, minor) in [("src", 5), ("dst", 3)] {
            fs::create_dir(dir.join(root)).unwrap();
            mknod(&dir.join(root).join("dev"), FileType::CharacterDevice, 0o600, 1, minor);
            set_mtime(&dir.join(root).join("dev"), OLD, 0);
        }
    };
    same(fixture, &["-a", "src/", "dst"]).code(0);
}

#[test]
fn sparse_files_stay_sparse() {
    let temp = Temp::new();
    fs::create_dir(temp.join("src")).unwrap();
    for (name, length) in [("hole", 1u64 << 30), ("small", 1 << 20)] {
        let file = fs::File::create(temp.join("src").join(name)).unwrap();
        file.set_len(length).unwrap();
        std::os::unix::fs::FileExt::write_at(&file, b"in the middle", length / 2).unwrap();
    }
    fs::write(temp.join("src/zeros"), vec![0; 4 << 20]).unwrap();
    let output = sync(["-aS", "src/", "dst"]).dir(temp.path()).expect(0);
    assert!(output.elapsed.as_secs() < 30, "holes must not be read as data");
    Judge { holes: true, ..Judge::strict() }.assert(&temp.join("src"), &temp.join("dst"));
    let blocks = fs::metadata(temp.join("dst/zeros")).unwrap().blocks() * 512;
    assert!(blocks < 1 << 20, "-S makes holes of zeros: {blocks} bytes used");
    // Onto an existing full file.
    fs::write(temp.join("dst/small"), vec![7; 1 << 20]).unwrap();
    sync(["-aS", "src/", "dst"]).dir(temp.path()).expect(0);
    Judge { holes: true, ..Judge::strict() }.assert(&temp.join("src"), &temp.join("dst"));
}

#[test]
fn lengths_around_the_sizes_at_which_files_are_cut() {
    let temp = Temp::new();
    let sizes: &[usize] = &[
        0, 1, 4095, 4096, 4097, 65_535, 65_536, 131_072, 262_143, 262_144, 262_145, 524_287, 524_288, 524_289,
        1_048_575, 1_048_576, 1_048_577, 5_000_000,
    ];
    fs::create_dir(temp.join("src")).unwrap();
    for (number, &size) in sizes.iter().enumerate() {
        fs::write(temp.join(format!("src/{size}")), crate::support::rng::Rng::new(number as u64).bytes(size)).unwrap();
    }
    let shell = crate::support::ssh::FakeShell::new();
    for (name, far) in [("local", false), ("far", true)] {
        let dst = temp.join(name);
        for pass in 0..2 {
            let call = sync(["-a", "-z", "--no-whole-file"]).dir(temp.path());
            let call = if far {
                call.args(shell.args()).args(["src/".into(), crate::support::ssh::at("host", &dst)])
            } else {
                call.args(["src/".as_ref(), dst.as_os_str()])
            };
            call.expect(0);
            Judge::strict().assert(&temp.join("src"), &dst);
            if pass == 0 {
                for &size in sizes.iter().filter(|&&size| size > 0) {
                    let path = temp.join(format!("src/{size}"));
                    let mut content = fs::read(&path).unwrap();
                    content[size / 2] ^= 0x55;
                    content.insert(size / 3, 1);
                    put(&path, content, OLD);
                }
            }
        }
    }
}

#[test]
fn very_deep_trees_beyond_the_longest_path() {
    let temp = Temp::new();
    // Made by moving into each directory: no single path is short enough for one call.
    let script = "mkdir src && cd src && i=0; while [ $i -lt 60 ]; do d=$(printf 'd%099d' $i); mkdir $d && cd $d; \
                  i=$((i+1)); done; echo deep > file";
    let status = std::process::Command::new("sh").arg("-c").arg(script).current_dir(temp.path()).status().unwrap();
    assert!(status.success());
    let output = sync(["-a", "src/", "dst"]).dir(temp.path()).run();
    let remove = || {
        let _ = std::process::Command::new("rm").args(["-rf", "src", "dst"]).current_dir(temp.path()).status();
    };
    if crate::support::run::only_xfer("trees deeper than PATH_MAX") {
        return remove();
    }
    let text = output.describe();
    let find = |root: &str| {
        let output =
            std::process::Command::new("find").args([root, "-printf", "%d %f %s\n"]).current_dir(temp.path()).output();
        String::from_utf8_lossy(&output.unwrap().stdout).replace(root, "").replace("4096", "")
    };
    let equal = find("src") == find("dst");
    remove();
    assert!(output.code() == 0 && equal, "{text}");
}
