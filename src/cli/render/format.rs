//! `--out-format` and `--log-file-format`: rsync's escapes, those that mean something here; others are refused.

use jiff::tz::TimeZone;

use super::super::exit::Failure;
use super::items::{itemized, link_tail, name_with_slash, permissions};
use super::numbers::{Human, clock, log_time};
use crate::model::display_bytes;
use crate::monitor::{Action, Item};

/// Formats longer than this are a mistake; each item would cost as much.
const FORMAT_BYTES_MAX: usize = 4096;
/// Columns of a field at most.
const FIELD_COLUMNS_MAX: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    Name,
    LongName,
    Itemized,
    Length,
    LinkTail,
    Operation,
    TransferredBytes,
    Time,
    Mtime,
    Permissions,
    Uid,
    Gid,
    Pid,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Text(String),
    Field { escape: Escape, columns: usize, left: bool, zeros: bool, human: u8 },
}

/// A parsed format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format {
    tokens: Vec<Token>,
}

/// What a format needs besides the item.
pub(crate) struct FormatContext<'a> {
    /// The source is on another machine.
    pub(crate) receiving: bool,
    /// This process.
    pub(crate) pid: u32,
    /// Local time zone.
    pub(crate) zone: &'a TimeZone,
}

impl Format {
    /// `%i %n%L`, as `-i` shows items.
    pub(crate) fn itemized() -> Format {
        let field = |escape| Token::Field { escape, columns: 0, left: false, zeros: false, human: 0 };
        Format {
            tokens: vec![
                field(Escape::Itemized),
                Token::Text(" ".to_owned()),
                field(Escape::Name),
                field(Escape::LinkTail),
            ],
        }
    }

    /// Reads `text` as the value of `--option`.
    pub(crate) fn parse(option: &str, text: &[u8]) -> Result<Format, Failure> {
        let bad = |what: String| Failure::usage(format!("--{option}: {what}"));
        let text = std::str::from_utf8(text).map_err(|_| bad("the format is not UTF-8".to_owned()))?;
        if text.len() > FORMAT_BYTES_MAX {
            return Err(bad("the format is too long".to_owned()));
        }
        let mut tokens = Vec::new();
        let mut literal = String::new();
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            if character != '%' {
                literal.push(character);
                continue;
            }
            let mut human = 0u8;
            let mut left = false;
            let mut digits = String::new();
            while rest.next_if_eq(&'\'').is_some() {
                human = human.saturating_add(1);
            }
            if rest.next_if_eq(&'-').is_some() {
                left = true;
            }
            while let Some(digit) = rest.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            let columns = if digits.is_empty() { 0 } else { digits.parse::<usize>().unwrap_or(usize::MAX) };
            if columns > FIELD_COLUMNS_MAX {
                return Err(bad(format!("a field of {digits} columns is too wide")));
            }
            let escape = match rest.next() {
                Some('%') if columns == 0 && !left && human == 0 => {
                    literal.push('%');
                    continue;
                }
                Some('n') => Escape::Name,
                Some('f') => Escape::LongName,
                Some('i') => Escape::Itemized,
                Some('l') => Escape::Length,
                Some('L') => Escape::LinkTail,
                Some('o') => Escape::Operation,
                Some('b') => Escape::TransferredBytes,
                Some('t') => Escape::Time,
                Some('M') => Escape::Mtime,
                Some('B') => Escape::Permissions,
                Some('U') => Escape::Uid,
                Some('G') => Escape::Gid,
                Some('p') => Escape::Pid,
                Some(known @ ('a' | 'h' | 'm' | 'u' | 'P')) => {
                    return Err(bad(format!("%{known} means something to a daemon only")));
                }
                Some('C') => {
                    return Err(bad("%C is not supported: digests are not part of an item".to_owned()));
                }
                Some('c') => {
                    return Err(bad("%c is not supported: checksums are not counted by item".to_owned()));
                }
                Some(unknown) => return Err(bad(format!("unknown escape %{}", unknown.escape_debug()))),
                None => return Err(bad("the format ends within an escape".to_owned())),
            };
            if !literal.is_empty() {
                tokens.push(Token::Text(std::mem::take(&mut literal)));
            }
            tokens.push(Token::Field { escape, columns, left, zeros: digits.starts_with('0') && !left, human });
        }
        if !literal.is_empty() {
            tokens.push(Token::Text(literal));
        }
        Ok(Format { tokens })
    }

    /// Whether `%i` is in it: such a format shows changes of attributes too.
    pub(crate) fn has_itemized(&self) -> bool {
        self.tokens.iter().any(|token| matches!(token, Token::Field { escape: Escape::Itemized, .. }))
    }

    /// Whether `%i` or `%o` is in it: such a format tells of deletions itself.
    pub(crate) fn names_the_action(&self) -> bool {
        let is_action = |escape: &Escape| matches!(escape, Escape::Itemized | Escape::Operation);
        self.tokens.iter().any(|token| matches!(token, Token::Field { escape, .. } if is_action(escape)))
    }

    /// One item, without a line's end.
    pub(crate) fn render(&self, item: &Item, context: &FormatContext<'_>) -> String {
        let mut line = String::with_capacity(64);
        for token in &self.tokens {
            match token {
                Token::Text(text) => line.push_str(text),
                Token::Field { escape, columns, left, zeros, human } => {
                    let value = value_of(*escape, *human, item, context);
                    let missing = columns.saturating_sub(value.chars().count());
                    let padding = if *zeros && is_number(*escape) { '0' } else { ' ' };
                    if *left {
                        line.push_str(&value);
                    }
                    line.extend(std::iter::repeat_n(padding, missing));
                    if !*left {
                        line.push_str(&value);
                    }
                }
            }
        }
        line
    }
}

fn is_number(escape: Escape) -> bool {
    matches!(escape, Escape::Length | Escape::TransferredBytes | Escape::Uid | Escape::Gid | Escape::Pid)
}

fn value_of(escape: Escape, human: u8, item: &Item, context: &FormatContext<'_>) -> String {
    let number = |number: u64| Human::of_level(human).integer(number);
    match escape {
        Escape::Name => name_with_slash(item),
        Escape::LongName if item.path.is_empty() => ".".to_owned(),
        Escape::LongName => display_bytes(&item.path),
        Escape::Itemized => itemized(item),
        Escape::Length => number(item.size),
        Escape::LinkTail => link_tail(item),
        Escape::Operation => match (item.action, context.receiving) {
            (Action::Deleted, _) => "del.".to_owned(),
            (_, true) => "recv".to_owned(),
            (_, false) => "send".to_owned(),
        },
        Escape::TransferredBytes => number(item.literal_bytes),
        Escape::Time => log_time(context.zone),
        Escape::Mtime => clock(item.mtime, '-', context.zone),
        Escape::Permissions => permissions(item.mode),
        Escape::Uid => number(u64::from(item.uid)),
        Escape::Gid => number(u64::from(item.gid)),
        Escape::Pid => number(u64::from(context.pid)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::items::tests::item;
    use super::*;
    use crate::model::Kind;

    fn render(format: &str, item: &Item) -> String {
        let context = FormatContext { receiving: false, pid: 4242, zone: &TimeZone::UTC };
        Format::parse("out-format", format.as_bytes()).unwrap().render(item, &context)
    }

    #[test]
    fn escapes_are_rsyncs() {
        let mut big = item("sub/big", Kind::File, Action::Received);
        big.changes.created = true;
        assert_eq!(
            render("%n|%f|%i|%l|%L|%o|%b|%M|%B|%U|%G|%p|%%", &big),
            "sub/big|sub/big|>f+++++++++|1234567||send|99|2020/01/02-03:04:05|rw-r--r--|0|7|4242|%"
        );
        let mut dir = item("sub", Kind::Dir, Action::Deleted);
        dir.size = 0;
        assert_eq!(render("%i %n %o %l", &dir), "*deleting   sub/ del. 0");
        let mut link = item("l", Kind::Symlink, Action::Changed);
        link.link_target = Some(b"a\n".to_vec());
        assert_eq!(render("%n%L", &link), "l -> a\\#012");
        link.hard_link_to = Some(b"k".to_vec());
        assert_eq!(render("%n%L", &link), "l => k");
    }

    #[test]
    fn fields_have_widths_and_units() {
        let big = item("a", Kind::File, Action::Received);
        assert_eq!(render("[%5n] [%-5n] [%'l] [%''l] [%012l] [%3i]", &big), {
            "[    a] [a    ] [1,234,567] [1.23M] [000001234567] [>f.........]"
        });
    }

    #[test]
    fn escapes_without_a_meaning_are_refused() {
        for bad in ["%Q", "%", "%n%", "%a", "%h", "%m", "%u", "%P", "%C", "%c", "%9999n", "%-%"] {
            let failure = Format::parse("out-format", bad.as_bytes()).unwrap_err();
            assert!(failure.message.starts_with("--out-format: "), "{bad}");
        }
        assert!(Format::parse("out-format", b"\xff").is_err());
    }
}
