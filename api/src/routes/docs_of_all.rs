//! What the document says of every route alike.

use utoipa::Modify;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr};

/// How a key is sent.
pub(super) struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let api_key = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("x-api-key")));
        components.add_security_scheme("api_key", api_key);
    }
}

/// What any request may be answered before its route is known.
pub(super) struct OfConnections;

impl Modify for OfConnections {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        const STOPPING: &str = "shutting_down: retry on another connection";
        let paths = document.paths.paths.values_mut();
        let operations = paths.flat_map(|it| [&mut it.get, &mut it.post, &mut it.patch]);
        for operation in operations.flatten() {
            let responses = &mut operation.responses.responses;
            responses.insert("431".to_owned(), error("headers_too_large").into());
            match responses.get_mut("503") {
                Some(RefOr::T(response)) => {
                    response.description = format!("{}; {STOPPING}", response.description);
                }
                _ => {
                    responses.insert("503".to_owned(), error(STOPPING).into());
                }
            }
        }
    }
}

fn error(description: &str) -> Response {
    let answer = Content::new(Some(Ref::from_schema_name("ErrorAnswer")));
    ResponseBuilder::new().description(description).content("application/json", answer).build()
}
