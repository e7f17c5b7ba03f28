//! Patterns of names in a policy.

use crate::error::{Error, Kind, Result};
use serde::Deserialize;
use std::fmt;

/// Longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 4096;

/// A name with `*` for any run of characters and `?` for one, neither of which stands for a slash. One that ends with a
/// slash stands for everything below.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(String);

impl Pattern {
    /// Checks the text of a pattern.
    pub fn new(text: impl Into<String>) -> Result<Pattern> {
        let text = text.into();
        let bad = |why: &str| {
            let shown = text.escape_debug();
            Error::new(Kind::Usage, format!("\"{shown}\" is no pattern: {why}"))
        };
        if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
            return Err(bad("it is empty or too long"));
        }
        if text.chars().any(char::is_control) {
            return Err(bad("there is a control character in it"));
        }
        if text.split('/').any(|part| part == "." || part == "..") {
            return Err(bad("names are compared without . and .."));
        }
        if text.contains("**") || text.contains("//") {
            return Err(bad("neither ** nor // means anything here"));
        }
        Ok(Pattern(text))
    }

    /// Whether it is about paths, not about names of volumes.
    pub fn is_path(&self) -> bool {
        self.0.starts_with('/')
    }

    /// Whether it is the star alone.
    pub fn is_any(&self) -> bool {
        self.0 == "*"
    }

    /// Whether `name` is one that it stands for.
    pub fn matches(&self, name: &[u8]) -> bool {
        let pattern = self.0.as_bytes();
        match pattern.last() {
            Some(b'/') => below(pattern, name),
            _ => is_like(pattern, name),
        }
    }
}

/// Whether a beginning of `name` that ends with a slash is like `pattern`, and something follows.
fn below(pattern: &[u8], name: &[u8]) -> bool {
    let depth = pattern.iter().filter(|b| **b == b'/').count();
    let slashes = name.iter().enumerate().filter(|(_, b)| **b == b'/');
    match slashes.map(|(at, _)| at + 1).nth(depth - 1) {
        Some(end) => end < name.len() && is_like(pattern, &name[..end]),
        None => false,
    }
}

/// Takes as little as it can for each star, and goes back to the last one only: an earlier one could not do better.
fn is_like(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    // Where to go on in both if the last star takes one byte more.
    let mut again: Option<(usize, usize)> = None;
    while seen < name.len() || at < pattern.len() {
        match (pattern.get(at), name.get(seen)) {
            (Some(b'*'), _) => {
                again = Some((at + 1, seen));
                at += 1;
                continue;
            }
            (Some(b'?'), Some(byte)) if *byte != b'/' => {
                (at, seen) = (at + 1, seen + 1);
                continue;
            }
            (Some(wanted), Some(byte)) if wanted == byte => {
                (at, seen) = (at + 1, seen + 1);
                continue;
            }
            _ => {}
        }
        match again {
            Some((after, from)) if name.get(from).is_some_and(|byte| *byte != b'/') => {
                again = Some((after, from + 1));
                (at, seen) = (after, from + 1);
            }
            _ => return false,
        }
    }
    true
}

impl TryFrom<String> for Pattern {
    type Error = Error;

    fn try_from(text: String) -> Result<Pattern> {
        Pattern::new(text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(name.as_bytes())
    }

    #[test]
    fn stars_stop_at_slashes() {
        for (pattern, name) in [
            ("vg0/vm-*", "vg0/vm-101-disk-0"),
            ("vg0/vm-101-*", "vg0/vm-101-"),
            ("/a/*.img", "/a/x.img"),
            ("/a/*/x?", "/a/b/x1"),
            ("*a*b*", "xxaxxbxx"),
            ("*", ""),
            ("/a/", "/a/b/c"),
            ("/a/*/", "/a/b/c"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("vg0/vm-*", "vg1/vm-101"),
            ("/a/*.img", "/a/b/x.img"),
            ("/a/*.img", "/a/x.img2"),
            ("/a/?", "/a//"),
            ("*", "a/b"),
            ("/a/", "/a/"),
            ("/a/", "/a"),
            ("/a/", "/ab/c"),
            ("/a/*/", "/a/b"),
            ("101", "1010"),
            ("101", "10"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn what_could_be_misread_is_no_pattern() {
        for text in ["", "/a/../b", "..", "a/./b", "a\nb", "a\0", "/a/**", "//a"] {
            assert!(Pattern::new(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_without_stars_is_like_itself_only(name in "[a-c/.]{1,8}", other in "[a-c/.]{1,8}") {
            if let Ok(pattern) = Pattern::new(name.clone()) {
                prop_assume!(!name.ends_with('/'));
                prop_assert_eq!(pattern.matches(other.as_bytes()), name == other);
            }
        }
    }
}
