//! `--chmod` rules: comma-separated octal or symbolic changes, each for all entries, directories (`D`) or the rest (`F`).

use serde::{Deserialize, Serialize};

use crate::model::display_bytes;

/// All permission bits.
const ALL: u32 = 0o7777;

/// A `--chmod` value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid argument of --chmod: \"{}\"", display_bytes(.0.as_bytes()))]
pub struct ChmodError(pub String);

/// Parsed `--chmod` rules, applied in order; empty changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChmodRules {
    changes: Vec<Change>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Only {
    Dirs,
    Others,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Operator {
    Add,
    Remove,
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Class {
    User,
    Group,
    Other,
}

/// One item of the list. The umask is worked in already, so that both ends see the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    only: Option<Only>,
    operator: Operator,
    /// Bits that `=` clears first.
    clear: u32,
    bits: u32,
    /// `X`: bits that count for directories and for what somebody may execute already.
    execute_bits: u32,
    /// Permissions of a class that count as bits, within this mask.
    copy: Option<(Class, u32)>,
}

impl ChmodRules {
    /// Reads one `--chmod` value. `umask` limits what an item without `u`, `g`, `o` or `a` touches.
    pub fn parse(text: &str, umask: u32) -> Result<ChmodRules, ChmodError> {
        let change = |item| parse_item(item, umask).ok_or_else(|| ChmodError(text.to_owned()));
        Ok(ChmodRules { changes: text.split(',').map(change).collect::<Result<_, _>>()? })
    }

    /// Adds the rules of a further `--chmod`.
    pub fn append(&mut self, mut more: ChmodRules) {
        self.changes.append(&mut more.changes);
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The permission bits (`0o7777`) that an entry gets at the destination. Not for symbolic links, which have none.
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let mut mode = mode & ALL;
        for change in &self.changes {
            if change.only.is_some_and(|only| (only == Only::Dirs) != is_dir) {
                continue;
            }
            let mut bits = change.bits;
            if is_dir || mode & 0o111 != 0 {
                bits |= change.execute_bits;
            }
            if let Some((class, mask)) = change.copy {
                let shift = match class {
                    Class::User => 6,
                    Class::Group => 3,
                    Class::Other => 0,
                };
                bits |= (((mode >> shift) & 7) * 0o111) & mask;
            }
            mode = match change.operator {
                Operator::Add => mode | bits,
                Operator::Remove => mode & !bits,
                Operator::Set => (mode & !change.clear) | bits,
            } & ALL;
        }
        mode
    }
}

fn parse_item(item: &str, umask: u32) -> Option<Change> {
    let (only, item) = match item.as_bytes().first()? {
        b'D' => (Some(Only::Dirs), &item[1..]),
        b'F' => (Some(Only::Others), &item[1..]),
        _ => (None, item),
    };
    if item.starts_with(|first: char| first.is_ascii_digit()) {
        let bits = u32::from_str_radix(item, 8).ok().filter(|bits| *bits <= ALL)?;
        return Some(Change { only, operator: Operator::Set, clear: ALL, bits, execute_bits: 0, copy: None });
    }
    parse_symbolic(only, item, umask)
}

fn parse_symbolic(only: Option<Only>, item: &str, umask: u32) -> Option<Change> {
    let at = item.find(['+', '-', '='])?;
    let operator = match item.as_bytes()[at] {
        b'+' => Operator::Add,
        b'-' => Operator::Remove,
        _ => Operator::Set,
    };
    let (who, what) = (&item[..at], &item[at + 1..]);
    let (mut classes, mut set_id, mut special) = (0, 0, 0);
    for letter in who.bytes() {
        let (class, id_bits, special_bits) = match letter {
            b'u' => (0o700, 0o4000, 0o4000),
            b'g' => (0o070, 0o2000, 0o2000),
            b'o' => (0o007, 0, 0o1000),
            b'a' => (0o777, 0o6000, 0o7000),
            _ => return None,
        };
        classes |= class;
        set_id |= id_bits;
        special |= special_bits;
    }
    let mut allowed = classes;
    if who.is_empty() {
        (classes, allowed, special) = (0o777, 0o777 & !umask, 0o7000);
    }
    // rsync takes `s` without `u` or `g` for the set-user-ID bit, and lets `=` clear it only beside `s` or `t`.
    let set_id = if set_id == 0 { 0o4000 } else { set_id };
    let mut change = Change { only, operator, clear: classes, bits: 0, execute_bits: 0, copy: None };
    let copied = match what {
        "u" => Some(Class::User),
        "g" => Some(Class::Group),
        "o" => Some(Class::Other),
        _ => None,
    };
    if let Some(class) = copied {
        change.copy = Some((class, allowed));
        change.clear |= special;
        return Some(change);
    }
    for letter in what.bytes() {
        if matches!(letter, b's' | b't') {
            change.clear |= set_id;
        }
        match letter {
            b'r' => change.bits |= 0o444 & allowed,
            b'w' => change.bits |= 0o222 & allowed,
            b'x' => change.bits |= 0o111 & allowed,
            b'X' => change.execute_bits |= 0o111 & allowed,
            b's' => change.bits |= set_id,
            b't' => change.bits |= 0o1000,
            _ => return None,
        }
    }
    Some(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What rsync 3.5 made of files and directories: umask, rules, then mode before and after of a file and of a
    /// directory, octal; or `invalid`.
    const OBSERVED: &str = include_str!("../../tests/data/chmod.tsv");

    #[test]
    fn modes_become_what_rsync_makes_of_them() {
        let octal = |text: &str| u32::from_str_radix(text, 8).unwrap();
        let mut checked = 0;
        for line in OBSERVED.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let rules = ChmodRules::parse(fields[1], octal(fields[0]));
            if fields[2] == "invalid" {
                assert!(rules.is_err(), "{line}");
            } else {
                let rules = rules.expect(line);
                assert_eq!(rules.apply(octal(fields[2]), false), octal(fields[3]), "{line}");
                assert_eq!(rules.apply(octal(fields[4]), true), octal(fields[5]), "{line}");
            }
            checked += 1;
        }
        assert!(checked > 400);
    }

    #[test]
    fn several_values_are_applied_in_order() {
        let mut rules = ChmodRules::parse("a=r", 0).unwrap();
        rules.append(ChmodRules::parse("u+w", 0).unwrap());
        assert_eq!(rules.apply(0o777, false), 0o644);
        let json = serde_json::to_string(&rules).unwrap();
        assert_eq!(serde_json::from_str::<ChmodRules>(&json).unwrap(), rules);
        assert_eq!(ChmodRules::default().apply(0o4755, false), 0o4755);
    }
}
