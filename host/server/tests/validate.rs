//! What `millrace validate` says of pipeline files that are wrong.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::Place;

fn problems(text: &str) -> String {
    let place = Place::new();
    place.write("p.yaml", text);
    let said = place.run(&["validate", "p.yaml"]);
    assert_eq!(said.code, Some(1), "{}{}", said.stdout, said.stderr);
    said.problems()
}

#[test]
fn every_problem_of_a_file_is_said_at_once_with_its_place_and_what_would_be_right() {
    insta::assert_snapshot!(problems(
        r#"
pipeline: My Shop
source:
  postgres:
    url: postgres://shop:hunter2@localhost/shop
    tabels: [public.orders]
stages:
  - plugin: maks
    grants: { columns: [email] }
  - plugin: mask
    tables: ["public.*.orders"]
    grant: { columns: [email, "ph*"], crypto: [pi], keys: [id] }
    on_failure: ignore
    limits: { memory: 64 }
  - plugin: ./mine.wasm
sink:
  delta:
    path: s3://lake/{schema}/{table}
    mode: mirror
    partition_by: day
  stdout: {}
keys: { pii: "literal key" }
settings: { batch: { rows: many }, cut: { interval: 5 seconds } }
metrics: { listen: everywhere }
tests:
  - name: nothing is given
    given: []
  - given: [{ table: t, insert: { id: 1 }, delete: { id: 1 } }]
colour: red
"#
    ));
}

#[test]
fn semantic_problems_are_said_at_once_too() {
    insta::assert_snapshot!(problems(
        r#"
pipeline: shop
source: { generator: { customers: 1000 } }
stages:
  - plugin: maks
    grant: { columns: [email] }
  - plugin: mask
    tables: ["public.*.orders", shop.customers, shop.customers]
    grant: { columns: [email, "ph*"], crypto: [pi], keys: [id] }
    config: { email: hash }
  - plugin: ./mine.wasm
sink:
  delta:
    path: s3://lake/{schema}/{table}
    mode: upsert
keys: { pii: "${env:PII:-secret}" }
metrics: { listen: everywhere }
tests:
  - name: one
    given: [{ table: t, insert: { id: 1 }, delete: { id: 1 } }, { table: t, reject: { code: c } }, { table: t }]
    tables: { u: { columns: { id: varchar } } }
  - name: one
    given: [{ table: t, insert: { id: 1 } }]
"#
    ));
}

#[test]
fn what_is_not_there_is_said_with_what_it_is_for() {
    insta::assert_snapshot!(problems("source: { postgres: { tables: [] } }\nsink: {}\n"));
}

#[test]
fn references_that_do_not_resolve_are_said() {
    insta::assert_snapshot!(problems(
        "pipeline: shop\nsource: { postgres: { url: '${env:SHOP_DB}', tables: [a.b] } }\nsink: { stdout: }\n\
         keys: { pii: '${file:secret.txt}', other: '${vault:x}' }\n"
    ));
}

#[test]
fn no_message_shows_a_secret() {
    let place = Place::new();
    let text = "pipeline: shop\nsource: { postgres: { url: '${env:SHOP_DB}', tables: [a.b], slot: '${env:SHOP_DB}' } }\nsink: { stdout: }\n";
    place.write("p.yaml", text);
    let output = place.command(&["validate", "p.yaml"]).env("SHOP_DB", "mysql://u:hunter2secret@h/d").output().unwrap();
    let said = place.said(output);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("p.yaml:2:"), "{}", said.stderr);
    assert!(!said.stderr.contains("hunter2") && !said.stdout.contains("hunter2"), "{}", said.stderr);
}

#[test]
fn text_that_is_no_yaml_is_said_with_its_place() {
    for (text, at, says) in [
        ("pipeline:\n\tname: x\n", "p.yaml:2:", "indent with spaces"),
        ("pipeline: shop\nsource: { generator: {\n", "p.yaml:", "yaml.syntax"),
        ("", "p.yaml:1:1:", "yaml.empty"),
        ("pipeline: a\n---\npipeline: b\n", "p.yaml:3:1:", "holds one"),
        ("- a\n- b\n", "p.yaml:1:1:", "must be a mapping"),
        ("pipeline: a\npipeline: b\n", "p.yaml:2:1:", "given twice"),
    ] {
        let said = problems(text);
        assert!(said.contains(at) && said.contains(says), "{text:?}: {said}");
    }
}

#[test]
fn a_file_that_is_not_there_is_said() {
    let said = Place::new().run(&["validate", "gone.yaml"]);
    assert_eq!(said.code, Some(1));
    assert_eq!(
        said.problems(),
        "gone.yaml:1:1: error[file.unreadable]: there is no such file; give the path of a pipeline file\n1 problem\n"
    );
}

#[test]
fn two_files_of_one_name_are_refused() {
    let place = Place::new();
    let text = "pipeline: shop\nsource: { generator: {} }\nsink: { null: }\n";
    place.write("a.yaml", text);
    place.write("b.yaml", text);
    let said = place.run(&["validate", "a.yaml", "b.yaml"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("b.yaml:1:11: error[pipeline.duplicate]: the pipeline `shop` is also that of a.yaml"),
        "{}",
        said.stderr
    );
}

#[test]
fn problems_are_also_there_for_programs() {
    let place = Place::new();
    place.write("p.yaml", "pipeline: shop\nsource: { generator: { seeds: 1 } }\nsink: { null: }\n");
    let said = place.run(&["validate", "p.yaml", "--json"]);
    assert_eq!(said.code, Some(1));
    let problem = &said.json()["problems"][0];
    assert_eq!((&problem["line"], &problem["column"]), (&2.into(), &24.into()));
    assert_eq!(problem["code"], "config.unknown_key");
    assert_eq!(problem["hint"], "did you mean `seed`?");
}

#[test]
fn a_plugin_has_its_say_about_its_configuration_and_its_grants() {
    insta::assert_snapshot!(problems(
        r#"
pipeline: shop
source: { generator: {} }
stages:
  - plugin: mask
    grant: { columns: [email, phone] }
    config:
      email: scramble
      phone: { last: -1 }
  - plugin: cast-rename
    grant: { columns: [total] }
    config: { renam: { total: amount } }
  - plugin: mask
    grant: { columns: [email] }
    config: { email: hash }
sink: { null: }
"#
    ));
}

#[test]
fn a_file_that_is_no_component_is_refused() {
    let place = Place::new();
    place.write("mine.wasm", b"\0asm\x01\0\0\0");
    place.write("p.yaml", "pipeline: shop\nsource: { generator: {} }\nstages: [{ plugin: ./mine.wasm, grant: { columns: [a] } }]\nsink: { null: }\n");
    let said = place.run(&["validate", "p.yaml"]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("p.yaml:3:20: error[plugin."), "{}", said.stderr);
}

#[test]
fn a_pinned_digest_must_be_that_of_the_file() {
    let place = Place::new();
    let digest = "0".repeat(64);
    let text = format!(
        "pipeline: shop\nsource: {{ generator: {{}} }}\nstages: [{{ plugin: mask, digest: \"sha256:{digest}\", grant: {{ columns: [email] }} }}]\nsink: {{ null: }}\n"
    );
    place.write("p.yaml", text);
    let said = place.run(&["validate", "p.yaml"]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("error[plugin.digest]"), "{}", said.stderr);
}

#[test]
fn the_pipelines_of_the_repository_are_right() {
    let place = Place::new();
    let folder = support::plugins().join("../../pipelines").canonicalize().unwrap();
    for file in ["demo.yaml", "postgres-to-delta.yaml", "file-to-delta.yaml"] {
        let path = folder.join(file);
        let mut command = place.command(&["validate", path.to_str().unwrap()]);
        command.env("SHOP_DB", "postgres://u:p@localhost/d").env("PII_KEY", "k").env("EVENTS", "/tmp/none.ndjson");
        let said = place.said(command.output().unwrap());
        assert_eq!((said.code, said.problems().as_str()), (Some(0), ""), "{file}");
    }
}

#[test]
fn a_warning_is_said_and_does_not_fail() {
    let place = Place::new();
    place.write("p.yaml", "pipeline: shop\nsource: { generator: {} }\nstages: [{ plugin: mask }]\nsink: { null: }\n");
    let said = place.run(&["validate", "p.yaml"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), "p.yaml: right\n"));
    assert!(said.stderr.starts_with("p.yaml:3:10: warning[grant.nothing]"), "{}", said.stderr);
}

#[test]
fn letters_in_a_folder_that_a_table_may_have_are_refused() {
    let place = Place::new();
    let file = |path: &str| {
        format!(
            "pipeline: p\nsource: {{ generator: {{ events: 1 }} }}\nsink: {{ delta: {{ path: './lake/{{namespace}}/{{table}}' }} }}\n\
             dead_letters: {{ delta: {{ path: '{path}' }} }}\n"
        )
    };
    for (path, is_right) in [
        ("./lake/shop/orders", false),
        ("lake/_millrace/p/provenance", false),
        ("./lake/shop/_letters", true),
        ("./letters", true),
    ] {
        place.write("p.yaml", file(path));
        let said = place.run(&["validate", "p.yaml"]);
        let found = said.problems().contains("error[sink.path_collision]");
        assert_eq!((found, said.code == Some(0)), (!is_right, is_right), "{path}: {}", said.stderr);
    }
}
