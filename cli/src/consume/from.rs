//! Where reading begins, as people write it. `[P]`

use anyhow::{Context as _, bail};
use levada_client::consumer::Position;
use levada_record::{Offset, Timestamp};

/// A place to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Start,
    End,
    Offset(i64),
    /// Milliseconds since 1970.
    Time(i64),
    /// Milliseconds before the present.
    Ago(i64),
}

impl From {
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        match text {
            "start" | "earliest" | "beginning" => return Ok(Self::Start),
            "end" | "latest" => return Ok(Self::End),
            _ => {}
        }
        if let Some(time) = text.strip_prefix('@') {
            return parse_time(time).with_context(|| format!("--from {text}"));
        }
        match text.parse() {
            Ok(offset) if 0 <= offset => Ok(Self::Offset(offset)),
            _ => bail!("--from {text}: expected start, end, an offset, or @ and a time"),
        }
    }

    /// The position, when the present is `now`.
    pub(super) fn position(self, now: Timestamp) -> Position {
        match self {
            Self::Start => Position::Start,
            Self::End => Position::End,
            Self::Offset(offset) => Position::Offset(Offset(offset)),
            Self::Time(ms) => Position::Time(Timestamp(ms)),
            Self::Ago(ms) => Position::Time(now.saturating_sub_ms(ms)),
        }
    }
}

fn parse_time(text: &str) -> anyhow::Result<From> {
    if let Some(ago) = text.strip_prefix('-') {
        return parse_ago(ago);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(From::Time(text.parse().context("too far in the future")?));
    }
    parse_date_time(text)
        .map(From::Time)
        .context("expected a time like 2026-01-31T12:00:00Z, milliseconds since 1970, or -15m")
}

fn parse_ago(text: &str) -> anyhow::Result<From> {
    let unit_ms = match text.chars().last() {
        Some('s') => 1000,
        Some('m') => 60_000,
        Some('h') => 3_600_000,
        Some('d') => 86_400_000,
        _ => bail!("expected a number and s, m, h or d, such as -15m"),
    };
    let count: i64 = text
        .get(..text.len() - 1)
        .and_then(|digits| digits.parse().ok())
        .filter(|count| 0 <= *count)
        .context("expected a number and s, m, h or d, such as -15m")?;
    count.checked_mul(unit_ms).map(From::Ago).context("too long ago")
}

/// RFC 3339: date, `T` or a space, time, then `Z`, an offset, or nothing for UTC. A date alone is its
/// midnight.
fn parse_date_time(text: &str) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let date: Vec<&str> = date.split('-').collect();
    let [year, month, day] = date[..] else { return None };
    let (year, month, day) = (digits(year, 4)?, digits(month, 2)?, digits(day, 2)?);
    if !(1..=12).contains(&month) || !(1..=days_of_month(year, month)).contains(&day) {
        return None;
    }
    let days = days_since_1970(year, month, day);
    if rest.is_empty() {
        return Some(days * 86_400_000);
    }
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let zone_at = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(zone_at);
    Some(days * 86_400_000 + clock_ms(clock)? - zone_ms(zone)?)
}

fn clock_ms(text: &str) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let parts: Vec<&str> = clock.split(':').collect();
    let (hour, minute, second) = match parts[..] {
        [hour, minute] => (hour, minute, "00"),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    let (hour, minute, second) = (digits(hour, 2)?, digits(minute, 2)?, digits(second, 2)?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let ms: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some(((hour * 60 + minute) * 60 + second) * 1000 + ms)
}

fn zone_ms(text: &str) -> Option<i64> {
    let (sign, zone) = match text.split_at_checked(1) {
        None | Some(("Z" | "z", "")) => return Some(0),
        Some(("+", zone)) => (1, zone),
        Some(("-", zone)) => (-1, zone),
        Some(_) => return None,
    };
    let (hours, minutes) = zone.split_once(':')?;
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes) * 60_000)
}

fn digits(text: &str, count: usize) -> Option<i64> {
    let all = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    if all { text.parse().ok() } else { None }
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar. Source: Howard Hinnant, `days_from_civil`.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<From>) {
        assert_eq!(From::parse(text).ok(), expected, "{text}");
    }

    #[test]
    fn places_are_words_offsets_or_times() {
        check("start", Some(From::Start));
        check("end", Some(From::End));
        check("17", Some(From::Offset(17)));
        check("-17", None);
        check("", None);
        check("@", None);
        check("@-15m", Some(From::Ago(900_000)));
        check("@-15", None);
        check("@-m", None);
        check("@--5m", None);
        check("@-99999999999999999d", None);
        check("@1769860800000", Some(From::Time(1_769_860_800_000)));
        check("@99999999999999999999", None);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |ms| Some(From::Time(ms));
        check("@1970-01-01", at(0));
        check("@1970-01-01T00:00:00Z", at(0));
        check("@2026-01-31T12:00:00Z", at(1_769_860_800_000));
        check("@2026-01-31 12:00", at(1_769_860_800_000));
        check("@2026-01-31T13:30:00.25+01:30", at(1_769_860_800_250));
        check("@2000-02-29T23:59:59.999Z", at(951_868_799_999));
        check("@1969-12-31T23:59:59Z", at(-1000));
        for wrong in [
            "@2026-02-29",
            "@2026-13-01",
            "@2026-1-1",
            "@2026-01-01T24:00Z",
            "@2026-01-01T1:00",
            "@ä26-01-01",
        ] {
            check(wrong, None);
        }
    }
}
