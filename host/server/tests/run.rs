//! `millrace run`, as a person or a supervisor runs it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Stdio};
use std::time::{Duration, Instant};

use support::Place;

const PATIENCE: Duration = Duration::from_secs(60);

fn pipeline(events: &str, sink: &str, rest: &str) -> String {
    format!("pipeline: shop\nsource: {{ generator: {{ seed: 7, {events} }} }}\nsink: {sink}\n{rest}")
}

#[test]
fn the_counts_of_a_bounded_run_reconcile() {
    let place = Place::new();
    let stages = r#"
stages:
  - plugin: cast-rename
    tables: [shop.payments]
    grant: { read: [method] }
    config: { keep: { method: { not_in: [paypal] } } }
  - plugin: rules
    tables: [shop.payments]
    grant: { read: [risk] }
    config: { payments: { risk: "<= 0.5" } }
"#;
    place.write("p.yaml", pipeline("events: 20000", "{ delta: { path: './lake/{namespace}/{table}' } }", stages));
    let said = place.run(&["run", "p.yaml", "--json", "--until-end"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let answer = said.json();
    let count = |name: &str| answer[name].as_u64().unwrap_or_else(|| panic!("{name}: {answer}"));
    assert!(count("dropped") > 0 && count("dead_letters") > 0, "{answer}");
    assert_eq!(
        count("images_in") + count("emitted"),
        count("images_out") + count("dropped") + count("dead_letters"),
        "{answer}"
    );
    let rows: u64 = answer["tables"].as_array().unwrap().iter().map(|t| t["rows"].as_u64().unwrap()).sum();
    assert_eq!(rows, count("images_out"));
    for table in ["customers", "orders", "payments"] {
        assert!(place.path().join("lake/shop").join(table).join("_delta_log").is_dir());
    }
    assert!(place.path().join("lake/_dead_letters/_delta_log").is_dir());
}

#[test]
fn a_second_run_of_the_same_file_adds_nothing() {
    let place = Place::new();
    place.write("p.yaml", pipeline("events: 5000", "{ delta: { path: ./lake } }", ""));
    let first = place.run(&["run", "p.yaml", "--json"]).json();
    assert!(first["images_out"].as_u64().unwrap() > 0, "{first}");
    let second = place.run(&["run", "p.yaml", "--json"]);
    assert_eq!(second.code, Some(0), "{}", second.stderr);
    assert_eq!(second.json()["images_out"], 0);
}

#[test]
fn rows_go_to_standard_output_and_everything_else_does_not() {
    let place = Place::new();
    place.write("p.yaml", pipeline("events: 100", "{ stdout: }", ""));
    let said = place.run(&["run", "p.yaml"]);
    assert_eq!((said.code, said.stdout.lines().count()), (Some(0), 100), "{}", said.stderr);
    assert!(said.stdout.lines().all(|line| line.starts_with('{')));
    assert!(said.stderr.contains("shop: done"), "{}", said.stderr);
}

#[test]
fn letters_of_a_sink_without_tables_go_to_a_file_and_say_why() {
    let place = Place::new();
    let stages = "stages: [{ plugin: rules, tables: [shop.payments], grant: { read: [risk] }, config: { payments: { risk: \"< 0\" } } }]\n";
    place.write("p.yaml", pipeline("events: 2000", "{ null: }", stages));
    let said = place.run(&["run", "p.yaml", "--json"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let changes = said.json()["dead_letter_changes"].as_u64().unwrap();
    let letters = std::fs::read_to_string(place.path().join(".millrace/shop/dead_letters.ndjson")).unwrap();
    assert_eq!(letters.lines().count() as u64, changes);
    let letter: serde_json::Value = serde_json::from_str(letters.lines().next().unwrap()).unwrap();
    assert_eq!((&letter["stage"], &letter["code"]), (&"rules".into(), &"rule.violated".into()));
    assert!(letter["position"].is_string() && letter["images"].is_array(), "{letter}");
}

#[test]
fn an_endless_source_is_refused_where_the_end_is_waited_for() {
    let place = Place::new();
    place.write("p.yaml", pipeline("customers: 1000", "{ null: }", ""));
    let said = place.run(&["run", "p.yaml", "--until-end"]);
    assert_eq!(said.code, Some(1));
    assert!(said.problems().contains("error[run.endless]"), "{}", said.stderr);
    place.write("f.yaml", "pipeline: f\nsource: { file: { path: ./in.ndjson, follow: true } }\nsink: { null: }\n");
    let said = place.run(&["run", "f.yaml", "--until-end"]);
    assert!(said.problems().contains("error[run.endless]"), "{}", said.stderr);
}

#[test]
fn a_wrong_file_starts_nothing() {
    let place = Place::new();
    place.write("p.yaml", pipeline("event: 5", "{ delta: { path: ./lake } }", ""));
    let said = place.run(&["run", "p.yaml", "--json"]);
    assert_eq!(said.code, Some(1));
    assert_eq!(said.json()["error"]["problems"][0]["hint"], "did you mean `events`?");
    assert!(!place.path().join("lake").exists());
}

#[test]
fn a_folder_that_can_not_be_written_is_an_error_with_a_code() {
    let place = Place::new();
    // A file in the place of the folder: root, who runs CI, is stopped by no permission.
    place.write("lake", "not a folder");
    place.write("p.yaml", pipeline("events: 10", "{ delta: { path: ./lake/x } }", ""));
    let said = place.run(&["run", "p.yaml", "--json"]);
    assert_eq!(said.code, Some(1), "{}{}", said.stdout, said.stderr);
    let error = &said.json()["error"];
    assert_eq!(error["code"], "store.unusable");
    assert!(error["message"].as_str().unwrap().ends_with("lake/x: a part of the path is no folder"), "{error}");
    assert!(error["hint"].is_string(), "{error}");
}

struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
    seen: String,
}

impl Running {
    fn start(place: &Place, args: &[&str]) -> Self {
        let mut command = place.command(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr, seen: String::new() }
    }

    /// The next log line that holds a text. The process' end, or its silence until the watchdog, is a failure.
    fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut line = String::new();
            let read = self.stderr.read_line(&mut line).unwrap();
            self.seen += &line;
            assert!(read > 0 && Instant::now() < deadline, "`{text}` was not said:\n{}", self.seen);
            if line.contains(text) {
                return line;
            }
        }
    }

    fn signal(&self, signal: &str) {
        let status = std::process::Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end: exit code and standard output.
    fn end(mut self) -> (Option<i32>, String) {
        let mut stdout = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), stdout)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

fn last_json(stdout: &str) -> serde_json::Value {
    serde_json::from_str(stdout.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {stdout}"))
}

#[test]
fn a_signal_ends_a_run_gracefully() {
    let place = Place::new();
    place.write("p.yaml", pipeline("rate: 2000", "{ delta: { path: ./lake } }", ""));
    let mut run = Running::start(&place, &["run", "p.yaml", "--json"]);
    run.wait_for("changes flow");
    run.signal("-TERM");
    let (code, stdout) = run.end();
    assert_eq!(code, Some(0), "{stdout}");
    let answer = last_json(&stdout);
    assert_eq!(answer["images_in"], answer["images_out"]);
}

fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, answer)
}

#[test]
fn metrics_and_health_are_served_while_it_runs() {
    let place = Place::new();
    place.write("p.yaml", pipeline("rate: 5000", "{ null: }", "metrics: { listen: 127.0.0.1:0 }\n"));
    let mut run = Running::start(&place, &["run", "p.yaml"]);
    let line: serde_json::Value = serde_json::from_str(&run.wait_for("metrics and health are served")).unwrap();
    let address = line["address"].as_str().unwrap().to_owned();
    run.wait_for("changes flow");
    let (status, ready) = get(&address, "/readyz");
    assert_eq!(status, 200, "{ready}");
    assert!(ready.ends_with(r#"{"ok":true,"pipelines":{"shop":"running"}}"#), "{ready}");
    assert_eq!(get(&address, "/healthz").0, 200);
    let deadline = Instant::now() + PATIENCE;
    let text = loop {
        let (_, text) = get(&address, "/metrics");
        if text.contains("millrace_images_out_total{pipeline=\"shop\"}") {
            break text;
        }
        assert!(Instant::now() < deadline, "{text}");
    };
    for name in
        ["millrace_commit_seconds", "millrace_cut_images", "process_cpu_seconds_total", "# HELP millrace_lag_seconds"]
    {
        assert!(text.contains(name), "{name}: {text}");
    }
    run.signal("-INT");
    assert_eq!(run.end().0, Some(0));
}

#[test]
fn a_plugin_that_is_replaced_is_swapped_while_the_stream_runs_and_a_broken_one_is_not() {
    let place = Place::new();
    let plugin = place.path().join("stage.wasm");
    let replace = |from: &Path| {
        let staged = place.path().join("stage.new");
        std::fs::copy(from, &staged).unwrap();
        std::fs::rename(&staged, &plugin).unwrap();
    };
    replace(&support::plugins().join("mask.wasm"));
    let stages = "stages: [{ plugin: ./stage.wasm, tables: [shop.customers], grant: { columns: [phone] }, config: { phone: last4 } }]\n";
    place.write("p.yaml", pipeline("rate: 5000", "{ delta: { path: ./lake } }", stages));
    let mut run = Running::start(&place, &["run", "p.yaml", "--json"]);
    run.wait_for("changes flow");
    place.write("stage.wasm", "half a component");
    let refused = run.wait_for("the new version is refused");
    assert!(refused.contains("plugin."), "{refused}");
    replace(&support::plugins().join("mask.wasm"));
    place.write("p.yaml", pipeline("rate: 5000", "{ delta: { path: ./lake } }", &stages.replace("last4", "redact")));
    run.wait_for("the new version is in force");
    run.signal("-TERM");
    let (code, stdout) = run.end();
    assert_eq!(code, Some(0), "{stdout}");
    assert_eq!(last_json(&stdout)["swaps"], 1, "{stdout}");
}

#[test]
fn a_server_that_is_not_there_is_tried_again_and_the_log_says_why() {
    let place = Place::new();
    let text = "pipeline: shop\nsource: { postgres: { url: '${env:SHOP_DB}', tables: [public.orders] } }\nsink: { delta: { path: ./lake } }\n";
    place.write("p.yaml", text);
    // Nothing listens on port 1.
    let mut command = place.command(&["run", "p.yaml", "--json"]);
    command.env("SHOP_DB", "postgres://shop:hunter2@127.0.0.1:1/shop?sslmode=disable");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut run = Running { child, stderr, seen: String::new() };
    let line = run.wait_for("starting again from the resume record");
    assert!(line.contains("postgres.") && line.contains("127.0.0.1:1"), "{line}");
    run.signal("-TERM");
    let seen = run.seen.clone();
    let (code, stdout) = run.end();
    assert_eq!(code, Some(0), "{stdout}");
    assert!(!seen.contains("hunter2") && !stdout.contains("hunter2"), "{seen}");
}
