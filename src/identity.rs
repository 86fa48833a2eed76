//! The e-mail that names a project's key.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Bytes that an identity may have at the most, as an e-mail address (RFC 5321, section 4.5.3.1).
pub(crate) const MAX_LEN: usize = 254;

/// The unique name of a key, compared byte for byte: an e-mail address such as `owner#project@copr.example.org`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Identity(String);

/// Why a text is not an identity. Stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Empty or too long.
    #[error("an identity has 3 to {MAX_LEN} bytes")]
    Length,
    /// Not of the form `LOCAL@DOMAIN`.
    #[error("an identity is an e-mail address, LOCAL@DOMAIN")]
    NotAnAddress,
    /// A character that would break user ids, paths or logs.
    #[error(
        "an identity holds no spaces, control characters, slashes, angle brackets, quotes or backslashes"
    )]
    Character,
}

impl Identity {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Identity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.len() < 3 || text.len() > MAX_LEN {
            return Err(Error::Length);
        }
        let forbidden = |c: char| {
            c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | '/' | '\\' | '"')
        };
        if text.chars().any(forbidden) {
            return Err(Error::Character);
        }
        // Group projects of COPR have an @ of their own in front.
        match text.rsplit_once('@') {
            Some((local, domain)) if !local.is_empty() && !domain.is_empty() => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(Error::NotAnAddress),
        }
    }
}

impl TryFrom<String> for Identity {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Identity> for String {
    fn from(identity: Identity) -> Self {
        identity.0
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_copr_are_identities() {
        for text in [
            "owner#project@copr.example.org",
            "@group#project@copr.example.org",
            "a@b",
        ] {
            assert_eq!(text.parse::<Identity>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("{}@example.org", "a".repeat(MAX_LEN));
        for (text, error) in [
            ("", Error::Length),
            (long.as_str(), Error::Length),
            ("nobody", Error::NotAnAddress),
            ("@example.org", Error::NotAnAddress),
            ("nobody@", Error::NotAnAddress),
            ("a b@example.org", Error::Character),
            ("a\n@example.org", Error::Character),
            ("a>b@example.org", Error::Character),
            ("../a@example.org", Error::Character),
        ] {
            assert_eq!(text.parse::<Identity>(), Err(error), "{text:?}");
        }
    }
}
