//! Cron lines in a time zone: the instants at which a schedule is to run.
//!
//! A line is matched against the wall clock of its zone. Where the clock is changed, two rules hold, those of Vixie cron:
//!
//! * A line that names an hour (`30 2 * * *`) runs once for each time that it names. A time that the change skips is moved
//!   by as much as the clock is; of a time that occurs twice the first counts.
//! * A line whose hour begins with `*` (`*/15 * * * *`) runs at an interval: whenever the clock shows such a time, so twice
//!   where the hour is repeated, and not at all in an hour that is skipped.
//!
//! Two lines, or two times of a line, that lead to the same instant are one run.

use std::fmt;

use cronexpr::{Crontab, FallbackTimezoneOption, MakeTimestamp, ParseOptions};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};

/// The longest change of a clock that there ever was: Samoa skipped a day.
const LONGEST_CHANGE: SignedDuration = SignedDuration::from_hours(25);
/// Changes of the clock that lie between two matches of a line, which are at most four years apart.
const MOST_CHANGES: usize = 64;

/// When a schedule is to run.
#[derive(Debug, Clone)]
pub struct Calendar {
    lines: Vec<Line>,
    zone: TimeZone,
}

#[derive(Debug, Clone)]
struct Line {
    cron: Crontab,
    names_hour: bool,
}

/// Why lines and a time zone are no calendar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// The zone is not in the IANA time zone database.
    #[error("spec.timeZone: {0:?} is no time zone of the IANA database; write a name such as Europe/Berlin or Etc/UTC")]
    Zone(String),
    /// A line is no cron line.
    #[error(
        "spec.schedules[{index}]: {line:?} is no cron line ({why}); write minute, hour, day of the month, month and day of \
         the week, such as \"30 2 * * MON-FRI\", or @hourly, @daily, @weekly, @monthly or @yearly"
    )]
    Line {
        /// Which, from 0.
        index: usize,
        /// The line.
        line: String,
        /// What is wrong with it.
        why: String,
    },
    /// A line names a day that does not occur.
    #[error("spec.schedules[{index}]: {line:?} names a time that does not occur within four years")]
    Never {
        /// Which, from 0.
        index: usize,
        /// The line.
        line: String,
    },
}

impl Calendar {
    /// Reads cron lines and the name of their time zone.
    pub fn parse<S: AsRef<str>>(lines: &[S], zone: &str) -> Result<Self, CalendarError> {
        // The built-in database: what a schedule means does not depend on the machine.
        let zone = TimeZoneDatabase::bundled().get(zone).map_err(|_| CalendarError::Zone(zone.to_owned()))?;
        let parsed = lines.iter().enumerate().map(|(index, line)| {
            let line = line.as_ref();
            let wrong = |why: String| CalendarError::Line { index, line: line.to_owned(), why };
            let parsed = Line::parse(line).map_err(wrong)?;
            let ever = parsed.cron.find_next(MakeTimestamp(Timestamp::UNIX_EPOCH));
            ever.map_err(|_| CalendarError::Never { index, line: line.to_owned() })?;
            Ok(parsed)
        });
        Ok(Self { lines: parsed.collect::<Result<_, _>>()?, zone })
    }

    /// The first instant after this one; none where the end of time is near.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.lines.iter().filter_map(|line| line.next(after, &self.zone)).min()
    }

    /// All instants after this one.
    pub fn after(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.next(after), |at| self.next(*at))
    }
}

impl Line {
    fn parse(line: &str) -> Result<Self, String> {
        let line = match line.trim() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            line => line,
        };
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, hour, days @ ..] = fields.as_slice() else { return Err("it has fewer than five fields".to_owned()) };
        if days.len() != 3 {
            return Err(format!("it has {} fields instead of five", fields.len()));
        }
        // Extensions of some crons, which others read otherwise: L, W, H, # and ?.
        let is_plain = |field: &&str| field.chars().all(|c| c.is_ascii_alphanumeric() || "*,-/".contains(c));
        let has_names_only = |field: &str| {
            field.split(|c: char| !c.is_ascii_alphabetic()).all(|word| word.is_empty() || word.len() == 3)
        };
        if let Some(odd) = fields.iter().find(|field| !is_plain(field) || !has_names_only(field)) {
            return Err(format!("{odd:?} is not understood"));
        }
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::UTC;
        let cron = cronexpr::parse_crontab_with(&fields.join(" "), options).map_err(|error| first_line(&error))?;
        Ok(Self { cron, names_hour: !hour.starts_with('*') })
    }

    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if self.names_hour { self.next_named(after, zone) } else { self.next_interval(after, zone) }
    }

    /// The next match of a wall clock, which is held as if it were that of UTC.
    fn match_after(&self, wall: Timestamp) -> Option<Timestamp> {
        Some(self.cron.find_next(MakeTimestamp(wall)).ok()?.timestamp())
    }

    /// The first match of the clock after an instant, as it runs from change to change.
    fn next_interval(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut offset = zone.to_offset(after);
        let mut wall = on_clock(after, offset)?;
        let mut changes = zone.following(after);
        for _ in 0..MOST_CHANGES {
            let at = of_clock(self.match_after(wall)?, offset)?;
            match changes.next() {
                Some(change) if change.timestamp() <= at => {
                    offset = change.offset();
                    // The instant of the change may match, too.
                    wall = on_clock(change.timestamp(), offset)?.checked_sub(SignedDuration::from_secs(1)).ok()?;
                }
                Some(_) | None => return Some(at),
            }
        }
        None
    }

    /// The first time after an instant that a line names.
    fn next_named(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut wall = on_clock(after, zone.to_offset(after))?.checked_sub(lately_skipped(after, zone)).ok()?;
        let mut first: Option<Timestamp> = None;
        for _ in 0..10_000 {
            wall = self.match_after(wall)?;
            let time = wall.to_zoned(TimeZone::UTC).datetime();
            let ambiguous = zone.to_ambiguous_timestamp(time);
            // In a gap it is later by as much as the clock is changed, where the clock repeats itself the first time.
            let is_moved = matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. });
            let at = ambiguous.compatible().ok()?;
            if at > after {
                first = Some(first.map_or(at, |first| first.min(at)));
            }
            // One that was moved may be overtaken by one that was not.
            if !is_moved && first.is_some() {
                return first;
            }
        }
        first
    }
}

/// What a clock with this offset shows, as if it were UTC.
fn on_clock(at: Timestamp, offset: Offset) -> Option<Timestamp> {
    at.checked_add(SignedDuration::from_secs(offset.seconds().into())).ok()
}

/// When a clock with this offset shows a time that is held as if it were UTC.
fn of_clock(wall: Timestamp, offset: Offset) -> Option<Timestamp> {
    wall.checked_sub(SignedDuration::from_secs(offset.seconds().into())).ok()
}

/// How much the clock has skipped within the last day: times in there are moved to after the change.
fn lately_skipped(after: Timestamp, zone: &TimeZone) -> SignedDuration {
    let skipped = || {
        let change = zone.preceding(after.checked_add(SignedDuration::from_nanos(1)).ok()?).next()?;
        let at = change.timestamp();
        let before = zone.to_offset(at.checked_sub(SignedDuration::from_nanos(1)).ok()?);
        let skipped = SignedDuration::from_secs((change.offset().seconds() - before.seconds()).into());
        (after.duration_since(at) <= LONGEST_CHANGE && skipped.is_positive()).then_some(skipped)
    };
    skipped().unwrap_or_default()
}

fn first_line(error: &impl fmt::Display) -> String {
    error.to_string().lines().last().unwrap_or_default().trim().trim_start_matches("^ ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(line: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let calendar = Calendar::parse(&[line], zone).unwrap();
        let shown = |at: Timestamp| at.to_zoned(calendar.zone.clone()).strftime("%m-%d %H:%M %z").to_string();
        calendar.after(after.parse().unwrap()).take(count).map(shown).collect()
    }

    #[test]
    fn a_line_is_matched_against_the_clock_of_its_zone() {
        assert_eq!(
            runs("30 2 * * MON-FRI", "Asia/Tokyo", "2026-11-26T00:00:00Z", 3),
            ["11-27 02:30 +0900", "11-30 02:30 +0900", "12-01 02:30 +0900"]
        );
        assert_eq!(runs("@daily", "Etc/UTC", "2026-12-30T23:59:59.5Z", 2), ["12-31 00:00 +0000", "01-01 00:00 +0000"]);
        assert_eq!(runs("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 1), ["02-29 00:00 +0000"]);
        assert_eq!(
            runs("0 12 13 * 5", "UTC", "2026-11-01T00:00:00Z", 3),
            ["11-06 12:00 +0000", "11-13 12:00 +0000", "11-20 12:00 +0000"],
            "the day of the month or that of the week, where both are restricted"
        );
    }

    #[test]
    fn a_time_that_the_change_to_summer_time_skips_is_moved_and_not_lost() {
        for (zone, after, named, next) in [
            ("Europe/Berlin", "2026-03-28T12:00:00Z", "03-29 03:30 +0200", "03-30 02:30 +0200"),
            ("America/New_York", "2026-03-07T12:00:00Z", "03-08 03:30 -0400", "03-09 02:30 -0400"),
        ] {
            assert_eq!(runs("30 2 * * *", zone, after, 2), [named, next]);
        }
        // Half an hour only.
        assert_eq!(
            runs("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", 2),
            ["10-04 02:45 +1100", "10-05 02:15 +1100"]
        );
    }

    #[test]
    fn a_moved_time_is_found_from_any_instant_before_it_and_two_at_one_instant_are_one() {
        let line = "0,30 2,3 * * *";
        let all = ["03-29 03:00 +0200", "03-29 03:30 +0200", "03-30 02:00 +0200"];
        assert_eq!(runs(line, "Europe/Berlin", "2026-03-29T00:00:00Z", 3), all);
        assert_eq!(runs(line, "Europe/Berlin", "2026-03-29T01:10:00Z", 2), all[1..]);
        assert_eq!(runs("45 2 * * *", "Europe/Berlin", "2026-03-29T01:10:00Z", 1), ["03-29 03:45 +0200"]);
        assert_eq!(
            runs("30 2 * * *", "Europe/Berlin", "2026-03-29T01:30:00Z", 1),
            ["03-30 02:30 +0200"],
            "it is not found again from itself on"
        );
        assert_eq!(
            runs("45 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 2),
            ["03-29 03:45 +0200", "03-30 02:45 +0200"]
        );
    }

    #[test]
    fn a_time_that_the_end_of_summer_time_repeats_runs_once_if_its_line_names_the_hour() {
        assert_eq!(
            runs("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["10-25 02:30 +0200", "10-26 02:30 +0100"]
        );
        assert_eq!(
            runs("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1),
            ["10-26 02:30 +0100"],
            "from within the second pass"
        );
        assert_eq!(
            runs("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", 2),
            ["11-01 01:30 -0400", "11-02 01:30 -0500"]
        );
    }

    #[test]
    fn an_interval_goes_on_through_both_changes_without_a_break() {
        for (zone, after) in [
            ("Europe/Berlin", "2026-03-28T23:00:00Z"),
            ("Europe/Berlin", "2026-10-24T23:00:00Z"),
            ("America/New_York", "2026-03-08T05:00:00Z"),
            ("America/New_York", "2026-11-01T04:00:00Z"),
            ("Australia/Sydney", "2026-04-04T12:00:00Z"),
            ("Australia/Sydney", "2026-10-03T12:00:00Z"),
            ("Etc/UTC", "2026-10-03T12:00:00Z"),
        ] {
            let calendar = Calendar::parse(&["*/20 * * * *"], zone).unwrap();
            let after: Timestamp = after.parse().unwrap();
            let minutes: Vec<i64> =
                calendar.after(after).take(24).map(|at| at.duration_since(after).as_mins()).collect();
            assert_eq!(minutes, (1..=24).map(|n| n * 20).collect::<Vec<_>>(), "{zone} {after}");
        }
        let repeated = runs("30 * * * *", "Europe/Berlin", "2026-10-24T23:40:00Z", 3);
        assert_eq!(repeated, ["10-25 02:30 +0200", "10-25 02:30 +0100", "10-25 03:30 +0100"]);
    }

    #[test]
    fn every_day_of_ten_years_has_its_run_and_no_day_two() {
        let zones = ["Europe/Berlin", "America/New_York", "Australia/Sydney", "Africa/Casablanca", "America/Santiago"];
        for zone in zones {
            for line in ["30 2 * * *", "0 0 * * *", "59 1 * * *"] {
                let calendar = Calendar::parse(&[line], zone).unwrap();
                let days: Vec<_> = calendar
                    .after("2026-01-01T12:00:00Z".parse().unwrap())
                    .take(3650)
                    .map(|at| at.to_zoned(calendar.zone.clone()).date())
                    .collect();
                for pair in days.windows(2) {
                    assert_eq!(pair[1], pair[0].tomorrow().unwrap(), "{line} {zone}");
                }
            }
        }
    }

    #[test]
    fn lines_together_are_one_calendar() {
        let calendar = Calendar::parse(&["0 9 * * *", "0 */3 * * *"], "Etc/UTC").unwrap();
        let hours: Vec<i8> = calendar
            .after("2026-01-01T05:00:00Z".parse().unwrap())
            .take(4)
            .map(|at| at.to_zoned(TimeZone::UTC).hour())
            .collect();
        assert_eq!(hours, [6, 9, 12, 15]);
    }

    #[test]
    fn what_is_no_line_or_zone_is_refused_with_the_field_and_what_to_write() {
        let refused = |line: &str, zone: &str| Calendar::parse(&["0 0 * * *", line], zone).unwrap_err().to_string();
        for (line, why) in [
            ("", "fewer than five fields"),
            ("* * * *", "fields instead of five"),
            ("* * * * * *", "6 fields"),
            ("0 0 * * * UTC", "6 fields"),
            ("60 * * * *", "60"),
            ("0 24 * * *", "24"),
            ("0 0 L * *", "\"L\" is not understood"),
            ("0 0 15W * *", "\"15W\" is not understood"),
            ("0 0 * * 5#3", "\"5#3\" is not understood"),
            ("H 0 * * *", "\"H\" is not understood"),
            ("0 0 ? * *", "\"?\" is not understood"),
            ("0 0 * FOO *", ""),
            ("0 0 * * MONDAY", "not understood"),
            ("*/0 * * * *", ""),
            ("5-1 * * * *", ""),
            ("@reboot", "fewer than five"),
            ("0 0 30 2 *", "does not occur within four years"),
            ("0 0 31 4,6,9,11 *", "does not occur"),
        ] {
            let error = refused(line, "Etc/UTC");
            assert!(error.starts_with("spec.schedules[1]: ") && error.contains(why), "{line}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
        assert!(refused("@daily", "Europe/Atlantis").contains("Europe/Atlantis"), "no zone");
        assert!(refused("@daily", "").contains("spec.timeZone"));
        assert!(refused("@daily", "../../etc/passwd").contains("spec.timeZone"));
    }
}
