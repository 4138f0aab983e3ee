package transform

import millrace "github.com/millrace/millrace/sdk/go"

//go:wasmexport millrace:plugin/transform@0.1.0#plan
func plan(arguments uint32) uint32 { return millrace.PlanTransform(arguments) }

//go:wasmexport cabi_post_millrace:plugin/transform@0.1.0#plan
func planEnd(uint32) { millrace.EndCall() }

//go:wasmexport millrace:plugin/transform@0.1.0#apply
func run(schema, partition, snapshot, rows, changes, changesLen, numbered, numbers, numbersLen, meta, metaLen, columns, columnsLen uint32) uint32 {
	return millrace.Apply(schema, rows, changes, changesLen, columns, columnsLen)
}

//go:wasmexport cabi_post_millrace:plugin/transform@0.1.0#apply
func runEnd(uint32) { millrace.EndCall() }
