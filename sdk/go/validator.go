package millrace

import (
	"fmt"
	"sort"
)

// Severity is what a violation does.
type Severity uint8

const (
	// Warn: it is counted and shown.
	Warn Severity = iota
	// RejectChange: the change goes to the dead letters.
	RejectChange
	// Quarantine: the table is quarantined.
	Quarantine
)

// ParseSeverity finds "warn", "reject" or "quarantine".
func ParseSeverity(name string) (Severity, error) {
	for severity, known := range [...]string{"warn", "reject", "quarantine"} {
		if known == name {
			return Severity(severity), nil
		}
	}
	return 0, ConfigError("no severity %q: there are warn, reject and quarantine", name)
}

// Checks are the rules of one table. Cells that were not sent are never judged. A rule on a column that the table does not have, or
// that is not granted, is passed over.
type Checks struct {
	schema *Schema
	reads  []uint16
	rules  []rule
	checks []func(*batch, *[]violation)
	err    error
}

type rule struct {
	name     string
	severity Severity
	columns  []uint16
}

type violation struct {
	row     int
	rule    uint16
	message string
}

// Required: every row must have a value.
func (c *Checks) Required(rule, column string, severity Severity) {
	CheckCells(c, rule, column, severity, Any, func(cell Cell[Value]) string {
		if cell.State == Null {
			return "is NULL"
		}
		return ""
	})
}

// Check judges values: judge answers what is wrong, or "". NULL is not judged.
func Check[T any](c *Checks, rule, column string, severity Severity, view View[T], judge func(T) string) {
	CheckCells(c, rule, column, severity, view, func(cell Cell[T]) string {
		if cell.State == Null {
			return ""
		}
		return judge(cell.Value)
	})
}

// CheckCells judges cells, NULL included.
func CheckCells[T any](c *Checks, rule, column string, severity Severity, view View[T], judge func(Cell[T]) string) {
	index := c.schema.index(column)
	if index < 0 {
		return
	}
	if err := view.mustRead(&c.schema.Columns[index], rule); err != nil && c.err == nil {
		c.err = err
	}
	number, slot := c.add(rule, severity, []int{index}), c.read(index)
	c.checks = append(c.checks, func(b *batch, found *[]violation) {
		column := b.columns[slot]
		for row := range b.rows {
			cell := Cell[T]{State: column.State(row)}
			switch cell.State {
			case NotSent:
				continue
			case HasValue:
				cell.Value = view.get(column, row)
			}
			if wrong := judge(cell); wrong != "" {
				*found = append(*found, violation{row, number, fmt.Sprintf("%s %s", c.schema.Columns[index].Name, wrong)})
			}
		}
	})
}

// CheckRows judges several columns, row by row: Row.Get takes a column's place among them. It is not asked about rows in which one of
// them was not sent.
func (c *Checks) CheckRows(rule string, columns []string, severity Severity, judge func(*Row) string) {
	indices, inputs := []int{}, []int{}
	for _, name := range columns {
		index := c.schema.index(name)
		if index < 0 {
			return
		}
		indices = append(indices, index)
	}
	for _, index := range indices {
		inputs = append(inputs, c.read(index))
	}
	number := c.add(rule, severity, indices)
	c.checks = append(c.checks, func(b *batch, found *[]violation) {
		row := Row{batch: b, inputs: inputs}
	rows:
		for row.index = 0; row.index < b.rows; row.index++ {
			for _, input := range inputs {
				if b.columns[input].State(row.index) == NotSent {
					continue rows
				}
			}
			if wrong := judge(&row); wrong != "" {
				*found = append(*found, violation{row.index, number, wrong})
			}
		}
	})
}

func (c *Checks) add(name string, severity Severity, columns []int) uint16 {
	named := make([]uint16, len(columns))
	for i, column := range columns {
		named[i] = uint16(column)
	}
	c.rules = append(c.rules, rule{name, severity, named})
	return uint16(len(c.rules) - 1)
}

func (c *Checks) read(index int) int {
	for slot, known := range c.reads {
		if int(known) == index {
			return slot
		}
	}
	c.reads = append(c.reads, uint16(index))
	return len(c.reads) - 1
}

func (c *Checks) run(b *batch) (found []violation, err error) {
	defer recovered(&err)
	for _, check := range c.checks {
		check(b, &found)
	}
	// The first violation of a row gives the reason: rows in order, rules in the order of the plan.
	sort.Slice(found, func(i, k int) bool {
		if found[i].row != found[k].row {
			return found[i].row < found[k].row
		}
		return found[i].rule < found[k].rule
	})
	return found, nil
}
