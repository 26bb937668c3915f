//! What honest clients get, and what is told about them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use xfer::model::Outcome;

use crate::daemon::{AS_US, Client, Place, at, here, wait_until};

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
    place.authorize(&["module=\"data\",module=\"in\""], &client.identity);
    let data = place.path("data");
    let text = |name: &str, access: &str, keys: &str| {
        format!(
            "[[module]]\nname = \"{name}\"\npath = \"{}\"\naccess = \"{access}\"\n{AS_US}\n{keys}\n",
            data.display()
        )
    };
    // What the line leaves out is not given back by the module.
    let keys = format!("keys = [\"{} by the file\"]", client.identity.public_key());
    place.configure_whole(
        &[text("data", "read-only", ""), text("in", "write-only", ""), text("hidden", "read-write", &keys)].concat(),
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

/// A module's own list of keys is for keys that no line names.
#[test]
fn a_module_takes_back_nothing_of_what_a_line_says() {
    let place = Place::new();
    let client = place.client();
    place.configure(&format!("keys = [\"{} by the file\"]\n", client.identity.public_key()));
    let daemon = place.start();
    let out = place.path("out");
    let sync = || client.sync(&[at(&daemon, "data", "")], here(&out)).map_err(|error| error.to_string());
    place.authorize(&["from=\"192.0.2.0/24\""], &client.identity);
    assert!(sync().unwrap_err().contains("does not know this key"));
    place.authorize(&["read-only"], &client.identity);
    assert_eq!(sync().unwrap(), Outcome::Complete);
    let error = client.sync(&[here(&out)], at(&daemon, "data", "")).unwrap_err().to_string();
    assert!(error.contains("read-only"), "{error}");
    place.authorize(&[], &client.identity);
    assert_eq!(client.sync(&[here(&out)], at(&daemon, "data", "")).unwrap(), Outcome::Complete);
}

#[test]
fn a_write_only_module_tells_nothing() {
    let place = Place::new();
    place.configure_whole(&format!(
        "[[module]]\nname = \"in\"\npath = \"{}\"\naccess = \"write-only\"\n{AS_US}\n",
        place.path("data").display()
    ));
    let daemon = place.start();
    let empty = place.path("empty/");
    fs::create_dir(&empty).unwrap();
    let run = |options: &[&str]| {
        let mut command = place.xfer(&daemon);
        command
            .args(["sync", "-r", "--delete", "--allow-empty-source"])
            .args(options)
            .arg(format!("{}/", empty.display()));
        let output = command.arg(format!("xfer://{}/in/", daemon.address())).output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    };
    for options in [&["-nv"][..], &["-n"], &["-v"], &["-i"], &["-c"], &["--json"]] {
        let (success, text) = run(options);
        assert!(!success && text.contains("write-only") && !text.contains("sub"), "{options:?}: {text}");
    }
    let (success, text) = run(&["--stats"]);
    assert!(success && !text.contains("sub"), "{text}");
    assert!(!place.path("data/sub").exists());
    daemon.line("complete; 0 files, 6 deleted");
}

/// As rsync's `host::module`, with and without a slash.
#[test]
fn a_modules_bare_name_means_its_contents() {
    let place = Place::new();
    let daemon = place.start();
    for (number, slash) in ["", "/"].iter().enumerate() {
        let out = place.path(&format!("out{number}"));
        let from = format!("xfer://{}/data{slash}", daemon.address());
        let output = place.xfer(&daemon).args(["sync", "-r", &from]).arg(&out).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(fs::read_to_string(out.join("sub/3")).unwrap(), "content 3");
    }
}

/// What moved until then is told, over whichever connections it went.
#[test]
fn a_session_whose_client_dies_has_failed() {
    let place = Place::new();
    let daemon = place.start();
    fs::write(place.path("big"), vec![7; 8 << 20]).unwrap();
    let mut command = place.xfer(&daemon);
    command.args(["sync", "--bwlimit=500K"]).arg(place.path("big")).arg(format!("xfer://{}/data/", daemon.address()));
    let mut client = command.spawn().unwrap();
    wait_until("the first bytes", || daemon.metric("received_bytes_total") > 50_000);
    client.kill().unwrap();
    client.wait().unwrap();
    let line = daemon.line(" ended in module \"data\"");
    assert!(line.contains(": failed (") && !line.contains("complete"), "{line}");
    let (before, _) = line.split_once(" bytes in").unwrap();
    let bytes: u64 = before.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(bytes > 50_000, "{line}");
    daemon.wait_for_metric("sessions_ended_total{outcome=\"failed\"}", 1);
}

/// Started as root for a tree of somebody else, sessions are that user's, and make no set-id files.
#[test]
fn a_module_of_the_command_line_is_its_owners() {
    let place = Place::new();
    fs::set_permissions(place.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(place.path("data"), Some(4321), Some(4322)).unwrap();
    let module = format!("data={},rw", place.path("data").display());
    let daemon = place.start_with(&["--listen", "127.0.0.1:0", "--metrics", "0", "--module", &module], |_| {});
    let new = place.path("new");
    fs::write(&new, "by a client").unwrap();
    fs::set_permissions(&new, PermissionsExt::from_mode(0o4755)).unwrap();
    assert_eq!(place.client().sync(&[here(&new)], at(&daemon, "data", "")).unwrap(), Outcome::Complete);
    let metadata = fs::metadata(place.path("data/new")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (4321, 4322, 0o755));
}
