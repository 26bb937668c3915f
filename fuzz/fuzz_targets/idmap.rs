//! `--usermap`, `--groupmap`, `--chown`: as the user writes them, and as they cross the wire.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xfer::limits;
use xfer::plan::idmap::{IdMap, IdMaps};

const QUESTIONS: [(u32, Option<&[u8]>); 5] =
    [(0, Some(b"root")), (7, None), (1000, Some(b"a")), (65534, Some(b"nobody")), (u32::MAX, Some(b""))];

fn check(map: &IdMap) {
    assert!(map.target_names().count() <= limits::ID_MAP_PAIRS_MAX);
    let json = serde_json::to_string(map).expect("maps serialise");
    let read: IdMap = serde_json::from_str(&json).expect("what was written is read");
    assert_eq!(&read, map);
    for (id, name) in QUESTIONS {
        assert_eq!(read.map(id, name), map.map(id, name));
    }
}

fuzz_target!(|data: &[u8]| {
    match IdMap::parse(data) {
        Ok(map) => check(&map),
        Err(error) => assert!(!error.to_string().chars().any(char::is_control)),
    }
    let mut maps = IdMaps::default();
    if maps.set_chown(data).is_ok() {
        check(&maps.users);
        check(&maps.groups);
    }
    if let Ok(maps) = serde_json::from_slice::<IdMaps>(data) {
        check(&maps.users);
        check(&maps.groups);
    }
});
