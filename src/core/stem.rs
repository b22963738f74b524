//! What the name of a job begins with that is given none.

/// Letters of a text that a name begins with.
const LONGEST: usize = 40;

/// The beginning of a name, to which the API server adds a few letters: the words of a topic, or another job's name.
pub fn stem(text: &str) -> String {
    let lower = text.to_lowercase();
    let words = lower.split(|it: char| !it.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let name: String = words.collect::<Vec<_>>().join("-").chars().take(LONGEST).collect();
    match name.trim_matches('-') {
        "" => "job-".to_owned(),
        name => format!("{name}-"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_of_the_letters_that_kubernetes_takes() {
        assert_eq!(stem("Über die  Gezeiten: 2026!"), "ber-die-gezeiten-2026-");
        assert_eq!(stem("海"), "job-");
        assert_eq!(stem(&"x".repeat(400)).len(), LONGEST + 1);
    }
}
