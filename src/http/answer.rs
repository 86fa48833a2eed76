//! Answers, and the errors among them.

use std::convert::Infallible;

use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{
    Response, StatusCode,
    body::Bytes,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
};
use serde::{Deserialize, Serialize};

use crate::{arrival::reason, identity, keystore};

/// The description of the API.
pub const OPENAPI: &str = include_str!("openapi.json");

/// A body of any kind.
pub(super) type Body = BoxBody<Bytes, Infallible>;
/// An answer.
pub(super) type Answer = Response<Body>;

/// An error as the API answers it on `/v1`.
///
/// Source: RFC 9457.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong, in general.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong in this case, and what to do.
    pub detail: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
        }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// A fault of the daemon's own: 503 where the request may succeed later, 500 where not.
    pub(super) fn internal(error: &(dyn std::error::Error + 'static), may_pass: bool) -> Self {
        let detail = reason(error);
        tracing::error!(error = detail, "a request failed");
        if may_pass {
            Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        } else {
            Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
        }
    }

    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(super) fn into_answer(self) -> Answer {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        bytes(self.status_code(), "application/problem+json", body)
    }

    /// 400 in the place of 500: copr-keygen's clients repeat a request for ever after any 5xx, which here only a fault that may
    /// pass deserves.
    pub(super) fn permanent_as_bad_request(mut self) -> Self {
        if self.status_code() == StatusCode::INTERNAL_SERVER_ERROR {
            self.status = StatusCode::BAD_REQUEST.as_u16();
        }
        self
    }

    /// As text, for the paths of copr-keygen.
    pub(super) fn into_text(self) -> Answer {
        text(self.status_code(), self.detail + "\n")
    }
}

impl From<keystore::Error> for Problem {
    fn from(error: keystore::Error) -> Self {
        match error {
            keystore::Error::Deleted => Self::not_found(error.to_string()),
            keystore::Error::NotForModules(_)
            | keystore::Error::Earlier(_)
            | keystore::Error::TooLate(_) => Self::new(StatusCode::CONFLICT, error.to_string()),
            error => Self::internal(&error, error.may_pass()),
        }
    }
}

impl From<identity::Error> for Problem {
    fn from(error: identity::Error) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<tokio::task::JoinError> for Problem {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::internal(&error, false)
    }
}

pub(super) fn bytes(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Answer {
    let mut answer = Response::new(Full::new(body.into()).boxed());
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Answer {
    bytes(status, "text/plain;charset=UTF-8", body.into())
}

pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            bytes(status, "application/json", body)
        }
        Err(error) => Problem::internal(&error, false).into_answer(),
    }
}

pub(super) fn not_allowed(allowed: &'static str, tell: fn(Problem) -> Answer) -> Answer {
    let mut answer = tell(Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("this path takes {allowed}"),
    ));
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}
