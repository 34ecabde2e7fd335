//! `/`, its assets and `/api/baler/…`.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};

use super::board::Board;
use super::schema::Cancelled;
use crate::error::Error;

/// The page and its parts: path, content type, content.
const ASSETS: [(&str, &str, &str); 8] = [
    ("/", "text/html; charset=utf-8", include_str!("assets/index.html")),
    ("/assets/style.css", "text/css; charset=utf-8", include_str!("assets/style.css")),
    ("/assets/app.js", JAVASCRIPT, include_str!("assets/app.js")),
    ("/assets/dom.js", JAVASCRIPT, include_str!("assets/dom.js")),
    ("/assets/draw.js", JAVASCRIPT, include_str!("assets/draw.js")),
    ("/assets/overview.js", JAVASCRIPT, include_str!("assets/overview.js")),
    ("/assets/job.js", JAVASCRIPT, include_str!("assets/job.js")),
    ("/assets/icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
];

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Nothing from elsewhere, nothing inline, in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A page of another origin cannot send this header without being asked by the browser first, which nobody answers.
const ACTION_HEADER: &str = "x-baler-action";

/// The routes of a board.
pub fn routes(board: Arc<Board>) -> Router {
    let mut routes = Router::new()
        .route("/api/baler/overview", get(overview))
        .route("/api/baler/jobs", get(jobs))
        .route("/api/baler/jobs/{name}", get(job))
        .route("/api/baler/jobs/{name}/cancel", post(cancel));
    for (path, kind, content) in ASSETS {
        routes = routes.route(path, get(async move || ([(CONTENT_TYPE, kind)], content)));
    }
    routes.layer(from_fn(harden)).with_state(board)
}

async fn harden(request: Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
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

async fn jobs(State(board): State<Arc<Board>>) -> Response {
    Json(board.jobs(&mut Vec::new()).await).into_response()
}

async fn job(State(board): State<Arc<Board>>, Path(name): Path<String>) -> Response {
    match board.detail(&name).await {
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
