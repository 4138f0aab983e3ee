//! Everything that a plugin can do wrong, by config: `{ "case": NAME, "marker": TEXT }`. For the tests of the runtime, so it
//! stands on the generated bindings: the SDK would not let it.
//!
//! It reads and writes the column `note`, and where a case needs one row it is the row whose note is the marker.

use std::cell::RefCell;

use millrace_sdk::bindings::transform::exports::millrace::plugin::{lifecycle, transform};
use millrace_sdk::bindings::types::{
    Batch, Cells, Column, ColumnDef, DataType, Reject, Retry, StageError, TableSchema, VarData,
};
use millrace_sdk::host;
use serde::Deserialize;
use transform::{Outcome, Rename, Routing, TransformPlan, Write};

#[derive(Deserialize, Clone, Default)]
struct Config {
    case: String,
    #[serde(default)]
    marker: String,
}

thread_local! {
    static CONFIG: RefCell<Config> = RefCell::default();
    static LEAK: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

struct Hostile;

fn case() -> String {
    CONFIG.with_borrow(|c| c.case.clone())
}

fn forever() -> ! {
    let mut n = 0u64;
    loop {
        n = std::hint::black_box(n.wrapping_add(1));
    }
}

#[allow(unconditional_recursion)]
fn recurse(n: u64) -> u64 {
    std::hint::black_box(recurse(std::hint::black_box(n + 1)) + 1)
}

impl lifecycle::Guest for Hostile {
    fn describe() -> lifecycle::Info {
        lifecycle::Info {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            description: String::new(),
            config_schema: String::new(),
            memory_mib: 0,
            milliseconds: 0,
            ext: vec![],
        }
    }

    fn configure(config: lifecycle::Config) -> Result<(), StageError> {
        millrace_sdk::export::log_panics();
        let config: Config =
            millrace_sdk::serde_json::from_str(&config.json).map_err(|e| StageError::InvalidConfig(e.to_string()))?;
        match config.case.as_str() {
            "loop_in_configure" => forever(),
            "panic_in_configure" => panic!("configure"),
            "refuse_config" => return Err(StageError::InvalidConfig("no config is good enough".into())),
            _ => {}
        }
        CONFIG.set(config);
        Ok(())
    }
}

impl transform::Guest for Hostile {
    fn plan(_: u32, table: TableSchema, _: Vec<String>) -> Result<Option<TransformPlan>, StageError> {
        let index = |name: &str| table.columns.iter().position(|c| c.name == name).map(|i| i as u16);
        let Some(note) = index("note") else { return Ok(None) };
        let replace = |column: u16, output: ColumnDef| Write { replaces: Some(column), output };
        let same = |column: u16| table.columns[usize::from(column)].clone();
        let mut plan = TransformPlan {
            reads: vec![note],
            meta: vec![],
            effects: ["drop", "reject", "route"].map(String::from).to_vec(),
            rename_table: None,
            drops: vec![],
            renames: vec![],
            writes: vec![replace(note, same(note))],
            shapes: vec![],
            ext: vec![],
        };
        match case().as_str() {
            "plan_panic" => panic!("plan"),
            "plan_index" => plan.reads.push(999),
            "plan_effect" => plan.effects.push("delete everything".into()),
            "plan_meta" => plan.meta.push("password".into()),
            "plan_write_ungranted" => {
                let other = index("other").ok_or_else(|| StageError::Bug("no column `other`".into()))?;
                plan.writes.push(replace(other, same(other)));
            }
            "plan_drop_ungranted" => plan.drops.extend(index("other")),
            "plan_rename_ungranted" => {
                plan.renames.extend(index("other").map(|column| Rename { column, to: "mine".into() }));
            }
            "plan_write_key" => {
                let id = index("id").ok_or_else(|| StageError::Bug("no column `id`".into()))?;
                plan.writes.push(replace(id, same(id)));
            }
            "plan_name_collision" => plan.writes[0].output.name = "id".into(),
            "plan_hidden_collision" => plan.writes[0].output.name = "secret".into(),
            "plan_add" => {
                plan.writes.push(Write { replaces: None, output: ColumnDef { name: "added".into(), ..same(note) } })
            }
            "plan_twice" => plan.drops.push(note),
            "plan_undeclared_drop" => plan.effects.retain(|e| e != "drop"),
            "plan_not_null" => plan.writes[0].output.nullable = false,
            "plan_unsupported" => return Err(StageError::UnsupportedSchema("this table is not for me".into())),
            "plan_sees" => {
                let names: Vec<&str> = table.columns.iter().map(|c| c.name.as_str()).collect();
                return Err(StageError::UnsupportedSchema(names.join(",")));
            }
            "retype" => plan.writes[0].output.ty = DataType::Int64,
            _ => {}
        }
        Ok(Some(plan))
    }

    fn apply(batch: Batch) -> Result<Outcome, StageError> {
        let rows = batch.rows as usize;
        let note = &batch.columns[0];
        let marked = (0..rows).find(|&row| is_marked(note, row));
        let mut outcome = Outcome {
            fates: None,
            columns: vec![Some(note.clone())],
            rejects: vec![],
            emissions: vec![],
            routing: None,
        };
        match case().as_str() {
            "loop" => forever(),
            "loop_on" if marked.is_some() => forever(),
            "memory" => {
                let mut hoard: Vec<Vec<u8>> = vec![];
                loop {
                    hoard.push(vec![1; 1 << 20]);
                    std::hint::black_box(&hoard);
                }
            }
            "leak" => LEAK.with_borrow_mut(|leak| leak.push(vec![1; 1 << 20])),
            "stack" => {
                std::hint::black_box(recurse(0));
            }
            "panic" => panic!("no batch is good enough"),
            "panic_on" if marked.is_some() => panic!("this row is poison"),
            "huge" => set_vars(&mut outcome, |v| v.data.resize(48 << 20, b'x')),
            "offsets_descend" => set_vars(&mut outcome, |v| v.offsets.reverse()),
            "offsets_beyond" => set_vars(&mut outcome, |v| v.offsets.iter_mut().skip(1).for_each(|o| *o = u32::MAX)),
            "offsets_start" => set_vars(&mut outcome, |v| v.offsets[0] = 1),
            "few_rows" => set_vars(&mut outcome, |v| v.offsets.truncate(rows)),
            "many_rows" => set_vars(&mut outcome, |v| v.offsets.push(v.data.len() as u32)),
            "few_fates" => outcome.fates = Some(vec![0; rows.saturating_sub(1)]),
            "odd_fate" => outcome.fates = Some(vec![7; rows]),
            "utf8" => set_vars(&mut outcome, |v| v.data.fill(0xff)),
            "utf8_split" => set_vars(&mut outcome, split_a_character),
            "wrong_cells" => {
                outcome.columns = vec![Some(Column { presence: None, cells: Cells::Bools(vec![1; rows]) })]
            }
            "retype" => outcome.columns = vec![None],
            "no_columns" => outcome.columns = vec![],
            "presence_length" => set_presence(&mut outcome, vec![1; rows + 1]),
            "presence_code" => set_presence(&mut outcome, vec![9; rows]),
            "unsend" => set_presence(&mut outcome, vec![2; rows]),
            "plan_not_null" => set_presence(&mut outcome, vec![0; rows]),
            "reject_row" => outcome.rejects.push(reject(rows as u32 + 5)),
            "plan_undeclared_drop" => outcome.fates = Some(vec![1; rows]),
            "route_index" => outcome.routing = Some(Routing { names: vec![String::new()], by_row: vec![3; rows] }),
            "route_rows" => outcome.routing = Some(Routing { names: vec![String::new()], by_row: vec![] }),
            "route_many" => {
                let names = (0..60_000).map(|i| format!("table_{i}")).collect();
                outcome.routing = Some(Routing { names, by_row: (0..rows).map(|i| i as u16).collect() });
            }
            "reject_marked" => outcome.rejects.extend(marked.map(|row| reject(row as u32))),
            "log_flood" => (0..10_000).for_each(|i| host::log(host::Level::Info, &format!("line {i}"), &[])),
            "metric_flood" => {
                (0..10_000).for_each(|i| host::count(&format!("metric_{i}"), &[("row", &i.to_string())], 1))
            }
            "crypto" => {
                let error = host::hmac_sha256("not-granted", &millrace_sdk_column(note)).err();
                return Err(StageError::Bug(error.map(|e| e.to_string()).unwrap_or_default()));
            }
            "retry" => return Err(StageError::RetryLater(Retry { after_ms: 5, reason: "not now".into() })),
            "unsupported" => return Err(StageError::UnsupportedSchema("not this table".into())),
            "bug" => return Err(StageError::Bug("found one".into())),
            _ => {}
        }
        Ok(outcome)
    }
}

fn millrace_sdk_column(column: &Column) -> millrace_sdk::Column {
    millrace_sdk::Column::from_raw(column.clone())
}

fn vars(column: &Column) -> &VarData {
    match &column.cells {
        Cells::Vars(v) => v,
        other => panic!("note is text, not {other:?}"),
    }
}

fn is_marked(note: &Column, row: usize) -> bool {
    let v = vars(note);
    CONFIG.with_borrow(|c| {
        !c.marker.is_empty() && &v.data[v.offsets[row] as usize..v.offsets[row + 1] as usize] == c.marker.as_bytes()
    })
}

fn set_vars(outcome: &mut Outcome, f: impl FnOnce(&mut VarData)) {
    if let Some(Column { cells: Cells::Vars(v), .. }) = &mut outcome.columns[0] {
        f(v);
    }
}

fn set_presence(outcome: &mut Outcome, presence: Vec<u8>) {
    if let Some(column) = &mut outcome.columns[0] {
        column.presence = Some(presence);
    }
}

/// The data as a whole is UTF-8, the cells are not.
fn split_a_character(v: &mut VarData) {
    let rows = v.offsets.len() - 1;
    v.data = "ä".repeat(rows).into_bytes();
    v.offsets =
        (0..=rows).map(|row| if row == 0 || row == rows { 2 * row as u32 } else { 2 * row as u32 - 1 }).collect();
}

fn reject(row: u32) -> Reject {
    Reject {
        row,
        code: "hostile.marked".into(),
        reason: "the marker".into(),
        column: None,
        retryable: false,
        ext: vec![],
    }
}

millrace_sdk::bindings::transform::export_transform!(Hostile with_types_in millrace_sdk::bindings::transform);
