//! Whom a certificate names: a distinguished name made of a template and a project's identity.

use std::{fmt, str::FromStr};

use openssl::sha::sha256;
use serde::Deserialize;
use x509_cert::{
    der::{Any, Tag, Tagged as _, asn1::Utf8StringRef, oid::db::rfc4519},
    name::Name,
};

use super::Error;
use crate::identity::Identity;

/// Characters that a common name, or any other attribute of ours, has at the most (RFC 5280, appendix A.1, ub-common-name).
const MAX_CHARS: usize = 64;
/// Hexadecimal digits that tell one cut name from another.
const HASH_DIGITS: usize = 32;
/// What stands between a cut name and its digits.
const CUT: char = '~';
/// What a template holds in the identity's place.
const PLACE: &str = "{identity}";

/// Why a text is no template of subjects, or a subject cannot be made of it. Stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// It is not a distinguished name.
    #[error("it is not a distinguished name such as \"CN={PLACE},O=Example\" (RFC 4514)")]
    NotAName,
    /// The identity is not where it has to be.
    #[error("it has to hold {PLACE} once, in its one common name (CN)")]
    NoPlace,
    /// A part is too long.
    #[error("a part of it has more than {MAX_CHARS} characters, or none")]
    Length,
}

/// A subject with a place for the identity, such as `CN={identity}` or `CN=modules of {identity},O=Example`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SubjectTemplate {
    text: String,
    name: Name,
}

impl Default for SubjectTemplate {
    /// The common name is the identity, and nothing else is said.
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "a constant, which the tests parse")]
        format!("CN={PLACE}").parse().expect("it is a template")
    }
}

impl FromStr for SubjectTemplate {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let name: Name = text.parse().map_err(|_| SubjectError::NotAName)?;
        let (mut names, mut places) = (0, 0);
        for attribute in name.0.iter().flat_map(|part| part.0.iter()) {
            let value = value(&attribute.value).ok_or(SubjectError::NotAName)?;
            if attribute.oid == rfc4519::CN {
                names += 1;
                places += value.matches(PLACE).count();
            } else if value.contains(PLACE) {
                return Err(SubjectError::NoPlace);
            }
            let chars = value.replace(PLACE, "").chars().count();
            if value.is_empty() || chars > MAX_CHARS {
                return Err(SubjectError::Length);
            }
        }
        if (names, places) != (1, 1) {
            return Err(SubjectError::NoPlace);
        }
        Ok(Self {
            text: text.to_owned(),
            name,
        })
    }
}

impl TryFrom<String> for SubjectTemplate {
    type Error = SubjectError;

    fn try_from(text: String) -> Result<Self, SubjectError> {
        text.parse()
    }
}

impl fmt::Display for SubjectTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl SubjectTemplate {
    /// The subject of an identity's certificate.
    ///
    /// A common name of more than 64 characters is cut, and ends in a part of its SHA-256, so that no two identities share one.
    ///
    /// # Errors
    /// [`Error::Certificate`], which stays, where the name cannot be encoded.
    pub fn subject(&self, identity: &Identity) -> Result<Subject, Error> {
        let broken = |error: x509_cert::der::Error| Error::Certificate(error.to_string());
        let mut name = self.name.clone();
        for part in &mut name.0 {
            let mut attributes: Vec<_> = part.0.iter().cloned().collect();
            for attribute in &mut attributes {
                let Some(text) = value(&attribute.value).filter(|text| text.contains(PLACE)) else {
                    continue;
                };
                let text = cut(text.replace(PLACE, identity.as_str()));
                attribute.value = Any::new(Tag::Utf8String, text.as_bytes()).map_err(broken)?;
            }
            part.0 = attributes.try_into().map_err(broken)?;
        }
        Ok(Subject(name))
    }
}

/// The distinguished name of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject(Name);

impl Subject {
    pub(super) fn name(&self) -> &Name {
        &self.0
    }
}

fn value(any: &Any) -> Option<String> {
    match any.tag() {
        Tag::Utf8String => any
            .decode_as::<Utf8StringRef<'_>>()
            .ok()
            .map(|text| text.as_str().to_owned()),
        // Other kinds hold no more than ASCII.
        Tag::PrintableString | Tag::Ia5String => String::from_utf8(any.value().to_vec()).ok(),
        _ => None,
    }
}

/// A text of at most 64 characters that no other text is cut to.
fn cut(text: String) -> String {
    let kept = MAX_CHARS - HASH_DIGITS - CUT.len_utf8();
    if text.chars().count() <= MAX_CHARS && !is_cut(&text, kept) {
        return text;
    }
    let mut short: String = text.chars().take(kept).collect();
    short.push(CUT);
    short.extend(
        hex::encode(sha256(text.as_bytes()))
            .chars()
            .take(HASH_DIGITS),
    );
    short
}

/// Whether a text looks as if it had been cut, so that it must not stand as it is.
fn is_cut(text: &str, kept: usize) -> bool {
    let mut rest = text.chars().skip(kept);
    rest.next() == Some(CUT)
        && rest.clone().count() == HASH_DIGITS
        && rest.all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(template: &str, identity: &str) -> String {
        let template: SubjectTemplate = template.parse().unwrap();
        let subject = template.subject(&identity.parse().unwrap()).unwrap();
        subject.name().to_string()
    }

    #[test]
    fn an_identity_stands_where_the_template_has_its_place() {
        assert_eq!(
            subject("CN={identity}", "alice#tools@copr.example.org"),
            "CN=alice#tools@copr.example.org"
        );
        assert_eq!(
            subject("CN=modules of {identity},O=Example\\, Inc.", "a@b"),
            "CN=modules of a@b,O=Example\\, Inc."
        );
    }

    #[test]
    fn an_identity_cannot_add_a_part_of_its_own() {
        assert_eq!(
            subject("CN={identity}", "a,O=Evil+OU=Worse@b"),
            "CN=a\\,O=Evil\\+OU=Worse@b"
        );
    }

    #[test]
    fn long_names_that_differ_only_at_the_end_stay_apart() {
        let identity = |end: &str| format!("{}{end}@copr.example.org", "x".repeat(100));
        let (one, other) = (
            subject("CN={identity}", &identity("1")),
            subject("CN={identity}", &identity("2")),
        );
        assert_ne!(one, other);
        assert_eq!(one.len(), "CN=".len() + MAX_CHARS);
        // Somebody who takes a cut name for an identity gets another one.
        let forged = format!("{}@b~{}", "x".repeat(29), "0123456789abcdef".repeat(2));
        assert_eq!(forged.len(), MAX_CHARS);
        assert_ne!(subject("CN={identity}", &forged), format!("CN={forged}"));
    }

    #[test]
    fn a_name_is_cut_by_characters_and_not_by_bytes() {
        let identity = format!("{}@b", "ä".repeat(62));
        assert_eq!(
            subject("CN={identity}", &identity),
            format!("CN={identity}")
        );
        let longer = subject("CN={identity}", &format!("ä{identity}"));
        assert_eq!(longer.chars().count(), "CN=".len() + MAX_CHARS);
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for (text, error) in [
            ("", SubjectError::NotAName),
            ("{identity}", SubjectError::NotAName),
            ("CN=fixed", SubjectError::NoPlace),
            ("O={identity}", SubjectError::NoPlace),
            ("CN={identity}{identity}", SubjectError::NoPlace),
            ("CN={identity},O={identity}", SubjectError::NoPlace),
            ("CN={identity},CN=fixed", SubjectError::NoPlace),
            ("CN={identity},O=", SubjectError::Length),
            (
                &format!("CN={{identity}},O={}", "x".repeat(65)),
                SubjectError::Length,
            ),
        ] {
            assert_eq!(text.parse::<SubjectTemplate>(), Err(error), "{text}");
        }
    }
}
