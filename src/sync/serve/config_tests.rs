use proptest::prelude::*;

use super::*;

const WHOLE: &str = r#"
listen = ["127.0.0.1:7788", "[::1]:0", "*:9", "10.0.0.1"]
log = "/var/log/xfer.log"
metrics = "9100"

[limits]
connections = 100
connections_per_address = 10
unauthenticated = 20
sessions = 5
sessions_per_key = 2

[[module]]
name = "data"
path = "/srv/data"
comment = "the data"
access = "read-write"
keys = ["xfer-ed25519 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= alice at home"]
uid = "git"
gid = 100
numeric_ids = true
no_setid = false
max_connections = 3
filters = ["- *.tmp", "protect /keep", "exclude lost+found/"]
copy_links_outside = true
timeout = 60

[[module]]
name = "plain"
path = "/srv/plain"
"#;

#[test]
fn a_whole_configuration_is_read() {
    let config = parse_config(WHOLE).unwrap();
    let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["127.0.0.1:7788", "[::1]:0", "[::]:9", "10.0.0.1:7788"]);
    assert_eq!(config.metrics.unwrap().to_string(), "127.0.0.1:9100");
    assert_eq!(config.limits.sessions_per_key, 2);
    let [data, plain] = &config.modules[..] else { panic!("{config:?}") };
    assert_eq!(data.uid, Some(Principal::Name("git".into())));
    assert_eq!(data.gid, Some(Principal::Id(100)));
    assert_eq!((data.no_setid, plain.no_setid), (Some(false), None));
    assert_eq!(data.keys[0].comment, "alice at home");
    assert_eq!((data.filters.len(), data.max_connections, data.timeout_s), (3, Some(3), Some(60)));
    assert_eq!(plain, &Module::new("plain".into(), "/srv/plain".into()));
    assert_eq!(plain.access, Access::ReadOnly);
    assert_eq!(parse_config("").unwrap(), Config::default());
}

/// Each fault is told with its line and, where it is a value, its key.
#[test]
fn faults_are_told_with_line_and_key() {
    let module = "[[module]]\nname = \"m\"\npath = \"/m\"\n";
    let cases: &[(&str, usize, &str)] = &[
        ("listen = [\n\"nowhere:1\"]", 2, "listen"),
        ("metrics = \"example.org:9100\"", 1, "metrics"),
        ("log = \"log\"", 1, "log"),
        ("colour = 1", 1, "colour"),
        ("[limits]\nconnections = 0", 2, "connections"),
        ("[limits]\nsessions = 100000", 2, "sessions"),
        ("[limits]\nsession = 1", 2, "session"),
        ("[[module]]\nname = \"m\"", 1, "path"),
        ("[[module]]\nname = \"a/b\"\npath = \"/m\"", 2, "name"),
        ("[[module]]\nname = \"m\"\npath = \"m\"", 3, "path"),
        ("[[module]]\nname = \"m\"\npath = 3", 3, "string"),
        ("[[module]]\nname = \"m\"\npath = \"/m\"\naccess = \"all\"", 4, "read-only"),
        ("[[module]]\nname = \"m\"\npath = \"/m\"\nkeys = [\"ssh-ed25519 AAAA\"]", 4, "keys"),
        ("[[module]]\nname = \"m\"\npath = \"/m\"\nuid = -1", 4, "uid"),
        ("[[module]]\nname = \"m\"\npath = \"/m\"\ngid = 4294967295", 4, "gid"),
        ("[[module]]\nname = \"m\"\npath = \"/m\"\nuid = 1.5", 4, "a name or a number"),
        ("[[module]]\nname = \"m\"\npath = \"/m\"\nmax_connections = 0", 4, "max_connections"),
        ("[[module]]\nname = \"m\"\npath = \"/m\"\ntimeout = 0", 4, "timeout"),
        ("[[module]]\nname = \"m\"\npath = \"/m\"\nfilters = [\"- a\",\n\"nonsense b\"]", 5, "filters"),
        ("[[module]]\nname = \"m\"\npath = \"/m\"\nfilters = [\": .rules\"]", 4, "merge"),
        ("[[module]]\nname = \"m\"\npath = \"/m\"\nfilters = [\"dir-merge .rules\"]", 4, "merge"),
        ("a = [", 1, ""),
    ];
    for (text, line, word) in cases {
        let error = parse_config(text).unwrap_err();
        assert_eq!(error.line, Some(*line), "{text}: {error}");
        assert!(error.to_string().contains(word), "{text}: {error}");
    }
    let twice = parse_config(&module.repeat(2)).unwrap_err();
    assert_eq!((twice.line, twice.key.as_deref()), (Some(5), Some("name")), "{twice}");
}

#[test]
fn modules_of_the_command_line() {
    let read = |text| Module::parse(text).map(|module| (module.name, module.path, module.access));
    assert_eq!(read("a=/x,ro").unwrap(), ("a".into(), "/x".into(), Access::ReadOnly));
    assert_eq!(read("a=/x").unwrap(), ("a".into(), "/x".into(), Access::ReadOnly));
    assert_eq!(read("a=/x,rw").unwrap().2, Access::ReadWrite);
    assert_eq!(read("a=/x,y,wo").unwrap(), ("a".into(), "/x,y".into(), Access::WriteOnly));
    assert_eq!(Module::parse("a=/x,rw").unwrap().uid, Some(Principal::PathOwner));
    assert_eq!(read("a=/x,y").unwrap().1, PathBuf::from("/x,y"));
    for bad in ["a", "=/x", "a=", "a=,rw", "a/b=/x", "-a=/x", "a b=/x"] {
        assert!(Module::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn access_narrows() {
    use Access::{ReadOnly, ReadWrite, WriteOnly};
    assert_eq!(ReadWrite.and(ReadOnly), Some(ReadOnly));
    assert_eq!(WriteOnly.and(ReadWrite), Some(WriteOnly));
    assert_eq!(ReadOnly.and(WriteOnly), None);
    assert_eq!(ReadOnly.and(ReadOnly), Some(ReadOnly));
}

#[test]
fn the_metrics_page_stays_on_the_loopback_unless_told() {
    for text in ["9100", ":9100", "localhost:9100"] {
        assert!(parse_metrics(text).unwrap().ip().is_loopback(), "{text}");
    }
    assert!(!parse_metrics("0.0.0.0:9100").unwrap().ip().is_loopback());
    assert!(parse_metrics("127.0.0.1").is_err());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*") {
        let _ = parse_config(&text);
    }

    #[test]
    fn any_damage_is_read_or_refused(at in 0..WHOLE.len(), with in "\\PC{0,4}", cut in 0..8usize) {
        let end = (at + cut).min(WHOLE.len());
        let damaged = format!("{}{with}{}", &WHOLE[..at], &WHOLE[end..]);
        if let Ok(config) = parse_config(&damaged) {
            prop_assert!(config.limits.connections <= limits::SERVE_CONNECTIONS_MAX);
            for module in &config.modules {
                prop_assert!(module.path.is_absolute());
                prop_assert!(check_name(&module.name).is_ok());
            }
        }
    }

    #[test]
    fn any_address_is_read_or_refused(text in "\\PC{0,30}") {
        let _ = (parse_listen(&text), parse_metrics(&text), Module::parse(&text));
    }
}
