use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Int64Type};
use futures::FutureExt;
use millrace_core::batch::ChangeBatch;
use millrace_core::cut::BatchLimits;
use millrace_core::json;
use sha2::{Digest, Sha256};

use super::*;

/// What answers without waiting for anything.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("answers at once")
}

fn config(events: u64) -> GeneratorConfig {
    GeneratorConfig { events: Some(events), customers: LEAST_CUSTOMERS, ..GeneratorConfig::default() }
}

/// Every batch until the end.
fn all(config: &GeneratorConfig) -> Vec<ChangeBatch> {
    let mut source = config.build().expect("a good configuration");
    let mut cut = CutBuilder::new(BatchLimits::default());
    let mut batches = Vec::new();
    block_on(source.open(&Resume::default())).expect("opens");
    loop {
        let boundary = block_on(source.read(&mut cut)).expect("reads");
        batches.extend(cut.take_closed());
        if matches!(boundary, Boundary::End(_)) {
            batches.extend(cut.finish().expect("finishes").0);
            return batches;
        }
    }
}

fn text(batches: &[ChangeBatch]) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in batches {
        for row in 0..batch.rows() {
            let cells = serde_json::Value::from(json::row(batch, row, |_| false));
            lines.push(format!(
                "{} {} {} {cells}",
                batch.schema.name,
                batch.order(row),
                batch.change_types[row].name()
            ));
        }
    }
    lines
}

#[test]
fn as_many_changes_are_made_as_asked_for() {
    for events in [1, 2, 9, 500, 5_000] {
        let batches = all(&config(events));
        let changes: u64 = batches.iter().map(|b| b.origin.orders.len() as u64).sum();
        assert_eq!(changes, events);
    }
}

#[test]
fn the_first_events_are_those_of_this_shape_version() {
    let digest = Sha256::digest(text(&all(&config(2_000))).join("\n"));
    let hex: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, FIRST_EVENTS, "other events than before: raise SHAPE, since positions are of the old ones");
}

const FIRST_EVENTS: &str = "064753cb09198375";

#[test]
fn another_seed_gives_other_events() {
    let other = GeneratorConfig { seed: 2, ..config(100) };
    assert_eq!(text(&all(&config(100))), text(&all(&config(100))));
    assert_ne!(text(&all(&config(100))), text(&all(&other)));
}

#[test]
fn a_preimage_is_the_row_as_the_change_before_left_it() {
    let mut rows: BTreeMap<(String, i64), String> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for batch in all(&config(20_000)) {
        for row in 0..batch.rows() {
            let id = batch.columns[0].as_primitive::<Int64Type>().value(row);
            let key = (batch.schema.name.to_string(), id);
            let cells = serde_json::Value::from(json::row(&batch, row, |_| false)).to_string();
            let change_type = batch.change_types[row];
            seen.insert((batch.schema.name.to_string(), change_type.name()));
            match change_type {
                ChangeType::Insert => assert_eq!(rows.insert(key, cells), None),
                ChangeType::UpdatePreimage => assert_eq!(rows.get(&key), Some(&cells)),
                ChangeType::UpdatePostimage => {
                    assert_ne!(rows.insert(key, cells.clone()), Some(cells), "an update that changes nothing");
                }
                ChangeType::Delete => assert_eq!(rows.remove(&key), Some(cells)),
                ChangeType::Truncate => panic!("the generator truncates nothing"),
            }
        }
    }
    assert_eq!(seen.len(), 3 * 4, "each table has each kind of image: {seen:?}");
}

#[test]
fn a_payment_is_of_its_orders_total_and_customer() {
    let mut orders = BTreeMap::new();
    let mut payments = 0;
    let batches = all(&config(2_000));
    for (batch, row) in batches.iter().flat_map(|b| (0..b.rows()).map(move |r| (b, r))) {
        let int = |column: usize| batch.columns[column].as_primitive::<Int64Type>().value(row);
        let money = |column: usize| batch.columns[column].as_primitive::<Decimal128Type>().value(row);
        if &*batch.schema.name.table == "orders" {
            orders.insert(int(0), (int(1), money(7)));
        }
    }
    for (batch, row) in batches.iter().flat_map(|b| (0..b.rows()).map(move |r| (b, r))) {
        let int = |column: usize| batch.columns[column].as_primitive::<Int64Type>().value(row);
        if &*batch.schema.name.table == "payments" {
            payments += 1;
            let amount = batch.columns[5].as_primitive::<Decimal128Type>().value(row);
            assert_eq!(orders.get(&int(1)), Some(&(int(2), amount)));
        }
    }
    assert!(payments > 500, "{payments}");
}

#[test]
fn an_end_inside_a_transaction_goes_on_where_it_was() {
    let long: Vec<ChangeBatch> = all(&config(600));
    let mut source = config(333).build().expect("a good configuration");
    let mut cut = CutBuilder::new(BatchLimits::default());
    let opened = block_on(source.open(&Resume::default())).expect("opens");
    let Boundary::End(position) = block_on(source.read(&mut cut)).expect("reads") else { panic!("one read is enough") };
    let mut batches = cut.finish().expect("finishes").0;
    let mut source = config(600).build().expect("a good configuration");
    let resume = Resume { position: Some(position), incarnation: Some(opened.incarnation), ..Resume::default() };
    block_on(source.open(&resume)).expect("opens");
    while !matches!(block_on(source.read(&mut cut)).expect("reads"), Boundary::End(_)) {}
    batches.extend(cut.finish().expect("finishes").0);
    let (mut whole, mut parts) = (text(&long), text(&batches));
    whole.sort();
    parts.sort();
    assert_eq!(whole, parts);
}

#[test]
fn another_incarnation_or_a_foreign_token_is_a_gap() {
    let mut source = config(10).build().expect("a good configuration");
    let resume = Resume { incarnation: Some("generator:9:1000:v1".into()), ..Resume::default() };
    assert_eq!(block_on(source.open(&resume)).unwrap_err().code, "position.gap");
    for token in [
        &b""[..],
        b"1234567",
        b"123456789",
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        &[0xff; 8],
        &[0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 9],
    ] {
        let position = Some(Position { order: Order::new(1, 0), token: token.to_vec().into() });
        let error = block_on(source.open(&Resume { position, ..Resume::default() })).unwrap_err();
        assert_eq!(error.code, "position.token", "{token:?}");
    }
}

#[test]
fn numbers_out_of_their_range_are_refused() {
    assert_eq!(GeneratorConfig { rate: Some(0), ..config(1) }.build().unwrap_err().code, "generator.rate");
    assert_eq!(GeneratorConfig { customers: 5, ..config(1) }.build().unwrap_err().code, "generator.customers");
    assert!(serde_json::from_str::<GeneratorConfig>(r#"{"event": 1}"#).is_err(), "an unknown field");
}

#[tokio::test]
async fn a_rate_is_kept() {
    let config = GeneratorConfig { rate: Some(400), ..config(120) };
    let mut source = config.build().expect("a good configuration");
    let mut cut = CutBuilder::new(BatchLimits::default());
    source.open(&Resume::default()).await.expect("opens");
    let start = Instant::now();
    while !matches!(source.read(&mut cut).await.expect("reads"), Boundary::End(_)) {}
    // 120 changes at 400 a second; the last transaction starts at most six changes before the end.
    assert!(start.elapsed().as_millis() >= 280, "{:?}", start.elapsed());
}

/// Not a test but a measurement: `cargo test --release -p millrace-connectors -- --ignored --nocapture row_image`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_row_image() {
    let mut source = GeneratorConfig { events: Some(3_000_000), ..GeneratorConfig::default() }.build().expect("good");
    block_on(source.open(&Resume::default())).expect("opens");
    let mut cut = CutBuilder::new(BatchLimits::default());
    let cpu_nanos = || -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
        text.split(' ').next().and_then(|n| n.parse().ok()).expect("a number")
    };
    let (start, mut images) = (cpu_nanos(), 0);
    loop {
        let boundary = block_on(source.read(&mut cut)).expect("reads");
        images += cut.take_closed().iter().map(|b| b.rows() as u64).sum::<u64>();
        if matches!(boundary, Boundary::End(_)) {
            break;
        }
    }
    println!("{} images, {:.1} ns of CPU each", images, (cpu_nanos() - start) as f64 / images as f64);
}

#[test]
fn a_configuration_without_an_end_is_not_written_to_lines() {
    let error = generate_ndjson(&GeneratorConfig::default(), Lines::Plain, &mut Vec::new()).unwrap_err();
    assert_eq!(error.code, "generator.endless");
}
