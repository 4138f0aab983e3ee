//! A plugin's log lines and metrics: bounded, and with the plugin's name beside them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// Longer messages are cut: a line is for people.
const MESSAGE_BYTES: usize = 4_096;
const WINDOW: Duration = Duration::from_secs(1);

/// Series (a name with its labels) that one plugin may open: what a person can look at, and what a scrape can carry.
const SERIES: usize = 100;
const NAME_BYTES: usize = 64;
const LABELS: usize = 4;
const LABEL_BYTES: usize = 128;

/// Shared by all instances of one plugin: the bound is the plugin's.
#[derive(Clone, Debug)]
pub(crate) struct PluginLog(Arc<Inner>);

/// Lines as the plugin wrote them, for who wants to see them beside the host's log.
pub(crate) type Tap = Arc<Mutex<Vec<(Level, String)>>>;

#[derive(Debug)]
struct Inner {
    plugin: String,
    lines_per_second: u32,
    tap: Option<Tap>,
    window: Mutex<Window>,
    series: Mutex<HashSet<String>>,
}

#[derive(Debug)]
struct Window {
    start: Instant,
    lines: u32,
    left_out: u64,
}

/// A panic can not leave the few numbers here half-written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PluginLog {
    pub(crate) fn new(plugin: &str, lines_per_second: u32, tap: Option<Tap>) -> Self {
        let window = Mutex::new(Window { start: Instant::now(), lines: 0, left_out: 0 });
        let inner = Inner { plugin: plugin.to_string(), lines_per_second, tap, window, series: Mutex::default() };
        Self(Arc::new(inner))
    }

    /// The lowest level that is kept.
    pub(crate) fn threshold(&self) -> Level {
        if self.0.tap.is_some() {
            return Level::Trace;
        }
        use tracing::level_filters::LevelFilter;
        match LevelFilter::current() {
            LevelFilter::TRACE => Level::Trace,
            LevelFilter::DEBUG => Level::Debug,
            LevelFilter::INFO => Level::Info,
            LevelFilter::WARN => Level::Warn,
            _ => Level::Error,
        }
    }

    /// Writes a line, unless the plugin has had its lines of this second.
    pub(crate) fn write(&self, level: Level, message: &str, fields: &[(String, String)]) {
        let Some(left_out) = self.admit() else { return };
        if left_out > 0 {
            tracing::warn!(
                plugin = self.0.plugin,
                left_out,
                "lines of this plugin were left out: it logs more than its limit"
            );
        }
        let message = cut(message, MESSAGE_BYTES);
        if let Some(tap) = &self.0.tap {
            lock(tap).push((level, message.to_string()));
        }
        let fields =
            fields.iter().take(16).map(|(name, value)| format!("{}={}", cut(name, NAME_BYTES), cut(value, 256)));
        let fields = fields.collect::<Vec<_>>().join(" ");
        let plugin = self.0.plugin.as_str();
        match level {
            Level::Trace => tracing::trace!(target: "plugin", plugin, fields, "{message}"),
            Level::Debug => tracing::debug!(target: "plugin", plugin, fields, "{message}"),
            Level::Info => tracing::info!(target: "plugin", plugin, fields, "{message}"),
            Level::Warn => tracing::warn!(target: "plugin", plugin, fields, "{message}"),
            Level::Error => tracing::error!(target: "plugin", plugin, fields, "{message}"),
        }
    }

    /// None: not this line. Else how many were left out before it.
    fn admit(&self) -> Option<u64> {
        let mut window = lock(&self.0.window);
        if window.start.elapsed() >= WINDOW {
            window.start = Instant::now();
            window.lines = 0;
        }
        if window.lines >= self.0.lines_per_second {
            window.left_out += 1;
            metrics::counter!("millrace_plugin_log_left_out_total", "plugin" => self.0.plugin.clone()).increment(1);
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.left_out))
    }

    /// Adds to a counter of the plugin's.
    pub(crate) fn count(&self, name: &str, labels: &[(String, String)], add: u64) {
        if let Some((name, labels)) = self.series(name, labels) {
            metrics::counter!(name, labels).increment(add);
        }
    }

    /// Adds to a histogram of the plugin's.
    pub(crate) fn observe(&self, name: &str, labels: &[(String, String)], value: f64) {
        if let Some((name, labels)) = self.series(name, labels) {
            metrics::histogram!(name, labels).record(value);
        }
    }

    /// The host's name and labels for a series of the plugin's. None: it has had its series.
    fn series(&self, name: &str, labels: &[(String, String)]) -> Option<(String, Vec<metrics::Label>)> {
        let clean = |text: &str| -> String {
            let kept = text.chars().take(NAME_BYTES);
            kept.map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
        };
        let name = format!("millrace_plugin_custom_{}", clean(name));
        let mut key = name.clone();
        let mut kept = vec![metrics::Label::new("plugin", self.0.plugin.clone())];
        for (label, value) in labels.iter().take(LABELS) {
            let (label, value) = (clean(label), cut(value, LABEL_BYTES).to_string());
            key.push_str(&format!("\0{label}\0{value}"));
            kept.push(metrics::Label::new(label, value));
        }
        let mut series = lock(&self.0.series);
        if !series.contains(&key) {
            if series.len() >= SERIES {
                metrics::counter!("millrace_plugin_series_refused_total", "plugin" => self.0.plugin.clone())
                    .increment(1);
                return None;
            }
            series.insert(key);
        }
        Some((name, kept))
    }
}

fn cut(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes { text } else { &text[..text.floor_char_boundary(bytes)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_gets_its_lines_and_series_and_no_more() {
        let log = PluginLog::new("loud", 3, None);
        let admitted = (0..10).filter(|_| log.admit().is_some()).count();
        assert_eq!(admitted, 3);
        let opened = (0..1_000).filter(|i| log.series(&format!("metric_{i}"), &[]).is_some()).count();
        assert_eq!(opened, SERIES);
        assert!(log.series("metric_0", &[]).is_some(), "an open series stays open");
    }

    #[test]
    fn names_of_metrics_are_the_hosts() {
        let log = PluginLog::new("p", 3, None);
        let labels = [("Über".to_string(), "x".repeat(1_000))];
        let (name, labels) = log.series("rows seen/total", &labels).expect("open");
        assert_eq!(name, "millrace_plugin_custom_rows_seen_total");
        assert_eq!((labels[1].key(), labels[1].value().len()), ("_ber", LABEL_BYTES));
    }
}
