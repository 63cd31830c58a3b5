//! The routes of the HTTP API: each path and method, its label in metrics, and the action that its key must allow.

use axum::http::Method;

use super::error::{ApiError, ErrorCode};
use crate::config::api_keys::ApiAction;
use crate::metrics::api::ApiRoute;

/// One path with one method.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) label: ApiRoute,
    /// What the key must allow; `None` for the description of the API.
    pub(super) action: Option<ApiAction>,
}

const fn route(method: Method, path: &'static str, label: ApiRoute, action: ApiAction) -> Route {
    Route {
        method,
        path,
        label,
        action: Some(action),
    }
}

/// All routes. `openapi.json` describes the same ones.
pub(super) const ROUTES: &[Route] = &[
    route(
        Method::POST,
        "/api/v1/publish",
        ApiRoute::Publish,
        ApiAction::Publish,
    ),
    route(
        Method::POST,
        "/api/v1/publications",
        ApiRoute::Publications,
        ApiAction::Publish,
    ),
    route(
        Method::POST,
        "/api/v1/broadcast",
        ApiRoute::Broadcast,
        ApiAction::Publish,
    ),
    route(
        Method::GET,
        "/api/v1/history",
        ApiRoute::History,
        ApiAction::History,
    ),
    route(
        Method::DELETE,
        "/api/v1/history",
        ApiRoute::RemoveHistory,
        ApiAction::RemoveHistory,
    ),
    route(
        Method::GET,
        "/api/v1/presence",
        ApiRoute::Presence,
        ApiAction::Presence,
    ),
    route(
        Method::GET,
        "/api/v1/presence/counts",
        ApiRoute::PresenceCounts,
        ApiAction::Presence,
    ),
    route(
        Method::GET,
        "/api/v1/channels",
        ApiRoute::Channels,
        ApiAction::Channels,
    ),
    route(
        Method::GET,
        "/api/v1/connections",
        ApiRoute::Connections,
        ApiAction::Connections,
    ),
    route(
        Method::GET,
        "/api/v1/services",
        ApiRoute::Services,
        ApiAction::Services,
    ),
    route(
        Method::POST,
        "/api/v1/disconnect",
        ApiRoute::Disconnect,
        ApiAction::Disconnect,
    ),
    route(
        Method::POST,
        "/api/v1/subscribe",
        ApiRoute::Subscribe,
        ApiAction::Subscribe,
    ),
    route(
        Method::POST,
        "/api/v1/unsubscribe",
        ApiRoute::Unsubscribe,
        ApiAction::Unsubscribe,
    ),
    route(Method::POST, "/api/v1/call", ApiRoute::Call, ApiAction::Call),
    route(
        Method::POST,
        "/api/v1/transmit",
        ApiRoute::Transmit,
        ApiAction::Transmit,
    ),
    route(
        Method::POST,
        "/api/v1/set-claims",
        ApiRoute::SetClaims,
        ApiAction::SetClaims,
    ),
    route(
        Method::POST,
        "/api/v1/refresh-token",
        ApiRoute::RefreshToken,
        ApiAction::RefreshToken,
    ),
    route(
        Method::POST,
        "/api/v1/remove-token",
        ApiRoute::RemoveToken,
        ApiAction::RemoveToken,
    ),
    Route {
        method: Method::GET,
        path: OPENAPI_PATH,
        label: ApiRoute::Openapi,
        action: None,
    },
];

/// The description of the API.
pub(super) const OPENAPI_PATH: &str = "/api/v1/openapi.json";

/// The route of a request. `HEAD` is answered as `GET` is.
///
/// # Errors
/// There is no such path, or it does not support the method.
pub(super) fn find(method: &Method, path: &str) -> Result<&'static Route, ApiError> {
    let method = if *method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let mut of_path = ROUTES.iter().filter(|route| route.path == path).peekable();
    if of_path.peek().is_none() {
        return Err(ApiError::new(
            ErrorCode::UnknownPath,
            format!("there is no such path; GET {OPENAPI_PATH} describes all"),
        ));
    }
    let found = of_path.clone().find(|route| route.method == *method);
    found.ok_or_else(|| {
        let methods: Vec<&str> = of_path.map(|route| route.method.as_str()).collect();
        let methods = methods.join(", ");
        ApiError::new(
            ErrorCode::MethodNotAllowed,
            format!("this path supports {methods}"),
        )
        .allow(methods)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::error::ErrorCode;
    use super::*;

    fn document() -> Value {
        serde_json::from_str(super::super::OPENAPI).unwrap()
    }

    #[test]
    fn the_document_has_each_route_and_no_other() {
        let document = document();
        let mut described = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                described.insert(format!("{} {path}", method.to_uppercase()));
                let route = find(&method.to_uppercase().parse().unwrap(), path).unwrap();
                if let Some(action) = route.action {
                    let description = operation["description"].as_str().unwrap();
                    let named = format!("Action `{}`", action.label());
                    assert!(description.starts_with(&named), "{path}: {description}");
                }
            }
        }
        let routes = ROUTES
            .iter()
            .map(|route| format!("{} {}", route.method, route.path));
        assert_eq!(described, routes.collect());
        let labels: BTreeSet<&str> = ROUTES.iter().map(|route| route.label.label()).collect();
        assert_eq!(
            labels.len() + 1,
            ApiRoute::COUNT,
            "each label has a route, except for unknown"
        );
    }

    /// An error of a path that is not there cannot stand at a path.
    #[test]
    fn the_document_has_each_error_with_its_status() {
        let document = document();
        let elsewhere = [ErrorCode::UnknownPath, ErrorCode::MethodNotAllowed];
        for code in ErrorCode::ALL.iter().filter(|code| !elsewhere.contains(code)) {
            let status = code.status().as_u16().to_string();
            let operations = document["paths"].as_object().unwrap().values();
            let mut answers = operations
                .flat_map(|operations| operations.as_object().unwrap().values())
                .filter_map(|operation| operation["responses"][&status]["$ref"].as_str());
            let is_described = answers.any(|answer| {
                let answer = document.pointer(answer.trim_start_matches('#')).unwrap();
                answer.to_string().contains(&format!("\"{}\"", code.word()))
            });
            assert!(is_described, "{} with {status}", code.word());
        }
    }

    #[test]
    fn a_wrong_method_names_the_right_ones_and_head_is_get() {
        assert_eq!(
            find(&Method::HEAD, OPENAPI_PATH).unwrap().label,
            ApiRoute::Openapi
        );
        let error = find(&Method::GET, "/api/v1/publish").unwrap_err();
        assert_eq!(error.code(), ErrorCode::MethodNotAllowed);
        assert_eq!(error.body()["error"]["message"], "this path supports POST");
        for path in [
            "/api/v1/publish/",
            "/api/v1",
            "/api",
            "/api/v2/publish",
            "/api/v1//publish",
        ] {
            assert_eq!(
                find(&Method::POST, path).unwrap_err().code(),
                ErrorCode::UnknownPath,
                "{path}"
            );
        }
    }
}
