//! Times as Celery writes them: ISO 8601 with offset.

use jiff::{Timestamp, civil, tz};

/// Reads `2026-11-22T13:39:46.319080+00:00`, other offsets, `Z`, no fraction. Without an offset it is UTC.
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| {
        let naive: civil::DateTime = text.parse().ok()?;
        Some(naive.to_zoned(tz::TimeZone::UTC).ok()?.timestamp())
    })
}

/// Writes what Python's `isoformat` gives for an aware UTC time: no fraction when it is zero.
pub fn format(time: Timestamp) -> String {
    let seconds = time.strftime("%Y-%m-%dT%H:%M:%S");
    match time.as_nanosecond().rem_euclid(1_000_000_000) / 1000 {
        0 => format!("{seconds}+00:00"),
        micros => format!("{seconds}.{micros:06}+00:00"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_as_celery_writes_it_is_read_and_written_alike() {
        for text in
            ["2026-11-22T13:39:46.319080+00:00", "2026-11-22T13:39:46+00:00", "1969-12-31T23:59:59.500000+00:00"]
        {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }

    #[test]
    fn other_offsets_and_zulu_and_naive_times_are_read() {
        for text in ["2026-11-22T14:39:46+01:00", "2026-11-22T13:39:46Z", "2026-11-22T13:39:46", "2026-11-22 13:39:46"]
        {
            assert_eq!(parse(text).map(format).as_deref(), Some("2026-11-22T13:39:46+00:00"), "{text}");
        }
        assert_eq!(
            parse("1969-12-31T23:59:59.9999999Z").map(format).as_deref(),
            Some("1969-12-31T23:59:59.999999+00:00")
        );
        assert_eq!(parse("tomorrow"), None);
    }
}
