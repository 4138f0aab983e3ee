package millrace

import (
	"fmt"
	"unsafe"
)

//go:wasmexport millrace:plugin/lifecycle@0.1.0#describe
func describe() uint32 {
	info := exported.info
	return pin(&abiInfo{name: lendText(info.Name), version: lendText(info.Version), description: lendText(info.Description), configSchema: lendText(info.ConfigSchema)})
}

//go:wasmexport cabi_post_millrace:plugin/lifecycle@0.1.0#describe
func describeEnd(uint32) { EndCall() }

//go:wasmexport millrace:plugin/lifecycle@0.1.0#configure
func configure(json, jsonLen, pipeline, pipelineLen, ext, extLen uint32) uint32 {
	configured := func() (err error) {
		defer recovered(&err)
		return exported.configure(Config(takenText(list{json, jsonLen})))
	}
	result := &abiResult[abiError]{}
	if err := configured(); err != nil {
		*result = failed[abiError](err)
	}
	return pin(result)
}

//go:wasmexport cabi_post_millrace:plugin/lifecycle@0.1.0#configure
func configureEnd(uint32) { EndCall() }

// failed is the answer of a call that is refused. T is at least as large as an error.
func failed[T any](err error) abiResult[T] {
	call := asCallError(err)
	text := lendText(call.message)
	answer := abiError{tag: uint8(call.kind), a: text.ptr, b: text.len}
	if call.kind == retryLater {
		answer = abiError{uint8(call.kind), call.afterMS, text.ptr, text.len}
	}
	result := abiResult[T]{failed: 1}
	*(*abiError)(unsafe.Pointer(&result.value)) = answer
	return result
}

func schemaFrom(given *abiSchema) *Schema {
	schema := &Schema{Connector: takenText(given.connector), Namespace: takenText(given.namespace), Table: takenText(given.table), Images: given.images}
	for _, c := range taken[abiColumnDef](given.columns) {
		column := ColumnDef{Name: takenText(c.name), Type: Type{Kind: Kind(c.of.tag)}, Nullable: c.nullable != 0, Key: c.key != 0, SourceType: takenText(c.sourceType)}
		switch column.Type.Kind {
		case Decimal, Decimal64:
			column.Type.Precision, column.Type.Scale = uint8(c.of.name.ptr), int8(c.of.name.ptr>>8)
		case Other:
			column.Type.Name = takenText(c.of.name)
		}
		for _, pair := range taken[abiPair](c.ext) {
			column.ext = append(column.ext, [2]string{takenText(pair.name), takenText(pair.value)})
		}
		schema.Columns = append(schema.Columns, column)
	}
	return schema
}

func columnDefTo(c *ColumnDef) abiColumnDef {
	of := abiType{tag: uint8(c.Type.Kind), name: list{ptr: uint32(c.Type.Precision) | uint32(uint8(c.Type.Scale))<<8}}
	if c.Type.Kind == Other {
		of.name = lendText(c.Type.Name)
	}
	var ext []abiPair
	for _, pair := range c.ext {
		ext = append(ext, abiPair{lendText(pair[0]), lendText(pair[1])})
	}
	return abiColumnDef{lendText(c.Name), of, flag(c.Nullable), flag(c.Key), lendText(c.SourceType), lend(ext)}
}

func flag(value bool) uint8 {
	if value {
		return 1
	}
	return 0
}

func lendTexts(texts []string) list {
	var lists []list
	for _, text := range texts {
		lists = append(lists, lendText(text))
	}
	return lend(lists)
}

// PlanTransform is the export `plan` of a transform.
func PlanTransform(arguments uint32) uint32 {
	given := (*abiPlanArguments)(pointer(arguments))
	plan, err := func() (_ *Plan, err error) {
		defer recovered(&err)
		return exported.plan(given.id, schemaFrom(&given.schema))
	}()
	result := abiResult[abiOptional[abiTransformPlan]]{}
	if err != nil {
		result = failed[abiOptional[abiTransformPlan]](err)
	} else if plan != nil {
		result.value = abiOptional[abiTransformPlan]{1, plan.answer()}
	}
	return pin(&result)
}

func (p *Plan) answer() abiTransformPlan {
	answer := abiTransformPlan{reads: lend(p.reads), effects: lendTexts(p.effects), drops: lend(p.drops)}
	answer.renameTable = abiOption{flag(p.table != ""), lendText(p.table)}
	var renames []abiRename
	for index := range p.schema.Columns {
		if to, renamed := p.renames[uint16(index)]; renamed {
			renames = append(renames, abiRename{uint16(index), lendText(to)})
		}
	}
	var writes []abiWrite
	for i := range p.writes {
		w := &p.writes[i]
		writes = append(writes, abiWrite{flag(w.replaces >= 0), uint16(max(w.replaces, 0)), columnDefTo(&w.output)})
	}
	answer.renames, answer.writes = lend(renames), lend(writes)
	return answer
}

func batchFrom(schema *Schema, reads []uint16, rows, changes, changesLen, columns, columnsLen uint32) *batch {
	b := &batch{rows: int(rows), changes: taken[byte](list{changes, changesLen})}
	for i, c := range taken[abiColumn](list{columns, columnsLen}) {
		b.columns = append(b.columns, columnFrom(schema.Columns[reads[i]].Type, b.rows, &c))
	}
	return b
}

func columnFrom(of Type, rows int, c *abiColumn) *Column {
	column := &Column{Type: of, Rows: rows}
	if c.presence.some != 0 {
		column.Presence = taken[byte](c.presence.value)
	}
	first := list{c.a, c.b}
	switch layout(c.tag) {
	case bools:
		column.Bools = taken[byte](first)
	case i32s:
		column.I32s = taken[int32](first)
	case i64s:
		column.I64s = taken[int64](first)
	case f32s:
		column.F32s = taken[float32](first)
	case f64s:
		column.F64s = taken[float64](first)
	case vars:
		column.Offsets, column.Data = taken[uint32](first), taken[byte](list{c.c, c.d})
	case fixed:
		column.Width, column.Data = int(c.a), taken[byte](list{c.b, c.c})
	}
	return column
}

func columnTo(c *Column) abiColumn {
	to := abiColumn{presence: abiOption{flag(c.Presence != nil), lend(c.Presence)}}
	var first list
	if c.Width > 0 {
		data := lend(c.Data)
		to.tag, to.a, to.b, to.c = uint8(fixed), uint32(c.Width), data.ptr, data.len
		return to
	}
	to.tag = uint8(c.Type.layout())
	switch layout(to.tag) {
	case bools:
		first = lend(c.Bools)
	case i32s:
		first = lend(c.I32s)
	case i64s:
		first = lend(c.I64s)
	case f32s:
		first = lend(c.F32s)
	case f64s:
		first = lend(c.F64s)
	case vars:
		data := lend(c.Data)
		first, to.c, to.d = lend(c.Offsets), data.ptr, data.len
	}
	to.a, to.b = first.ptr, first.len
	return to
}

// Apply is the export `apply` of a transform.
func Apply(schema, rows, changes, changesLen, columns, columnsLen uint32) uint32 {
	plan, known := exported.plans[schema]
	result := abiResult[abiOutcome]{}
	if !known {
		result = failed[abiOutcome](neverPlanned(schema))
		return pin(&result)
	}
	d, err := plan.run(batchFrom(plan.schema, plan.reads, rows, changes, changesLen, columns, columnsLen))
	if err != nil {
		result = failed[abiOutcome](err)
		return pin(&result)
	}
	result.value = d.answer()
	return pin(&result)
}

func (d *draft) answer() abiOutcome {
	answer := abiOutcome{fates: abiOption{flag(d.fates != nil), lend(d.fates)}}
	written := make([]abiOptionalColumn, len(d.columns))
	for i, column := range d.columns {
		if column != nil {
			written[i] = abiOptionalColumn{1, columnTo(column)}
		}
	}
	rejects := make([]abiReject, len(d.rejects))
	for i, refusal := range d.rejects {
		reject := refusal.reject
		rejects[i] = abiReject{row: uint32(refusal.row), code: lendText(reject.Code), reason: lendText(reject.Reason), retryable: flag(reject.Retryable)}
		rejects[i].column = abiOption{flag(refusal.column != ""), lendText(refusal.column)}
	}
	answer.columns, answer.rejects = lend(written), lend(rejects)
	if d.byRow != nil {
		answer.routing, answer.names, answer.byRow = 1, lendTexts(d.tables), lend(d.byRow)
	}
	return answer
}

// PlanValidator is the export `plan` of a validator.
func PlanValidator(arguments uint32) uint32 {
	given := (*abiPlanArguments)(pointer(arguments))
	checks, err := func() (_ *Checks, err error) {
		defer recovered(&err)
		return exported.check(given.id, schemaFrom(&given.schema))
	}()
	result := abiResult[abiOptional[abiCheckPlan]]{}
	if err != nil {
		result = failed[abiOptional[abiCheckPlan]](err)
	} else if checks != nil {
		var rules []abiRule
		for _, r := range checks.rules {
			rules = append(rules, abiRule{name: lendText(r.name), severity: uint8(r.severity), columns: lend(r.columns)})
		}
		result.value = abiOptional[abiCheckPlan]{1, abiCheckPlan{reads: lend(checks.reads), rules: lend(rules)}}
	}
	return pin(&result)
}

// CheckBatch is the export `check` of a validator.
func CheckBatch(schema, rows, changes, changesLen, columns, columnsLen uint32) uint32 {
	// A list, which an error is larger than.
	type violations struct {
		list list
		_    [2]uint32
	}
	result := abiResult[violations]{}
	checks, known := exported.checks[schema]
	if !known {
		result = failed[violations](neverPlanned(schema))
		return pin(&result)
	}
	found, err := checks.run(batchFrom(checks.schema, checks.reads, rows, changes, changesLen, columns, columnsLen))
	if err != nil {
		result = failed[violations](err)
		return pin(&result)
	}
	answer := make([]abiViolation, len(found))
	for i, v := range found {
		answer[i] = abiViolation{uint32(v.row), v.rule, lendText(v.message)}
	}
	result.value.list = lend(answer)
	return pin(&result)
}

func neverPlanned(schema uint32) error { return fmt.Errorf("schema %d was never planned", schema) }
