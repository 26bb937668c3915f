//! Wildcards, against a plain reading of what they mean.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xfer::plan::glob::{Glob, Start, has_wildcard};
use xfer_fuzz::Input;

/// What `pattern` (without classes) means, by trying everything. Only for short ones.
fn means(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', rest @ ..] => {
            let stars = rest.iter().take_while(|&&byte| byte == b'*').count();
            let rest = &rest[stars..];
            (0..=text.len()).any(|taken| (stars > 0 || !text[..taken].contains(&b'/')) && means(rest, &text[taken..]))
        }
        [b'?', rest @ ..] => text.split_first().is_some_and(|(&byte, text)| byte != b'/' && means(rest, text)),
        [b'\\', rest @ ..] => rest.split_first().is_some_and(|(byte, rest)| {
            text.split_first().is_some_and(|(found, text)| found == byte && means(rest, text))
        }),
        [byte, rest @ ..] => text.split_first().is_some_and(|(found, text)| found == byte && means(rest, text)),
    }
}

/// A trailing backslash, outside of classes.
fn is_broken(pattern: &[u8]) -> bool {
    pattern.iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let pattern = input.part();
    let text = input.rest();
    let glob = Glob::new(pattern);
    let matches = glob.matches(text);
    // However a text is cut, and where it may begin.
    let (head, tail) = text.split_at(text.len() / 2);
    assert_eq!(glob.matches_parts(&[head, tail], Start::Beginning), matches);
    let anywhere = (0..=text.len())
        .filter(|&start| start == 0 || text[start - 1] == b'/')
        .take(32)
        .any(|start| glob.matches(&text[start..]));
    assert!(!anywhere || glob.matches_parts(&[text], Start::AnyComponent));

    let stars = pattern.iter().filter(|&&byte| byte == b'*').count();
    if !pattern.contains(&b'[') && stars <= 4 && text.len() <= 24 && !is_broken(pattern) {
        assert_eq!(matches, means(pattern, text));
    }
    if is_broken(pattern) && !pattern.contains(&b'[') {
        assert!(!matches);
    }
    if !has_wildcard(text) && !text.contains(&b'\\') {
        assert!(Glob::new(text).matches(text));
    }
});
