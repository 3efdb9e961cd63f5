//! Names as they are shown.

use std::borrow::Cow;

/// Longest name, in characters.
const LONGEST: usize = 200;
/// Characters of a longer one that are kept at its end, where names that are alike differ.
const AT_THE_END: usize = 40;

/// A name of a file as it may be shown on a terminal: characters that control it, or turn the direction of writing, are written as
/// escapes, and the middle of a long name is left out.
pub(in crate::nn) fn printable(name: &str) -> Cow<'_, str> {
    let count = name.chars().count();
    if count <= LONGEST && !name.chars().any(controls) {
        return Cow::Borrowed(name);
    }
    let shown = |c: char| if controls(c) { c.escape_unicode().to_string() } else { c.to_string() };
    let escaped: Vec<char> = name.chars().flat_map(|c| shown(c).chars().collect::<Vec<_>>()).collect();
    if escaped.len() <= LONGEST {
        return escaped.into_iter().collect();
    }
    let (start, end) = (&escaped[..LONGEST - AT_THE_END - 1], &escaped[escaped.len() - AT_THE_END..]);
    start.iter().chain(&['…']).chain(end).copied().collect()
}

fn controls(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_shortened() {
        assert_eq!(printable("layer1.0.conv1 ü 層"), "layer1.0.conv1 ü 層");
        assert_eq!(printable("a\u{1b}[31m\n1. cat\u{202e}"), "a\\u{1b}[31m\\u{a}1. cat\\u{202e}");
        let (long, other) = ("x".repeat(10_000) + "_1", "x".repeat(10_000) + "_2");
        let (long, other) = (printable(&long).into_owned(), printable(&other).into_owned());
        assert_eq!((long.chars().count(), other.chars().count()), (LONGEST, LONGEST));
        assert!(long != other && long.contains('…'));
        assert_eq!(printable(&"y".repeat(200)).len(), 200);
        assert_eq!(printable(&long), long, "once is enough");
    }
}
