//! Times and durations in words.
//!
//! Owns: the calendar arithmetic that reading needs (proleptic Gregorian, UTC, no leap seconds, like
//! Unix time itself). Must not know: the clock; "now" is always an argument.

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A duration in at most two units: "15 minutes", "1 hour 30 minutes", "7 days". Negative ones count as none.
#[must_use]
pub fn duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let units = [(DAY, "day"), (HOUR, "hour"), (MINUTE, "minute"), (1, "second")];
    let mut rest = seconds;
    let mut parts = Vec::with_capacity(2);
    for (size, name) in units {
        let count = rest / size;
        rest %= size;
        if count > 0 {
            parts.push(count_of(count, name));
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() {
        "0 seconds".to_owned()
    } else {
        parts.join(" ")
    }
}

/// "1 session", "4 sessions".
#[must_use]
pub fn count_of(count: i64, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

/// A time as seen from now, in one unit: "just now", "3 minutes ago", "in 2 hours". Milliseconds since the epoch.
#[must_use]
pub fn relative(now: i64, at: i64) -> String {
    let seconds = (at - now) / 1000;
    let amount = match seconds.abs() {
        0..45 => return "just now".to_owned(),
        s @ 45..2700 => count_of(round(s, MINUTE), "minute"),
        s @ 2700..79200 => count_of(round(s, HOUR), "hour"),
        s => count_of(round(s, DAY), "day"),
    };
    if seconds < 0 {
        format!("{amount} ago")
    } else {
        format!("in {amount}")
    }
}

fn round(value: i64, unit: i64) -> i64 {
    ((value + unit / 2) / unit).max(1)
}

/// "12 March 2026, 10:42 UTC".
#[must_use]
pub fn exact(at: i64) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let Civil {
        year,
        month,
        day,
        hour,
        minute,
        ..
    } = Civil::of(at);
    let name = usize::try_from(month - 1)
        .ok()
        .and_then(|index| MONTHS.get(index))
        .unwrap_or(&"");
    format!("{day} {name} {year}, {hour:02}:{minute:02} UTC")
}

/// "2026-03-12 10:42:05" in UTC: the log's columns, where rows are compared with each other.
#[must_use]
pub fn stamp(at: i64) -> String {
    let Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
    } = Civil::of(at);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// "2026-03-12T10:42:05Z" (RFC 3339), for `<time datetime>`.
#[must_use]
pub fn iso(at: i64) -> String {
    let Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
    } = Civil::of(at);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

struct Civil {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Civil {
    /// Days to date after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
    fn of(at: i64) -> Self {
        let seconds = at.div_euclid(1000);
        let of_day = seconds.rem_euclid(DAY);
        let days = seconds.div_euclid(DAY) + 719_468;
        let era = days.div_euclid(146_097);
        let of_era = days.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self {
            year,
            month,
            day,
            hour: of_day / HOUR,
            minute: of_day % HOUR / MINUTE,
            second: of_day % MINUTE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_name_at_most_two_units() {
        assert_eq!(duration(0), "0 seconds");
        assert_eq!(duration(-5), "0 seconds");
        assert_eq!(duration(1), "1 second");
        assert_eq!(duration(300), "5 minutes");
        assert_eq!(duration(5400), "1 hour 30 minutes");
        assert_eq!(duration(7 * DAY), "7 days");
        assert_eq!(duration(DAY + 61), "1 day 1 minute");
    }

    #[test]
    fn relative_times_look_both_ways() {
        let now = 1_700_000_000_000;
        assert_eq!(relative(now, now), "just now");
        assert_eq!(relative(now, now - 44_000), "just now");
        assert_eq!(relative(now, now - 60_000), "1 minute ago");
        assert_eq!(relative(now, now + 2 * 3_600_000), "in 2 hours");
        assert_eq!(relative(now, now - 3 * 86_400_000), "3 days ago");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(iso(0), "1970-01-01T00:00:00Z");
        assert_eq!(iso(-1000), "1969-12-31T23:59:59Z");
        assert_eq!(iso(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(iso(4_102_444_799_000), "2099-12-31T23:59:59Z");
        assert_eq!(exact(1_773_312_125_000), "12 March 2026, 10:42 UTC");
        assert_eq!(stamp(1_773_312_125_000), "2026-03-12 10:42:05");
    }
}
