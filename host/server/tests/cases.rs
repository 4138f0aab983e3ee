//! `millrace plugin test`: cases of a plugin and their golden files.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;

use serde_json::Value;
use support::Place;

const CASES: &str = r#"
plugin: mask
grant: { columns: [phone] }
config: { phone: last4 }
cases:
  - name: phones are cut
    given: [{ table: public.customers, insert: { id: 1, phone: "+49 170 1234567" } }]
    expect: [{ table: public.customers, insert: { id: 1, phone: "4567" } }]
  - name: by the golden file
    given: [{ table: public.customers, insert: { id: 1, phone: "123456" } }]
  - name: a rule that does not exist
    config: { phone: scramble }
    given: [{ table: public.customers, insert: { id: 1, phone: "123456" } }]
"#;

#[test]
fn a_golden_file_is_written_compared_and_shown_where_it_differs() {
    let place = Place::new();
    place.write("cases.yaml", CASES);
    let said = place.run(&["plugin", "test", "cases.yaml"]);
    assert_eq!(said.code, Some(1), "there is no golden file yet: {}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("1 passed, 2 failed"), "{}", said.stdout);
    let said = place.run(&["plugin", "test", "--update", "cases.yaml"]);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    let golden = std::fs::read_to_string(place.path().join("cases.golden.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    assert_eq!(golden["by the golden file"]["rows"]["public.customers"][0]["insert"]["phone"], "456", "{golden}");
    assert_eq!(golden["a rule that does not exist"]["error"]["code"], "plugin.invalid_config", "{golden}");
    assert_eq!(place.run(&["plugin", "test", "cases.yaml"]).code, Some(0));
    place.write(
        "cases.yaml",
        CASES.replace("123456\"", "123457\"").replace("4567\" } }]\n  - name: by", "9\" } }]\n  - name: by"),
    );
    let said = place.run(&["plugin", "test", "cases.yaml", "--json"]);
    assert_eq!((said.code, &said.json()["failed"]), (Some(1), &2.into()), "{}", said.stdout);
    let said = place.run(&["plugin", "test", "cases.yaml"]);
    assert!(said.stdout.contains("FAIL  mask: by the golden file"), "{}", said.stdout);
    assert!(said.stdout.contains("\"457\""), "{}", said.stdout);
}

#[test]
fn a_file_of_cases_that_makes_no_sense_is_refused() {
    let place = Place::new();
    for (text, part) in [
        ("plugin: mask\ncases: [{ name: a, givn: [] }]\n", "givn"),
        ("plugin: mask\ncases: [{ name: a, given: [] }, { name: a, given: [] }]\n", "two cases are called `a`"),
        ("plugin: [\n", "error["),
    ] {
        place.write("cases.yaml", text);
        let said = place.run(&["plugin", "test", "cases.yaml"]);
        assert_eq!(said.code, Some(1), "{}", said.stdout);
        assert!(said.problems().contains(part), "{}", said.problems());
    }
    let said = place.run(&["plugin", "test", "nowhere.yaml"]);
    assert!(said.problems().contains("file.unreadable"), "{}", said.problems());
    assert_eq!(place.run(&["plugin", "test"]).code, Some(2));
}

#[test]
fn a_bench_says_what_a_row_takes() {
    let place = Place::new();
    place.write("cases.yaml", CASES);
    let bench = |more: &[&str]| place.run(&[&["plugin", "bench", "cases.yaml", "--seconds", "1"], more].concat());
    let said = bench(&["--changes", "50", "--json"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let measured = &said.json()["measured"];
    assert_eq!(measured["rows"], 50);
    assert!(measured["median_ns"].as_f64() > Some(0.0) && measured["memory"].as_u64() > Some(0), "{measured}");
    let said = bench(&["--case", "no such"]);
    assert_eq!(said.code, Some(1));
    assert!(said.problems().contains("it has: phones are cut"), "{}", said.problems());
}

/// After a change that is meant: `millrace plugin test --update plugins/*/cases.yaml`.
#[test]
fn the_first_party_plugins_do_what_their_cases_say() {
    let place = Place::new();
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    for name in millrace_server::wiring::plugins::FIRST_PARTY {
        let file = plugins.join(name).join("cases.yaml");
        let said = place.run(&["plugin", "test", file.to_str().unwrap()]);
        assert_eq!(said.code, Some(0), "{name}: {}{}", said.stdout, said.stderr);
    }
}
