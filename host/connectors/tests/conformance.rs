//! What every source keeps to, run for each of them.

mod reading;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use millrace_connectors::file::FileConfig;
use millrace_connectors::generator::{GeneratorConfig, Lines, generate_ndjson};
use millrace_core::batch::ChangeBatch;
use millrace_core::cut::{BatchLimits, Boundary, CutBuilder};
use millrace_core::position::{Order, Position, SourceKey};
use millrace_core::source::{Resume, Source};
use reading::{describe, sample};

type Make<'a> = &'a dyn Fn() -> Box<dyn Source>;

/// The rows of each source table, described.
type Story = BTreeMap<SourceKey, Vec<(Order, String)>>;

/// Small batches, so that many boundaries lie inside of them.
const LIMITS: BatchLimits = BatchLimits { rows: 3, bytes: 1 << 20 };

fn tell(story: &mut Story, batches: &[ChangeBatch]) {
    for batch in batches {
        batch.check().expect("the batch fits its schema");
        let rows = story.entry(batch.origin.source.clone()).or_default();
        for row in 0..batch.rows() {
            let order = batch.order(row);
            let last = rows.last().map(|(order, _)| *order);
            let is_image_of_last = row > 0 && batch.changes[row] == batch.changes[row - 1];
            assert!(last.is_none_or(|l| l < order || (l == order && is_image_of_last)), "{order} after {last:?}");
            rows.push((order, describe(batch, row)));
        }
    }
}

/// A whole read: what came, and every boundary with what had come by then.
struct Reading {
    incarnation: String,
    story: Story,
    boundaries: Vec<(Position, BTreeMap<SourceKey, usize>)>,
}

async fn read_all(source: &mut dyn Source, resume: &Resume) -> Reading {
    let opened = source.open(resume).await.expect("opens");
    if let Some(position) = &resume.position {
        assert_eq!(opened.start, *position, "it starts where it is told to");
    }
    let mut reading = Reading { incarnation: opened.incarnation, story: Story::new(), boundaries: Vec::new() };
    let mut last = opened.start.order;
    loop {
        let mut cut = CutBuilder::new(LIMITS);
        let boundary = source.read(&mut cut).await.expect("reads");
        let (batches, cut) = cut.finish().expect("finishes");
        tell(&mut reading.story, &batches);
        let (position, end) = match boundary {
            Boundary::Commit(position) | Boundary::Idle(position) => (position, false),
            Boundary::End(position) => (position, true),
            other => panic!("{other:?}"),
        };
        assert!(position.order >= last, "boundaries ascend");
        assert!(cut.last.values().all(|order| *order <= position.order), "a boundary is at or beyond every change");
        last = position.order;
        let counts = reading.story.iter().map(|(source, rows)| (source.clone(), rows.len())).collect();
        reading.boundaries.push((position, counts));
        if end {
            return reading;
        }
    }
}

/// Resuming at a boundary gives what came after it, in the same words.
async fn resumes_at_every_boundary(make: Make<'_>, whole: &Reading) {
    // At most sixty of them, the first and the last included: each costs a whole read.
    let step = whole.boundaries.len().div_ceil(60).max(1);
    let last = whole.boundaries.len() - 1;
    for (position, counts) in
        whole.boundaries.iter().enumerate().filter(|(i, _)| i % step == 0 || *i == last).map(|(_, b)| b)
    {
        let resume = Resume {
            position: Some(position.clone()),
            incarnation: Some(whole.incarnation.clone()),
            ..Resume::default()
        };
        let rest = read_all(&mut *make(), &resume).await;
        assert_eq!(rest.incarnation, whole.incarnation);
        for (source, rows) in &whole.story {
            let after = &rows[counts.get(source).copied().unwrap_or(0)..];
            assert_eq!(
                rest.story.get(source).map_or(&[][..], Vec::as_slice),
                after,
                "{source} after {:?}",
                position.order
            );
        }
    }
}

/// Every read is dropped at each await that it comes to, and nothing is lost or repeated.
async fn survives_a_cancel_at_every_await(make: Make<'_>, whole: &Reading) {
    let mut source = make();
    source.open(&Resume::default()).await.expect("opens");
    let mut cut = CutBuilder::new(LIMITS);
    let mut story = Story::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < deadline, "the source makes progress although it is cancelled");
        let polled = {
            let mut read = pin!(source.read(&mut cut));
            std::future::poll_fn(|context| Poll::Ready(read.as_mut().poll(context))).await
        };
        let Poll::Ready(boundary) = polled else {
            tokio::task::yield_now().await;
            continue;
        };
        tell(&mut story, &cut.take_closed());
        if matches!(boundary.expect("reads"), Boundary::End(_)) {
            tell(&mut story, &cut.finish().expect("finishes").0);
            break;
        }
    }
    assert_eq!(story, whole.story);
}

/// `rows`: how many there must be, so that no source passes by saying nothing.
async fn conforms(make: Make<'_>, rows: usize) {
    let whole = read_all(&mut *make(), &Resume::default()).await;
    assert_eq!(whole.story.values().map(Vec::len).sum::<usize>(), rows);
    resumes_at_every_boundary(make, &whole).await;
    survives_a_cancel_at_every_await(make, &whole).await;
    let wrong = Resume {
        incarnation: Some("of another".into()),
        position: whole.boundaries.last().map(|b| b.0.clone()),
        ..Resume::default()
    };
    assert_eq!(make().open(&wrong).await.expect_err("another incarnation").code, "position.gap");
    let mut source = make();
    let opened = source.open(&Resume::default()).await.expect("opens");
    source.acknowledge(&opened.start).await.expect("is acknowledged");
}

fn images(story: &GeneratorConfig) -> usize {
    let mut source = GeneratorConfig { rate: None, ..story.clone() }.build().expect("a good configuration");
    reading::to_the_end(&mut source).iter().map(ChangeBatch::rows).sum()
}

#[tokio::test]
async fn the_generator_conforms() {
    let config = GeneratorConfig { events: Some(4_003), customers: 160, ..GeneratorConfig::default() };
    conforms(&|| Box::new(config.build().expect("a good configuration")), images(&config)).await;
}

#[tokio::test]
async fn the_generator_conforms_at_a_rate() {
    let config =
        GeneratorConfig { events: Some(200), customers: 160, rate: Some(20_000), ..GeneratorConfig::default() };
    conforms(&|| Box::new(config.build().expect("a good configuration")), images(&config)).await;
}

/// The generator's events in a file of this name.
fn generated(folder: &tempfile::TempDir, name: &str, events: u64, lines: Lines) -> PathBuf {
    let path = folder.path().join(name);
    let mut text = Vec::new();
    let config = GeneratorConfig { events: Some(events), customers: 160, ..GeneratorConfig::default() };
    generate_ndjson(&config, lines, &mut text).expect("is written");
    if name.ends_with(".zst") {
        text = zstd::encode_all(&text[..], 3).expect("is compressed");
    }
    std::fs::File::create(&path).and_then(|mut f| f.write_all(&text)).expect("a file");
    path
}

#[tokio::test]
async fn a_file_conforms() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = generated(&folder, "shop.ndjson", 3_000, Lines::Plain);
    let rows = images(&GeneratorConfig { events: Some(3_000), customers: 160, ..GeneratorConfig::default() });
    conforms(&|| Box::new(FileConfig::new(&path).build().expect("a good configuration")), rows).await;
}

#[tokio::test]
async fn a_zstd_file_conforms() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = generated(&folder, "shop.ndjson.zst", 1_500, Lines::WithSchemas);
    let rows = images(&GeneratorConfig { events: Some(1_500), customers: 160, ..GeneratorConfig::default() });
    conforms(&|| Box::new(FileConfig::new(&path).build().expect("a good configuration")), rows).await;
}

#[tokio::test]
async fn what_debezium_wrote_conforms_line_by_line() {
    for name in ["debezium-postgres-schemas-on.ndjson", "debezium-postgres-schemas-off.ndjson"] {
        conforms(&|| Box::new(FileConfig::new(sample(name)).build().expect("a good configuration")), 27).await;
    }
}

#[tokio::test]
async fn several_files_with_bad_lines_between_conform() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy(sample("debezium-postgres-schemas-on.ndjson"), folder.path().join("a.ndjson")).expect("a copy");
    let bad: &[&[u8]] = &[b"{\"a\": ", b"", b"[1]", b"not json", b"\xff\xfe\x00", b"{\"op\":\"x\"}", b"  "];
    std::fs::write(folder.path().join("b.ndjson"), bad.join(&b"\r\n"[..])).expect("a file");
    generated(&folder, "c.ndjson", 300, Lines::Plain);
    std::fs::write(folder.path().join("other.txt"), b"not of these").expect("a file");
    let path = folder.path().join("*.ndjson");
    let rows = 27 + 5 + images(&GeneratorConfig { events: Some(300), customers: 160, ..GeneratorConfig::default() });
    conforms(&|| Box::new(FileConfig::new(&path).build().expect("a good configuration")), rows).await;
}
