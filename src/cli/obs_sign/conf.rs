//! `/etc/sign.conf`, as far as it is about this end.

use std::{io, path::Path};

use super::arguments::digest;
use crate::digest::Digest;

/// What is used where the command line says nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Conf {
    pub(super) user: Option<String>,
    pub(super) digest: Option<Digest>,
    pub(super) version_3: Version3,
}

/// Whether signatures of version 3 may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Version3 {
    #[default]
    Refused,
    Allowed,
}

impl Conf {
    /// Reads a file; one that is not there says nothing.
    ///
    /// # Errors
    /// A text that names the file.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let named = |reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map_err(|reason| named(&reason)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(named(&error)),
        }
    }

    /// Lines of `KEY: VALUE`; the keys that are about signd, and those that nobody knows, are passed over.
    fn parse(text: &str) -> Result<Self, String> {
        let mut conf = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            match key {
                "user" => conf.user = Some(value.to_owned()).filter(|user| !user.is_empty()),
                "hash" => conf.digest = Some(digest(value)?),
                "allow-v3" => {
                    conf.version_3 = match value {
                        "yes" => Version3::Allowed,
                        "no" => Version3::Refused,
                        _ => return Err(format!("allow-v3 is yes or no, not {value:?}")),
                    }
                }
                _ => {}
            }
        }
        Ok(conf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_hash_are_read_and_what_is_about_signd_is_passed_over() {
        let conf = Conf::parse(
            "# comment\nserver: 127.0.0.1\nport: 5167\nallow: 127.0.0.1\n#user: x\nuser:\ta#b@c  \nhash: SHA512\nnonsense\n",
        );
        let wanted = Conf {
            user: Some("a#b@c".into()),
            digest: Some(Digest::Sha512),
            version_3: Version3::Refused,
        };
        assert_eq!(conf, Ok(wanted));
        let version_3 = |text| Conf::parse(text).map(|conf| conf.version_3);
        assert_eq!(version_3("allow-v3: yes\n"), Ok(Version3::Allowed));
        assert_eq!(version_3("allow-v3: no\n"), Ok(Version3::Refused));
        assert!(version_3("allow-v3: maybe\n").is_err());
        assert_eq!(Conf::parse(""), Ok(Conf::default()));
        assert_eq!(Conf::parse("user: \n"), Ok(Conf::default()));
        assert!(Conf::parse("hash: md5").is_err());
    }
}
