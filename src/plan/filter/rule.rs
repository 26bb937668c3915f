//! The syntax of one filter rule: a kind, modifiers, a pattern or a file name.

use super::error::FilterErrorKind;
use super::pattern::Pattern;
use crate::limits;

/// Which side of a transfer a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sides {
    /// None was named: both, or with `--delete-excluded` the sender alone.
    #[default]
    Default,
    Sender,
    Receiver,
    Both,
}

impl Sides {
    fn with(self, other: Sides) -> Sides {
        match (self, other) {
            (Sides::Default, side) | (side, Sides::Default) => side,
            (side, other) if side == other => side,
            _ => Sides::Both,
        }
    }
}

/// An include or exclude rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PatternRule {
    pub(super) include: bool,
    pub(super) sides: Sides,
    /// `!`: applies to what the pattern does not match.
    pub(super) negated: bool,
    /// `/`: matched against the absolute path.
    pub(super) absolute: bool,
    /// `p`: not for what is in a directory that goes as a whole.
    pub(super) perishable: bool,
    /// `x`: for names of extended attributes, not for paths.
    pub(super) xattr: bool,
    /// As written.
    pub(super) text: Box<[u8]>,
    pub(super) pattern: Pattern,
}

/// What the rules of a merge file have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Template {
    /// Lines are patterns of this kind (include or not) without a prefix.
    pub(super) bare: Option<bool>,
    /// With `bare`: lines may begin with `- ` or `+ `, and `!` clears, as in `--exclude-from`.
    pub(super) old_prefixes: bool,
    /// `C`: with `bare`, `!` clears.
    pub(super) cvs: bool,
    /// `w`: split at white space; no comments.
    pub(super) words: bool,
    pub(super) sides: Sides,
    pub(super) absolute: bool,
    pub(super) perishable: bool,
    pub(super) xattr: bool,
}

/// A merge or dir-merge rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MergeRule {
    /// `:`: looked for in every directory.
    pub(super) per_directory: bool,
    /// `n`: not for subdirectories.
    pub(super) not_inherited: bool,
    /// `e`: the file itself is excluded.
    pub(super) excludes_itself: bool,
    pub(super) template: Template,
    /// As written.
    pub(super) file: Box<[u8]>,
}

/// One parsed rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rule {
    Pattern(PatternRule),
    Merge(MergeRule),
    Clear,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pattern { include: bool, sides: Sides },
    Merge { per_directory: bool },
    Clear,
}

const LONG_NAMES: [(&[u8], u8); 9] = [
    (b"exclude", b'-'),
    (b"include", b'+'),
    (b"merge", b'.'),
    (b"dir-merge", b':'),
    (b"hide", b'H'),
    (b"show", b'S'),
    (b"protect", b'P'),
    (b"risk", b'R'),
    (b"clear", b'!'),
];

fn kind_of(letter: u8) -> Option<Kind> {
    Some(match letter {
        b'-' => Kind::Pattern { include: false, sides: Sides::Default },
        b'+' => Kind::Pattern { include: true, sides: Sides::Default },
        b'H' => Kind::Pattern { include: false, sides: Sides::Sender },
        b'S' => Kind::Pattern { include: true, sides: Sides::Sender },
        b'P' => Kind::Pattern { include: false, sides: Sides::Receiver },
        b'R' => Kind::Pattern { include: true, sides: Sides::Receiver },
        b'.' => Kind::Merge { per_directory: false },
        b':' => Kind::Merge { per_directory: true },
        b'!' => Kind::Clear,
        _ => return None,
    })
}

/// The rule's kind and what follows it, from its modifiers on.
fn split_kind(text: &[u8]) -> Option<(Kind, &[u8])> {
    for (name, letter) in LONG_NAMES {
        if let Some(rest) = text.strip_prefix(name) {
            return match rest.first() {
                None | Some(b' ' | b'_') => Some((kind_of(letter)?, rest)),
                Some(b',') => Some((kind_of(letter)?, &rest[1..])),
                Some(_) => None,
            };
        }
    }
    let (&letter, rest) = text.split_first()?;
    Some((kind_of(letter)?, if letter == b'!' { rest } else { rest.strip_prefix(b",").unwrap_or(rest) }))
}

/// Reads one rule, or one bare pattern where the template says so.
pub(super) fn parse_rule(text: &[u8], template: &Template) -> Result<Rule, FilterErrorKind> {
    let Some(mut include) = template.bare else { return parse_prefixed(text, template) };
    let mut body = text;
    if template.old_prefixes || template.cvs {
        if text == b"!" {
            return Ok(Rule::Clear);
        }
        if let Some(rest) = text.strip_prefix(b"- ").filter(|_| template.old_prefixes) {
            (include, body) = (false, rest);
        } else if let Some(rest) = text.strip_prefix(b"+ ").filter(|_| template.old_prefixes) {
            (include, body) = (true, rest);
        }
    }
    pattern_rule(PatternRule { include, ..from_template(template) }, body)
}

fn parse_prefixed(text: &[u8], template: &Template) -> Result<Rule, FilterErrorKind> {
    let (kind, rest) = split_kind(text).ok_or(FilterErrorKind::UnknownRule)?;
    let end = rest.iter().position(|byte| matches!(byte, b' ' | b'_')).unwrap_or(rest.len());
    let (modifiers, body) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
    match kind {
        Kind::Clear if rest.is_empty() => Ok(Rule::Clear),
        Kind::Clear => Err(FilterErrorKind::ClearWithArgument),
        Kind::Pattern { include, sides } => {
            if sides != Sides::Default && template.sides != Sides::Default {
                return Err(FilterErrorKind::SideTwice);
            }
            let mut rule = PatternRule { include, ..from_template(template) };
            rule.sides = rule.sides.with(sides);
            for &modifier in modifiers {
                match modifier {
                    b'/' => rule.absolute = true,
                    b'!' => rule.negated = true,
                    b'p' => rule.perishable = true,
                    b'x' => rule.xattr = true,
                    b's' | b'r' if sides != Sides::Default => return Err(FilterErrorKind::Modifier(modifier)),
                    b's' | b'r' if template.sides != Sides::Default => return Err(FilterErrorKind::SideTwice),
                    b's' => rule.sides = rule.sides.with(Sides::Sender),
                    b'r' => rule.sides = rule.sides.with(Sides::Receiver),
                    b'C' if !include => return Err(FilterErrorKind::CvsDefaults),
                    _ => return Err(FilterErrorKind::Modifier(modifier)),
                }
            }
            pattern_rule(rule, body)
        }
        Kind::Merge { per_directory } => parse_merge(per_directory, modifiers, body, template),
    }
}

fn parse_merge(per_directory: bool, modifiers: &[u8], body: &[u8], outer: &Template) -> Result<Rule, FilterErrorKind> {
    let mut template = Template { bare: None, old_prefixes: false, cvs: false, words: false, ..*outer };
    let mut rule =
        MergeRule { per_directory, not_inherited: false, excludes_itself: false, template, file: Box::default() };
    for &modifier in modifiers {
        match modifier {
            b'-' | b'+' if template.bare.is_none() => template.bare = Some(modifier == b'+'),
            b'C' if template.bare.is_none() => {
                template.bare = Some(false);
                template.cvs = true;
                template.words = true;
                rule.not_inherited = true;
            }
            b'e' => rule.excludes_itself = true,
            b'n' => rule.not_inherited = true,
            b'w' => template.words = true,
            b's' | b'r' if outer.sides != Sides::Default => return Err(FilterErrorKind::SideTwice),
            b's' => template.sides = template.sides.with(Sides::Sender),
            b'r' => template.sides = template.sides.with(Sides::Receiver),
            b'/' => template.absolute = true,
            b'p' => template.perishable = true,
            b'x' => template.xattr = true,
            _ => return Err(FilterErrorKind::Modifier(modifier)),
        }
    }
    let file: &[u8] = if body.is_empty() && template.cvs { b".cvsignore" } else { body };
    check_text(file)?;
    if file.ends_with(b"/") {
        return Err(FilterErrorKind::NotAFileName);
    }
    rule.template = template;
    rule.file = file.into();
    Ok(Rule::Merge(rule))
}

fn from_template(template: &Template) -> PatternRule {
    PatternRule {
        include: false,
        sides: template.sides,
        negated: false,
        absolute: template.absolute,
        perishable: template.perishable,
        xattr: template.xattr,
        text: Box::default(),
        pattern: Pattern::new(b""),
    }
}

fn pattern_rule(rule: PatternRule, text: &[u8]) -> Result<Rule, FilterErrorKind> {
    check_text(text)?;
    Ok(Rule::Pattern(PatternRule { text: text.into(), pattern: Pattern::new(text), ..rule }))
}

fn check_text(text: &[u8]) -> Result<(), FilterErrorKind> {
    if text.is_empty() {
        return Err(FilterErrorKind::Incomplete);
    }
    if text.len() > limits::FILTER_PATTERN_BYTES_MAX {
        return Err(FilterErrorKind::PatternTooLong);
    }
    Ok(())
}

impl PatternRule {
    /// An exclude without modifiers.
    pub(super) fn exclude(text: &[u8]) -> PatternRule {
        PatternRule { text: text.into(), pattern: Pattern::new(text), ..from_template(&Template::default()) }
    }

    /// The rule as text that [`parse_rule`] reads back.
    pub(super) fn canonical(&self) -> Vec<u8> {
        let mut text = vec![if self.include { b'+' } else { b'-' }, b','];
        push_flags(&mut text, self.sides, self.absolute, self.perishable, self.xattr);
        if self.negated {
            text.push(b'!');
        }
        text.push(b' ');
        text.extend_from_slice(&self.text);
        text
    }
}

impl MergeRule {
    /// The rule as text that [`parse_rule`] reads back.
    pub(super) fn canonical(&self) -> Vec<u8> {
        let mut text = vec![if self.per_directory { b':' } else { b'.' }, b','];
        match self.template.bare {
            _ if self.template.cvs => text.push(b'C'),
            Some(include) => text.push(if include { b'+' } else { b'-' }),
            None => {}
        }
        for (set, letter) in [(self.not_inherited, b'n'), (self.excludes_itself, b'e'), (self.template.words, b'w')] {
            if set {
                text.push(letter);
            }
        }
        let template = &self.template;
        push_flags(&mut text, template.sides, template.absolute, template.perishable, template.xattr);
        text.push(b' ');
        text.extend_from_slice(&self.file);
        text
    }

    /// The name that is looked for in a directory: without the directories in which a search begins.
    pub(super) fn base_name(&self) -> &[u8] {
        self.file.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
    }

    /// Where a search through the directories above the transfer begins, when the rule asks for one.
    pub(super) fn search_start(&self) -> Option<&[u8]> {
        self.file.iter().rposition(|&byte| byte == b'/').map(|slash| &self.file[..=slash])
    }
}

fn push_flags(text: &mut Vec<u8>, sides: Sides, absolute: bool, perishable: bool, xattr: bool) {
    let sender = matches!(sides, Sides::Sender | Sides::Both);
    let receiver = matches!(sides, Sides::Receiver | Sides::Both);
    for (set, letter) in [(sender, b's'), (receiver, b'r'), (absolute, b'/'), (perishable, b'p'), (xattr, b'x')] {
        if set {
            text.push(letter);
        }
    }
}

/// Splits a file into the texts of its rules, each with its line number; comments and blank lines are left out.
pub(super) fn split_file<'a>(content: &'a [u8], template: &Template, nul_separated: bool) -> Vec<(usize, &'a [u8])> {
    if template.words {
        return split_words(content, template.bare.is_some(), nul_separated);
    }
    lines_of(content, nul_separated).filter(|(_, line)| !matches!(line.first(), None | Some(b';' | b'#'))).collect()
}

/// The file's lines: they end at LF, CR or both, or at NUL under `--from0`.
fn lines_of(content: &[u8], nul_separated: bool) -> impl Iterator<Item = (usize, &[u8])> {
    let ends = move |byte: &u8| if nul_separated { *byte == 0 } else { matches!(byte, b'\n' | b'\r') };
    let mut line = 1;
    content.split_inclusive(ends).map(move |piece| {
        let number = line;
        let last = piece.last().copied();
        if last == Some(b'\n') || (nul_separated && last == Some(0)) {
            line += 1;
        }
        (number, if piece.last().is_some_and(ends) { &piece[..piece.len() - 1] } else { piece })
    })
}

fn split_words(content: &[u8], bare: bool, nul_separated: bool) -> Vec<(usize, &[u8])> {
    let mut words = Vec::new();
    for (number, line) in lines_of(content, nul_separated) {
        let mut rest = line.trim_ascii_start();
        while !rest.is_empty() {
            let mut end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
            // One blank between a rule's prefix and its pattern belongs to the rule.
            let is_prefix = !bare && !rest[..end].contains(&b'_') && takes_pattern(&rest[..end]);
            if is_prefix && end < rest.len() {
                let after = &rest[end + 1..];
                end += 1 + after.iter().position(u8::is_ascii_whitespace).unwrap_or(after.len());
            }
            words.push((number, &rest[..end]));
            rest = rest[end..].trim_ascii_start();
        }
    }
    words
}

/// Whether a word is the prefix of a rule that needs an argument.
fn takes_pattern(word: &[u8]) -> bool {
    match split_kind(word) {
        Some((Kind::Clear, _)) | None => false,
        Some((Kind::Merge { .. }, modifiers)) => !modifiers.contains(&b'C'),
        Some((Kind::Pattern { .. }, _)) => true,
    }
}
