//! Texts of unknown length and content, cut so that an object stays small.

/// The longest beginning of `text` that takes at most `bytes` in JSON.
pub(super) fn head(text: &str, bytes: usize) -> &str {
    let end = fitting(text.char_indices().map(|(start, c)| (start + c.len_utf8(), c)), bytes);
    &text[..end.unwrap_or(0)]
}

/// The longest end of `text` that takes at most `bytes` in JSON.
pub(super) fn tail(text: &str, bytes: usize) -> &str {
    let start = fitting(text.char_indices().rev(), bytes);
    &text[start.unwrap_or(text.len())..]
}

/// The index that goes with the last of the characters that fit.
fn fitting(chars: impl Iterator<Item = (usize, char)>, bytes: usize) -> Option<usize> {
    let mut taken = 0;
    chars
        .take_while(|(_, c)| {
            taken += json_len(*c);
            taken <= bytes
        })
        .last()
        .map(|(index, _)| index)
}

/// How many bytes a character takes in the JSON that the API server writes.
fn json_len(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' => 2,
        '\0'..'\x20' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => 6,
        _ => c.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_that_fits_is_kept_and_the_rest_is_cut_between_characters() {
        assert_eq!((head("abc", 3), tail("abc", 3)), ("abc", "abc"));
        assert_eq!((head("abc", 2), tail("abc", 2)), ("ab", "bc"));
        assert_eq!((head("aü", 2), tail("üa", 2)), ("a", "a"));
        assert_eq!((head("a\nb", 3), tail("a\n\0", 7)), ("a\n", "\0"));
        assert_eq!((head("a", 0), tail("a", 0), head("", 9), tail("", 9)), ("", "", "", ""));
    }

    proptest! {
        #[test]
        fn no_text_takes_more_than_its_share(text in any::<String>(), bytes in 0_usize..40) {
            for cut in [head(&text, bytes), tail(&text, bytes)] {
                prop_assert!(serde_json::to_string(cut).unwrap().len() <= bytes + 2);
            }
            prop_assert!(text.starts_with(head(&text, bytes)) && text.ends_with(tail(&text, bytes)));
        }
    }
}
