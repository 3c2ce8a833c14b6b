//! What a request gets that is not done: the failure, as a page or as JSON, and a status.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::{Code, Failure};

/// A request that is not done.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    pub(crate) failure: Failure,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: Code, message: &str, remedy: &str) -> Self {
        Self { status, failure: Failure::new(code, message, remedy) }
    }

    /// What an address gets that leads nowhere.
    pub(crate) fn nowhere() -> Self {
        Self::new(StatusCode::NOT_FOUND, Code::NotFound, "there is nothing at this address", "")
    }

    pub(crate) fn into_json(self) -> Response {
        let Failure { code, message, remedy } = self.failure;
        let body = json!({
            "schema": "fieldkeep/error/1", "code": code, "message": message, "remedy": remedy,
        });
        (self.status, Json(body)).into_response()
    }

    pub(crate) fn into_page(self) -> Response {
        let page = crate::pages::Refused { failure: &self.failure, status: self.status };
        (self.status, crate::pages::html(&page)).into_response()
    }
}

impl<E: Into<Failure>> From<E> for Refusal {
    fn from(error: E) -> Self {
        let failure = error.into();
        let status = match failure.code {
            Code::Usage => StatusCode::BAD_REQUEST,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Held => StatusCode::UNPROCESSABLE_ENTITY,
            Code::Offline => StatusCode::SERVICE_UNAVAILABLE,
            Code::Denied => StatusCode::FORBIDDEN,
            Code::Locked => StatusCode::CONFLICT,
            Code::Failure | Code::Integrity | Code::Interrupted => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self { status, failure }
    }
}
