//! Listing, locking, opening, and what a file system tells about itself.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use rustix::io::Errno;

use super::*;

#[test]
fn names_of_any_bytes_are_listed_sorted() {
    for place in places() {
        assert!(place.dir.list().unwrap().is_empty());
        let mut expected: Vec<Vec<u8>> = (1..=255u8).filter(|&b| b != b'/' && b != b'.').map(|b| vec![b]).collect();
        expected.extend([b"...".to_vec(), b"a b\n".to_vec(), vec![b'n'; 255], b"\xff\xfe".to_vec()]);
        for bytes in &expected {
            place.dir.create_file(&Name::new(bytes).unwrap(), 0o600).unwrap();
        }
        expected.sort();
        // Again and again, by the held description and by others at the same time.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let list = place.dir.list().unwrap();
                        assert!(list.iter().map(|(name, _)| name).eq(expected.iter().map(Vec::as_slice)));
                        assert!(list.iter().all(|(_, kind)| kind == Some(Kind::File)));
                    }
                });
            }
        });
        place.dir.unlink(&name("a")).unwrap();
        assert_eq!(place.dir.list().unwrap().len(), expected.len() - 1);
        assert_eq!(std::fs::read_dir(place.temporary.path()).unwrap().count(), expected.len() - 1);
    }
}

#[test]
fn a_directory_that_may_be_read_but_not_searched_is_listed_twice() {
    let place = place_in(std::env::temp_dir());
    place.dir.create_file(&name("x"), 0o600).unwrap();
    std::fs::set_permissions(place.temporary.path(), PermissionsExt::from_mode(0o744)).unwrap();
    as_ordinary_user(12_345, || {
        let dir = Dir::open(place.temporary.path()).unwrap();
        assert_eq!(dir.list().unwrap().len(), 1);
        assert_eq!(dir.list().unwrap().len(), 1);
        assert_eq!(errno(&dir.stat(&name("x")).unwrap_err()), Errno::ACCESS);
        // As when another list is under way.
        assert!(dir.reopen().is_ok());
    });
}

#[test]
fn a_link_swapped_in_for_a_directory_is_never_followed() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let place = place_in("/dev/shm");
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir(outside.path().join("sub")).unwrap();
    let outside_inode = Dir::open(&outside.path().join("sub")).unwrap().metadata().unwrap().ino;
    std::fs::create_dir_all(place.path("a/sub")).unwrap();
    symlink(outside.path(), place.path("b")).unwrap();
    let stop = AtomicBool::new(false);
    let (mut opened, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            while !stop.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(&place.dir, "a", &place.dir, "b", exchange).unwrap();
            }
        });
        for _ in 0..20_000 {
            match place.dir.open_beneath(&rel("a/sub")) {
                Ok(dir) => {
                    assert_ne!(dir.metadata().unwrap().ino, outside_inode);
                    opened += 1;
                }
                Err(_) => refused += 1,
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(opened > 0 && refused > 0, "the swap was never seen: {opened} opened, {refused} refused");
}

#[test]
fn the_lock_goes_with_its_holder() {
    for place in places() {
        let second = Dir::open(place.temporary.path()).unwrap();
        let third = Dir::open(place.temporary.path()).unwrap();
        assert!(second.try_lock().unwrap());
        assert!(!third.try_lock().unwrap());
        assert!(second.try_lock().unwrap());
        drop(second);
        assert!(third.try_lock().unwrap());
    }
}

#[test]
fn hard_links_name_one_inode() {
    for place in places() {
        let dir = &place.dir;
        dir.make_dir(&name("sub"), 0o700).unwrap();
        let sub = dir.open_child(&name("sub")).unwrap();
        dir.create_file(&name("f"), 0o600).unwrap();
        dir.make_symlink(b"f", &name("l")).unwrap();
        for text in ["f", "l"] {
            dir.make_link(&name(text), &sub, &name(text)).unwrap();
            let metadata = sub.stat(&name(text)).unwrap();
            assert_eq!((metadata.nlink, metadata.ino), (2, dir.stat(&name(text)).unwrap().ino));
        }
        assert_eq!(errno(&dir.make_link(&name("f"), &sub, &name("l")).unwrap_err()), Errno::EXIST);
        assert_eq!(dir.stat_following(&name("l")).unwrap().kind, Kind::File);
        assert_eq!(errno(&dir.remove_dir(&name("sub")).unwrap_err()), Errno::NOTEMPTY);
        sub.unlink(&name("f")).unwrap();
        sub.unlink(&name("l")).unwrap();
        dir.remove_dir(&name("sub")).unwrap();
        sub.sync().unwrap();
        sub.sync_file_system().unwrap();
    }
}

#[test]
fn files_are_opened_but_links_only_when_asked() {
    for place in places() {
        std::fs::write(place.path("f"), "content").unwrap();
        symlink("f", place.path("l")).unwrap();
        symlink("none", place.path("dangling")).unwrap();
        let mut buffer = [0; 16];
        for file in [place.dir.open_file(&name("f")), place.dir.open_file_following(&name("l"))] {
            assert_eq!(read_exact_or_eof_at(&file.unwrap(), &mut buffer, 3).unwrap(), 4);
            assert_eq!(&buffer[..4], b"tent");
        }
        for refusal in [place.dir.open_file(&name("l")), place.dir.open_file_write(&name("l"))] {
            assert_eq!(errno(&refusal.unwrap_err()), Errno::LOOP);
        }
        assert_eq!(errno(&place.dir.open_file_following(&name("dangling")).unwrap_err()), Errno::NOENT);
        let file = place.dir.open_file_write(&name("f")).unwrap();
        write_all_at(&file, b"CON", 0).unwrap();
        assert_eq!(std::fs::read(place.path("f")).unwrap(), b"CONtent");
        assert_eq!(errno(&place.dir.create_file(&name("dangling"), 0o600).unwrap_err()), Errno::EXIST);
    }
}

#[test]
fn access_times_are_left_alone_where_that_is_allowed() {
    need_root();
    let place = place_in(std::env::temp_dir());
    std::fs::write(place.path("f"), "content").unwrap();
    let old = crate::model::Timestamp::new(1000, 5);
    let change = MetadataChange { atime: Some(old), ..MetadataChange::default() };
    assert!(apply(Target::At(&place.dir, &name("f")), Kind::File, &change).is_empty());
    let (file, metadata) = place.dir.open_file_with_metadata(&name("f")).unwrap();
    assert_eq!((metadata.atime, metadata.size), (old, 7));
    read_exact_or_eof_at(&file, &mut [0; 7], 0).unwrap();
    assert_eq!(place.dir.stat(&name("f")).unwrap().atime, old);
    // Someone else's file: refused once for the directory, then not asked any more.
    std::fs::set_permissions(place.temporary.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(place.path("f"), PermissionsExt::from_mode(0o644)).unwrap();
    as_ordinary_user(12_345, || {
        assert!(place.dir.open_file(&name("f")).is_ok());
        assert!(place.dir.no_noatime.load(std::sync::atomic::Ordering::Relaxed));
        assert!(place.dir.open_file(&name("f")).is_ok());
    });
}

#[test]
fn a_file_under_lease_is_waited_for() {
    // The holder gives it back when the kernel asks with a signal, here a harmless one.
    let place = place_in(std::env::temp_dir());
    std::fs::write(place.path("f"), "content").unwrap();
    let script = "import fcntl,os,signal,sys,time\n\
        fd=os.open(sys.argv[1],os.O_RDONLY)\n\
        signal.signal(signal.SIGIO,lambda *a:(time.sleep(0.2),fcntl.fcntl(fd,fcntl.F_SETLEASE,fcntl.F_UNLCK)))\n\
        fd2=os.open(sys.argv[1],os.O_RDWR);os.close(fd);fd=fd2\n\
        fcntl.fcntl(fd,fcntl.F_SETLEASE,fcntl.F_WRLCK)\n\
        print('held',flush=True)\n\
        signal.pause()\n";
    let mut holder = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(place.path("f"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("python3: {error}; install it: apt-get install python3"));
    let mut said = [0; 4];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut said).unwrap();
    let start = std::time::Instant::now();
    let file = place.dir.open_file(&name("f"));
    let waited = start.elapsed();
    holder.kill().unwrap();
    holder.wait().unwrap();
    let mut buffer = [0; 7];
    assert_eq!(read_exact_or_eof_at(&file.unwrap(), &mut buffer, 0).unwrap(), 7);
    assert!(waited.as_millis() >= 150, "the lease was not in the way");
}

#[test]
fn a_file_system_tells_about_itself() {
    for place in places() {
        let space = place.dir.space().unwrap();
        assert!(space.free_bytes > 0 && space.free_bytes <= space.total_bytes);
        assert!(space.free_inodes.is_none_or(|inodes| inodes > 0));
        let path = place.temporary.path().as_os_str().as_bytes();
        assert!(path.starts_with(&space.place), "{:?}", String::from_utf8_lossy(&space.place));
        assert_eq!(place.dir.time_granularity_ns().unwrap(), 1);
        assert!(place.names().is_empty());
    }
    let shm = place_in("/dev/shm");
    assert_eq!(shm.dir.space().unwrap().place, b"/dev/shm");
    // Not writable: nothing to be learned, and no error.
    assert_eq!(Dir::open("/proc/self".as_ref()).unwrap().time_granularity_ns().unwrap(), 1);
}
