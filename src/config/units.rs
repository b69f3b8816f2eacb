//! Durations and sizes as people write them: `2s`, `500ms`, `256KiB`.

use std::time::Duration;

const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 3] = [("MiB", 1024 * 1024), ("KiB", 1024), ("", 1)];

/// Reads a whole number with a unit of `ms`, `s`, `m` or `h`; nothing else, no sum of several.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let (_, millis) = TIME_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*millis).map(Duration::from_millis)
}

/// Writes a duration of whole milliseconds in its largest unit that leaves no fraction.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    show(millis, &TIME_UNITS)
}

/// Reads a number of bytes, or a whole number with a unit of `KiB` or `MiB`.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*bytes)
}

/// Writes a size in its largest unit that leaves no fraction.
pub(super) fn show_size(bytes: u64) -> String {
    if bytes == 0 {
        return "0".to_owned();
    }
    show(bytes, &SIZE_UNITS)
}

/// The digits at the start as a number, and what follows them.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit))
}

fn show(amount: u64, units: &[(&str, u64)]) -> String {
    units
        .iter()
        .find(|(_, size)| amount.is_multiple_of(*size))
        .map(|(name, size)| format!("{}{name}", amount / size))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("2s"), Some(Duration::from_secs(2)));
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("1m"), Some(Duration::from_secs(60)));
        assert_eq!(parse_duration("2h"), Some(Duration::from_secs(7200)));
        for wrong in [
            "", "2", "s", "2 s", " 2s", "2S", "1.5s", "-1s", "+1s", "1m30s", "2d", "٢s",
        ] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
        assert_eq!(parse_duration("18446744073709551615h"), None);
        assert_eq!(parse_duration("99999999999999999999s"), None);
    }

    #[test]
    fn sizes_are_bytes_or_binary_units() {
        assert_eq!(parse_size("4096"), Some(4096));
        assert_eq!(parse_size("256KiB"), Some(256 * 1024));
        assert_eq!(parse_size("1MiB"), Some(1024 * 1024));
        for wrong in [
            "", "KiB", "1KB", "1kib", "1 KiB", "1.5MiB", "-1", "1GiB", "1B",
        ] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
        assert_eq!(parse_size("18446744073709551615MiB"), None);
    }

    #[test]
    fn shown_in_the_largest_whole_unit() {
        assert_eq!(show_duration(Duration::from_secs(86_400)), "24h");
        assert_eq!(show_duration(Duration::from_secs(90)), "90s");
        assert_eq!(show_duration(Duration::ZERO), "0s");
        assert_eq!(show_size(1024), "1KiB");
        assert_eq!(show_size(1025), "1025");
        assert_eq!(show_size(0), "0");
    }

    proptest! {
        #[test]
        fn durations_round_trip(millis in 0..=u64::MAX) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }

        #[test]
        fn sizes_round_trip(bytes in 0..=u64::MAX) {
            prop_assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
        }

        #[test]
        fn whole_units_round_trip(number in 0u64..100_000, unit in 0usize..3) {
            let size = number * SIZE_UNITS[unit].1;
            prop_assert_eq!(parse_size(&format!("{number}{}", SIZE_UNITS[unit].0)), Some(size));
            prop_assert_eq!(parse_size(&show_size(size)), Some(size));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }
    }
}
