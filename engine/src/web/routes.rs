//! `/`, its assets and `/api/baler/…`.

use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST,
    ORIGIN, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;

use super::board::Board;
use super::schema::Cancelled;
use crate::error::Error;

/// The page and its parts: path, content type, content.
const ASSETS: [(&str, &str, &str); 9] = [
    ("/", "text/html; charset=utf-8", include_str!("assets/index.html")),
    ("/assets/style.css", "text/css; charset=utf-8", include_str!("assets/style.css")),
    ("/assets/app.js", JAVASCRIPT, include_str!("assets/app.js")),
    ("/assets/dom.js", JAVASCRIPT, include_str!("assets/dom.js")),
    ("/assets/draw.js", JAVASCRIPT, include_str!("assets/draw.js")),
    ("/assets/overview.js", JAVASCRIPT, include_str!("assets/overview.js")),
    ("/assets/job.js", JAVASCRIPT, include_str!("assets/job.js")),
    ("/assets/plan.js", JAVASCRIPT, include_str!("assets/plan.js")),
    ("/assets/icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
];

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Nothing from elsewhere, nothing inline, in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The host which the browser asked for, where a proxy stands in between. A page cannot set it without being asked by the browser first.
const FORWARDED_HOST: &str = "x-forwarded-host";

/// A page of another origin cannot send this header without its browser asking first, and no answer of ours allows it.
const ACTION_HEADER: &str = "x-baler-action";

/// Pages of other origins which may read: `null` for a file, `*` for all.
type Readers = Arc<[String]>;

/// The routes of a board. Pages of the `origins` may read, with a token where one is needed, and change nothing.
pub fn routes(board: Arc<Board>, origins: &[String]) -> Router {
    let readers: Readers = origins.into();
    let mut routes = Router::new()
        .route("/api/baler/overview", get(overview))
        .route("/api/baler/settings", get(settings))
        .route("/api/baler/jobs", get(jobs))
        .route("/api/baler/jobs/{name}", get(job))
        .route("/api/baler/jobs/{name}/cancel", post(cancel));
    for (path, kind, content) in ASSETS {
        routes = routes.route(path, get(async move || ([(CONTENT_TYPE, kind)], content)));
    }
    routes.layer(from_fn_with_state(readers, harden)).with_state(board)
}

/// Whether a page of another origin asks for a change. Browsers name the origin of such a request; others than browsers name none.
pub fn is_cross_site(request: &Request) -> bool {
    let headers = request.headers();
    let Some(origin) = headers.get(ORIGIN).filter(|_| !request.method().is_safe()) else { return false };
    let host = headers.get(FORWARDED_HOST).or_else(|| headers.get(HOST)).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    origin.is_none() || origin != host
}

async fn harden(State(readers): State<Readers>, request: Request, next: Next) -> Response {
    if is_cross_site(&request) {
        return (StatusCode::FORBIDDEN, "a page of another origin may change nothing here").into_response();
    }
    // A browser asks by OPTIONS whether a page may send a token along.
    let asks = *request.method() == Method::OPTIONS;
    let reads = asks || matches!(*request.method(), Method::GET | Method::HEAD);
    let origin = request.headers().get(ORIGIN).cloned().filter(|_| reads);
    let may_read = |origin: &HeaderValue| readers.iter().any(|reader| reader == "*" || origin == reader.as_str());
    let is_allowed = origin.as_ref().is_some_and(may_read);
    let mut answer = if asks && is_allowed { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    if let Some(origin) = origin {
        answer.headers_mut().append(VARY, HeaderValue::from_name(ORIGIN));
        if is_allowed {
            answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_name(AUTHORIZATION));
        }
    }
    let headers = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        // A new version of the page must not meet an old script.
        (CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in headers {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

async fn overview(State(board): State<Arc<Board>>) -> Response {
    board.overview().await.map(Json).map_err(Failed).into_response()
}

async fn settings(State(board): State<Arc<Board>>) -> Response {
    Json(board.workers().settings()).into_response()
}

async fn jobs(State(board): State<Arc<Board>>) -> Response {
    Json(board.jobs(&mut Vec::new()).await).into_response()
}

/// What of a job is shown.
#[derive(Debug, Deserialize)]
struct Shown {
    /// Id of the part whose plan is shown; without it that of all waves together.
    part: Option<String>,
}

async fn job(State(board): State<Arc<Board>>, Path(name): Path<String>, Query(shown): Query<Shown>) -> Response {
    match board.detail(&name, shown.part.as_deref()).await {
        Ok(Some(detail)) => Json(detail).into_response(),
        Ok(None) => (StatusCode::NOT_FOUND, "there is no such job").into_response(),
        Err(error) => Failed(error).into_response(),
    }
}

async fn cancel(State(board): State<Arc<Board>>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    if headers.get(ACTION_HEADER).is_none_or(|action| action != "cancel") {
        return (StatusCode::FORBIDDEN, format!("send the header {ACTION_HEADER}: cancel")).into_response();
    }
    tracing::info!(job = name, "cancelled from the dashboard");
    board.workers().cancel(&name).await.map(|parts| Json(Cancelled { parts })).map_err(Failed).into_response()
}

/// An error as an answer.
struct Failed(Error);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.0.to_string()).into_response()
    }
}
