//! `POST /gen_key`, as copr-keygen has it.
//!
//! Source: copr-keygen's HTTP service. Its client repeats a request after 408 and 5xx, and never after another 4xx.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    answer::{Answer, Problem, text},
    keys::{check_name, form, made, parse},
};
use crate::{
    config::Validity, daemon::Daemon, identity::Identity, key::Algorithm, keystore::NewKey,
};

/// Makes a key unless there is one: 201 or 200, with an empty body.
pub(super) fn answer(daemon: &Daemon, content_type: &str, body: &[u8]) -> Result<Answer, Problem> {
    let fields = if content_type.starts_with("application/x-www-form-urlencoded") {
        form(body)?
    } else {
        json_fields(body)?
    };
    let field = |name| {
        fields
            .get(name)
            .map(|text: &String| text.trim())
            .filter(|text| !text.is_empty())
    };
    let required =
        |name| field(name).ok_or_else(|| Problem::bad_request(format!("{name} is missing")));
    let identity: Identity = required("name_email")?.parse()?;
    let name = match field("name_comment") {
        Some(comment) => format!("{} ({comment})", required("name_real")?),
        None => required("name_real")?.to_owned(),
    };
    check_name(&name).map_err(Problem::bad_request)?;
    let defaults = &daemon.config().keys;
    let algorithm = match field("key_length") {
        Some("2048") => Algorithm::Rsa2048,
        Some("3072") => Algorithm::Rsa3072,
        Some("4096") => Algorithm::Rsa4096,
        Some(_) => {
            return Err(Problem::bad_request("key_length is 2048, 3072 or 4096"));
        }
        None => defaults.algorithm,
    };
    let expires = match field("expire") {
        Some(days) => days
            .parse()
            .map_err(|_| "expire is a number of days".to_owned())
            .and_then(Validity::days)
            .map_err(Problem::bad_request)?,
        None => defaults.expires,
    };
    let (status, _) = made(
        daemon,
        &NewKey {
            identity,
            name,
            algorithm,
            expires: expires.lifetime(),
        },
    )?;
    Ok(text(status, ""))
}

/// The fields of a JSON object; numbers count as their digits, null as nothing.
fn json_fields(body: &[u8]) -> Result<HashMap<String, String>, Problem> {
    let object: HashMap<String, Value> = parse(body)?;
    object
        .into_iter()
        .filter_map(|(name, value)| match value {
            Value::Null => None,
            Value::String(text) => Some(Ok((name, text))),
            Value::Number(number) => Some(Ok((name, number.to_string()))),
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => Some(Err(Problem::bad_request(
                format!("{name} is a text or a number"),
            ))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;

    #[test]
    fn numbers_and_nulls_are_taken_as_callers_send_them() {
        let fields = json_fields(br#"{"name_real": "a", "expire": 30, "name_comment": null}"#);
        let fields = fields.unwrap();
        assert_eq!(fields.get("expire").unwrap(), "30");
        assert!(!fields.contains_key("name_comment"));
        assert_eq!(
            json_fields(b"[]").unwrap_err().status,
            StatusCode::BAD_REQUEST
        );
        assert!(json_fields(br#"{"name_real": {}}"#).is_err());
    }
}
