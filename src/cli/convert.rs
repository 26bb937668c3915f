//! From what the flags mean to what the engine understands, with all checks that need no look at the trees.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use super::args::Invocation;
use super::exit::Failure;
use super::inputs::{Inputs, paths_of_list};
use super::render::Levels;
use super::settings::{CompressChoice, FilterStep, IdMapOption, Recursive, Settings};
use super::trust::UserKeys;
use crate::limits;
use crate::model::display_bytes;
use crate::net::{Address, RemoteShell};
use crate::plan::chmod::ChmodRules;
use crate::plan::filter::{FilterError, FilterRules};
use crate::plan::idmap::IdMaps;
use crate::plan::options::{AltDests, Backup, Compression, ItemReport, QuickCheck, Recursion, SyncOptions};
use crate::plan::size::{SizeError, SizeUnit, parse_bwlimit, parse_size};
use crate::sync::{Connect, LaneWish, SyncRequest, VerifyRequest};

/// What the engine is asked, and how to show it.
#[derive(Debug)]
pub(crate) struct Prepared<R> {
    /// For the engine.
    pub(crate) request: R,
    /// For the display.
    pub(crate) settings: Settings,
    /// The sources as given, for people.
    pub(crate) sources: Vec<String>,
    /// The destination as given, for people.
    pub(crate) destination: Option<String>,
    /// The source is on another machine.
    pub(crate) receiving: bool,
}

impl<R> Prepared<R> {
    fn new(request: R, settings: Settings, operands: &[OsString], sources: &[Address]) -> Prepared<R> {
        let mut names: Vec<String> = operands.iter().map(|operand| display_bytes(operand.as_bytes())).collect();
        let destination = if names.len() > 1 { names.pop() } else { None };
        let receiving = sources.iter().any(Address::is_remote);
        Prepared { request, settings, sources: names, destination, receiving }
    }
}

/// A sync and how to show it.
pub(crate) fn sync_request(invocation: Invocation, inputs: &mut dyn Inputs) -> Result<Prepared<SyncRequest>, Failure> {
    let mut settings = Settings::from_occurrences(invocation.occurrences)?;
    let operands = invocation.operands.len();
    if operands == 0 {
        return Err(Failure::usage("no source is given").with_hint("xfer sync [OPTIONS] SRC... DST"));
    }
    if settings.files_from.is_some() && operands > 2 {
        return Err(Failure::usage("--files-from takes one source only: the paths in the list are beneath it"));
    }
    // As in rsync: a source alone is listed.
    settings.list_only |= operands == 1;
    let (sources, destination) = addresses(&invocation.operands)?;
    let options = options(&settings, inputs)?;
    let connect = connect(&settings, inputs)?;
    let request = SyncRequest { sources: sources.clone(), destination, options, connect };
    Ok(Prepared::new(request, settings, &invocation.operands, &sources))
}

/// A verification and how to show it. `-a` is where its flags start from.
pub(crate) fn verify_request(
    mut invocation: Invocation,
    inputs: &mut dyn Inputs,
) -> Result<Prepared<VerifyRequest>, Failure> {
    use super::args::{Flag, Occurrence};
    if invocation.operands.is_empty() {
        return Err(Failure::usage("no tree is given").with_hint("xfer verify [OPTIONS] SRC [DST]"));
    }
    invocation.occurrences.insert(0, Occurrence { flag: Flag::Archive, on: true, value: OsString::new() });
    let settings = Settings::from_occurrences(invocation.occurrences)?;
    let (sources, destination) = addresses(&invocation.operands)?;
    let mut options = options(&settings, inputs)?;
    options.quick_check = QuickCheck::Checksum;
    let connect = connect(&settings, inputs)?;
    let content_only = settings.content_only;
    let request = VerifyRequest { sources: sources.clone(), destination, options, content_only, connect };
    Ok(Prepared::new(request, settings, &invocation.operands, &sources))
}

fn addresses(operands: &[OsString]) -> Result<(Vec<Address>, Option<Address>), Failure> {
    let mut all: Vec<Address> = Vec::with_capacity(operands.len());
    for operand in operands {
        let parsed = Address::parse_after(operand.as_bytes(), all.last()).map_err(|error| {
            Failure::usage(super::exit::chain_of(&error))
                .with_hint("addresses are PATH, [USER@]HOST:PATH or xfer://HOST/MODULE/PATH; ./a:b is a local name")
        })?;
        all.push(parsed);
    }
    let destination = if all.len() > 1 { all.pop() } else { None };
    let remote_sources = all.iter().filter(|source| source.is_remote()).count();
    if remote_sources > 0 && remote_sources < all.len() {
        return Err(Failure::usage("local and remote sources cannot be mixed").with_hint("run xfer once for each"));
    }
    if all.windows(2).any(|pair| session_of(&pair[0]) != session_of(&pair[1])) {
        return Err(Failure::usage("remote sources must all be on the same host").with_hint("run xfer once for each"));
    }
    Ok((all, destination))
}

/// What has to be the same for two addresses to be reached over one session.
#[derive(PartialEq)]
enum Session<'a> {
    Local,
    Shell { user: Option<&'a [u8]>, host: &'a [u8] },
    Daemon { host: &'a str, port: u16, module: &'a [u8] },
}

fn session_of(address: &Address) -> Session<'_> {
    match address {
        Address::Shell { user, host, .. } => Session::Shell { user: user.as_deref(), host },
        Address::Daemon { host, port, module, .. } => Session::Daemon { host, port: *port, module },
        Address::Local(_) => Session::Local,
    }
}

fn connect(settings: &Settings, inputs: &dyn Inputs) -> Result<Connect, Failure> {
    let from_environment = || inputs.variable("XFER_RSH").or_else(|| inputs.variable("RSYNC_RSH"));
    let command = settings.shell.clone().or_else(from_environment);
    let xfer_path = settings.xfer_path.as_deref();
    if xfer_path.is_some_and(<[u8]>::is_empty) {
        return Err(Failure::usage("--xfer-path: the program is empty"));
    }
    let shell = RemoteShell::new(command.as_deref(), xfer_path)
        .map_err(|error| Failure::usage(format!("--rsh: {}", super::exit::chain_of(&error))))?;
    let lanes = LaneWish { transport: settings.transport, lanes: settings.lanes, ports: settings.lane_ports.clone() };
    Ok(Connect {
        shell,
        connect_timeout_s: settings.connect_timeout_s,
        lanes,
        keys: Some(Arc::new(UserKeys::new(settings.accept_new))),
    })
}

fn options(settings: &Settings, inputs: &mut dyn Inputs) -> Result<SyncOptions, Failure> {
    check_conflicts(settings)?;
    let levels = Levels::of(settings);
    let recursion = recursion(settings);
    let deletion = settings.deletion;
    if deletion.enabled && recursion == Recursion::Skip {
        return Err(Failure::usage("--delete does not work without --recursive (-r) or --dirs (-d)")
            .with_hint("add -r or -a: only directories that are listed in full are cleaned"));
    }
    let relative = settings.relative.unwrap_or(settings.files_from.is_some());
    let backup = backup(settings)?;
    let mut preserve = settings.preserve;
    // As in rsync: renames beside the files move the directories' times at once.
    preserve.omit_dir_times |= backup.as_ref().is_some_and(|backup| backup.dir.is_none());
    let partial_dir = settings
        .partial_dir
        .as_deref()
        .map(without_trailing_slashes)
        .filter(|dir| !dir.is_empty() && dir.as_slice() != b".");
    let inplace = settings.inplace || settings.append_verify;
    Ok(SyncOptions {
        recursion,
        relative,
        implied_dirs: relative && !settings.no_implied_dirs,
        one_file_system: settings.one_file_system.min(2),
        prune_empty_dirs: settings.prune_empty_dirs,
        links: settings.links,
        preserve,
        sparse: settings.sparse,
        numeric_ids: settings.numeric_ids,
        id_maps: id_maps(settings)?,
        chmod: chmod(settings, inputs.umask())?,
        deletion,
        filters: filters(settings, backup.as_ref(), partial_dir.as_deref(), inputs)?,
        files_from: files_from(settings, inputs)?,
        quick_check: quick_check(settings),
        modify_window_ns: settings.modify_window_ns,
        update: settings.update,
        existing_only: settings.existing,
        ignore_existing: settings.ignore_existing,
        max_size: size("max-size", settings.max_size.as_deref())?,
        min_size: size("min-size", settings.min_size.as_deref())?,
        whole_file: settings.whole_file,
        inplace,
        append_verify: settings.append_verify,
        partial: !inplace && (settings.partial || settings.partial_dir.is_some()),
        partial_dir,
        backup,
        alt_dests: alt_dests(settings)?,
        compression: compression(settings)?,
        bwlimit_bytes_per_s: parsed_size("bwlimit", settings.bwlimit.as_deref(), parse_bwlimit)?,
        timeout_s: settings.timeout_s,
        fsync: settings.fsync,
        live: settings.live,
        fail_fast: settings.fail_fast,
        remove_source_files: settings.remove_source_files,
        ignore_missing_args: settings.ignore_missing_args,
        mkpath: settings.mkpath,
        dry_run: settings.dry_run,
        list_only: settings.list_only,
        item_report: item_report(settings, levels),
        details: levels.details || settings.json,
    })
}

fn check_conflicts(settings: &Settings) -> Result<(), Failure> {
    if settings.delete_times.len() > 1 {
        return Err(Failure::usage("only one of --delete-before, --delete-during and --delete-after can be given")
            .with_hint("--delete says it all: deletion is always after the transfer"));
    }
    if settings.inplace && settings.partial_dir.is_some() {
        return Err(Failure::usage("--inplace cannot be used with --partial-dir")
            .with_hint("what arrived stays in the file itself; leave --partial-dir out"));
    }
    if settings.append_verify && settings.partial_dir.is_some() {
        return Err(Failure::usage("--append-verify cannot be used with --partial-dir"));
    }
    if settings.append_verify && settings.whole_file == Some(true) {
        return Err(Failure::usage("--append-verify cannot be used with --whole-file"));
    }
    if let Some(pair) = settings.alt_dests.windows(2).find(|pair| pair[0].0 != pair[1].0) {
        let name = |kind| match kind {
            crate::plan::options::AltDestKind::Compare => "--compare-dest",
            crate::plan::options::AltDestKind::Copy => "--copy-dest",
            crate::plan::options::AltDestKind::Link => "--link-dest",
        };
        return Err(Failure::usage(format!("{} conflicts with {}", name(pair[1].0), name(pair[0].0)))
            .with_hint("several directories of one of these kinds may be given"));
    }
    Ok(())
}

fn recursion(settings: &Settings) -> Recursion {
    let by_list = settings.files_from.is_some();
    let deep = match settings.recursive {
        Recursive::Yes => true,
        Recursive::ByArchive => !by_list,
        Recursive::No => false,
    };
    match (deep, settings.dirs.unwrap_or(by_list) || settings.list_only) {
        (true, _) => Recursion::Deep,
        (false, true) => Recursion::Shallow,
        (false, false) => Recursion::Skip,
    }
}

fn quick_check(settings: &Settings) -> QuickCheck {
    if settings.checksum {
        QuickCheck::Checksum
    } else if settings.size_only {
        QuickCheck::SizeOnly
    } else if settings.ignore_times {
        QuickCheck::Never
    } else {
        QuickCheck::SizeAndTime
    }
}

fn item_report(settings: &Settings, levels: Levels) -> ItemReport {
    let all = levels.itemize > 1 || levels.name > 1 || settings.list_only;
    let some = levels.itemize > 0
        || levels.name > 0
        || levels.del
        || (settings.out_format.is_some() && !settings.quiet)
        || settings.log_file.is_some()
        || settings.json;
    match (all, some) {
        (true, _) => ItemReport::All,
        (false, true) => ItemReport::Changed,
        (false, false) => ItemReport::None,
    }
}

fn backup(settings: &Settings) -> Result<Option<Backup>, Failure> {
    let suffix = match (&settings.suffix, &settings.backup_dir) {
        (Some(suffix), _) => suffix.clone(),
        (None, Some(_)) => Vec::new(),
        (None, None) => b"~".to_vec(),
    };
    if suffix.contains(&b'/') {
        return Err(Failure::usage(format!("--suffix cannot contain slashes: {}", display_bytes(&suffix))));
    }
    if !settings.backup {
        return Ok(None);
    }
    if suffix.is_empty() && settings.backup_dir.is_none() {
        return Err(Failure::usage("--suffix cannot be empty without a --backup-dir"));
    }
    let dir = settings.backup_dir.as_deref().map(without_trailing_slashes);
    if dir.as_ref().is_some_and(Vec::is_empty) {
        return Err(Failure::usage("--backup-dir: the directory is empty"));
    }
    Ok(Some(Backup { dir, suffix }))
}

fn alt_dests(settings: &Settings) -> Result<Option<AltDests>, Failure> {
    let Some((kind, _)) = settings.alt_dests.first() else { return Ok(None) };
    let dirs: Vec<Vec<u8>> = settings.alt_dests.iter().map(|(_, dir)| dir.clone()).collect();
    if dirs.iter().any(Vec::is_empty) {
        return Err(Failure::usage("--compare-dest, --copy-dest, --link-dest: the directory is empty"));
    }
    Ok(Some(AltDests { kind: *kind, dirs }))
}

fn compression(settings: &Settings) -> Result<Option<Compression>, Failure> {
    if !settings.compress {
        return Ok(None);
    }
    match (settings.compress_choice, settings.compress_level) {
        (Some(CompressChoice::Lz4), Some(_)) => {
            Err(Failure::usage("--compress-level: lz4 has no levels").with_hint("use --compress-choice=zstd"))
        }
        (Some(CompressChoice::Lz4), None) => Ok(Some(Compression::Lz4)),
        (_, level) => Ok(Some(Compression::Zstd { level })),
    }
}

fn size(option: &str, text: Option<&[u8]>) -> Result<Option<u64>, Failure> {
    parsed_size(option, text, |text| parse_size(text, SizeUnit::Bytes).map(Some))
}

fn parsed_size(
    option: &str,
    text: Option<&[u8]>,
    parse: impl FnOnce(&str) -> Result<Option<u64>, SizeError>,
) -> Result<Option<u64>, Failure> {
    let Some(bytes) = text else { return Ok(None) };
    let failure = |why: &dyn std::fmt::Display| {
        Failure::usage(format!("--{option}={}: {why}", display_bytes(bytes)))
            .with_hint("a number, with K, M, G, T or P for units of 1024, KB, MB ... for units of 1000")
    };
    let text = std::str::from_utf8(bytes).map_err(|_| failure(&"not a size"))?;
    parse(text).map_err(|error| failure(&error))
}

fn id_maps(settings: &Settings) -> Result<IdMaps, Failure> {
    let mut maps = IdMaps::default();
    for (option, text) in &settings.id_maps {
        match option {
            IdMapOption::UserMap => maps.set_usermap(text),
            IdMapOption::GroupMap => maps.set_groupmap(text),
            IdMapOption::Chown => maps.set_chown(text),
        }
        .map_err(|error| Failure::usage(super::exit::chain_of(&error)))?;
    }
    Ok(maps)
}

fn chmod(settings: &Settings, umask: u32) -> Result<ChmodRules, Failure> {
    let mut rules = ChmodRules::default();
    for text in &settings.chmod {
        let more = ChmodRules::parse(&String::from_utf8_lossy(text), umask).map_err(|error| {
            Failure::usage(error.to_string()).with_hint("for example --chmod=D755,F644 or u+rwX,go=")
        })?;
        rules.append(more);
    }
    Ok(rules)
}

fn filters(
    settings: &Settings,
    backup: Option<&Backup>,
    partial_dir: Option<&[u8]>,
    inputs: &mut dyn Inputs,
) -> Result<FilterRules, Failure> {
    let mut rules = FilterRules::default();
    rules.set_nul_separated(settings.from0);
    let mut per_directory = 0u8;
    for step in &settings.filters {
        match step {
            FilterStep::Exclude(pattern) => rules.push_exclude(pattern).map_err(|error| bad_filter(&error))?,
            FilterStep::Include(pattern) => rules.push_include(pattern).map_err(|error| bad_filter(&error))?,
            FilterStep::ExcludeFrom(path) => {
                let content = list(inputs, "exclude-from", path.as_bytes(), limits::FILTER_FILE_BYTES_MAX)?;
                rules.push_exclude_from(path.as_bytes(), &content).map_err(|error| bad_filter(&error))?;
            }
            FilterStep::IncludeFrom(path) => {
                let content = list(inputs, "include-from", path.as_bytes(), limits::FILTER_FILE_BYTES_MAX)?;
                rules.push_include_from(path.as_bytes(), &content).map_err(|error| bad_filter(&error))?;
            }
            FilterStep::Rule(rule) => push_rule(&mut rules, rule, inputs)?,
            FilterStep::PerDirectory => {
                per_directory = per_directory.saturating_add(1);
                rules.push_per_directory_default(per_directory).map_err(|error| bad_filter(&error))?;
            }
        }
    }
    // The rules that rsync, too, adds last: what a run keeps for itself is neither copied nor deleted.
    if let Some(dir) = partial_dir.filter(|dir| !dir.starts_with(b"/")) {
        push_rule(&mut rules, &[b"-p ", dir, b"/"].concat(), inputs)?;
    }
    let deletes = settings.deletion.enabled && !settings.deletion.excluded_too;
    if let Some(backup) = backup.filter(|backup| deletes && backup.dir.is_none()) {
        push_rule(&mut rules, &[b"P *", backup.suffix.as_slice()].concat(), inputs)?;
    }
    Ok(rules)
}

fn push_rule(rules: &mut FilterRules, rule: &[u8], inputs: &mut dyn Inputs) -> Result<(), Failure> {
    let mut reader = |path: &[u8]| inputs.read(path, limits::FILTER_FILE_BYTES_MAX);
    rules.push_filter(rule, &mut reader).map_err(|error| bad_filter(&error))
}

fn bad_filter(error: &FilterError) -> Failure {
    Failure::usage(super::exit::chain_of(error)).with_hint("rules are rsync's: see FILTER RULES in its manual")
}

fn files_from(settings: &Settings, inputs: &mut dyn Inputs) -> Result<Option<Vec<Vec<u8>>>, Failure> {
    let Some(path) = &settings.files_from else { return Ok(None) };
    let bytes = path.clone().into_vec();
    let separator = bytes.iter().position(|&byte| byte == b':' || byte == b'/');
    if separator.is_some_and(|at| bytes[at] == b':') {
        return Err(Failure::usage(format!("--files-from={}: the list must be here", display_bytes(&bytes)))
            .with_hint("pipe it in: ssh HOST cat LIST | xfer sync --files-from=- ...; ./a:b is a local name"));
    }
    let content = list(inputs, "files-from", &bytes, limits::FILES_FROM_BYTES_MAX)?;
    Ok(Some(paths_of_list(&content, settings.from0)))
}

fn list(inputs: &mut dyn Inputs, option: &str, path: &[u8], bytes_max: u64) -> Result<Vec<u8>, Failure> {
    inputs
        .read(path, bytes_max)
        .map_err(|why| Failure::failed(format!("--{option}: cannot read \"{}\": {why}", display_bytes(path))))
}

fn without_trailing_slashes(path: &[u8]) -> Vec<u8> {
    let mut end = path.len();
    while end > 1 && path[end - 1] == b'/' {
        end -= 1;
    }
    path[..end].to_vec()
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
