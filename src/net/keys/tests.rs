use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::thread;

use super::*;

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn host(text: &str) -> HostPort {
    HostPort::parse(text).unwrap()
}

const ONE: PublicKey = PublicKey([1; 32]);
const TWO: PublicKey = PublicKey([2; 32]);

#[test]
fn a_pair_is_made_once_with_the_right_modes_and_found_again() {
    let temp = temp();
    let dir = temp.path().join("a/b");
    let dirs = KeyDirs::new(Some(&dir));
    assert!(matches!(load_identity(&dirs), Err(KeyError::NoIdentity { .. })));
    let (made, path) = create_identity(&dirs, false, "me@here", false).unwrap();
    assert_eq!((mode(&dir), mode(&path), mode(&dir.join("identity.pub"))), (0o700, 0o600, 0o644));
    let (found, comment) = load_identity(&dirs).unwrap();
    assert_eq!((found.public_key(), comment.as_str()), (made.public_key(), "me@here"));
    assert!(matches!(create_identity(&dirs, false, "", false), Err(KeyError::Exists { .. })));
    let (other, _) = create_identity(&dirs, false, "", true).unwrap();
    assert_ne!(other.public_key(), made.public_key());
    assert_eq!(ClientKeys::load(Some(&dir)).unwrap().identity.public_key(), other.public_key());
    let names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn files_that_others_can_touch_are_not_used() {
    let temp = temp();
    let dirs = KeyDirs::new(Some(temp.path()));
    chmod(temp.path(), 0o700);
    let (_, path) = create_identity(&dirs, false, "", false).unwrap();
    for open in [0o640, 0o604, 0o620, 0o602, 0o610] {
        chmod(&path, open);
        let error = load_identity(&dirs).unwrap_err();
        assert!(matches!(error, KeyError::Open { mode, .. } if mode == open), "{open:o}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    chmod(&path, 0o400);
    load_identity(&dirs).unwrap();
    let grant = Grant { key: ONE, from: Vec::new(), rights: AuthorizedKey::default() };
    let authorized = authorize_key(&dirs, false, &grant).unwrap();
    chmod(&authorized, 0o644);
    ServerKeys::load(Some(temp.path())).unwrap();
    for open in [0o664, 0o646] {
        chmod(&authorized, open);
        assert!(matches!(ServerKeys::load(Some(temp.path())), Err(KeyError::Open { .. })), "{open:o}");
    }
    chmod(&authorized, 0o600);
    // Who can write in the directory can put another file there.
    chmod(temp.path(), 0o777);
    assert!(matches!(ServerKeys::load(Some(temp.path())), Err(KeyError::Open { .. })));
}

#[test]
fn strange_files_are_named_and_not_waited_for() {
    let temp = temp();
    let dirs = KeyDirs::new(Some(temp.path()));
    let path = temp.path().join("identity");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(load_identity(&dirs).unwrap_err().to_string().contains("identity"));
    fs::remove_file(&path).unwrap();
    for (bytes, wanted) in [
        (vec![b'x'; crate::limits::KEY_FILE_BYTES_MAX as usize + 1], "larger than"),
        (vec![0xff; 10], "not text"),
        (b"hello".to_vec(), "no usable key"),
    ] {
        fs::write(&path, bytes).unwrap();
        chmod(&path, 0o600);
        let error = load_identity(&dirs).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    fs::write(temp.path().join("known_hosts"), "# fine\n\nnonsense\n").unwrap();
    let error = KnownHosts::new(Some(temp.path())).check(&host("h"), &ONE).unwrap_err().to_string();
    assert!(error.contains("known_hosts line 3"), "{error}");
}

#[test]
fn hosts_are_known_unknown_or_changed() {
    let temp = temp();
    let hosts = KnownHosts::new(Some(temp.path()));
    assert_eq!(hosts.check(&host("db1"), &ONE).unwrap(), HostCheck::Unknown);
    hosts.remember(&host("DB1"), &ONE).unwrap();
    hosts.remember(&host("db1"), &ONE).unwrap();
    assert_eq!(hosts.check(&host("db1:7788"), &ONE).unwrap(), HostCheck::Known);
    assert_eq!(hosts.check(&host("db1:99"), &ONE).unwrap(), HostCheck::Unknown);
    let path = temp.path().join("known_hosts");
    let changed = HostCheck::Changed { path: path.clone(), line: 1, stored: ONE };
    assert_eq!(hosts.check(&host("db1"), &TWO).unwrap(), changed);
    assert!(matches!(hosts.remember(&host("db1"), &TWO), Err(KeyError::HostChanged { line: 1, .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("db1 {ONE}\n"));
    // While a key is being replaced, both are good.
    fs::write(&path, format!("db1 {ONE}\ndb1 {TWO}")).unwrap();
    assert_eq!(hosts.check(&host("db1"), &ONE).unwrap(), HostCheck::Known);
    assert_eq!(hosts.check(&host("db1"), &TWO).unwrap(), HostCheck::Known);
    hosts.remember(&host("db2"), &ONE).unwrap();
    hosts.pin(&host("db1"), &TWO, false).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("db2 {ONE}\ndb1 {TWO}\n"));
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn processes_that_write_at_once_lose_no_line() {
    let temp = temp();
    let hosts = KnownHosts::new(Some(temp.path()));
    // Every thread opens the lock's file anew, as a process of its own would.
    thread::scope(|scope| {
        for thread in 0..4 {
            let hosts = &hosts;
            scope.spawn(move || {
                for number in 0..8 {
                    hosts.remember(&host(&format!("h{thread}-{number}")), &ONE).unwrap();
                }
            });
        }
    });
    let text = fs::read_to_string(temp.path().join("known_hosts")).unwrap();
    assert_eq!(text.lines().count(), 32, "{text}");
    assert_eq!(known_hosts::parse(&text).unwrap().len(), 32);
}

#[test]
fn a_link_to_a_file_kept_elsewhere_stays_a_link() {
    let temp = temp();
    let kept = temp.path().join("kept");
    fs::create_dir(temp.path().join("dir")).unwrap();
    fs::write(&kept, format!("db1 {ONE}\n")).unwrap();
    let link = temp.path().join("dir/known_hosts");
    symlink("../kept", &link).unwrap();
    KnownHosts::new(Some(&temp.path().join("dir"))).remember(&host("db2"), &TWO).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&kept).unwrap(), format!("db1 {ONE}\ndb2 {TWO}\n"));
}

#[test]
fn a_server_lets_in_whom_its_lines_name() {
    let temp = temp();
    let dirs = KeyDirs::new(Some(temp.path()));
    create_identity(&dirs, false, "", false).unwrap();
    assert!(ServerKeys::load(Some(temp.path())).unwrap().authorize(&ONE, [10, 0, 0, 1].into()).is_none());
    let path = temp.path().join("authorized_keys");
    fs::write(&path, format!("from=\"10.0.0.0/8\",module=\"m\" {ONE} c\nread-only {ONE}\nbogus {TWO}\n")).unwrap();
    let keys = ServerKeys::load(Some(temp.path())).unwrap();
    let near = keys.authorize(&ONE, [10, 0, 0, 1].into()).unwrap();
    assert_eq!(near.modules, Some(vec!["m".to_owned()]));
    assert_eq!(near.comment, "c");
    let far = keys.authorize(&ONE, [11, 0, 0, 1].into()).unwrap();
    assert!(far.read_only && far.modules.is_none());
    assert!(keys.authorize(&TWO, [10, 0, 0, 1].into()).is_none());
    assert_eq!(keys.problems.len(), 1);
    assert!(keys.problems[0].contains("line 3: unknown option 'bogus'"), "{:?}", keys.problems);
}
