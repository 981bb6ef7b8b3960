//! Numbers and times as people read them.
//!
//! Apart from the page, because they are the part of it that can be wrong.

use jiff::Timestamp;

const MINUTE: f64 = 60.0;
const HOUR: f64 = 60.0 * MINUTE;
const DAY: f64 = 24.0 * HOUR;

/// `12,345`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 object`, `12,345 objects`.
pub(super) fn counted(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", count(number))
}

/// `0.42 s`, `18.3 s`, `4 min 20 s`, `2 h 5 min`, `3 d 4 h`.
pub(super) fn duration(seconds: f64) -> String {
    // what rounds to a minute is one
    let seconds = if seconds > MINUTE - 0.05 { seconds.round() } else { seconds.max(0.0) };
    let pair = |large: f64, large_unit: &str, small: f64, small_unit: &str| {
        let whole = (seconds / large).floor();
        let rest = ((seconds - whole * large) / small).floor();
        if rest == 0.0 { format!("{whole} {large_unit}") } else { format!("{whole} {large_unit} {rest} {small_unit}") }
    };
    match seconds {
        short if short < 1.0 => format!("{short:.2} s"),
        short if short < MINUTE => format!("{short:.1} s"),
        minutes if minutes < HOUR => pair(MINUTE, "min", 1.0, "s"),
        hours if hours < DAY => pair(HOUR, "h", MINUTE, "min"),
        _ => pair(DAY, "d", HOUR, "h"),
    }
}

/// `18.3 s ago`.
pub(super) fn ago(seconds: f64) -> String {
    format!("{} ago", duration(seconds))
}

/// `2026-11-24 02:11:09 UTC`.
pub(super) fn moment(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let read = [0, 7, 999, 1000, 12_345, 1_234_567].map(count);
        assert_eq!(read, ["0", "7", "999", "1,000", "12,345", "1,234,567"]);
        assert_eq!((counted(1, "object"), counted(2, "object")), ("1 object".into(), "2 objects".into()));
    }

    #[test]
    fn durations_keep_the_two_units_that_matter() {
        for (seconds, text) in [
            (0.0, "0.00 s"),
            (0.424, "0.42 s"),
            (18.26, "18.3 s"),
            (59.97, "1 min"),
            (260.0, "4 min 20 s"),
            (7500.0, "2 h 5 min"),
            (273_600.0, "3 d 4 h"),
            (-5.0, "0.00 s"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn a_moment_says_that_it_is_utc() {
        assert_eq!(moment(Timestamp::UNIX_EPOCH), "1970-01-01 00:00:00 UTC");
    }
}
