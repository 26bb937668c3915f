//! `--usermap`, `--groupmap`, `--chown`: which owner an entry gets at the destination.

use serde::{Deserialize, Serialize};

use super::glob::{Glob, has_wildcard};
use crate::limits;
use crate::model::display_bytes;

/// The id that means "leave it" to the system, and so is nobody's.
const NO_ID: u32 = u32::MAX;

/// What is wrong with a map.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdMapErrorKind {
    /// A pair without a colon.
    #[error("no colon found")]
    NoColon,
    /// Nothing after the colon.
    #[error("no name or id after the colon")]
    NoTarget,
    /// A value that begins as a number and does not end as one, or is none of a user or group.
    #[error("not a valid id")]
    InvalidId,
    /// The same option twice.
    #[error("can be given only once")]
    Twice,
    /// `--chown` together with a map of the same kind.
    #[error("--chown cannot be mixed with --usermap or --groupmap of the same kind")]
    Conflict,
    /// More pairs, or longer names, than the limits allow.
    #[error("too long")]
    TooLong,
}

/// A map that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\": {kind}", display_bytes(.text))]
pub struct IdMapError {
    /// The pair, or the whole value.
    pub text: Vec<u8>,
    /// What is wrong.
    pub kind: IdMapErrorKind,
}

/// Whom an id or a name stands for at the destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A name, to be looked up at the receiver, where it has to exist.
    Name(Vec<u8>),
    /// An id.
    Id(u32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Ids { low: u32, high: u32 },
    Name(Box<[u8]>),
    Pattern(Glob),
}

/// One map: pairs in order, the first match wins.
///
/// Serialised as pairs of raw texts, and parsed and bounded again when it is read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<(Vec<u8>, Vec<u8>)>", into = "Vec<(Vec<u8>, Vec<u8>)>")]
pub struct IdMap {
    pairs: Vec<Pair>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pair {
    from: Source,
    to: Target,
    texts: (Vec<u8>, Vec<u8>),
}

impl IdMap {
    /// Reads `FROM:TO,…`.
    pub fn parse(text: &[u8]) -> Result<IdMap, IdMapError> {
        let pairs = text.split(|&byte| byte == b',').map(|pair| {
            let at = pair.iter().position(|&byte| byte == b':');
            let at = at.ok_or_else(|| IdMapError { text: pair.to_vec(), kind: IdMapErrorKind::NoColon })?;
            Ok((pair[..at].to_vec(), pair[at + 1..].to_vec()))
        });
        IdMap::try_from(pairs.collect::<Result<Vec<_>, _>>()?)
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The destination's owner for a source id and the name that it has at the source. `None`: not mapped. Where
    /// names are not sent (`--numeric-ids`), or an id has none, `source_name` is `None`, which an empty FROM and `*`
    /// match. For id 0 the caller gives the receiver's own name, since it is never sent.
    pub fn map(&self, id: u32, source_name: Option<&[u8]>) -> Option<&Target> {
        let name = source_name.unwrap_or_default();
        let matches = |from: &Source| match from {
            Source::Ids { low, high } => (*low..=*high).contains(&id),
            Source::Name(wanted) => name == &wanted[..],
            Source::Pattern(glob) => glob.matches(name),
        };
        self.pairs.iter().find(|pair| matches(&pair.from)).map(|pair| &pair.to)
    }

    /// The names that the receiver has to know.
    pub fn target_names(&self) -> impl Iterator<Item = &[u8]> {
        self.pairs.iter().filter_map(|pair| match &pair.to {
            Target::Name(name) => Some(&name[..]),
            Target::Id(_) => None,
        })
    }
}

impl From<IdMap> for Vec<(Vec<u8>, Vec<u8>)> {
    fn from(map: IdMap) -> Self {
        map.pairs.into_iter().map(|pair| pair.texts).collect()
    }
}

impl TryFrom<Vec<(Vec<u8>, Vec<u8>)>> for IdMap {
    type Error = IdMapError;

    fn try_from(texts: Vec<(Vec<u8>, Vec<u8>)>) -> Result<IdMap, IdMapError> {
        if texts.len() > limits::ID_MAP_PAIRS_MAX {
            return Err(IdMapError { text: Vec::new(), kind: IdMapErrorKind::TooLong });
        }
        let pair = |(from, to): (Vec<u8>, Vec<u8>)| {
            if from.len().max(to.len()) > limits::NAME_BYTES_MAX {
                return Err(IdMapError { text: from, kind: IdMapErrorKind::TooLong });
            }
            let of_pair = |kind| IdMapError { text: [&from[..], b":", &to[..]].concat(), kind };
            let pair = Pair {
                from: parse_from(&from).map_err(of_pair)?,
                to: parse_target(&to).map_err(of_pair)?,
                texts: (Vec::new(), Vec::new()),
            };
            Ok(Pair { texts: (from, to), ..pair })
        };
        Ok(IdMap { pairs: texts.into_iter().map(pair).collect::<Result<_, _>>()? })
    }
}

fn parse_from(text: &[u8]) -> Result<Source, IdMapErrorKind> {
    if text.first().is_some_and(u8::is_ascii_digit) {
        let mut bounds = text.splitn(2, |&byte| byte == b'-');
        let low = parse_id(bounds.next().unwrap_or_default())?;
        let high = bounds.next().map_or(Ok(low), parse_id)?;
        return Ok(Source::Ids { low, high });
    }
    Ok(if has_wildcard(text) { Source::Pattern(Glob::new(text)) } else { Source::Name(text.into()) })
}

/// A number is an id, everything else a name: a user of the name `12x` cannot be meant by it.
fn parse_target(text: &[u8]) -> Result<Target, IdMapErrorKind> {
    match text.first() {
        None => Err(IdMapErrorKind::NoTarget),
        Some(_) if text.iter().all(u8::is_ascii_digit) => match parse_id(text)? {
            NO_ID => Err(IdMapErrorKind::InvalidId),
            id => Ok(Target::Id(id)),
        },
        Some(_) => Ok(Target::Name(text.to_vec())),
    }
}

fn parse_id(text: &[u8]) -> Result<u32, IdMapErrorKind> {
    let digits = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or(IdMapErrorKind::InvalidId)
}

/// Parsed maps; empty maps change nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdMaps {
    /// Users.
    pub users: IdMap,
    /// Groups.
    pub groups: IdMap,
    users_by_chown: bool,
    groups_by_chown: bool,
}

impl IdMaps {
    /// `--usermap`; implies `-o`.
    pub fn set_usermap(&mut self, text: &[u8]) -> Result<(), IdMapError> {
        check_free(&self.users, self.users_by_chown, false, text)?;
        self.users = IdMap::parse(text)?;
        Ok(())
    }

    /// `--groupmap`; implies `-g`.
    pub fn set_groupmap(&mut self, text: &[u8]) -> Result<(), IdMapError> {
        check_free(&self.groups, self.groups_by_chown, false, text)?;
        self.groups = IdMap::parse(text)?;
        Ok(())
    }

    /// `--chown=USER:GROUP`: `USER`, `USER:`, `:GROUP` or both; the same as `--usermap=*:USER --groupmap=*:GROUP`, with
    /// what those imply.
    pub fn set_chown(&mut self, text: &[u8]) -> Result<(), IdMapError> {
        let mut parts = text.splitn(2, |&byte| byte == b':');
        let (user, group) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if !user.is_empty() {
            check_free(&self.users, self.users_by_chown, true, text)?;
            self.users = IdMap::try_from(vec![(b"*".to_vec(), user.to_vec())])?;
            self.users_by_chown = true;
        }
        if !group.is_empty() {
            check_free(&self.groups, self.groups_by_chown, true, text)?;
            self.groups = IdMap::try_from(vec![(b"*".to_vec(), group.to_vec())])?;
            self.groups_by_chown = true;
        }
        Ok(())
    }
}

fn check_free(map: &IdMap, set_by_chown: bool, by_chown: bool, text: &[u8]) -> Result<(), IdMapError> {
    if map.is_empty() {
        return Ok(());
    }
    let kind = if set_by_chown == by_chown { IdMapErrorKind::Twice } else { IdMapErrorKind::Conflict };
    Err(IdMapError { text: text.to_vec(), kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(map: &str, id: u32, name: &str) -> Option<Target> {
        let name = Some(name.as_bytes()).filter(|name| !name.is_empty());
        IdMap::parse(map.as_bytes()).unwrap().map(id, name).cloned()
    }

    #[test]
    fn the_first_match_wins() {
        let id = |id| Some(Target::Id(id));
        assert_eq!(mapped("1:2", 1234, ""), None);
        assert_eq!(mapped("1234:2", 1234, "wayne"), id(2));
        assert_eq!(mapped("01234:2", 1234, ""), id(2));
        assert_eq!(mapped("1000-2000:3", 1234, ""), id(3));
        assert_eq!(mapped("2000-1000:3", 1234, ""), None);
        assert_eq!(mapped("1234:6,*:7", 1234, ""), id(6));
        assert_eq!(mapped("*:7,1234:6", 1234, "x"), id(7));
        assert_eq!(mapped("*:4", 1234, ""), id(4));
        assert_eq!(mapped("?*:4", 1234, ""), None);
        assert_eq!(mapped("a*:5", 1234, ""), None);
        assert_eq!(mapped(":5", 1234, ""), id(5));
        assert_eq!(mapped(":5", 1, "daemon"), None);
        assert_eq!(mapped("-5:3", 1, "-5"), id(3));
        assert_eq!(mapped("daem:5,d[a-z]emon:6", 1, "daemon"), id(6));
        assert_eq!(mapped("daemo\\n:6", 1, "daemon"), None);
        assert_eq!(mapped("wayne:admin", 7, "wayne"), Some(Target::Name(b"admin".to_vec())));
        assert_eq!(mapped("1:12x", 1, ""), Some(Target::Name(b"12x".to_vec())));
        assert_eq!(mapped("1:5:6", 1, ""), Some(Target::Name(b"5:6".to_vec())));
    }

    #[test]
    fn malformed_maps_are_refused() {
        for (text, kind) in [
            ("", IdMapErrorKind::NoColon),
            ("1", IdMapErrorKind::NoColon),
            ("1:2,", IdMapErrorKind::NoColon),
            ("1:", IdMapErrorKind::NoTarget),
            ("1000-:3", IdMapErrorKind::InvalidId),
            ("12*:3", IdMapErrorKind::InvalidId),
            ("1x:3", IdMapErrorKind::InvalidId),
            ("99999999999:3", IdMapErrorKind::InvalidId),
            ("1:99999999999", IdMapErrorKind::InvalidId),
            ("1:4294967295", IdMapErrorKind::InvalidId),
        ] {
            assert_eq!(IdMap::parse(text.as_bytes()).unwrap_err().kind, kind, "{text}");
        }
    }

    #[test]
    fn chown_is_both_maps_and_mixes_with_neither() {
        let mut maps = IdMaps::default();
        maps.set_chown(b"foo:7").unwrap();
        assert_eq!(maps.users.map(0, None), Some(&Target::Name(b"foo".to_vec())));
        assert_eq!(maps.groups.map(9, Some(b"g")), Some(&Target::Id(7)));
        assert_eq!(maps.set_usermap(b"1:2").unwrap_err().kind, IdMapErrorKind::Conflict);
        assert_eq!(maps.set_chown(b"1").unwrap_err().kind, IdMapErrorKind::Twice);

        let mut maps = IdMaps::default();
        maps.set_chown(b":7").unwrap();
        maps.set_usermap(b"1:2").unwrap();
        assert_eq!(maps.set_usermap(b"1:2").unwrap_err().kind, IdMapErrorKind::Twice);
        assert_eq!(maps.set_chown(b"1:").unwrap_err().kind, IdMapErrorKind::Conflict);
        for nothing in [&b""[..], b":"] {
            let mut maps = IdMaps::default();
            maps.set_chown(nothing).unwrap();
            assert_eq!(maps, IdMaps::default());
        }
        assert!(IdMaps::default().set_chown(b"1:4294967295").is_err());
    }

    #[test]
    fn maps_cross_the_wire_checked() {
        let mut maps = IdMaps::default();
        maps.set_usermap(b"0-99:nobody,w*:admin,:5").unwrap();
        maps.set_chown(b":7").unwrap();
        let json = serde_json::to_string(&maps).unwrap();
        assert_eq!(serde_json::from_str::<IdMaps>(&json).unwrap(), maps);
        assert!(serde_json::from_str::<IdMap>("[[[49],[]]]").is_err());
        let many = format!("[{}[[49],[49]]]", "[[49],[49]],".repeat(limits::ID_MAP_PAIRS_MAX));
        assert!(serde_json::from_str::<IdMap>(&many).is_err());
    }
}
