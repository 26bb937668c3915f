//! Wildcards over raw bytes, with work bounded by pattern length times text length.
//!
//! `*` and `?` stop at a slash, `**` does not, `[…]` is a class with ranges, POSIX names and `!` or `^` for its
//! complement, and a backslash takes the next byte literally. The pattern is a small automaton whose active states are
//! carried through the text once, so no pattern makes it backtrack.

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
    /// A malformed class or a trailing backslash: nothing ever matches.
    never: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    AnyByte,
    Class(Box<ByteSet>),
    Star,
    DoubleStar,
}

/// A set of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct ByteSet([u64; 4]);

impl ByteSet {
    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] & (1 << (byte & 63)) != 0
    }

    fn complement(&mut self) {
        self.0 = self.0.map(|word| !word);
    }
}

/// Where in the text a match may begin. It always reaches to the text's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the beginning only.
    Beginning,
    /// At the beginning and after every slash.
    AnyComponent,
}

/// Words of active states that are kept on the stack: patterns up to 255 tokens.
const STACK_WORDS: usize = 4;

/// Whether a pattern holds a wildcard; without one, it is compared as it is, backslashes included.
pub fn has_wildcard(pattern: &[u8]) -> bool {
    pattern.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['))
}

impl Glob {
    /// Compiles `pattern`. A malformed one compiles to one that never matches, as rsync has it.
    pub fn new(pattern: &[u8]) -> Glob {
        let mut tokens = Vec::with_capacity(pattern.len());
        let mut at = 0;
        while let Some(&byte) = pattern.get(at) {
            at += 1;
            match byte {
                b'*' => {
                    let stars = 1 + pattern[at..].iter().take_while(|&&next| next == b'*').count();
                    at += stars - 1;
                    tokens.push(if stars == 1 { Token::Star } else { Token::DoubleStar });
                }
                b'?' => tokens.push(Token::AnyByte),
                b'[' => match parse_class(&pattern[at..]) {
                    Some((set, length)) => {
                        tokens.push(Token::Class(Box::new(set)));
                        at += length;
                    }
                    None => return Glob { tokens: Vec::new(), never: true },
                },
                b'\\' => match pattern.get(at) {
                    Some(&escaped) => {
                        tokens.push(Token::Byte(escaped));
                        at += 1;
                    }
                    None => return Glob { tokens: Vec::new(), never: true },
                },
                _ => tokens.push(Token::Byte(byte)),
            }
        }
        Glob { tokens, never: false }
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        self.matches_parts(&[text], Start::Beginning)
    }

    /// Whether the concatenation of `parts` matches from a permitted start to its end.
    pub fn matches_parts(&self, parts: &[&[u8]], start: Start) -> bool {
        if self.never {
            return false;
        }
        let words = self.tokens.len() / 64 + 1;
        if words <= STACK_WORDS {
            let (mut active, mut next) = ([0; STACK_WORDS], [0; STACK_WORDS]);
            self.run(parts, start, &mut active[..words], &mut next[..words])
        } else {
            self.run(parts, start, &mut vec![0; words], &mut vec![0; words])
        }
    }

    fn run<'a>(&self, parts: &[&[u8]], start: Start, mut active: &'a mut [u64], mut next: &'a mut [u64]) -> bool {
        self.activate(active, 0);
        for &byte in parts.iter().flat_map(|part| part.iter()) {
            next.fill(0);
            let mut any = false;
            for (word_index, &word) in active.iter().enumerate() {
                let mut left = word;
                while left != 0 {
                    let state = word_index * 64 + left.trailing_zeros() as usize;
                    left &= left - 1;
                    let Some(token) = self.tokens.get(state) else { continue };
                    let target = match token {
                        Token::Byte(wanted) if *wanted == byte => state + 1,
                        Token::AnyByte if byte != b'/' => state + 1,
                        Token::Class(set) if byte != b'/' && set.contains(byte) => state + 1,
                        Token::Star if byte != b'/' => state,
                        Token::DoubleStar => state,
                        _ => continue,
                    };
                    self.activate(next, target);
                    any = true;
                }
            }
            if byte == b'/' && start == Start::AnyComponent {
                self.activate(next, 0);
                any = true;
            }
            if !any && start == Start::Beginning {
                return false;
            }
            std::mem::swap(&mut active, &mut next);
        }
        let end = self.tokens.len();
        active[end / 64] & (1 << (end % 64)) != 0
    }

    /// Adds `state` and all that stars reach from it without a byte.
    fn activate(&self, states: &mut [u64], mut state: usize) {
        loop {
            let (word, bit) = (state / 64, 1 << (state % 64));
            if states[word] & bit != 0 {
                return;
            }
            states[word] |= bit;
            match self.tokens.get(state) {
                Some(Token::Star | Token::DoubleStar) => state += 1,
                _ => return,
            }
        }
    }
}

/// Reads a class after its `[`; gives the set and the bytes read, `]` included. `None` where it is malformed.
fn parse_class(rest: &[u8]) -> Option<(ByteSet, usize)> {
    let mut set = ByteSet::default();
    let mut at = 0;
    let negated = matches!(rest.first(), Some(b'!' | b'^'));
    if negated {
        at += 1;
    }
    let first = at;
    // The lower end of a range that may begin here; none after a range or a named class.
    let mut low = None;
    loop {
        let byte = *rest.get(at)?;
        match byte {
            b']' if at > first => {
                if negated {
                    set.complement();
                }
                return Some((set, at + 1));
            }
            b'[' if rest.get(at + 1) == Some(&b':') => match rest[at + 2..].iter().position(|&next| next == b']') {
                Some(end) if end > 0 && rest[at + 1 + end] == b':' => {
                    insert_named(&mut set, &rest[at + 2..at + 1 + end])?;
                    at += end + 3;
                    low = None;
                }
                Some(_) => {
                    set.insert(b'[');
                    low = Some(b'[');
                    at += 1;
                }
                None => return None,
            },
            b'-' if low.is_some() && rest.get(at + 1).is_some_and(|&next| next != b']') => {
                at += 1;
                let mut high = *rest.get(at)?;
                if high == b'\\' {
                    at += 1;
                    high = *rest.get(at)?;
                }
                for member in low.take()?..=high {
                    set.insert(member);
                }
                at += 1;
            }
            _ => {
                let mut member = byte;
                if byte == b'\\' {
                    at += 1;
                    member = *rest.get(at)?;
                }
                set.insert(member);
                low = Some(member);
                at += 1;
            }
        }
    }
}

/// Adds a POSIX class by name, in the C locale; `None` for a name that does not exist.
fn insert_named(set: &mut ByteSet, name: &[u8]) -> Option<()> {
    let holds: fn(u8) -> bool = match name {
        b"alnum" => |byte| byte.is_ascii_alphanumeric(),
        b"alpha" => |byte| byte.is_ascii_alphabetic(),
        b"blank" => |byte| byte == b' ' || byte == b'\t',
        b"cntrl" => |byte| byte.is_ascii_control(),
        b"digit" => |byte| byte.is_ascii_digit(),
        b"graph" => |byte| byte.is_ascii_graphic(),
        b"lower" => |byte| byte.is_ascii_lowercase(),
        b"print" => |byte| byte == b' ' || byte.is_ascii_graphic(),
        b"punct" => |byte| byte.is_ascii_punctuation(),
        b"space" => |byte| matches!(byte, b' ' | 9..=13),
        b"upper" => |byte| byte.is_ascii_uppercase(),
        b"xdigit" => |byte| byte.is_ascii_hexdigit(),
        _ => return None,
    };
    (0..=u8::MAX).filter(|&byte| holds(byte)).for_each(|byte| set.insert(byte));
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &[u8], text: &[u8]) -> bool {
        Glob::new(pattern).matches(text)
    }

    /// The definition, by plain recursion: right by inspection, exponential in the worst case.
    fn naive(tokens: &[Token], text: &[u8]) -> bool {
        match (tokens.split_first(), text.split_first()) {
            (None, rest) => rest.is_none(),
            (Some((Token::Star, after)), first) => {
                naive(after, text) || first.is_some_and(|(&byte, rest)| byte != b'/' && naive(tokens, rest))
            }
            (Some((Token::DoubleStar, after)), first) => {
                naive(after, text) || first.is_some_and(|(_, rest)| naive(tokens, rest))
            }
            (Some(_), None) => false,
            (Some((token, after)), Some((&byte, rest))) => {
                let here = match token {
                    Token::Byte(wanted) => *wanted == byte,
                    Token::AnyByte => byte != b'/',
                    Token::Class(set) => byte != b'/' && set.contains(byte),
                    Token::Star | Token::DoubleStar => false,
                };
                here && naive(after, rest)
            }
        }
    }

    #[test]
    fn any_bytes_are_matched_as_bytes() {
        assert!(matches(b"??", "é".as_bytes()));
        assert!(matches(b"\xff*", b"\xff\x01\x80"));
        assert!(matches(b"[\x80-\xff]", b"\xc3"));
        assert!(!matches(b"[!a]", b"/"));
        assert!(matches(b"[[:punct:][:space:]]", b"\t"));
        assert!(matches(b"[a[:digit:]-]", b"-"));
        assert!(matches(b"[[:x]", b"["));
        assert!(matches(b"[[:x]", b":"));
    }

    #[test]
    fn a_nasty_pattern_costs_no_more_than_its_lengths_multiplied() {
        let mut pattern = b"a*".repeat(1000);
        pattern.push(b'b');
        let text = vec![b'a'; 4000];
        assert!(!matches(&pattern, &text));
        let mut pattern = b"**a".repeat(1000);
        pattern.push(b'b');
        assert!(!matches(&pattern, &text));
    }

    proptest! {
        #[test]
        fn the_automaton_agrees_with_the_definition(
            pattern in "[ab/*?]{0,8}|[ab/*]{0,4}\\[[!a]b\\][ab*]{0,3}", text in "[abc/]{0,9}"
        ) {
            let glob = Glob::new(pattern.as_bytes());
            let expected = !glob.never && naive(&glob.tokens, text.as_bytes());
            prop_assert_eq!(glob.matches(text.as_bytes()), expected);
        }

        #[test]
        fn no_pattern_panics(pattern in proptest::collection::vec(any::<u8>(), 0..300), text in proptest::collection::vec(any::<u8>(), 0..40)) {
            Glob::new(&pattern).matches_parts(&[&text, b"/"], Start::AnyComponent);
        }
    }
}
