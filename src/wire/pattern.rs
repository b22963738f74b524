//! Patterns as Python reads them: shell globs in routes and remote control, and as much of its regular expressions as
//! node names and bindings of topic exchanges need.
//!
//! Both become a row of pieces that is walked once for each character, so that a hostile pattern costs no more than its
//! length times the length of the text.

/// A pattern for a short text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    pieces: Vec<Piece>,
    /// Whether it must match up to the end.
    whole: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    one_of: Set,
    optional: bool,
    repeated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Set {
    Any,
    One(char),
    Of { ranges: Vec<(char, char)>, negated: bool },
}

impl Pattern {
    /// A glob: `*`, `?`, `[a-z]`, `[!a-z]`. Every text is one, as in Python's `fnmatch`.
    pub fn glob(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            let (one_of, any_number) = match c {
                '*' => (Set::Any, true),
                '?' => (Set::Any, false),
                '[' => match bracket(rest.as_str(), '!', false) {
                    Some((set, after)) => {
                        rest = after.chars();
                        (set, false)
                    }
                    None => (Set::One('['), false),
                },
                c => (Set::One(c), false),
            };
            pieces.push(Piece { one_of, optional: any_number, repeated: any_number });
        }
        Self { pieces, whole: true }
    }

    /// A regular expression of single characters, `.`, classes, `\d`, `\w`, `\s`, each with `*`, `+` or `?`, lazy or
    /// not, between `^` and `$`. `None` for anything that takes more: groups, alternatives, counts.
    pub fn regex(text: &str) -> Option<Self> {
        let mut pieces: Vec<Piece> = Vec::new();
        let text = text.strip_prefix('^').unwrap_or(text);
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            let one_of = match c {
                '$' if rest.as_str().is_empty() => return Some(Self { pieces, whole: true }),
                '(' | ')' | '|' | '{' | '}' | '*' | '+' | '?' | '^' | '$' => return None,
                '.' => Set::Any,
                '\\' => escape(rest.next()?)?,
                '[' => {
                    let (set, after) = bracket(rest.as_str(), '^', true)?;
                    rest = after.chars();
                    set
                }
                c => Set::One(c),
            };
            let (optional, repeated) = match rest.clone().next() {
                Some('*') => (true, true),
                Some('+') => (false, true),
                Some('?') => (true, false),
                _ => (false, false),
            };
            if optional || repeated {
                rest.next();
                // A lazy quantifier finds the same matches in another order.
                if rest.as_str().starts_with('?') {
                    rest.next();
                }
            }
            pieces.push(Piece { one_of, optional, repeated });
        }
        Some(Self { pieces, whole: false })
    }

    /// Whether `text` matches from its start: to the end for a glob and for a regular expression that ends in `$`.
    pub fn matches(&self, text: &str) -> bool {
        let end = self.pieces.len();
        let mut at = vec![false; end + 1];
        at[0] = true;
        self.skip_optional(&mut at);
        for c in text.chars() {
            if at[end] && !self.whole {
                return true;
            }
            let mut next = vec![false; end + 1];
            for (index, piece) in self.pieces.iter().enumerate() {
                if at[index] && piece.one_of.contains(c) {
                    next[index + 1] = true;
                    next[index] |= piece.repeated;
                }
            }
            self.skip_optional(&mut next);
            at = next;
        }
        at[end]
    }

    /// A piece that has matched once and may do so again is stood on again; it may then also be left.
    fn skip_optional(&self, at: &mut [bool]) {
        for (index, piece) in self.pieces.iter().enumerate() {
            if at[index] && piece.optional {
                at[index + 1] = true;
            }
        }
    }
}

impl Set {
    fn contains(&self, c: char) -> bool {
        match self {
            Self::Any => true,
            Self::One(one) => *one == c,
            Self::Of { ranges, negated } => ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *negated,
        }
    }
}

/// The class that `text`, which follows an opening bracket, begins with, and what comes after it.
fn bracket(text: &str, negation: char, escapes: bool) -> Option<(Set, &str)> {
    let negated = text.starts_with(negation);
    let inner = if negated { &text[negation.len_utf8()..] } else { text };
    let mut ranges = Vec::new();
    let mut rest = inner.chars();
    loop {
        let first = ranges.is_empty();
        match rest.next()? {
            ']' if !first => return Some((Set::Of { ranges, negated }, rest.as_str())),
            '\\' if escapes => match escape(rest.next()?)? {
                Set::One(c) => ranges.push((c, c)),
                Set::Of { ranges: some, negated: false } => ranges.extend(some),
                Set::Any | Set::Of { .. } => return None,
            },
            from => {
                let mut ahead = rest.clone();
                match (ahead.next(), ahead.next()) {
                    (Some('-'), Some(to)) if to != ']' => {
                        ranges.push((from, to));
                        rest = ahead;
                    }
                    _ => ranges.push((from, from)),
                }
            }
        }
    }
}

fn escape(c: char) -> Option<Set> {
    let ranges = match c.to_ascii_lowercase() {
        'd' => vec![('0', '9')],
        'w' => vec![('0', '9'), ('a', 'z'), ('A', 'Z'), ('_', '_')],
        's' => vec![('\t', '\r'), (' ', ' ')],
        c if c.is_ascii_alphanumeric() => return None,
        _ => return Some(Set::One(c)),
    };
    Some(Set::Of { ranges, negated: c.is_ascii_uppercase() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn glob(pattern: &str, yes: &[&str], no: &[&str]) {
        check(Some(Pattern::glob(pattern)), yes, no);
    }

    #[track_caller]
    fn regex(pattern: &str, yes: &[&str], no: &[&str]) {
        check(Pattern::regex(pattern), yes, no);
    }

    #[track_caller]
    fn check(pattern: Option<Pattern>, yes: &[&str], no: &[&str]) {
        let pattern = pattern.unwrap();
        assert!(yes.iter().all(|text| pattern.matches(text)), "{pattern:?}");
        assert!(!no.iter().any(|text| pattern.matches(text)), "{pattern:?}");
    }

    #[test]
    fn globs_are_those_of_pythons_fnmatch() {
        glob("crew@*", &["crew@", "crew@golden"], &["solo@crew@golden", "Crew@golden"]);
        glob("*", &["", "anything"], &[]);
        glob("w?@h", &["w1@h"], &["w@h", "w12@h"]);
        glob("w[0-9]@[!ab]", &["w1@c"], &["wa@c", "w1@a"]);
        glob("w[]]x", &["w]x"], &["w[]]x"]);
        glob("w[x", &["w[x"], &["wx"]);
        glob("a.b*c*", &["a.bc", "a.bxcyc"], &["axbc", "a.b"]);
        glob("w[z-a]", &[], &["wz", "wb", "wa"]);
    }

    #[test]
    fn regular_expressions_match_from_the_start_and_only_with_a_dollar_to_the_end() {
        regex("crew@", &["crew@golden"], &["x crew@"]);
        regex(r"^crew@gold.*\d$", &["crew@gold7", "crew@golden77"], &["crew@gold", "crew@gold7x"]);
        regex(r"w+\.?[\w-]*$", &["www", "w.a-b"], &["", "w.a b"]);
        regex("[^@]+@h$", &["a@h"], &["@h", "a@b@h"]);
        regex("^a.*?b+?$", &["ab", "axbb"], &["a", "ba"]);
    }

    #[test]
    fn a_regex_of_more_than_single_characters_is_refused() {
        for pattern in ["(a)", "a|b", "a{2}", "*a", "a**", "a*??", r"\bx", r"\", "[a", r"[\D]", "a$b", "a^"] {
            assert_eq!(Pattern::regex(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn a_hostile_pattern_is_no_work() {
        let pattern = format!("{}x$", "a*".repeat(2_000));
        assert!(!Pattern::regex(&pattern).unwrap().matches(&"a".repeat(2_000)));
    }
}
