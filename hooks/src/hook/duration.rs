//! Durations as Go writes them: `90s`, `1h30m`, `1.5m`, `300ms`.
//!
//! Code of our own because the annotations that users have are read by Go's `time.ParseDuration`, and a library that is
//! more generous (a bare `300`, a blank, `1min`) would read another time out of them than Velero does.

use std::time::Duration;

/// Why a text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing, or no number where one must stand.
    #[error("it has no number; write for example 90s or 1m30s")]
    NoNumber,
    /// A number without its unit: `300`.
    #[error("a number has no unit; write for example 300s or 5m")]
    NoUnit,
    /// A unit that is none.
    #[error("its unit is none of ns, us, ms, s, m, h")]
    Unit,
    /// Less than nothing.
    #[error("it is negative")]
    Negative,
    /// Longer than can be counted.
    #[error("it is too long")]
    TooLong,
}

const UNITS: [(&str, f64); 8] =
    [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("μs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];

/// Reads what Go's `time.ParseDuration` reads, except that a negative duration is an error.
///
/// # Errors
/// Names what is wrong with the text.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if unsigned == "0" {
        return Ok(Duration::ZERO);
    }
    if unsigned.is_empty() {
        return Err(DurationError::NoNumber);
    }
    let mut rest = unsigned;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let (number, after) = number(rest)?;
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        if unit.is_empty() {
            return Err(DurationError::NoUnit);
        }
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(DurationError::Unit)?;
        seconds += number * factor;
        rest = next;
    }
    if text.starts_with('-') && seconds > 0.0 {
        return Err(DurationError::Negative);
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| DurationError::TooLong)
}

/// A number at the start of `text`, digits on one side of its point at least, and what follows it.
fn number(text: &str) -> Result<(f64, &str), DurationError> {
    let end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    Ok((number.parse().map_err(|_| DurationError::NoNumber)?, rest))
}

/// Writes a duration as short as it can be read again: `1m30s`, `250ms`.
#[must_use]
pub fn format(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    if seconds == 0 {
        return format!("{millis}ms");
    }
    let mut text = String::new();
    for (value, unit) in [(seconds / 3600, "h"), (seconds / 60 % 60, "m")] {
        if value > 0 {
            text += &format!("{value}{unit}");
        }
    }
    match (seconds % 60, millis) {
        (0, 0) => text,
        (rest, 0) => format!("{text}{rest}s"),
        (rest, millis) => format!("{text}{rest}.{millis:03}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_reads_is_read() {
        for (text, millis) in [
            ("0", 0),
            ("-0s", 0),
            ("300ms", 300),
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("1.5m", 90_000),
            (".5s", 500),
            ("1.s", 1_000),
            ("+5s", 5_000),
            ("3m3m", 360_000),
            ("1500us", 1),
            ("1500µs", 1),
        ] {
            assert_eq!(parse(text).map(|duration| duration.as_millis()), Ok(millis), "{text}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused_with_its_reason() {
        for (text, error) in [
            ("", DurationError::NoNumber),
            ("s", DurationError::NoNumber),
            (".s", DurationError::NoNumber),
            ("1.2.3s", DurationError::NoNumber),
            ("300", DurationError::NoUnit),
            ("5s3", DurationError::NoUnit),
            ("1d", DurationError::Unit),
            ("1 m", DurationError::Unit),
            ("5S", DurationError::Unit),
            ("-5s", DurationError::Negative),
            ("9999999999999999999999h", DurationError::TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["0ms", "250ms", "30s", "1m30s", "1h", "2h5m1s", "1.250s"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }
}
