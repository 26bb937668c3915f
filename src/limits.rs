//! Every bound and size, each with its reason. A value that comes from a peer may only tighten one of these.

/// Bytes of a frame on the wire, header left out. Bounds what one length field can make the other end allocate.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Bytes of one digest segment of a file. Aligned segments let lanes, resumption and deltas share the work; half a
/// frame, so that a whole segment always fits one frame, and small enough to stay in a core's second-level cache
/// between digest, cipher and write.
pub const SEGMENT_BYTES: u64 = 512 << 10;

/// Files up to this size travel whole inside a frame shared with others. Equal to a segment: one digest, one frame.
pub const SMALL_FILE_BYTES_MAX: u64 = SEGMENT_BYTES;

/// A data frame is sent when it holds this much, so that many small files share one write and one wake-up.
pub const DATA_FRAME_FILL_BYTES: usize = 256 << 10;

/// Bytes of one path component. `NAME_MAX` of every file system Linux has; longer names cannot be created here.
pub const NAME_BYTES_MAX: usize = 255;

/// Bytes of a relative path on the wire. Eight times `PATH_MAX`: deeper trees exist and are reached by descriptor.
pub const PATH_BYTES_MAX: usize = 32 << 10;

/// Bytes of a symbolic link's target: `PATH_MAX`, which the kernel enforces.
pub const LINK_TARGET_BYTES_MAX: usize = 4096;

/// Depth of directories below a root. Keeps stacks, handles and recursive deletion bounded against a hostile peer.
pub const DIRECTORY_DEPTH_MAX: usize = 4096;

/// Entries of one piece of a listing. One step of work: large enough to amortise a wake-up, small enough to spread a
/// crowded directory over all threads.
pub const LISTING_PIECE_ENTRIES_MAX: usize = 1024;

/// Entries that may be listed and not yet released by the receiver. Bounds both sides' memory whatever the tree
/// holds: about 200 bytes an entry.
pub const LISTED_ENTRIES_OUTSTANDING_MAX: u64 = 64 << 10;

/// Wants that may be outstanding. The sender's queue has room for all of them, so its reader never blocks: that is
/// what keeps the two pipes from waiting for each other.
pub const WANTS_OUTSTANDING_MAX: usize = 16 << 10;

/// Bytes of file content that outstanding wants may add up to before the receiver waits.
pub const WANTED_BYTES_OUTSTANDING_MAX: u64 = 256 << 20;

/// Wants that may be outstanding whatever their length: the next large file begins without a pause after the last.
pub const LARGE_WANTS_OUTSTANDING_MIN: usize = 4;

/// Extended attributes of one file: names and values together. `XATTR_SIZE_MAX` and `XATTR_LIST_MAX` are 64 KiB each.
pub const XATTRS_BYTES_MAX: usize = 256 << 10;

/// Extended attributes of one file, by number.
pub const XATTRS_COUNT_MAX: usize = 1024;

/// Entries of one POSIX access control list: the kernel's value limit of 64 KiB divided by 8 bytes an entry.
pub const ACL_ENTRIES_MAX: usize = 8192;

/// Bytes of the session's options on the wire, filter rules included.
pub const SESSION_SETUP_BYTES_MAX: usize = FRAME_BYTES_MAX;

/// Filter rules in one set, merge files included.
pub const FILTER_RULES_MAX: usize = 100_000;

/// Pairs of one user or group map: each id that appears is compared with all of them once.
pub const ID_MAP_PAIRS_MAX: usize = 10_000;

/// Bytes of one filter pattern or merge file name: `PATH_MAX`, since nothing longer can name a file.
pub const FILTER_PATTERN_BYTES_MAX: usize = 4096;

/// Per-directory merge rules that may be in force in one directory: each is one look for a file in every directory.
pub const FILTER_DIR_MERGES_MAX: usize = 32;

/// Depth to which merge files may merge others. Ends a file that merges itself.
pub const FILTER_MERGE_DEPTH_MAX: usize = 32;

/// Bytes of one filter merge file or `--exclude-from` file.
pub const FILTER_FILE_BYTES_MAX: u64 = 16 << 20;

/// Bytes of a `--files-from` list. Its tree is held in memory.
pub const FILES_FROM_BYTES_MAX: u64 = 1 << 30;

/// Times a file that changes while it is read is read again before it is reported as changed.
pub const CHANGED_FILE_READS_MAX: u32 = 4;

/// A source file whose mtime is younger than this at the start of a read is left to age first: within one tick of the
/// kernel's coarse clock (10 ms at HZ=100) a later write would not move the mtime.
pub const RACY_MTIME_NS: i64 = 20_000_000;

/// Milliseconds between heartbeats on the control lane, whatever else is going on.
pub const HEARTBEAT_INTERVAL_MS: u64 = 2_000;

/// Milliseconds during which a busy destination lock is tried again: a dying session's far end needs that long.
pub const LOCK_RETRY_MS: u64 = 1_000;

/// Milliseconds within which a stop by signal finishes or drops what is staged.
pub const STOP_GRACE_MS: u64 = 5_000;

/// Bytes of one read or write of file content outside the wire.
pub const COPY_CHUNK_BYTES: usize = 1 << 20;

/// Smallest and largest block of a delta, in bytes: below, signatures outgrow their use; above, the weak sum degenerates.
pub const DELTA_BLOCK_BYTES_MIN: u32 = 4 << 10;
/// See [`DELTA_BLOCK_BYTES_MIN`].
pub const DELTA_BLOCK_BYTES_MAX: u32 = 32 << 10;

/// Worker threads of one side at most: more only contend for the same disks.
pub const WORKERS_MAX: usize = 16;

/// Problems that are kept one by one for the end's report; further ones are counted.
pub const PROBLEMS_KEPT_MAX: usize = 10_000;

/// Bytes of a text (problem, notice) from a peer.
pub const TEXT_BYTES_MAX: usize = 64 << 10;

/// Milliseconds between looks at a stop flag while a thread waits for a link or for the throttle: a signal is felt at
/// once by people, and an idle thread wakes five times a second.
pub const STOP_POLL_MS: u64 = 200;

/// Milliseconds' worth of bytes that the throttle lets pass at once: smooth for others on the link, and still large
/// writes at any rate that matters.
pub const THROTTLE_BURST_MS: u64 = 100;

/// Bytes asked for as the buffer of a pipe to a child: what Linux allows without privilege by default
/// (`/proc/sys/fs/pipe-max-size`), so that a frame passes in one write.
pub const PIPE_BUFFER_BYTES: usize = 1 << 20;

/// Bytes read ahead on a link, so that headers cost no system call of their own; larger reads bypass the buffer.
pub const LINK_READ_AHEAD_BYTES: usize = 64 << 10;

/// Bytes shown of what a remote shell printed in place of our greeting: one line of a terminal or two.
pub const UNEXPECTED_OUTPUT_BYTES_MAX: usize = 200;

/// Milliseconds given to a remote shell to end, once its link is broken, before it is killed.
pub const SHELL_EXIT_GRACE_MS: u64 = 2_000;

/// Bytes of the basis that one signature message covers. Large enough that its 5 KiB amortise a frame, small enough
/// that hashing one is a short step of work and that signatures run only little ahead of the segments.
pub const DELTA_WINDOW_BYTES: u64 = 4 << 20;

/// Windows of one file's basis that the sender holds at once: 256 MiB of the basis, some 320 KiB of signatures.
pub const DELTA_WINDOWS_HELD_MAX: usize = 64;

/// Windows of one file's basis that the receiver may describe ahead of the segment being answered: half of those held,
/// so that the search reaches as far forwards as back.
pub const DELTA_WINDOWS_AHEAD_MAX: usize = DELTA_WINDOWS_HELD_MAX / 2;

/// Files longer than this get the largest blocks: their signatures would outgrow what finer blocks save.
pub const DELTA_LARGE_FILE_BYTES: u64 = 256 << 30;

/// Bytes of the basis on either side of a segment's own place (and of the last found shift) in which the rolling search
/// looks. Its cost per byte grows with the index, and so does that of making the index.
pub const DELTA_SEARCH_RADIUS_BYTES: u64 = 8 << 20;

/// Bytes that the rolling search takes in one call: what it does beyond the first match is partly lost.
pub const DELTA_SEARCH_PIECE_BYTES: usize = 256 << 10;

/// Weak sums of one segment that may match without the digest, before its search ends. Each costs two hashes of a
/// block and another look at the places it hid; honest data has next to none.
pub const DELTA_FALSE_MATCHES_MAX: u32 = 16;

/// Bytes searched in vain, in a row, after which a file is searched only now and then.
pub const DELTA_FRUITLESS_BYTES_MAX: u64 = 4 << 20;

/// Of a file that is searched now and then, one segment in so many.
pub const DELTA_PROBE_INTERVAL: u64 = 16;

/// Instructions of one segment. Honest ones need two for each of at most 128 blocks, and a few at seams; what would
/// need more is sent as one literal. Bounds what a short message can make the receiver allocate.
pub const DELTA_INSTRUCTIONS_MAX: usize = 1024;

/// Milliseconds within which a client that started a far end has to say what it wants.
pub const SETUP_TIMEOUT_MS: u64 = 60_000;

/// Milliseconds from accepting a connection to its peer being authenticated, TLS handshake included. One deadline for
/// all of it: a peer that sends one byte now and then gains nothing.
pub const AUTHENTICATION_TIMEOUT_MS: u64 = 10_000;

/// Data connections of one session. More only contend: one stream fills a loopback, eight a long link.
pub const LANES_MAX: usize = 8;

// What the daemon bounds. A configuration may only make these tighter.

/// Sessions of one daemon at once. Each is a process with threads of its own; more only contend for the same disks.
pub const SERVE_SESSIONS_MAX: usize = 256;

/// Sessions of one key at once: scripts run several, a lost key must not take all.
pub const SERVE_SESSIONS_PER_KEY_MAX: usize = 32;

/// Connections that the supervisor holds at once, sessions' first ones included. Each costs a descriptor; with what
/// else it needs that stays below the hard limit of most systems.
pub const SERVE_CONNECTIONS_MAX: usize = 2048;

/// Connections of one address at once (of one /64 for IPv6), whether authenticated or not.
pub const SERVE_CONNECTIONS_PER_ADDRESS_MAX: usize = 256;

/// Connections that have not said who they are. When they run out the oldest one goes: honest peers need
/// milliseconds, so whoever has waited longest is the likeliest not to be one.
pub const SERVE_UNAUTHENTICATED_MAX: usize = 512;

/// Processes for peers that have not said who they are, some 10 MiB each. When they run out, the oldest of the address
/// that has the most goes for another address's.
pub const SERVE_WORKERS_UNAUTHENTICATED_MAX: usize = 32;

/// Lanes handed to a session that it has not taken yet. Session ids are no secrets: whoever knows one may waste these
/// descriptors, and no more.
pub const SERVE_LANES_WAITING_MAX: usize = 2 * LANES_MAX;

/// Bytes of one message between supervisor and worker: paths and names are cut to fit, descriptors go beside.
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 32 << 10;

/// Milliseconds within which the supervisor has to answer its worker. It never waits for anything but the system's
/// name service, which may be a slow directory server.
pub const CONTROL_ANSWER_TIMEOUT_MS: u64 = 60_000;

/// Milliseconds between a worker's reports of what it has moved so far.
pub const SERVE_PROGRESS_INTERVAL_MS: u64 = 2_000;

/// Bytes of a daemon's configuration file.
pub const SERVE_CONFIG_BYTES_MAX: u64 = 4 << 20;

/// Modules of one daemon: each session looks through all of them.
pub const SERVE_MODULES_MAX: usize = 10_000;

/// Addresses that one daemon listens on.
pub const SERVE_LISTENERS_MAX: usize = 64;

/// Bytes of a module's name: it is a component of an address that people type.
pub const MODULE_NAME_BYTES_MAX: usize = 128;

/// Log lines that wait for a slow disk or terminal. More are dropped and counted: service does not wait.
pub const LOG_LINES_QUEUED_MAX: usize = 4096;

/// Bytes of one log line; what names a peer chooses is cut.
pub const LOG_LINE_BYTES_MAX: usize = 8 << 10;

/// Connections to the metrics' page at once, and milliseconds that each has for its request.
pub const METRICS_CONNECTIONS_MAX: usize = 16;
/// See [`METRICS_CONNECTIONS_MAX`].
pub const METRICS_REQUEST_TIMEOUT_MS: u64 = 10_000;

/// Seconds of silence that a module may allow at most: a day.
pub const SERVE_TIMEOUT_S_MAX: usize = 86_400;

/// Names of users or groups that a process remembers, each kind by itself. What a peer makes up beyond is asked for
/// every time.
pub const NAMES_CACHED_MAX: usize = 100_000;

/// Milliseconds that direct lanes are tried for in one direction, while the control lane carries everything already. A
/// firewall that drops shows only as silence.
pub const LANE_CONNECT_TIMEOUT_MS: u64 = 2_000;

/// Milliseconds that the other end has to answer a word about lanes. It only has to bind a socket, but on a slow link its
/// answer waits behind megabytes of content; and waiting costs nothing, since work goes on.
pub const LANE_ANSWER_TIMEOUT_MS: u64 = 30_000;

/// Milliseconds that a far end listens for lanes at most: longer than any client tries, which says when it is done.
pub const LANE_LISTEN_TIMEOUT_MS: u64 = 2 * AUTHENTICATION_TIMEOUT_MS;

/// Milliseconds without a sign of life, at least, before the kernel gives up a data lane; without `--timeout` twice as
/// many. The kernel's probes also keep the way open through firewalls that forget what is idle.
pub const LANE_PATH_TIMEOUT_MS: u64 = 150_000;

/// Addresses of one host that a peer may name.
pub const LANE_ADDRESSES_MAX: usize = 8;

/// Directories that may be announced and not yet listed to their end. The receiver's book keeps runs of them, at worst
/// some 40 bytes for each, so a peer cannot make it hold more than some 170 MB; a tree that needs more at once has
/// directories of millions of directories.
pub const DIRECTORIES_OUTSTANDING_MAX: usize = 4 << 20;

/// A number of milliseconds as a duration.
pub const fn ms(milliseconds: u64) -> std::time::Duration {
    std::time::Duration::from_millis(milliseconds)
}

// Encrypted connections and their keys.

/// Bytes that one side of a TLS handshake may send. An honest one sends some 2 KiB, most of it the post-quantum key
/// share; what is larger is refused before it is held.
pub const TLS_HANDSHAKE_BYTES_MAX: usize = 32 << 10;

/// Bytes of ciphertext that one read of an encrypted connection asks for: what a fast peer sent meanwhile comes in one
/// system call. A record never needs more than 16 KiB and some.
pub const TLS_READ_BYTES: usize = 512 << 10;

/// Bytes that are encrypted before they are sent together: six records, so a frame of 1 MiB takes eleven writes. The
/// ciphertext is still in a core's second-level cache when the kernel copies it, and stays below the 128 KiB of free
/// memory that glibc gives back to the system at once: with more, each write paid for its pages anew, a third of the time.
pub const TLS_WRITE_BYTES: usize = 96 << 10;

/// Records under one key before it is replaced. AES-GCM allows 2^24.5 of 16 KiB (RFC 8446, section 5.5); a quarter of
/// what is allowed, 64 GiB, so that replacing keys happens in ordinary use and not only in theory.
pub const TLS_RECORDS_PER_KEY_MAX: u64 = 1 << 22;

/// Records in a row that carry no data (empty ones, key updates) before a peer is refused: each costs us work and
/// brings nothing. Honest peers send one now and then.
pub const TLS_IDLE_RECORDS_MAX: u32 = 32;

/// Milliseconds that a dropped encrypted link tries to say that it ends; an orderly end waits as long as any write.
pub const TLS_GOODBYE_MS: u64 = 500;

/// Addresses of one host name that are tried: a name with more is a pool, and some of it answers.
pub const TCP_ADDRESSES_MAX: usize = 8;

/// Connections that may wait to be accepted.
pub const TCP_BACKLOG: i32 = 128;

/// Bytes of one line of `known_hosts` or `authorized_keys`: a key with many options, and then some.
pub const KEY_LINE_BYTES_MAX: usize = 8 << 10;

/// Bytes of one key file: ten thousand keys.
pub const KEY_FILE_BYTES_MAX: u64 = 1 << 20;

/// Milliseconds that `ssh -G` may take to say what a host is called: it reads files and asks nobody.
pub const SSH_NAME_TIMEOUT_MS: u64 = 2_000;

/// Bytes of what `ssh -G` prints that are looked at; it prints some 4 KiB.
pub const SSH_NAME_BYTES_MAX: usize = 64 << 10;

/// Milliseconds after which a session's client counts as gone when the network carries nothing from it, heartbeats
/// included, and it asked for no time-out of its own: long enough for a router to start again.
pub const SERVE_PATH_TIMEOUT_MS: u64 = 600_000;

/// Milliseconds that a client which is not let in has to hear why.
pub const REFUSAL_TIMEOUT_MS: u64 = 2_000;

// The books of a session.

/// Directories that may be begun and not listed to their end: each keeps a name. An honest sender has as many as
/// threads that walk, [`WORKERS_MAX`]; four times that leaves room for one that lists otherwise.
pub const DIRECTORIES_BEGUN_MAX: usize = 4 * WORKERS_MAX;

/// Bytes of settling records that may come before segments of their files, and so wait in memory. Only a file that
/// shrinks to a small one while it is read has any, and only while another lane is behind: this is room for 128.
pub const EARLY_END_BYTES_MAX: u64 = 64 << 20;

// What a session holds of a peer's announcements.

/// Digests of segments that came before an earlier one of their file, for one file that has no room shared with others.
/// On one connection segments come in order; this leaves room for threads that overtake each other. Some 64 bytes each.
pub const EARLY_SEGMENTS_FILE_MAX: usize = 1024;

/// As [`EARLY_SEGMENTS_FILE_MAX`], for all files of a session together, whose segments come over several connections: one
/// that stalls lets the others run ahead by 512 GiB of content. Some 64 MiB of memory.
pub const EARLY_SEGMENTS_SESSION_MAX: usize = 1 << 20;

/// Bytes that one side keeps of directories that were announced and are not finished. A directory that waits to be listed
/// takes some 100 bytes, so that one with several million subdirectories still works; one that is being worked on takes
/// about 1 KiB and twice its path. More ends the session: only a peer that leaves everything unfinished gets there.
pub const UNFINISHED_DIRECTORIES_BYTES_MAX: usize = 512 << 20;

/// As [`UNFINISHED_DIRECTORIES_BYTES_MAX`], for a comparison, which keeps about 1 KiB of every directory until it is
/// finished: room for two million that wait.
pub const UNFINISHED_COMPARED_BYTES_MAX: usize = 2 << 30;

/// Names of users, and of groups, that a far side may tell in one session. More than any directory service that a file
/// tree draws on; some 100 bytes each.
pub const OWNER_NAMES_MAX: usize = 1 << 20;

/// Bytes that a session within a module keeps of files with several names (`-H`): some six million of them. A user's own
/// receiver has no such bound, as it is their own machine's memory.
pub const HARD_LINKS_BYTES_MAX: usize = 1 << 30;

// Filter files that merge others.

/// Merge files read for one rule or one per-directory file, each counted as often as it is read. The depth alone bounds
/// nothing: thirty files of which each merges the next twice would be read a billion times. Far more than anybody uses.
pub const FILTER_MERGE_FILES_MAX: usize = 1024;
// Directories staged whole.

/// Entries of a new directory that share its stage; with them it is put in place, and the rest follows one by one. As many
/// as credit lets be under way anyway: so much work a kill may cost, for each directory being filled.
pub const STAGED_DIRECTORY_ENTRIES_MAX: usize = LISTED_ENTRIES_OUTSTANDING_MAX as usize;

/// As [`STAGED_DIRECTORY_ENTRIES_MAX`], bytes of their content: a second's work of a fast disk.
pub const STAGED_DIRECTORY_BYTES_MAX: u64 = 256 << 20;

// Deltas over a link: what is taken over from the basis.

/// Digests of one basis's segments that wait for their segments to come back: twice what an honest sender lets gather,
/// as signatures run ahead by [`DELTA_WINDOWS_AHEAD_MAX`] windows.
pub const BASIS_DIGESTS_MAX: usize = 2 * DELTA_WINDOWS_AHEAD_MAX * (DELTA_WINDOW_BYTES / SEGMENT_BYTES) as usize;

/// Bytes of unchanged content that wait to be copied from the basis together once the new file is being written, and
/// of one such copy: long enough that calls cost nothing, short enough that a wish to stop is felt.
pub const BASIS_COPY_BYTES: u64 = 16 << 20;

// What one address can take from the others that use a daemon.

/// Processes of one address (of one /64 for IPv6) for peers that have not said who they are; further ones wait. An
/// honest handshake takes milliseconds, so eight serve hundreds a second, and leave most of
/// [`SERVE_WORKERS_UNAUTHENTICATED_MAX`] to others.
pub const SERVE_WORKERS_PER_NETWORK_MAX: usize = 8;

/// Milliseconds in which connections of one address that are not served share one line of the log.
pub const SERVE_REFUSALS_MERGED_MS: u64 = 1_000;

/// Addresses whose refusals are merged each by themselves; those of more share one line, so that a flood from
/// everywhere costs neither memory nor log.
pub const SERVE_REFUSALS_ADDRESSES_MAX: usize = 1_024;
