//! Logs, metrics and health: what an operator sees of a running host.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use millrace_core::{Error, Result};
use serde::Serialize;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

use crate::config::reference::io_reason;

/// The variable that sets which log lines are kept, in `tracing`'s directives: `info`, `millrace=debug`.
pub const LOG_VARIABLE: &str = "MILLRACE_LOG";

/// Crates below ours say at `info` what only their authors want to know.
const LOG_DEFAULT: &str = "info,buoyant_kernel=warn,delta_kernel=warn,deltalake_core=warn,object_store=warn";

/// Long enough to cost nothing, short enough that histograms of a host nobody scrapes stay small.
const UPKEEP: Duration = Duration::from_secs(5);

/// Logs go to standard error: for people on a terminal, else JSON lines. Standard output belongs to data.
pub fn start_logs() {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if std::io::stderr().is_terminal() {
        lines.with_target(false).try_init()
    } else {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    };
    if let Err(error) = started {
        eprintln!("warning: logs were set up before: {error}");
    }
}

/// Installs the recorder that all metrics of this process go to.
pub fn start_metrics() -> Result<PrometheusHandle> {
    let builder = PrometheusBuilder::new()
        .set_quantiles(&[0.5, 0.9, 0.99, 1.0])
        .map_err(|e| Error::bug(format!("quantiles of the metrics: {e}")))?;
    let handle = builder.install_recorder().map_err(|e| Error::bug(format!("metrics were set up before: {e}")))?;
    for metric in crate::metric_names::ALL {
        metric.describe();
    }
    Ok(handle)
}

/// Where a pipeline stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stand {
    /// Connecting, or waiting to try again.
    Starting,
    /// Changes flow.
    Running,
    /// Its source has ended, or it was stopped.
    Ended,
    /// It stopped and needs a person.
    Failed,
}

/// What `/healthz` and `/readyz` answer from.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, Stand>>>);

impl Health {
    pub fn set(&self, pipeline: &str, stand: Stand) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(pipeline.to_owned(), stand);
    }

    /// Changes do not flow any more: it starts anew, unless it has been said how it ended.
    pub fn pause(&self, pipeline: &str) {
        let mut stands = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stand) = stands.get_mut(pipeline).filter(|s| **s == Stand::Running) {
            *stand = Stand::Starting;
        }
    }

    fn all(&self) -> BTreeMap<String, Stand> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing needs a person.
    fn is_healthy(&self) -> bool {
        !self.all().values().any(|s| *s == Stand::Failed)
    }

    /// Changes flow in every pipeline that has not ended.
    fn is_ready(&self) -> bool {
        self.all().values().all(|s| matches!(s, Stand::Running | Stand::Ended))
    }
}

#[derive(Clone)]
struct Served {
    health: Health,
    metrics: PrometheusHandle,
}

/// Serves `/metrics`, `/healthz` and `/readyz` until the process ends; answers the address in use.
///
/// Errors: `metrics.listen` where the address can not be had.
pub async fn serve(listen: SocketAddr, health: Health, metrics: PrometheusHandle) -> Result<SocketAddr> {
    let refused = |e: std::io::Error| {
        Error::config("metrics.listen", format!("{listen}: {}", io_reason(&e)))
            .hint("choose a free port for `metrics.listen`; 0 takes any")
    };
    let listener = TcpListener::bind(listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let upkeep = metrics.clone();
    let routes = Router::new()
        .route("/metrics", get(render))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Served { health, metrics });
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(%error, "the metrics endpoint ended");
        }
    });
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            upkeep.run_upkeep();
        }
    });
    Ok(address)
}

/// A line of the log this often, while anything moves: what a person who looks on wants to see.
const PROGRESS: Duration = Duration::from_secs(10);

/// Says now and then how far each pipeline has come.
pub async fn report_progress(metrics: PrometheusHandle) {
    let mut said: BTreeMap<String, f64> = BTreeMap::new();
    loop {
        tokio::time::sleep(PROGRESS).await;
        let text = metrics.render();
        for (pipeline, images) in by_pipeline(&text, "millrace_images_in_total") {
            if said.insert(pipeline.clone(), images) == Some(images) {
                continue;
            }
            let of = |name| by_pipeline(&text, name).into_iter().find(|(p, _)| *p == pipeline).map_or(0.0, |(_, v)| v);
            let (out, letters) = (of("millrace_images_out_total") as u64, of("millrace_dead_letters_total") as u64);
            let (images_in, lag_seconds) = (images as u64, of("millrace_lag_seconds"));
            tracing::info!(%pipeline, images_in, images_out = out, dead_letters = letters, lag_seconds, "progress");
        }
    }
}

/// The value of a metric for each pipeline, out of Prometheus' text.
fn by_pipeline(text: &str, metric: &str) -> Vec<(String, f64)> {
    let start = format!("{metric}{{pipeline=\"");
    let line = |line: &str| {
        let (pipeline, rest) = line.strip_prefix(start.as_str())?.split_once('"')?;
        Some((pipeline.to_owned(), rest.rsplit(' ').next()?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

async fn render(State(served): State<Served>) -> impl IntoResponse {
    let body = served.metrics.render() + &process_metrics();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], body)
}

async fn healthz(State(served): State<Served>) -> impl IntoResponse {
    answer(served.health.is_healthy(), &served.health)
}

async fn readyz(State(served): State<Served>) -> impl IntoResponse {
    answer(served.health.is_ready(), &served.health)
}

fn answer(good: bool, health: &Health) -> impl IntoResponse + use<> {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(serde_json::json!({ "ok": good, "pipelines": health.all() })))
}

/// CPU and memory by the names that Prometheus' own clients use; empty where there is no `/proc`.
fn process_metrics() -> String {
    let mut text = String::new();
    if let Some(bytes) = resident_bytes() {
        text += &format!("# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {bytes}\n");
    }
    if let Some(seconds) = cpu_seconds() {
        text += &format!("# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total {seconds}\n");
    }
    text
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

fn cpu_seconds() -> Option<f64> {
    // Fields 14 and 15 of stat(5), counted after the command's closing parenthesis; Linux' USER_HZ is 100.
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_pipeline_makes_the_host_unhealthy_and_a_starting_one_not_ready() {
        let health = Health::default();
        health.set("a", Stand::Running);
        assert!(health.is_healthy() && health.is_ready());
        health.set("b", Stand::Starting);
        assert!(health.is_healthy() && !health.is_ready());
        health.set("b", Stand::Failed);
        assert!(!health.is_healthy() && !health.is_ready());
    }

    #[test]
    fn a_source_that_goes_away_late_does_not_hide_how_its_pipeline_ended() {
        let health = Health::default();
        health.set("a", Stand::Running);
        health.pause("a");
        assert!(!health.is_ready());
        health.set("a", Stand::Failed);
        health.pause("a");
        assert!(!health.is_healthy());
    }

    #[test]
    fn values_are_found_by_pipeline() {
        let text = "# TYPE x counter\nx{pipeline=\"a\"} 12\nx_y{pipeline=\"a\"} 13\nx{pipeline=\"b\",le=\"1\"} 14\n";
        assert_eq!(by_pipeline(text, "x"), [("a".to_owned(), 12.0), ("b".to_owned(), 14.0)]);
    }

    #[test]
    fn the_process_knows_its_memory_and_cpu_time() {
        let text = process_metrics();
        assert!(
            text.contains("process_resident_memory_bytes ") && text.contains("process_cpu_seconds_total "),
            "{text}"
        );
    }
}
