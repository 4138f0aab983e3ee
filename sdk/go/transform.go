package millrace

import (
	"errors"
	"fmt"
)

// Change says what happened to a row.
type Change uint8

const (
	Insert Change = 1 + iota
	UpdatePreimage
	UpdatePostimage
	Delete
)

// String: "insert", "update_preimage", "update_postimage", "delete"; what a later contract adds is "other".
func (c Change) String() string {
	if c < Insert || c > Delete {
		return "other"
	}
	return [...]string{"insert", "update_preimage", "update_postimage", "delete"}[c-Insert]
}

// Plan says what is done with the rows of one table. Columns go by their names; one that the table does not have, or that is not
// granted, is passed over. Columns are read as the source sent them: no operation sees what another wrote. NULL and not sent cells pass
// through column operations untouched, and a filter keeps the rows whose cell was not sent.
type Plan struct {
	schema     *Schema
	reads      []uint16
	effects    []string
	table      string
	drops      []uint16
	renames    map[uint16]string
	writes     []write
	rowWrites  []int
	operations []func(*batch, *draft) error
	err        error
}

type write struct {
	// -1: a new column
	replaces int
	output   ColumnDef
}

// batch holds the columns that the plan reads, in its order.
type batch struct {
	rows    int
	changes []byte
	columns []*Column
}

type refusal struct {
	row    int
	reject *Reject
	column string
}

// draft is the answer to a batch while it is made.
type draft struct {
	rows    int
	fates   []byte
	columns []*Column
	rejects []refusal
	tables  []string
	byName  map[string]uint16
	byRow   []uint16
}

func (d *draft) drop(row int) {
	if d.fates == nil {
		d.fates = make([]byte, d.rows)
	}
	d.fates[row] = 1
}

func (d *draft) route(row int, table string) {
	if d.byRow == nil {
		d.byRow, d.tables, d.byName = make([]uint16, d.rows), []string{""}, map[string]uint16{"": 0}
	}
	index, known := d.byName[table]
	if !known {
		index = uint16(len(d.tables))
		d.tables = append(d.tables, table)
		d.byName[table] = index
	}
	d.byRow[row] = index
}

// reject keeps a refusal of the row; any other error is the call's.
func (d *draft) reject(row int, err error, column string) error {
	var reject *Reject
	if !errors.As(err, &reject) {
		return err
	}
	d.rejects = append(d.rejects, refusal{row, reject, column})
	return nil
}

// RenameTable: rows leave for this table.
func (p *Plan) RenameTable(name string) { p.table = name }

// Rename gives a column another name. Costs nothing a row.
func (p *Plan) Rename(column, to string) {
	index := p.schema.index(column)
	if index < 0 {
		return
	}
	for i := range p.writes {
		if p.writes[i].replaces == index {
			p.writes[i].output.Name = to
			return
		}
	}
	if p.renames == nil {
		p.renames = map[uint16]string{}
	}
	p.renames[uint16(index)] = to
}

// DropColumn leaves a column out. Costs nothing a row.
func (p *Plan) DropColumn(column string) {
	if index := p.schema.index(column); index >= 0 {
		p.drops = append(p.drops, uint16(index))
	}
}

// Filter keeps the rows for whose value keep says so, and those without one: NULL, or not sent.
func Filter[T any](p *Plan, column string, view View[T], keep func(T) bool) {
	FilterCells(p, column, view, func(cell Cell[T]) bool { return cell.State == Null || keep(cell.Value) })
}

// FilterCells keeps the rows for whose cell keep says so, NULL included; those whose cell was not sent are kept.
func FilterCells[T any](p *Plan, column string, view View[T], keep func(Cell[T]) bool) {
	slot := input(p, column, view, "filter")
	if slot < 0 {
		return
	}
	p.MayDrop()
	p.operations = append(p.operations, func(b *batch, d *draft) error {
		c := b.columns[slot]
		for row := range b.rows {
			cell := Cell[T]{State: c.State(row)}
			switch cell.State {
			case NotSent:
				continue
			case HasValue:
				cell.Value = view.get(c, row)
			}
			if !keep(cell) {
				d.drop(row)
			}
		}
		return nil
	})
}

// Route sends each row to the table that to names for its value; empty, NULL and not sent: the usual one.
func Route[T any](p *Plan, column string, view View[T], to func(T) string) {
	slot := input(p, column, view, "route")
	if slot < 0 {
		return
	}
	p.MayRoute()
	p.operations = append(p.operations, func(b *batch, d *draft) error {
		c := b.columns[slot]
		for row := range b.rows {
			if c.State(row) != HasValue {
				continue
			}
			if table := to(view.get(c, row)); table != "" {
				d.route(row, table)
			}
		}
		return nil
	})
}

// Map writes a column anew with the same type, value by value.
func Map[T any](p *Plan, column string, view View[T], write func(T, *Out) error) {
	if definition := p.schema.Column(column); definition != nil {
		Convert(p, column, definition.Type, view, write)
	}
}

// Convert writes a column anew with another type, value by value. A Reject refuses the row.
func Convert[T any](p *Plan, column string, to Type, view View[T], write func(T, *Out) error) {
	slot := input(p, column, view, "convert")
	if slot < 0 {
		return
	}
	index := p.replace(column, to)
	p.effect("reject")
	p.operations = append(p.operations, func(b *batch, d *draft) error {
		c := b.columns[slot]
		out := newOut(to, b.rows, c)
		for row := range b.rows {
			if state := c.State(row); state != HasValue {
				out.absent(state)
			} else if err := write(view.get(c, row), out); err != nil {
				if err := d.reject(row, err, column); err != nil {
					return err
				}
				out.clear()
			}
			out.endRow()
		}
		d.columns[index] = &out.column
		return out.err
	})
}

// MapColumn writes a column anew as a whole: write answers a column of as many rows, of that type.
func (p *Plan) MapColumn(column string, to Type, write func(*Column) (*Column, error)) {
	slot := input(p, column, Any, "map column")
	if slot < 0 {
		return
	}
	index := p.replace(column, to)
	p.operations = append(p.operations, func(b *batch, d *draft) error {
		written, err := write(b.columns[slot])
		if err == nil && written.Rows != b.rows {
			err = fmt.Errorf("column %s was written with %d rows of %d", column, written.Rows, b.rows)
		}
		d.columns[index] = written
		return err
	})
}

// Inspect looks at a column of each batch as a whole, to count or to log.
func (p *Plan) Inspect(column string, look func(*Column) error) {
	slot := input(p, column, Any, "inspect")
	if slot < 0 {
		return
	}
	p.operations = append(p.operations, func(b *batch, _ *draft) error { return look(b.columns[slot]) })
}

// Input is a column that EachRow reads, Output one that it writes. -1: the table has no such column.
type (
	Input  int
	Output int
)

// Read is for EachRow: the column as an input.
func (p *Plan) Read(column string) Input {
	if index := p.schema.index(column); index >= 0 {
		return Input(p.read(index))
	}
	return -1
}

// Write is for EachRow: the column as an output of this type; rows that do not set it are NULL.
func (p *Plan) Write(column string, to Type) Output {
	if p.schema.index(column) < 0 {
		return -1
	}
	return p.rowOutput(p.replace(column, to))
}

// AddColumn is for EachRow: a new column; rows that do not set it are NULL.
func (p *Plan) AddColumn(name string, of Type) Output {
	p.writes = append(p.writes, write{-1, ColumnDef{Name: name, Type: of, Nullable: true}})
	return p.rowOutput(len(p.writes) - 1)
}

// EachRow runs each on every row image. A row that it refuses, by answering a Reject, writes nothing. Say what it may do besides
// writing cells by MayDrop and MayRoute. Call it once, after the inputs and outputs.
func (p *Plan) EachRow(each func(*Row) error) {
	p.effect("reject")
	p.operations = append(p.operations, func(b *batch, d *draft) error {
		outs := make([]*Out, len(p.rowWrites))
		for i, index := range p.rowWrites {
			outs[i] = newOut(p.writes[index].output.Type, b.rows, nil)
		}
		row := Row{batch: b, draft: d, outs: outs}
		for row.index = 0; row.index < b.rows; row.index++ {
			if err := each(&row); err != nil {
				if err := d.reject(row.index, err, ""); err != nil {
					return err
				}
				for _, out := range outs {
					out.clear()
				}
			}
			for _, out := range outs {
				out.endRow()
			}
		}
		for i, index := range p.rowWrites {
			d.columns[index] = &outs[i].column
			if outs[i].err != nil {
				return outs[i].err
			}
		}
		return nil
	})
}

// MayDrop announces that EachRow drops rows.
func (p *Plan) MayDrop() { p.effect("drop") }

// MayRoute announces that EachRow routes rows.
func (p *Plan) MayRoute() { p.effect("route") }

// Row is one row image.
type Row struct {
	batch *batch
	index int
	// Of a rule: its columns among those of the batch.
	inputs []int
	draft  *draft
	outs   []*Out
}

// Get answers the cell of a column that the plan reads; of a rule on rows, by the place among its columns.
func (r *Row) Get(input Input) Cell[Value] {
	if r.inputs != nil {
		input = Input(r.inputs[input])
	}
	return r.batch.columns[input].Get(r.index)
}

// Text answers the text of a text, JSON or decimal cell. False: it is of another type, NULL, or not sent.
func (r *Row) Text(input Input) (string, bool) {
	cell := r.Get(input)
	return cell.Value.text, cell.State == HasValue && isText(cell.Value.Type)
}

// Out is the cell of a column that the plan writes.
func (r *Row) Out(output Output) *Out { return r.outs[output] }

// Change says what happened to the row.
func (r *Row) Change() Change { return Change(r.batch.changes[r.index]) }

// Drop leaves the row image out.
func (r *Row) Drop() { r.draft.drop(r.index) }

// Route sends the row image to another table.
func (r *Row) Route(table string) { r.draft.route(r.index, table) }

func (p *Plan) isEmpty() bool {
	return len(p.operations) == 0 && len(p.drops) == 0 && len(p.renames) == 0 && p.table == ""
}

func (p *Plan) effect(effect string) {
	for _, known := range p.effects {
		if known == effect {
			return
		}
	}
	p.effects = append(p.effects, effect)
}

// input answers the column's place in the batch; -1: the table has no such column.
func input[T any](p *Plan, column string, view View[T], what string) int {
	index := p.schema.index(column)
	if index < 0 {
		return -1
	}
	if err := view.mustRead(&p.schema.Columns[index], what); err != nil && p.err == nil {
		p.err = err
	}
	return p.read(index)
}

func (p *Plan) read(index int) int {
	for slot, known := range p.reads {
		if int(known) == index {
			return slot
		}
	}
	p.reads = append(p.reads, uint16(index))
	return len(p.reads) - 1
}

func (p *Plan) replace(column string, to Type) int {
	index := p.schema.index(column)
	output := p.schema.Columns[index]
	if output.Type != to {
		output.SourceType = ""
	}
	output.Type = to
	if name, renamed := p.renames[uint16(index)]; renamed {
		output.Name = name
		delete(p.renames, uint16(index))
	}
	p.writes = append(p.writes, write{index, output})
	return len(p.writes) - 1
}

func (p *Plan) rowOutput(write int) Output {
	p.rowWrites = append(p.rowWrites, write)
	return Output(len(p.rowWrites) - 1)
}

func (p *Plan) run(b *batch) (d *draft, err error) {
	defer recovered(&err)
	d = &draft{rows: b.rows, columns: make([]*Column, len(p.writes))}
	for _, operation := range p.operations {
		if err := operation(b, d); err != nil {
			return nil, err
		}
	}
	// A row that is dropped is not rejected.
	if d.fates != nil {
		kept := d.rejects[:0]
		for _, refusal := range d.rejects {
			if d.fates[refusal.row] == 0 {
				kept = append(kept, refusal)
			}
		}
		d.rejects = kept
	}
	return d, nil
}
