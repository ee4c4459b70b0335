//! What whoever runs the edge asks: is it up, numbers, certificates, single requests.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, Query, State as Extract},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use edge_control::Control;
use edge_proxy::Running;
use edge_telemetry::Telemetry;
use edge_tls::Certs;
use pool_model::RequestId;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Most records of one answer.
const RECENT_MAX: usize = 1000;

/// What the admin listener's answers are made of.
#[derive(Debug, Clone)]
pub struct State {
    control: Arc<Control>,
    telemetry: Arc<Telemetry>,
    certs: Option<Arc<Certs>>,
}

impl State {
    /// Puts it together.
    #[must_use]
    pub const fn new(
        control: Arc<Control>,
        telemetry: Arc<Telemetry>,
        certs: Option<Arc<Certs>>,
    ) -> Self {
        Self { control, telemetry, certs }
    }
}

/// Adds what only the listeners know to the metrics.
pub fn add_gauges(telemetry: &Arc<Telemetry>, running: &Running) {
    telemetry.metrics().add_gauges(running.gauges());
}

/// Serves `/healthz`, `/metrics`, `/certificates`, `/requests` and `/requests/{id}`.
pub async fn serve(listener: TcpListener, state: State, cancel: CancellationToken) {
    let served =
        axum::serve(listener, router(state)).with_graceful_shutdown(cancel.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!("the admin listener ended: {error}");
    }
}

/// The admin listener's routes.
pub fn router(state: State) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/certificates", get(certificates))
        .route("/requests", get(requests))
        .route("/requests/{id}", get(request))
        .with_state(state)
}

async fn healthz(Extract(state): Extract<State>) -> Json<Value> {
    let agent_reachable = state.control.agent_reachable();
    Json(json!({
        "status": if agent_reachable { "ok" } else { "degraded" },
        "version": env!("CARGO_PKG_VERSION"),
        "agent_reachable": agent_reachable,
    }))
}

async fn metrics(Extract(state): Extract<State>) -> Response {
    let counts = match state.control.store().counts().await {
        Ok(counts) => counts,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "no metrics");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let reachable = i64::from(state.control.agent_reachable());
    let help = "Whether the agent answered last.";
    let mut records = vec![("agent_reachable", help, reachable)];
    for (what, count) in counts {
        records.push((what, "Records of this kind.", count));
    }
    let text = with_gauges(state.telemetry.metrics().encode(), &records);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Puts numbers that had to be waited for before the text's end.
fn with_gauges(text: String, gauges: &[(&str, &str, i64)]) -> String {
    let mut text = text.trim_end().trim_end_matches("# EOF").to_owned();
    for (name, help, value) in gauges {
        let name = format!("wrenn_edge_{name}");
        // Writing to a string can't fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
    }
    text.push_str("# EOF\n");
    text
}

async fn certificates(Extract(state): Extract<State>) -> Json<Value> {
    let all = state.certs.map(|certs| certs.status()).unwrap_or_default();
    let all: Vec<Value> = all
        .into_iter()
        .map(|cert| {
            json!({
                "id": cert.id,
                "names": cert.names,
                "source": cert.source,
                "not_after": cert.not_after.map(|at| at.to_string()),
                "last_error": cert.last_error,
                "next_attempt": cert.next_attempt.map(|at| at.to_string()),
            })
        })
        .collect();
    Json(json!({ "items": all }))
}

#[derive(Debug, Deserialize)]
struct Recent {
    limit: Option<usize>,
}

async fn requests(Extract(state): Extract<State>, Query(recent): Query<Recent>) -> Response {
    let limit = recent.limit.unwrap_or(100).min(RECENT_MAX);
    let items = state.telemetry.recent(None, limit).join(",");
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, format!("{{\"items\":[{items}]}}")).into_response()
}

async fn request(Extract(state): Extract<State>, Path(id): Path<String>) -> Response {
    let found = id.parse::<RequestId>().ok().and_then(|id| state.telemetry.find(id, None));
    match found {
        Some(record) => ([(header::CONTENT_TYPE, "application/json")], record).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
