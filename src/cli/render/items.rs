//! Items: the itemized code, names, lines of a listing.

use jiff::tz::TimeZone;

use super::numbers::{Human, clock};
use crate::model::{Kind, display_bytes};
use crate::monitor::{Action, Item};

/// The eleven characters of `%i`: what was done, to which kind, which attributes differed.
pub(crate) fn itemized(item: &Item) -> String {
    let action = match item.action {
        Action::Deleted => return "*deleting  ".to_owned(),
        Action::Sent => '<',
        Action::Received => '>',
        Action::Changed => 'c',
        Action::HardLinked => 'h',
        Action::Unchanged => '.',
    };
    let kind = match item.kind {
        Kind::File => 'f',
        Kind::Dir => 'd',
        Kind::Symlink => 'L',
        Kind::Block | Kind::Char => 'D',
        Kind::Fifo | Kind::Socket => 'S',
    };
    let mut code = String::with_capacity(11);
    code.push(action);
    code.push(kind);
    let changes = &item.changes;
    if changes.created {
        code.push_str("+++++++++");
        return code;
    }
    let time = if changes.mtime_now { 'T' } else { 't' };
    let letters = [
        (changes.content, 'c'),
        (changes.size, 's'),
        (changes.mtime || changes.mtime_now, time),
        (changes.mode, 'p'),
        (changes.owner, 'o'),
        (changes.group, 'g'),
        (changes.atime, 'u'),
        (changes.acl, 'a'),
        (changes.xattr, 'x'),
    ];
    // An item of which nothing differed shows blanks, so that it stands out from a change.
    let nothing = letters.iter().all(|(differs, _)| !differs);
    let blank = nothing && matches!(item.action, Action::Unchanged | Action::HardLinked);
    for (differs, letter) in letters {
        code.push(match (differs, blank) {
            (true, _) => letter,
            (false, true) => ' ',
            (false, false) => '.',
        });
    }
    code
}

/// The name as `%n` has it: control bytes escaped, a directory with a trailing slash.
pub(crate) fn name_with_slash(item: &Item) -> String {
    let mut name = if item.path.is_empty() { ".".to_owned() } else { display_bytes(&item.path) };
    if item.kind == Kind::Dir {
        name.push('/');
    }
    name
}

/// The tail `%L`: where a link points to.
pub(crate) fn link_tail(item: &Item) -> String {
    if let Some(first) = &item.hard_link_to {
        return format!(" => {}", display_bytes(first));
    }
    match &item.link_target {
        Some(target) if item.action != Action::Deleted => format!(" -> {}", display_bytes(target)),
        _ => String::new(),
    }
}

/// Permission bits as `ls` writes them, without the letter of the kind.
pub(crate) fn permissions(mode: u32) -> String {
    let mut text = String::with_capacity(9);
    for (shift, special, set, letter) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = (mode >> shift) & 7;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, false) => 'x',
            (true, true) => set,
            (false, true) => letter,
            (false, false) => '-',
        });
    }
    text
}

/// One line of `--list-only`. Links show their target where links are copied as links.
pub(crate) fn list_line(item: &Item, human: Human, show_target: bool, zone: &TimeZone) -> String {
    let name = if item.path.is_empty() { ".".to_owned() } else { display_bytes(&item.path) };
    let target = if show_target && item.kind == Kind::Symlink { link_tail(item) } else { String::new() };
    format!(
        "{}{} {:>14} {} {name}{target}",
        item.kind.letter(),
        permissions(item.mode),
        human.integer(item.size),
        clock(item.mtime, ' ', zone)
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::monitor::Changes;

    pub(crate) fn item(path: &str, kind: Kind, action: Action) -> Item {
        Item {
            path: path.as_bytes().to_vec(),
            kind,
            action,
            changes: Changes::default(),
            link_target: None,
            hard_link_to: None,
            size: 1_234_567,
            mtime: Timestamp::new(1_577_934_245, 123_000_000),
            mode: 0o644,
            uid: 0,
            gid: 7,
            literal_bytes: 99,
            dry_run: false,
        }
    }

    #[test]
    fn codes_are_rsyncs() {
        let code = |kind, action, change: fn(&mut Changes)| {
            let mut item = item("x", kind, action);
            change(&mut item.changes);
            itemized(&item)
        };
        assert_eq!(
            code(Kind::File, Action::Received, |c| {
                c.size = true;
                c.mtime = true;
            }),
            ">f.st......"
        );
        assert_eq!(code(Kind::Dir, Action::Changed, |c| c.created = true), "cd+++++++++");
        assert_eq!(code(Kind::File, Action::HardLinked, |c| c.created = true), "hf+++++++++");
        assert_eq!(
            code(Kind::File, Action::HardLinked, |c| {
                c.size = true;
                c.mtime = true;
            }),
            "hf.st......"
        );
        assert_eq!(code(Kind::File, Action::HardLinked, |_| ()), "hf         ");
        assert_eq!(code(Kind::File, Action::Unchanged, |c| c.mode = true), ".f...p.....");
        assert_eq!(code(Kind::Fifo, Action::Unchanged, |_| ()), ".S         ");
        assert_eq!(
            code(Kind::Symlink, Action::Changed, |c| {
                c.content = true;
                c.mtime = true;
            }),
            "cLc.t......"
        );
        assert_eq!(code(Kind::Block, Action::Changed, |c| c.mtime_now = true), "cD..T......");
        assert_eq!(code(Kind::File, Action::Sent, |_| ()), "<f.........");
        assert_eq!(code(Kind::File, Action::Deleted, |_| ()), "*deleting  ");
        assert_eq!(
            code(Kind::File, Action::Unchanged, |c| {
                c.owner = true;
                c.group = true;
                c.atime = true;
                c.acl = true;
                c.xattr = true;
            }),
            ".f....oguax"
        );
    }

    #[test]
    fn modes_are_those_of_ls() {
        assert_eq!(permissions(0o644), "rw-r--r--");
        assert_eq!(permissions(0o7755), "rwsr-sr-t");
        assert_eq!(permissions(0o7000), "--S--S--T");
    }

    #[test]
    fn listing_lines_are_rsyncs() {
        let zone = TimeZone::UTC;
        let mut big = item("big", Kind::File, Action::Unchanged);
        assert_eq!(
            list_line(&big, Human::Separated, false, &zone),
            "-rw-r--r--      1,234,567 2020/01/02 03:04:05 big"
        );
        assert_eq!(
            list_line(&big, Human::Thousands, false, &zone),
            "-rw-r--r--          1.23M 2020/01/02 03:04:05 big"
        );
        big = item("", Kind::Dir, Action::Unchanged);
        big.mode = 0o755;
        big.size = 4096;
        assert_eq!(list_line(&big, Human::Separated, false, &zone), "drwxr-xr-x          4,096 2020/01/02 03:04:05 .");
        let mut link = item("l", Kind::Symlink, Action::Unchanged);
        link.mode = 0o777;
        link.size = 1;
        link.link_target = Some(b"a".to_vec());
        assert_eq!(list_line(&link, Human::Bare, true, &zone), "lrwxrwxrwx              1 2020/01/02 03:04:05 l -> a");
        assert_eq!(list_line(&link, Human::Bare, false, &zone), "lrwxrwxrwx              1 2020/01/02 03:04:05 l");
    }
}
