//! What whoever runs the edge asks: is it up, and a few numbers.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use edge_control::Control;
use serde_json::{Value, json};

/// The admin listener's routes: `/healthz` and `/metrics`.
pub fn router(control: Arc<Control>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .with_state(control)
}

async fn healthz(State(control): State<Arc<Control>>) -> Json<Value> {
    let agent_reachable = control.agent_reachable();
    Json(json!({
        "status": if agent_reachable { "ok" } else { "degraded" },
        "version": env!("CARGO_PKG_VERSION"),
        "agent_reachable": agent_reachable,
    }))
}

async fn metrics(State(control): State<Arc<Control>>) -> Response {
    let counts = match control.store().counts().await {
        Ok(counts) => counts,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "no metrics");
            return axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let reachable = i64::from(control.agent_reachable());
    let mut text = String::new();
    gauge(&mut text, "wrenn_edge_agent_reachable", "Whether the agent answered last.", reachable);
    for (what, count) in counts {
        let help = format!("Records of {what}.");
        gauge(&mut text, &format!("wrenn_edge_{what}"), &help, count);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

fn gauge(text: &mut String, name: &str, help: &str, value: i64) {
    // Writing to a string can't fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
}
