//! Label selectors as kubectl takes them, where no API server selects.

use kube::core::{Expression, Selector};

/// What a text such as `team=tea,tier in (a, b),!draft` selects; an error names the part that is none.
pub fn parsed(text: &str) -> Result<Selector, String> {
    parts(text).into_iter().map(str::trim).filter(|part| !part.is_empty()).map(expression).collect()
}

/// Splits at the commas that are not between parentheses.
fn parts(text: &str) -> Vec<&str> {
    let mut is_within = false;
    let is_end = |letter: char| {
        match letter {
            '(' => is_within = true,
            ')' => is_within = false,
            _ => {}
        }
        letter == ',' && !is_within
    };
    text.split(is_end).collect()
}

fn expression(part: &str) -> Result<Expression, String> {
    let wrong = || format!("{part:?} selects no label; write KEY=VALUE, KEY!=VALUE, KEY in (A, B), KEY or !KEY");
    let key = |text: &str| {
        let key = text.trim();
        let is_key = !key.is_empty() && key.chars().all(|it| it.is_ascii_alphanumeric() || "-_./".contains(it));
        if is_key { Ok(key.to_owned()) } else { Err(wrong()) }
    };
    if let Some(list) = part.strip_suffix(')') {
        let (head, values) = list.split_once('(').ok_or_else(wrong)?;
        let (name, act) = head.trim().rsplit_once(char::is_whitespace).ok_or_else(wrong)?;
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        return match act {
            "in" => Ok(Expression::In(key(name)?, values)),
            "notin" => Ok(Expression::NotIn(key(name)?, values)),
            _ => Err(wrong()),
        };
    }
    if let Some((name, value)) = part.split_once("!=") {
        return Ok(Expression::NotEqual(key(name)?, value.trim().to_owned()));
    }
    if let Some((name, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(Expression::Equal(key(name)?, value.trim().to_owned()));
    }
    match part.strip_prefix('!') {
        Some(name) => Ok(Expression::DoesNotExist(key(name)?)),
        None => Ok(Expression::Exists(key(part)?)),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::SelectorExt as _;

    use super::*;

    #[test]
    fn labels_are_selected_as_the_api_server_does() {
        let labels = [("team", "tea"), ("tier", "a")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let selects = |text: &str| parsed(text).unwrap().matches(&labels);
        for text in [
            "",
            "team",
            "team=tea",
            "team == tea",
            "team in (coffee, tea),tier!=b",
            "!draft",
            "draft!=yes",
            "x notin (y)",
        ] {
            assert!(selects(text), "{text}");
        }
        for text in ["draft", "team=coffee", "!team", "team in (coffee)", "tier notin (a, b)", "team=tea,tier=b"] {
            assert!(!selects(text), "{text}");
        }
    }

    #[test]
    fn what_selects_nothing_is_named() {
        for text in ["a b", "=x", "team of (tea)", "team in tea)", "!"] {
            assert!(parsed(text).unwrap_err().starts_with(&format!("{text:?} selects no label")), "{text}");
        }
    }
}
