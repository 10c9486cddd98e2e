//! A small JSON service over HTTP on stratalloc: axum on tokio's threads.
//!
//! ```text
//! cargo run --release --example service
//! curl -d '{"text": "to be or not to be"}' -H 'content-type: application/json' http://127.0.0.1:PORT/words
//! curl http://127.0.0.1:PORT/stats
//! curl -X POST http://127.0.0.1:PORT/shutdown
//! ```

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::sync::Arc;
use stratalloc::Stratalloc;
use tokio::net::TcpListener;
use tokio::sync::Notify;

#[global_allocator]
static A: Stratalloc = Stratalloc::new();

/// How often each word of the request's `text` occurs.
async fn words(Json(request): Json<Value>) -> Result<Json<Value>, StatusCode> {
    let text = request["text"].as_str().ok_or(StatusCode::UNPROCESSABLE_ENTITY)?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for word in text.split_whitespace() {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    Ok(Json(json!({ "counts": counts, "id": request["id"] })))
}

/// The allocator's figures, for people.
async fn stats() -> String {
    format!("active: {}\n{}\n", Stratalloc::is_active(), Stratalloc::stats())
}

async fn shutdown(State(end): State<Arc<Notify>>) -> &'static str {
    end.notify_one();
    "ending\n"
}

fn routes(end: Arc<Notify>) -> Router {
    let router = Router::new().route("/words", post(words)).route("/stats", get(stats));
    router.route("/shutdown", post(shutdown)).with_state(end)
}

#[tokio::main(worker_threads = 4)]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    writeln!(stdout(), "listening on {}", listener.local_addr()?)?;
    let end = Arc::new(Notify::new());
    let routes = routes(end.clone());
    axum::serve(listener, routes).with_graceful_shutdown(async move { end.notified().await }).await
}
