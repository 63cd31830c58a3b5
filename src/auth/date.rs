//! Dates as JavaScript prints them: `new Date(ms).toISOString()`.
//!
//! ECMA-262, "Time Values and Time Range" and "Date Time String Format".

/// The date in UTC with milliseconds, or `None` where JavaScript has an invalid date (its JSON prints `null`
/// then). Fractions of a millisecond are cut off; years outside of 0 to 9999 have a sign and six digits.
pub(super) fn iso_string(unix_ms: f64) -> Option<String> {
    if unix_ms.is_nan() || unix_ms.abs() > TIME_VALUE_MAX {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "within the range of time values, and cutting the fraction off is wanted"
    )]
    let unix_ms = unix_ms.trunc() as i64;
    let (days, ms) = (unix_ms.div_euclid(DAY_MS), unix_ms.rem_euclid(DAY_MS));
    let (year, month, day) = civil_from_days(days);
    let year = match year {
        0..=9999 => format!("{year:04}"),
        ..0 => format!("-{:06}", -year),
        10_000.. => format!("+{year:06}"),
    };
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    let ms = ms % 1000;
    Some(format!(
        "{year}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{ms:03}Z"
    ))
}

/// Year, month and day of the proleptic Gregorian calendar, `days` after 1970-01-01. Counts years from 1
/// March, in eras of 400 years, so that the leap day comes last in both.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468; // from 0000-03-01
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

const DAY_MS: i64 = 86_400_000;

/// The largest time value, in milliseconds: 100,000,000 days before or after 1970.
const TIME_VALUE_MAX: f64 = 8.64e15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_printed_as_node_prints_them() {
        let printed = [
            (0.0, "1970-01-01T00:00:00.000Z"),
            (-0.5, "1970-01-01T00:00:00.000Z"),
            (-1.0, "1969-12-31T23:59:59.999Z"),
            (1_234_567.9, "1970-01-01T00:20:34.567Z"),
            (951_782_400_000.0, "2000-02-29T00:00:00.000Z"),
            (4_107_542_400_000.0, "2100-03-01T00:00:00.000Z"),
            (1_795_359_453_000.0, "2026-11-22T14:57:33.000Z"),
            (253_402_300_799_999.0, "9999-12-31T23:59:59.999Z"),
            (253_402_300_800_000.0, "+010000-01-01T00:00:00.000Z"),
            (-62_167_219_200_000.0, "0000-01-01T00:00:00.000Z"),
            (-62_167_219_200_001.0, "-000001-12-31T23:59:59.999Z"),
            (8.64e15, "+275760-09-13T00:00:00.000Z"),
            (-8.64e15, "-271821-04-20T00:00:00.000Z"),
        ];
        for (unix_ms, expected) in printed {
            assert_eq!(iso_string(unix_ms).as_deref(), Some(expected), "{unix_ms}");
        }
    }

    #[test]
    fn an_invalid_date_in_javascript_is_none() {
        for unix_ms in [
            8_640_000_000_000_001.0,
            -8_640_000_000_000_001.0,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
        ] {
            assert_eq!(iso_string(unix_ms), None, "{unix_ms}");
        }
    }
}
