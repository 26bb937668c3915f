//! What honest clients get, and what is told about them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use xfer::model::Outcome;

use crate::daemon::{Client, Place, at, here};

#[test]
fn a_module_is_read_and_written() {
    let place = Place::new();
    let daemon = place.start();
    let client = place.client();
    let out = place.path("out");
    assert_eq!(client.sync(&[at(&daemon, "data", "sub/")], here(&out)).unwrap(), Outcome::Complete);
    assert_eq!(fs::read_to_string(out.join("3")).unwrap(), "content 3");
    fs::write(out.join("new"), vec![7; 3 << 20]).unwrap();
    assert_eq!(client.sync(&[here(&out)], at(&daemon, "data", "")).unwrap(), Outcome::Complete);
    assert_eq!(fs::read(place.path("data/out/new")).unwrap(), vec![7; 3 << 20]);

    let began = daemon.line("writes to module \"data\"");
    assert!(began.contains(&client.identity.public_key().fingerprint()) && began.contains("(tester)"), "{began}");
    daemon.wait_for_metric("sessions_ended_total{outcome=\"complete\"}", 2);
    let ended = daemon.log().lines().filter(|line| line.contains(" ended in module \"data\": complete; ")).count();
    assert_eq!(ended, 2, "{}", daemon.log());
    assert!(daemon.metric("received_bytes_total") > 0 && daemon.metric("sent_bytes_total") > 40);
    assert!(daemon.metric("files_total") >= 6);
    assert_eq!(daemon.metric("sessions"), 0);
    // Nothing secret is told: the private key's file has this text.
    let secret = fs::read_to_string(place.path("server/xfer/identity")).unwrap();
    assert!(!daemon.log().contains(secret.lines().nth(1).unwrap()));
    // The second wall stood.
    assert_eq!(daemon.count("second wall"), 0, "{}", daemon.log());
}

#[test]
fn access_is_what_module_and_key_allow() {
    let place = Place::new();
    let client = place.client();
    place.authorize(&["module=\"data\",read-only"], &client.identity);
    let data = place.path("data");
    let text = |name: &str, access: &str, keys: &str| {
        format!("[[module]]\nname = \"{name}\"\npath = \"{}\"\naccess = \"{access}\"\n{keys}\n", data.display())
    };
    let keys = format!("keys = [\"{} by the file\"]", client.identity.public_key());
    place.configure_whole(
        &[text("data", "read-write", ""), text("in", "write-only", &keys), text("hidden", "read-write", "")].concat(),
    );
    let daemon = place.start();
    let out = place.path("out");
    assert!(client.sync(&[at(&daemon, "data", "")], here(&out)).is_ok());
    let error = client.sync(&[here(&out)], at(&daemon, "data", "")).unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");
    assert!(client.sync(&[here(&out.join("sub"))], at(&daemon, "in", "")).is_ok());
    let error = client.sync(&[at(&daemon, "in", "")], here(&out)).unwrap_err();
    assert!(error.to_string().contains("write-only"), "{error}");
    // A module that a key may not use looks as one that is not there.
    let hidden = client.sync(&[at(&daemon, "hidden", "")], here(&out)).unwrap_err().to_string();
    let missing = client.sync(&[at(&daemon, "nowhere", "")], here(&out)).unwrap_err().to_string();
    assert_eq!(hidden.replace("hidden", "nowhere"), missing);
    daemon.wait_for_metric("refused_total{reason=\"forbidden\"}", 4);
}

#[test]
fn strangers_hear_that_they_are_and_no_more() {
    let place = Place::new();
    let daemon = place.start();
    let stranger = Client::stranger();
    let error = stranger.sync(&[at(&daemon, "data", "")], here(&place.path("out"))).unwrap_err();
    assert!(error.to_string().contains("does not know this key"), "{error}");
    let line = daemon.line("did not prove to own a key that is known here");
    assert!(line.contains(&stranger.identity.public_key().fingerprint()), "{line}");
    daemon.wait_for_metric("auth_failures_total", 1);
    assert!(!place.path("out").exists() || fs::read_dir(place.path("out")).unwrap().next().is_none());
}

#[test]
fn a_module_runs_as_its_user_and_filters_hide() {
    let place = Place::new();
    fs::set_permissions(place.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(place.path("data"), PermissionsExt::from_mode(0o777)).unwrap();
    fs::write(place.path("data/secret.key"), "secret").unwrap();
    fs::write(place.path("data/private"), "not for others").unwrap();
    fs::set_permissions(place.path("data/private"), PermissionsExt::from_mode(0o600)).unwrap();
    place.configure("uid = 4321\ngid = 4322\nfilters = [\"- *.key\"]\n");
    let daemon = place.start();
    let client = place.client();
    let out = place.path("out");
    assert_eq!(client.sync(&[at(&daemon, "data", "")], here(&out)).unwrap(), Outcome::Partial);
    assert!(!out.join("secret.key").exists() && !out.join("private").exists() && out.join("sub/1").exists());
    let new = place.path("new");
    fs::write(&new, "by a client").unwrap();
    let written = client.sync(&[here(&new)], at(&daemon, "data", ""));
    assert_eq!(written.unwrap(), Outcome::Complete, "{}", daemon.log());
    let metadata = fs::metadata(place.path("data/new")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (4321, 4322));
    assert_eq!(fs::read_to_string(place.path("data/secret.key")).unwrap(), "secret");
}

/// The process cannot read the system's names any more: its supervisor answers.
#[test]
fn names_of_users_come_from_outside() {
    let place = Place::new();
    let daemon = place.start();
    let mut maps = xfer::plan::idmap::IdMaps::default();
    maps.users = xfer::plan::idmap::IdMap::parse(b"*:daemon").unwrap();
    let new = place.path("new");
    fs::write(&new, "x").unwrap();
    let written = place.client().sync_with(&[here(&new)], at(&daemon, "data", ""), |options| options.id_maps = maps);
    assert_eq!(written.unwrap(), Outcome::Complete);
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let daemon_uid = passwd.lines().find_map(|line| line.strip_prefix("daemon:x:")).unwrap();
    let uid = fs::metadata(place.path("data/new")).unwrap().uid();
    assert_eq!(uid.to_string(), daemon_uid.split(':').next().unwrap());
}

/// Over loopback both ends are one machine, which a confined process has to know still.
#[test]
fn the_only_copy_is_not_removed() {
    let place = Place::new();
    let daemon = place.start();
    let data = place.path("data");
    let moved = place.client().sync_with(&[at(&daemon, "data", "sub/")], here(&data.join("sub")), |options| {
        options.remove_source_files = true;
    });
    assert!(moved.unwrap_err().to_string().contains("remove the only copy"));
    assert_eq!(fs::read_dir(data.join("sub")).unwrap().count(), 5);
}
