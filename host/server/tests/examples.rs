//! `millrace test`: the examples of a pipeline file, through the real plugins.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::Place;

const PIPELINE: &str = r#"
pipeline: shop
source: { generator: {} }
stages:
  - plugin: cast-rename
    tables: [shop.orders]
    grant: { columns: [total, amount, kind] }
    config: { rename: { total: amount }, keep: { kind: { not_in: [test] } } }
  - plugin: mask
    tables: [shop.customers]
    grant: { columns: [phone, email], crypto: [pii] }
    config: { phone: last4, email: hash }
  - plugin: rules
    tables: [shop.orders]
    grant: { read: [amount] }
    config: { orders: { amount: ">= 0" } }
sink: { null: }
keys: { pii: "${env:PII_KEY:-k}" }
"#;

const RIGHT: &str = r#"
tests:
  - name: phones are cut
    given: [{ table: shop.customers, insert: { id: 1, phone: "+49 170 1234567" } }]
    expect: [{ table: shop.customers, insert: { id: 1, phone: "4567" } }]
  - name: an update is two row images that are masked alike, and a delete stays one
    given:
      - table: shop.customers
        update: { before: { id: 1, phone: "123456" }, after: { id: 1, phone: "654321" } }
      - { table: shop.customers, delete: { id: 1, phone: "123456" } }
    expect:
      - table: shop.customers
        update: { before: { id: 1, phone: "456" }, after: { id: 1, phone: "321" } }
      - { table: shop.customers, delete: { id: 1, phone: "456" } }
  - name: a negative total is refused and test orders are dropped
    given:
      - { table: shop.orders, insert: { id: 1, kind: web, total: -1.5 } }
      - { table: shop.orders, insert: { id: 2, kind: test, total: 1.5 } }
      - { table: shop.orders, insert: { id: 3, kind: web, total: 1.5 } }
    expect:
      - { table: shop.orders, insert: { id: 3, kind: web, amount: 1.5 } }
      - { table: shop.orders, reject: { code: rule.violated, column: amount } }
    dropped: 1
  - name: types can be given
    given: [{ table: shop.orders, insert: { id: 1, kind: web, total: "12.50" } }]
    tables: { shop.orders: { key: [id], columns: { total: "decimal(10,2)" } } }
    expect: [{ table: shop.orders, insert: { id: 1, kind: web, amount: 12.5 } }]
"#;

#[test]
fn examples_that_hold_pass() {
    let place = Place::new();
    place.write("p.yaml", format!("{PIPELINE}{RIGHT}"));
    let said = place.run(&["test", "p.yaml"]);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.ends_with("4 passed, 0 failed\n"), "{}", said.stdout);
}

#[test]
fn what_differs_is_shown_as_a_diff() {
    let place = Place::new();
    let wrong = r#"
tests:
  - name: phones are cut
    given: [{ table: shop.customers, insert: { id: 1, phone: "+49 170 1234567" } }]
    expect: [{ table: shop.customers, insert: { id: 1, phone: "567" } }]
  - name: a negative total goes through
    given: [{ table: shop.orders, insert: { id: 1, kind: web, total: -1.5 } }]
    expect: [{ table: shop.orders, insert: { id: 1, kind: web, amount: -1.5 } }]
  - name: test orders are kept
    given: [{ table: shop.orders, insert: { id: 2, kind: test, total: 1.5 } }]
    dropped: 0
  - name: a text is no integer
    given: [{ table: shop.orders, insert: { id: x, total: 1 } }]
    tables: { shop.orders: { columns: { id: int64 } } }
"#;
    place.write("p.yaml", format!("{PIPELINE}{wrong}"));
    let said = place.run(&["test", "p.yaml"]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    insta::assert_snapshot!(said.stdout);
}

#[test]
fn results_are_also_there_for_programs() {
    let place = Place::new();
    place.write("p.yaml", format!("{PIPELINE}{RIGHT}"));
    let said = place.run(&["test", "p.yaml", "--json"]);
    let answer = said.json();
    assert_eq!((said.code, &answer["passed"], &answer["failed"]), (Some(0), &4.into(), &0.into()));
    assert_eq!(answer["tests"][2]["test"]["dropped"], 1);
}

#[test]
fn the_demo_keeps_its_own_promises() {
    let place = Place::new();
    let demo = support::plugins().join("../../pipelines/demo.yaml").canonicalize().unwrap();
    let said = place.run(&["test", demo.to_str().unwrap()]);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
}
