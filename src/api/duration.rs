//! Durations as people write them in YAML: `50m`, `1h30m`, `500ms`.

use std::{fmt, str::FromStr, time};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time written as hours, minutes, seconds and milliseconds, such as `1h30m`.
///
/// The grammar is that of the Gateway API (GEP-2257): one to four pairs of a number of at most five digits and one of
/// the units `h`, `m`, `s`, `ms`. There is no unit for days, because the `duration()` of Kubernetes' validation rules
/// has none: a week is `168h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(time::Duration);

/// The grammar as the API server checks it.
const PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";
const MAX_PAIRS: usize = 4;
const MAX_DIGITS: usize = 5;

impl Duration {
    /// A duration of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds))
    }

    /// A duration of whole minutes.
    pub const fn from_mins(minutes: u64) -> Self {
        Self::from_secs(minutes * 60)
    }

    /// A duration of whole hours.
    pub const fn from_hours(hours: u64) -> Self {
        Self::from_mins(hours * 60)
    }

    /// The same length as the standard library's type.
    pub const fn to_std(self) -> time::Duration {
        self.0
    }
}

impl From<Duration> for time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl From<time::Duration> for Duration {
    /// Keeps whole milliseconds, the smallest unit that can be written.
    fn from(duration: time::Duration) -> Self {
        let millis = duration.subsec_millis();
        Self(time::Duration::from_secs(duration.as_secs()) + time::Duration::from_millis(millis.into()))
    }
}

/// Why a text is not a [`Duration`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration: write hours, minutes, seconds or milliseconds, such as 50m, 1h30m or 500ms")]
pub struct ParseDurationError(String);

impl FromStr for Duration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || ParseDurationError(text.to_owned());
        let mut total = time::Duration::ZERO;
        let mut rest = text;
        for _ in 0..MAX_PAIRS {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if !(1..=MAX_DIGITS).contains(&digits) {
                return Err(invalid());
            }
            let number: u64 = rest[..digits].parse().map_err(|_| invalid())?;
            let (length, after) = unit(number, &rest[digits..]).ok_or_else(invalid)?;
            total += length;
            rest = after;
            if rest.is_empty() {
                return Ok(Self(total));
            }
        }
        Err(invalid())
    }
}

/// Reads the unit that follows `number`; gives the length and what is left.
fn unit(number: u64, text: &str) -> Option<(time::Duration, &str)> {
    // `ms` first: `m` is its prefix.
    if let Some(rest) = text.strip_prefix("ms") {
        Some((time::Duration::from_millis(number), rest))
    } else if let Some(rest) = text.strip_prefix('s') {
        Some((time::Duration::from_secs(number), rest))
    } else if let Some(rest) = text.strip_prefix('m') {
        Some((time::Duration::from_secs(number * 60), rest))
    } else if let Some(rest) = text.strip_prefix('h') {
        Some((time::Duration::from_secs(number * 3600), rest))
    } else {
        None
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let parts = [
            (seconds / 3600, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
            (u64::from(self.0.subsec_millis()), "ms"),
        ];
        if parts.iter().all(|(number, _)| *number == 0) {
            return f.write_str("0s");
        }
        parts.iter().filter(|(number, _)| *number != 0).try_for_each(|(number, unit)| write!(f, "{number}{unit}"))
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "maxLength": 28 })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, millis: u64, shown: &str) {
        let duration: Duration = text.parse().unwrap();
        assert_eq!(duration.to_std(), time::Duration::from_millis(millis));
        assert_eq!(duration.to_string(), shown);
    }

    #[test]
    fn a_duration_is_parsed_as_people_write_it_and_shown_in_its_shortest_form() {
        check("50m", 3_000_000, "50m");
        check("1h30m", 5_400_000, "1h30m");
        check("90m", 5_400_000, "1h30m");
        check("500ms", 500, "500ms");
        check("1m500ms", 60_500, "1m500ms");
        check("168h", 604_800_000, "168h");
        check("2h45m30s250ms", 9_930_250, "2h45m30s250ms");
        check("30m1h", 5_400_000, "1h30m");
        check("0s", 0, "0s");
        check("99999h", 359_996_400_000, "99999h");
    }

    #[test]
    fn a_text_that_is_no_duration_is_refused_with_an_example_of_one() {
        for text in ["", "5", "m", "7d", "1.5h", "-1s", "+1s", " 1s", "1 s", "1s ", "100000s", "1h1h1h1h1h", "1S", "٣s"]
        {
            let error = text.parse::<Duration>().unwrap_err().to_string();
            assert!(error.contains("such as 50m"), "{error}");
        }
    }

    #[test]
    fn json_carries_the_text() {
        let duration: Duration = serde_json::from_str(r#""1h30m""#).unwrap();
        assert_eq!(duration, Duration::from_mins(90));
        assert_eq!(serde_json::to_string(&duration).unwrap(), r#""1h30m""#);
        assert!(serde_json::from_str::<Duration>("90").is_err());
    }

    proptest! {
        #[test]
        fn a_duration_that_is_shown_reads_back(millis in 0..=99_999 * 3_600_000_u64) {
            let duration = Duration::from(time::Duration::from_millis(millis));
            prop_assert_eq!(duration.to_string().parse::<Duration>().unwrap(), duration);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = text.parse::<Duration>();
        }
    }
}
