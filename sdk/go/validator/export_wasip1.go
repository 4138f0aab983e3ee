package validator

import millrace "github.com/millrace/millrace/sdk/go"

//go:wasmexport millrace:plugin/validator@0.1.0#plan
func plan(arguments uint32) uint32 { return millrace.PlanValidator(arguments) }

//go:wasmexport cabi_post_millrace:plugin/validator@0.1.0#plan
func planEnd(uint32) { millrace.EndCall() }

//go:wasmexport millrace:plugin/validator@0.1.0#check
func run(schema, partition, snapshot, rows, changes, changesLen, numbered, numbers, numbersLen, meta, metaLen, columns, columnsLen uint32) uint32 {
	return millrace.CheckBatch(schema, rows, changes, changesLen, columns, columnsLen)
}

//go:wasmexport cabi_post_millrace:plugin/validator@0.1.0#check
func runEnd(uint32) { millrace.EndCall() }
