//! `millrace run`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args as ClapArgs;
use millrace_core::pipeline::{self, Control, Pipeline, Summary};
use millrace_core::{Error, Result};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::{Outcome, error_json, print, report, say, shown, validate};
use crate::config::secret::redact;
use crate::config::{self, Loaded};
use crate::environment::TokioEnvironment;
use crate::hot_reload::HotReload;
use crate::telemetry::{self, Health, Stand};
use crate::wiring::{self, Host, PluginRuntime};

/// Runs pipelines until their sources end, or a signal asks them to stop
///
/// SIGTERM and SIGINT finish what is complete, commit it and end; a second one ends at once, which loses and repeats
/// nothing either.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  SHOP_DB=postgres://… millrace run shop.yaml")]
pub(super) struct Args {
    /// Pipeline files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// End with one JSON object a pipeline on standard output
    #[arg(long)]
    pub(super) json: bool,
    /// Take a pipeline over from another host at once, without waiting for its lease
    #[arg(long)]
    take_over: bool,
    /// Refuse sources that never end: for scripts that wait for the end
    #[arg(long)]
    until_end: bool,
    /// Names this host in leases; the same name takes its own lease back at once. Default: the machine's name
    #[arg(long, env = "MILLRACE_INSTANCE", value_name = "NAME")]
    instance: Option<String>,
}

pub(super) async fn perform(args: Args) -> Result<Outcome> {
    let files = match config::load_all(&args.files) {
        Ok(files) => files,
        Err(problems) => return Ok(validate::refused(&problems, args.json)),
    };
    for warning in files.iter().flat_map(|f| &f.warnings) {
        eprintln!("{warning}");
    }
    if args.until_end {
        must_end(&files)?;
    }
    telemetry::start_logs();
    let plugins = PluginRuntime::start()?;
    for loaded in &files {
        let problems = wiring::check_plugins(loaded, &plugins).await;
        if !problems.is_empty() {
            return Ok(validate::refused(&problems, args.json));
        }
    }
    let host = Host {
        env: Arc::new(TokioEnvironment::new()),
        plugins,
        health: Health::default(),
        instance: args.instance.unwrap_or_else(machine_name),
        take_over: args.take_over,
    };
    serve_metrics(&files, &host.health).await?;
    run_all(files, &host, args.json).await
}

fn must_end(files: &[Loaded]) -> Result<()> {
    match files.iter().find(|f| !wiring::is_bounded(&f.config.source)) {
        None => Ok(()),
        Some(endless) => {
            Err(Error::config("run.endless", format!("{}: its source never ends", endless.file.display()))
                .hint("leave --until-end out, give the generator `events`, or do not `follow` files"))
        }
    }
}

async fn serve_metrics(files: &[Loaded], health: &Health) -> Result<()> {
    let metrics = telemetry::start_metrics()?;
    let mut addresses: Vec<SocketAddr> =
        files.iter().filter_map(|f| f.config.metrics.as_ref()?.listen.parse().ok()).collect();
    addresses.sort();
    addresses.dedup();
    for address in addresses {
        let listens = telemetry::serve(address, health.clone(), metrics.clone()).await?;
        tracing::info!(address = %listens, "metrics and health are served");
    }
    tokio::spawn(telemetry::report_progress(metrics));
    Ok(())
}

/// One pipeline under way.
struct Running {
    control: mpsc::Sender<Control>,
    _reload: Option<Reload>,
}

/// Where the report goes.
#[derive(Clone, Copy)]
enum Report {
    Json,
    People,
    /// Standard output holds rows.
    PeopleAside,
}

/// Ends the watch with the run.
struct Reload(JoinHandle<()>);

impl Drop for Reload {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Ended = (String, Report, Result<Summary>);

async fn run_all(files: Vec<Loaded>, host: &Host, json: bool) -> Result<Outcome> {
    // Built before any starts: a file that can not run keeps the others from starting.
    let mut built = Vec::with_capacity(files.len());
    for loaded in files {
        let pipeline = wiring::build(&loaded, host).map_err(|e| e.context(loaded.file.display()))?;
        built.push((loaded, pipeline));
    }
    let mut signals = Signals::new()?;
    let mut running = Vec::with_capacity(built.len());
    let mut ends: JoinSet<Ended> = JoinSet::new();
    for (loaded, pipeline) in built {
        let report = match (json, &loaded.config.sink.stdout) {
            (true, _) => Report::Json,
            (false, None) => Report::People,
            (false, Some(_)) => Report::PeopleAside,
        };
        running.push(start(&loaded, pipeline, report, &mut ends));
    }
    let mut outcome = Outcome::Done;
    let mut is_stopping = false;
    loop {
        tokio::select! {
            () = signals.next() => {
                if is_stopping {
                    eprintln!("stopped at once; the next start goes on from the resume record");
                    return Ok(Outcome::Failed);
                }
                is_stopping = true;
                tracing::info!("stopping: what is complete is committed first");
                for pipeline in &running {
                    if pipeline.control.send(Control::Stop).await.is_err() {
                        tracing::debug!("a pipeline had ended before it was told to stop");
                    }
                }
            }
            ended = ends.join_next() => match ended {
                None => return Ok(outcome),
                Some(ended) => if !finish(ended, &host.health) { outcome = Outcome::Failed },
            }
        }
    }
}

/// Requests that a pipeline has not taken yet: a stop, and a swap or two before it.
const CONTROL_QUEUE: usize = 4;

fn start(loaded: &Loaded, pipeline: Pipeline, report: Report, ends: &mut JoinSet<Ended>) -> Running {
    let (control, requests) = mpsc::channel(CONTROL_QUEUE);
    let reload = loaded.config.hot_reload.enabled.then(|| {
        let watch = HotReload::new(loaded, &pipeline.stages, control.clone());
        Reload(tokio::spawn(async move {
            if let Err(error) = watch.run().await {
                tracing::error!(code = error.code, hint = error.hint, "hot reload is off: {}", error.message);
            }
        }))
    });
    let name = pipeline.name.clone();
    tracing::info!(pipeline = %name, stages = pipeline.stages.len(), file = %loaded.file.display(), "starting");
    ends.spawn(async move { (name, report, pipeline::run(pipeline, requests).await) });
    Running { control, _reload: reload }
}

/// Says how a pipeline ended; true where it ended well, and no table is halted.
fn finish(ended: std::result::Result<Ended, tokio::task::JoinError>, health: &Health) -> bool {
    let (name, report, result) = match ended {
        Ok(ended) => ended,
        Err(error) => {
            eprintln!("{}", shown(&Error::bug(format!("a pipeline panicked: {error}"))));
            return false;
        }
    };
    match result {
        Ok(summary) => {
            health.set(&name, Stand::Ended);
            match report {
                Report::Json => say(report::as_json(&name, &summary)),
                Report::People => print(report::for_people(&name, &summary)),
                Report::PeopleAside => eprint!("{}", report::for_people(&name, &summary)),
            }
            summary.halted.is_empty()
        }
        Err(error) => {
            health.set(&name, Stand::Failed);
            tracing::error!(pipeline = %name, code = error.code, kind = error.kind.name(), "stopped: {}", redact(&error.message));
            if matches!(report, Report::Json) {
                say(json!({ "pipeline": name, "error": error_json(&error) }));
            }
            eprintln!("{name}: {}", shown(&error));
            false
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let on = |kind| signal(kind).map_err(|e| Error::bug(format!("signals: {e}")));
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn machine_name() -> String {
    let from_file = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = from_file.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    if name.trim().is_empty() { "millrace".into() } else { name.trim().to_owned() }
}
