//! Users of the machine, as a configuration names them.

use nix::unistd::User;
use serde::{Deserialize, Deserializer, de::Error as _};

/// A user by number, found from a name or a number when the configuration is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserId(u32);

impl UserId {
    /// The number.
    pub fn as_raw(self) -> u32 {
        self.0
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u32),
            Name(String),
        }
        match Written::deserialize(deserializer)
            .map_err(|_| D::Error::custom("a user is a name or a number"))?
        {
            Written::Number(number) => Ok(Self(number)),
            Written::Name(name) => match User::from_name(&name) {
                Ok(Some(user)) => Ok(Self(user.uid.as_raw())),
                Ok(None) => Err(D::Error::custom(format!("there is no user {name:?}"))),
                Err(errno) => Err(D::Error::custom(format!(
                    "cannot look up the user {name:?}: {errno}"
                ))),
            },
        }
    }
}
