//! Every command of the operators' procedures that begins with `rsync`, word for word, with `rsync` replaced by
//! `xfer sync`, through a real sshd.
//!
//! Both "machines" are directories here: the paths of the commands are taken beneath one directory for the machine
//! where the command runs, and beneath another behind `host:`.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests stand outside the rooms")]

mod support;

use std::path::PathBuf;

use support::disk::{get, put, there};
use support::judge::Judge;
use support::run::{Output, only_xfer, sync};
use support::ssh::Sshd;
use support::tree::{self, Size};
use support::{Temp, need_root};

const CORE_V1_MONGODB: &str = r#"time rsync --verbose --copy-links --archive --compress --delete -e "ssh -i ${PATH_TO_PRIVATE_KEY}" ${USERNAME}@${SOURCE_MACHINE}:${PRYV_CONF_ROOT}/core/mongodb/data/ ${PRYV_CONF_ROOT}/core/mongodb/data/"#;
const CORE_V1_ATTACHMENTS: &str = r#"time rsync --verbose --copy-links --archive --compress --delete -e "ssh -i ${PATH_TO_PRIVATE_KEY}" ${USERNAME}@${SOURCE_MACHINE}:${PRYV_CONF_ROOT}/core/core/data/ ${PRYV_CONF_ROOT}/core/core/data"#;
const CORE_V2_CONFIG: &str = r#"rsync --verbose --copy-links --archive --compress \
-e "ssh -i ${PATH_TO_PRIVATE_KEY}" \
/etc/pryv/ \
${USERNAME}@${DEST_MACHINE}:/etc/pryv/"#;
const CORE_V2_DUMP: &str = r#"rsync -e "ssh -i ${PATH_TO_PRIVATE_KEY}" \
/tmp/pryv_db.dump \
${USERNAME}@${DEST_MACHINE}:/tmp/pryv_db.dump"#;
const CORE_V2_MONGODUMP: &str = r#"rsync --archive --compress \
-e "ssh -i ${PATH_TO_PRIVATE_KEY}" \
/tmp/mongodump/ \
${USERNAME}@${DEST_MACHINE}:/tmp/mongodump/"#;
const CORE_V2_DATA: &str = r#"rsync --verbose --copy-links --archive --compress \
-e "ssh -i ${PATH_TO_PRIVATE_KEY}" \
/var/lib/pryv/data/ \
${USERNAME}@${DEST_MACHINE}:/var/lib/pryv/data/"#;
const UPGRADE: &str = "rsync -av /var/pryv/pryv/core/data/ /var/pryv1.6/pryv/core/data/";
const REGISTER_LEADER: &str = r#"time rsync --verbose --copy-links \
     --archive --compress -e \
  "ssh -i ${PATH_TO_PRIVATE_KEY}" \
     ${PRYV_CONF_ROOT}/config-leader \
     ${USERNAME}@${DEST_MACHINE}:${PRYV_CONF_ROOT}/config-leader/"#;
const REGISTER_FOLLOWER: &str = r#"time rsync --verbose --copy-links \
     --archive --compress -e \
  "ssh -i ${PATH_TO_PRIVATE_KEY}" \
     ${PRYV_CONF_ROOT}/config-follower \
     ${USERNAME}@${DEST_MACHINE}:${PRYV_CONF_ROOT}/config-follower/"#;
const REGISTER_REDIS: &str = r#"time rsync --verbose --copy-links \
  --archive --compress --delete -e \
  "ssh -i ${PATH_TO_PRIVATE_KEY}" \
  ${PRYV_CONF_ROOT}/pryv/redis/data \
  ${USERNAME}@${DEST_MACHINE}:${PRYV_CONF_ROOT}/pryv/redis/data/"#;

/// Two machines: what is here, what is far, and the sshd between them.
struct Machines {
    temp: Temp,
    sshd: Sshd,
}

impl Machines {
    fn new() -> Machines {
        need_root("the commands carry owners over");
        let machines = Machines { temp: Temp::new(), sshd: Sshd::start() };
        std::fs::create_dir_all(machines.here("")).unwrap();
        std::fs::create_dir_all(machines.far("")).unwrap();
        machines
    }

    fn here(&self, path: &str) -> PathBuf {
        self.temp.join("here").join(path.trim_start_matches('/'))
    }

    fn far(&self, path: &str) -> PathBuf {
        self.temp.join("far").join(path.trim_start_matches('/'))
    }

    /// Substitutes the variables, puts the paths beneath the machines' directories and runs the command.
    fn run(&self, command: &str) -> Output {
        let user = std::env::var("USER").unwrap_or_else(|_| "root".into());
        let mut text = command.replace("\\\n", " ");
        for (name, value) in [
            ("PATH_TO_PRIVATE_KEY", self.sshd.key().display().to_string()),
            ("USERNAME", user),
            ("SOURCE_MACHINE", "source.example".into()),
            ("DEST_MACHINE", "dest.example".into()),
            ("PRYV_CONF_ROOT", "/var/pryv".into()),
        ] {
            text = text.replace(&format!("${{{name}}}"), &value);
        }
        let words = shell_words::split(&text).unwrap();
        let start = words.iter().position(|word| word == "rsync").unwrap() + 1;
        let words: Vec<String> = words[start..]
            .iter()
            .map(|word| match word.split_once(":/") {
                Some((host, path)) => {
                    format!("{host}:{}/{path}", self.far("").display().to_string().trim_end_matches('/'))
                }
                None if word.starts_with('/') => {
                    format!("{}{word}", self.here("").display().to_string().trim_end_matches('/'))
                }
                None => word.clone(),
            })
            .collect();
        sync(words).env("PATH", self.sshd.path()).run()
    }
}

/// A tree as services leave it: no dangling links, since `--copy-links` rightly ends with 23 at those.
fn service_data(root: &std::path::Path, seed: u64) {
    put(root.join("db/collection-0.wt"), support::rng::Rng::new(seed).bytes(300_000), 1_600_000_000 + seed as i64 * 60);
    put(root.join("db/journal/log.1"), b"journal ".repeat(2000), 1_600_000_001);
    put(
        root.join("attachments/u1/event 1/päge.pdf"),
        support::rng::Rng::new(seed + 1).bytes(70_000),
        1_600_000_002 + seed as i64 * 60,
    );
    put(root.join("conf/site.yml"), "listen: 443\n", 1_600_000_003);
    if !there(root.join("conf/current.yml")) {
        std::os::unix::fs::symlink("site.yml", root.join("conf/current.yml")).unwrap();
    }
    std::fs::create_dir_all(root.join("empty")).unwrap();
    std::os::unix::fs::lchown(root.join("db/collection-0.wt"), Some(999), Some(999)).unwrap();
    support::disk::chmod(&root.join("db"), 0o700);
}

/// Links are followed by these commands: the copy holds files where the source holds links.
fn followed() -> Judge {
    Judge { root: true, ..Judge::strict() }.ignoring(|path| path.ends_with(b"conf/current.yml"))
}

/// A transfer, a change at the source, and the same command again: the last sync of a migration.
fn warm_and_cold(
    machines: &Machines,
    command: &str,
    source: &std::path::Path,
    destination: &std::path::Path,
    links: bool,
) {
    service_data(source, 1);
    std::fs::create_dir_all(destination).unwrap();
    let judge = || if links { followed() } else { Judge::strict() };
    machines.run(command).expect(0);
    judge().assert(source, destination);
    service_data(source, 2);
    put(source.join("db/new"), "came later", 1_600_000_100);
    if command.contains("--delete") {
        std::fs::remove_file(source.join("db/journal/log.1")).unwrap();
    }
    let output = machines.run(command).expect(0);
    judge().assert(source, destination);
    if links {
        assert_eq!(get(destination.join("conf/current.yml")), b"listen: 443\n");
        assert!(!destination.join("conf/current.yml").is_symlink());
    }
    if command.contains("verbose") || command.contains("-av") {
        let out = output.out();
        assert!(out.contains("db/new") && out.contains("total size is"), "{}", output.describe());
    }
}

#[test]
fn core_v1_pulls_the_database() {
    let m = Machines::new();
    let path = "/var/pryv/core/mongodb/data";
    warm_and_cold(&m, CORE_V1_MONGODB, &m.far(path), &m.here(path), true);
}

#[test]
fn core_v1_pulls_the_attachments() {
    let m = Machines::new();
    let path = "/var/pryv/core/core/data";
    warm_and_cold(&m, CORE_V1_ATTACHMENTS, &m.far(path), &m.here(path), true);
}

#[test]
fn core_v2_pushes_configuration_and_data() {
    let m = Machines::new();
    for (command, path) in [(CORE_V2_CONFIG, "/etc/pryv"), (CORE_V2_DATA, "/var/lib/pryv/data")] {
        warm_and_cold(&m, command, &m.here(path), &m.far(path), true);
    }
}

#[test]
fn core_v2_pushes_the_dumps() {
    let m = Machines::new();
    let path = "/tmp/mongodump";
    warm_and_cold(&m, CORE_V2_MONGODUMP, &m.here(path), &m.far(path), false);
    support::fixture::big_file(&m.here("/tmp/pryv_db.dump"), 3_000_000, 5);
    std::fs::create_dir_all(m.far("/tmp")).unwrap();
    m.run(CORE_V2_DUMP).expect(0);
    assert!(get(m.here("/tmp/pryv_db.dump")) == get(m.far("/tmp/pryv_db.dump")));
    // And onto the earlier dump.
    support::fixture::big_file(&m.here("/tmp/pryv_db.dump"), 3_100_000, 6);
    m.run(CORE_V2_DUMP).expect(0);
    assert!(get(m.here("/tmp/pryv_db.dump")) == get(m.far("/tmp/pryv_db.dump")));
}

#[test]
fn the_upgrade_in_place_copies_locally() {
    let m = Machines::new();
    let source = m.here("/var/pryv/pryv/core/data");
    let destination = m.here("/var/pryv1.6/pryv/core/data");
    warm_and_cold(&m, UPGRADE, &source, &destination, false);
    // A tree of every kind, too.
    let m = Machines::new();
    let source = m.here("/var/pryv/pryv/core/data");
    let destination = m.here("/var/pryv1.6/pryv/core/data");
    tree::random(&source, 77, Size::SMALL);
    std::fs::create_dir_all(destination.parent().unwrap()).unwrap();
    m.run(UPGRADE).expect(0);
    Judge { hard_links: false, ..Judge::strict() }.without_xattrs().assert(&source, &destination);
}

/// No trailing slash at the source: the directory itself goes into the destination. That is what the command says,
/// and where both end in the same name it is almost never what its author meant, so it is told once.
#[test]
fn register_nests_directories_and_is_told_so() {
    let m = Machines::new();
    for (command, path, name) in [
        (REGISTER_LEADER, "/var/pryv/config-leader", "config-leader"),
        (REGISTER_FOLLOWER, "/var/pryv/config-follower", "config-follower"),
        (REGISTER_REDIS, "/var/pryv/pryv/redis/data", "data"),
    ] {
        let source = m.here(path);
        service_data(&source, 3);
        // The destination of a first run is not there: the parent is, as on a machine that was set up.
        std::fs::create_dir_all(m.far(path).parent().unwrap()).unwrap();
        m.run(command).expect(0);
        followed().assert(&source, &m.far(path).join(name));
        put(source.join("db/new"), "came later", 1_600_000_100);
        let output = m.run(command).expect(0);
        followed().assert(&source, &m.far(path).join(name));
        if only_xfer("a warning where a source nests in a destination of its own name") {
            continue;
        }
        let err = output.err();
        let nested = format!("{name}/{name}");
        let told = err.lines().filter(|line| line.contains(&nested)).count();
        assert!(told == 1, "one line should name {nested}\n{}", output.describe());
    }
}
