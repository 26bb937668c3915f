//! What rsync has and xfer does not: refused by name, never ignored.

use super::super::exit::Failure;

/// One option of rsync.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused {
    /// Long name.
    pub(crate) name: &'static str,
    /// Short name.
    pub(crate) short: Option<char>,
    /// Whether a value follows.
    pub(crate) takes_value: bool,
    /// Why, and what to do instead.
    pub(crate) instead: &'static str,
}

impl Refused {
    /// As the command line tells it.
    pub(crate) fn failure(&self) -> Failure {
        Failure::usage(format!("option --{} of rsync is not supported", self.name)).with_hint(self.instead)
    }
}

const fn switch(name: &'static str, instead: &'static str) -> Refused {
    Refused { name, short: None, takes_value: false, instead }
}

const fn valued(name: &'static str, instead: &'static str) -> Refused {
    Refused { name, short: None, takes_value: true, instead }
}

impl Refused {
    const fn short(mut self, short: char) -> Refused {
        self.short = Some(short);
        self
    }
}

const DAEMON: &str = "xfer does not speak to rsync daemons; use [USER@]HOST:PATH over a remote shell";
const BATCH: &str = "batch files are not supported; sync to each destination";
const SUPER: &str = "root at the destination sets owners and devices, other users do not; run the far side as root";
const DIGEST: &str = "content is always verified by BLAKE3; leave the option out";
const OUTPUT: &str = "problems are always written to standard error as they happen; leave the option out";
const STOP: &str = "use timeout(1) with SIGINT: what is complete stays, and the next run goes on from there";
const ADDRESS_FAMILY: &str = "tell the remote shell: -e 'ssh -4' or -e 'ssh -6'";
const ALWAYS_INCREMENTAL: &str = "directories are always listed as the transfer goes on; leave the option out";
const OPERATOR_PATHS: &str = "paths of the command line are followed as given, paths beneath a root never leave it";

/// All of them.
pub(crate) const REFUSED: &[Refused] = &[
    valued(
        "temp-dir",
        "a rename from another file system is not atomic; files are staged beside their final name, or invisibly",
    )
    .short('T'),
    switch("append", "it trusts what is there without a look; use --append-verify, or plain deltas"),
    switch("fuzzy", "a basis is only ever the file itself or one of --link-dest, --copy-dest, --compare-dest")
        .short('y'),
    switch(
        "delay-updates",
        "each file appears at once and complete; for a switch of the whole, sync beside and rename",
    ),
    switch("cvs-exclude", "give the patterns by --exclude-from").short('C'),
    valued("write-batch", BATCH),
    valued("only-write-batch", BATCH),
    valued("read-batch", BATCH),
    switch("super", SUPER),
    switch("fake-super", SUPER),
    valued("copy-as", "run xfer as that user, or use --chown"),
    valued("iconv", "names are copied byte for byte; convert them beforehand"),
    switch("copy-devices", "the content of a device is not copied; use dd for it"),
    switch("write-devices", "devices are not written to; use dd for it"),
    switch("drop-D", "leave out -D, or add --no-D"),
    switch("daemon", "xfer serve is to offer modules; until then use a remote shell"),
    valued("port", "tell the remote shell: -e 'ssh -p PORT'"),
    valued("address", DAEMON),
    valued("password-file", DAEMON),
    valued("early-input", DAEMON),
    valued("sockopts", "socket options are left to the system"),
    switch("no-motd", DAEMON),
    switch("motd", DAEMON),
    valued("protocol", "both ends agree on a version by themselves"),
    valued("checksum-choice", DIGEST),
    valued("cc", DIGEST),
    valued("checksum-seed", DIGEST),
    valued("skip-compress", "data that does not compress is found by a sample; leave the option out"),
    valued("compress-threads", "compression runs on all lanes at once; leave the option out"),
    valued("zt", "compression runs on all lanes at once; leave the option out"),
    switch("old-compress", "use --compress-choice=zstd or lz4"),
    switch("new-compress", "use --compress-choice=zstd or lz4"),
    switch("trust-sender", "names from the far side are always checked; leave the option out"),
    switch("old-args", "arguments never pass through the far shell; name each source by itself"),
    valued("stop-after", STOP),
    valued("stop-at", STOP),
    valued("time-limit", STOP),
    valued("remote-option", "both sides get the same options").short('M'),
    valued("block-size", "block sizes of deltas are chosen by xfer; leave the option out").short('B'),
    switch("munge-links", "links are copied as they are; use --safe-links or --copy-unsafe-links"),
    switch("preallocate", "space is checked as the transfer goes on; leave the option out"),
    switch("delete-missing-args", "sync the parent directory with --delete"),
    valued("max-alloc", "memory does not grow with the tree; leave the option out"),
    switch("crtimes", "Linux does not let creation times be set").short('N'),
    switch("open-noatime", "files are read without moving their access times where the system allows; leave it out"),
    switch("old-dirs", "use --dirs"),
    switch("old-d", "use --dirs"),
    switch("no-inc-recursive", ALWAYS_INCREMENTAL),
    switch("no-i-r", ALWAYS_INCREMENTAL),
    switch("no-secluded-args", "arguments never pass through the far shell"),
    switch("no-protect-args", "arguments never pass through the far shell"),
    switch("no-s", "arguments never pass through the far shell"),
    switch("blocking-io", "a remote shell gets pipes; leave the option out"),
    valued("outbuf", "lines are flushed one by one on a terminal and when idle; leave the option out"),
    valued("debug", "use -vv and --stats"),
    valued("stderr", OUTPUT),
    switch("msgs2stderr", OUTPUT),
    switch("no-msgs2stderr", OUTPUT),
    switch("8-bit-output", "valid UTF-8 is shown as it is, other bytes as \\#ooo; use --json for exact names")
        .short('8'),
    switch("ipv4", ADDRESS_FAMILY).short('4'),
    switch("ipv6", ADDRESS_FAMILY).short('6'),
    switch("insecure-links", OPERATOR_PATHS),
    valued("confine-root", OPERATOR_PATHS),
    switch("qsort", "leave the option out"),
    switch("server", "the far end is started as `xfer serve --stdio`"),
    switch("sender", "the far end is started as `xfer serve --stdio`"),
    valued("config", DAEMON),
    valued("dparam", DAEMON),
];

#[cfg(test)]
mod tests {
    use super::super::flags::FLAGS;
    use super::*;

    #[test]
    fn the_page_for_users_of_rsync_names_every_option() {
        let page = include_str!("../../../docs/from-rsync.md");
        let names = |name: &str| {
            let wanted = format!("--{name}");
            page.match_indices(&wanted).any(|(at, _)| {
                let next = page[at + wanted.len()..].chars().next();
                next.is_none_or(|next| !next.is_ascii_alphanumeric() && next != '-')
            })
        };
        for refused in REFUSED {
            assert!(names(refused.name), "{}", refused.name);
        }
        for flag in FLAGS.iter().filter(|flag| flag.in_sync && !flag.short_only && !flag.hidden) {
            assert!(names(flag.long), "{}", flag.long);
        }
    }
}
