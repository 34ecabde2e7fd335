//! The one layer before every route of a server: gRPC, Flight SQL, REST, pages and metrics alike.

use std::sync::Arc;

use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{RequestExt, Router};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::Trust;
use super::access::{Access, Caller, Role, Shown};
use super::limit::{Asks, Limiter};
use super::listen::Peer;
use crate::error::{Error, ErrorKind};

/// Bytes of a request which is none of gRPC: no route of ours reads more than a few words. A message of gRPC has the limit of its service.
pub(crate) const BODY_BYTES_MAX: u64 = 64 << 10;

const SCHEDULER: &str = "/ballista.protobuf.SchedulerGrpc/";
const FLIGHT: &str = "/arrow.flight.protocol.FlightService/";
/// Drivers send base64 with padding and without.
const ANY_PADDING: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));
/// Where a scheduler says its version and its executors.
const VERSION: &str = "/api/baler";
const HANDSHAKE: &str = "/arrow.flight.protocol.FlightService/Handshake";

/// Puts the guard before all routes. Behind it a request carries its [`Caller`], unless nobody is asked.
pub fn guarded(routes: Router, trust: &Trust) -> Router {
    let guard = Guard { access: Arc::clone(&trust.access), limiter: Limiter::new(trust.requests_per_second) };
    routes.layer(from_fn_with_state(Arc::new(guard), check))
}

#[derive(Debug)]
struct Guard {
    access: Arc<Access>,
    limiter: Limiter,
}

/// The role which a request takes; `None` for whether a server is well, which probes ask without a name.
fn needed(method: &Method, path: &str, is_grpc: bool) -> Option<Role> {
    if let Some(call) = path.strip_prefix(SCHEDULER) {
        return Some(match call {
            "GetJobStatus" | "GetJobMetrics" => Role::Read,
            "CreateUpdateSession" | "RemoveSession" | "ExecuteQuery" | "ExecuteQueryPush" | "CancelJob" | "CleanJobData" => Role::Submit,
            // What executors call, and what nobody has thought of.
            _ => Role::Member,
        });
    }
    if path.starts_with(FLIGHT) {
        // What a statement needs besides is known when it is planned.
        return Some(Role::Read);
    }
    if is_grpc {
        return Some(Role::Member);
    }
    match path {
        "/healthz" | "/readyz" => None,
        // A browser asks in this way, and without a name, whether a page of another origin may ask with one. The answer holds nothing.
        path if *method == Method::OPTIONS && path.starts_with("/api/baler/") => None,
        "/api/baler/settings" => Some(Role::Admin),
        path if path.starts_with("/api/job/") && path.ends_with("/config") => Some(Role::Admin),
        _ if matches!(*method, Method::GET | Method::HEAD) => Some(Role::Read),
        _ => Some(Role::Submit),
    }
}

/// Whether a request is one of gRPC, which wants its answer so.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// What a request which needs at least [`Role::Submit`] does, for the audit; Flight SQL tells it by itself.
fn action(path: &str) -> &'static str {
    match path.strip_prefix(SCHEDULER) {
        Some("ExecuteQuery" | "ExecuteQueryPush") => "submit",
        Some("CancelJob") => "cancel",
        Some(_) => "",
        None if path.starts_with("/api/") => "cancel",
        None => "",
    }
}

async fn check(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let access = &guard.access;
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|peer| peer.0.clone());
    if let Some(peer) = &peer {
        // Ballista's scheduler looks for it under this type.
        request.extensions_mut().insert(ConnectInfo(peer.address));
    }
    let from = peer.as_ref().map(|peer| peer.address.ip());
    let path = request.uri().path().to_string();
    let is_grpc = is_grpc(request.headers());
    if !is_grpc {
        let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > BODY_BYTES_MAX) {
            return refuse(&path, false, StatusCode::PAYLOAD_TOO_LARGE, &format!("a request here has at most {BODY_BYTES_MAX} bytes"));
        }
        // One that does not say its length ends there for whoever reads it.
        DefaultBodyLimit::max(BODY_BYTES_MAX as usize).apply(&mut request);
        request = request.with_limited_body();
    }
    let Some(needed) = needed(request.method(), &path, is_grpc) else { return next.run(request).await };
    let token = token_of(request.headers());
    let shown = Shown { certificate: peer.as_ref().and_then(|peer| peer.certificate.as_ref()), token: token.as_deref() };
    let caller = match access.caller(shown).await {
        Ok(caller) => caller,
        Err(why) => {
            // Guesses count, and beyond the limit they fill no log.
            if let Err(why) = guard.limiter.take(Asks::Address(from)) {
                return refuse(&path, is_grpc, StatusCode::TOO_MANY_REQUESTS, &why);
            }
            tracing::info!(target: "baler::audit", peer = address(peer.as_ref()), path, why, "refused");
            return refuse(&path, is_grpc, StatusCode::UNAUTHORIZED, why);
        }
    };
    if let Some(caller) = &caller
        && caller.role < needed
    {
        let why = format!("`{caller}` has the role {}, and this takes the role {needed}", caller.role);
        tracing::info!(target: "baler::audit", peer = address(peer.as_ref()), path, why, "refused");
        return refuse(&path, is_grpc, StatusCode::FORBIDDEN, &why);
    }
    // Executors work with the scheduler all the time, there may be many behind one address and with one name, and each asks for its version when it begins.
    let is_of_members = needed == Role::Member || (path == VERSION && caller.as_ref().is_some_and(|caller| caller.role == Role::Member));
    let _turn = match &caller {
        _ if is_of_members => None,
        caller => {
            let name = caller.as_ref().map(Caller::to_string);
            match guard.limiter.take(name.as_deref().map_or(Asks::Address(from), Asks::Name)) {
                Ok(turn) => Some(turn),
                Err(why) => return refuse(&path, is_grpc, StatusCode::TOO_MANY_REQUESTS, &why),
            }
        }
    };
    let action = action(&path);
    if needed >= Role::Submit && !action.is_empty() {
        audit(caller.as_ref(), action, &path);
    }
    let is_handshake = path == HANDSHAKE;
    let Some(caller) = caller else { return next.run(request).await };
    request.extensions_mut().insert(caller.clone());
    let answer = next.run(request).await;
    if is_handshake && let Some(session) = bearer(answer.headers()) {
        access.remember(session, &caller);
    }
    answer
}

/// One line of what somebody has changed, or begun: `submit`, `cancel`, `query`, `write`, `ddl`. `object` holds no secret.
pub fn audit(caller: Option<&Caller>, action: &str, object: &str) {
    let (name, role) =
        caller.map_or_else(|| ("everybody".to_string(), String::new()), |caller| (caller.to_string(), caller.role.to_string()));
    tracing::info!(target: "baler::audit", caller = name, role, action, object, "audit");
}

fn address(peer: Option<&Peer>) -> String {
    peer.map(|peer| peer.address.to_string()).unwrap_or_default()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The token of a request: a bearer's, or the password of a login, which is how drivers of Flight SQL send it.
fn token_of(headers: &HeaderMap) -> Option<String> {
    if let Some(token) = bearer(headers) {
        return Some(token.to_string());
    }
    let (scheme, login) = headers.get(AUTHORIZATION).map(HeaderValue::to_str)?.ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let login = String::from_utf8(ANY_PADDING.decode(login.trim()).ok()?).ok()?;
    login.split_once(':').map(|(_, password)| password.to_string())
}

fn refuse(path: &str, is_grpc: bool, status: StatusCode, why: &str) -> Response {
    if !is_grpc {
        let mut answer = (status, format!("{why}\n")).into_response();
        if status == StatusCode::TOO_MANY_REQUESTS {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        return answer;
    }
    let why = if path.starts_with(SCHEDULER) {
        // Read by a client of ours, who shows one line of it.
        let kind = if status == StatusCode::TOO_MANY_REQUESTS { ErrorKind::Transient } else { ErrorKind::Unreachable };
        format!("{:?}", Error::new(kind, format!("the scheduler refuses: {why}")))
    } else {
        why.to_string()
    };
    match status {
        StatusCode::UNAUTHORIZED => tonic::Status::unauthenticated(why).into_http(),
        StatusCode::TOO_MANY_REQUESTS => tonic::Status::resource_exhausted(why).into_http(),
        _ => tonic::Status::permission_denied(why).into_http(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_takes_the_least_role_and_what_nobody_knows_the_highest() {
        let (get, post) = (Method::GET, Method::POST);
        let rest = |method: &Method, path: &str| needed(method, path, false);
        assert_eq!([rest(&get, "/healthz"), rest(&get, "/readyz")], [None, None]);
        for path in ["/", "/metrics", "/api/baler", "/api/jobs", "/api/baler/jobs/x", "/assets/app.js"] {
            assert_eq!(rest(&get, path), Some(Role::Read), "{path}");
        }
        assert_eq!(rest(&Method::OPTIONS, "/api/baler/settings"), None);
        for path in ["/", "/metrics", "/api/jobs", "/api/job/x"] {
            assert_eq!(rest(&Method::OPTIONS, path), Some(Role::Submit), "{path}");
        }
        assert_eq!(rest(&Method::PATCH, "/api/job/x"), Some(Role::Submit));
        assert_eq!(rest(&post, "/api/baler/jobs/x/cancel"), Some(Role::Submit));
        for path in ["/api/baler/settings", "/api/job/x/config"] {
            assert_eq!(rest(&get, path), Some(Role::Admin), "{path}");
        }
        let grpc = |path: &str| needed(&post, path, true);
        assert_eq!(grpc("/ballista.protobuf.SchedulerGrpc/ExecuteQueryPush"), Some(Role::Submit));
        assert_eq!(grpc("/ballista.protobuf.SchedulerGrpc/GetJobStatus"), Some(Role::Read));
        for path in ["/ballista.protobuf.SchedulerGrpc/RegisterExecutor", "/ballista.protobuf.SchedulerGrpc/New", "/other/Call"] {
            assert_eq!(grpc(path), Some(Role::Member), "{path}");
        }
        assert_eq!(grpc("/arrow.flight.protocol.FlightService/DoGet"), Some(Role::Read));
    }

    #[test]
    fn a_token_is_a_bearers_or_the_password_of_a_login() {
        let token = |value: &str| token_of(&HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).unwrap())]));
        for value in ["Bearer hush", "bearer hush", "Basic dTpodXNo"] {
            assert_eq!(token(value).as_deref(), Some("hush"), "{value}");
        }
        // `u:hush!` needs padding.
        assert_eq!([token("Basic dTpodXNoIQ"), token("Basic dTpodXNoIQ==")], [Some("hush!".to_string()), Some("hush!".to_string())]);
        for value in ["hush", "Digest hush", "Basic *", "Basic aHVzaA"] {
            assert_eq!(token(value), None, "{value}");
        }
    }
}
