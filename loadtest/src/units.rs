//! Stands between what a person types and the numbers behind it: durations, sizes, shares, rates.

use std::time::Duration;

const UNITS_OF_TIME: [(&str, f64); 5] = [("ms", 1e-3), ("us", 1e-6), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
const UNITS_OF_SIZE: [(&str, f64); 5] =
    [("KiB", 1024.0), ("MiB", 1_048_576.0), ("KB", 1000.0), ("MB", 1_000_000.0), ("B", 1.0)];

/// Parses `30s`, `500ms`, `2m`, `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let seconds = scaled(text, &UNITS_OF_TIME)
        .ok_or_else(|| format!("`{text}` is not a duration such as 30s, 500ms or 2m"))?;
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("`{text}` is out of range"))
}

/// Parses `1KB` (1,000 bytes), `1KiB` (1,024 bytes), `512B`.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let bytes = scaled(text, &UNITS_OF_SIZE)
        .ok_or_else(|| format!("`{text}` is not a size such as 1KB, 4KiB or 512B"))?;
    if bytes > UNITS_OF_SIZE.iter().map(|(_, factor)| 2.0 * factor).fold(0.0, f64::max) {
        return Err(format!("`{text}` is more than a document may have (2 MiB)"));
    }
    Ok(bytes as usize)
}

/// Parses a share between 0 and 1.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        Ok(_) | Err(_) => Err(format!("`{text}` is not a share between 0 and 1")),
    }
}

/// Parses a rate per second, above 0.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= MAX_RATE => Ok(rate),
        Ok(_) | Err(_) => Err(format!("`{text}` is not a rate between 0 and {MAX_RATE} per second")),
    }
}

/// No single process of this tool sends more than this.
const MAX_RATE: f64 = 1_000_000.0;

fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (number, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    let number: f64 = number.trim().parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_with_their_units() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(size("1KB"), Ok(1000));
        assert_eq!(size("2KiB"), Ok(2048));
        assert_eq!(size("700B"), Ok(700));
        for wrong in ["", "30", "s", "-1s", "1 day", "nans"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(size("3MiB").is_err());
        assert!(size("12").is_err());
    }

    #[test]
    fn shares_and_rates_outside_their_range_are_refused() {
        assert_eq!(share("0.7"), Ok(0.7));
        assert!(share("1.1").is_err());
        assert_eq!(rate("2000"), Ok(2000.0));
        assert!(rate("0").is_err());
        assert!(rate("nan").is_err());
    }
}
