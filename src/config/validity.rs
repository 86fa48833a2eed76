//! How long a key is valid.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

const DAY: u64 = 24 * 60 * 60;

/// How long a key is valid: for ever, or for a time from its making on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Validity {
    /// It does not expire.
    #[default]
    Never,
    /// It expires after this time.
    For(Duration),
}

impl Validity {
    /// The time after which a key expires, if it does.
    pub fn lifetime(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::For(time) => Some(time),
        }
    }

    /// How long a key is valid from its making on that is to be valid for this time from `now` on, all in Unix seconds. Nothing where
    /// OpenPGP cannot say it, which has 32 bits for the seconds (RFC 9580, section 5.2.3.13).
    pub fn since(self, created: u64, now: u64) -> Option<Option<Duration>> {
        let Self::For(time) = self else {
            return Some(None);
        };
        let seconds = now.checked_add(time.as_secs())?.checked_sub(created)?;
        u32::try_from(seconds).ok()?;
        Some(Some(Duration::from_secs(seconds)))
    }

    /// A number of days, where 0 stands for ever, as copr-keygen has it.
    ///
    /// # Errors
    /// A text that says what is allowed.
    pub fn days(days: u64) -> Result<Self, String> {
        match days {
            0 => Ok(Self::Never),
            days => Self::for_days(days),
        }
    }

    fn for_days(days: u64) -> Result<Self, String> {
        // OpenPGP keeps the seconds in 32 bits (RFC 9580, section 5.2.3.13).
        days.checked_mul(DAY)
            .filter(|seconds| *seconds > 0 && u32::try_from(*seconds).is_ok())
            .map(|seconds| Self::For(Duration::from_secs(seconds)))
            .ok_or_else(|| "a key is valid for 1 day to 136 years, or for ever".into())
    }
}

impl FromStr for Validity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self::Never);
        }
        let unknown =
            || format!("\"{text}\" is neither \"never\" nor a time such as \"5y\" or \"180d\"");
        let unit = text.chars().last().ok_or_else(unknown)?;
        let days = match unit {
            'd' => 1,
            'w' => 7,
            'y' => 365,
            _ => return Err(unknown()),
        };
        let number: u64 = text
            .strip_suffix(unit)
            .and_then(|number| number.parse().ok())
            .ok_or_else(unknown)?;
        Self::for_days(number.saturating_mul(days))
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("never"),
            Self::For(time) => write!(f, "{}d", time.as_secs() / DAY),
        }
    }
}

impl Serialize for Validity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Validity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_days_weeks_and_years() {
        let days = |days| Ok(Validity::For(Duration::from_secs(days * DAY)));
        assert_eq!("never".parse(), Ok(Validity::Never));
        assert_eq!("180d".parse(), days(180));
        assert_eq!("2w".parse(), days(14));
        assert_eq!("5y".parse(), days(5 * 365));
        for text in ["never", "180d", "1825d"] {
            assert_eq!(text.parse::<Validity>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "5",
            "y",
            "0d",
            "-1d",
            "5m",
            "137y",
            "99999999999999999999d",
        ] {
            assert!(text.parse::<Validity>().is_err(), "{text}");
        }
    }
}
