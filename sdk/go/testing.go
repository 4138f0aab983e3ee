//go:build !wasip1

package millrace

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// Case is a table, a config and rows, for one run of the exported plugin's logic: natively, through the same code as in the sandbox,
// with a stand-in for the host.
//
//	answer, err := millrace.NewCase(`{"status": "test"}`).Key("id", "int64").Column("status", "text").Insert(`{"id": 1, "status": "test"}`).Run(0)
//
// Rows are JSON objects: a member that is absent was not sent, null is NULL. Text, decimals and uuids are strings, json is itself,
// binary is hexadecimal, dates and timestamps are the numbers that the contract sends. Mistakes in a case panic.
type Case struct {
	config string
	schema Schema
	images []image
	crypto map[string]string
}

type image struct {
	change Change
	cells  map[string]json.RawMessage
}

// Fate is what became of a row image.
type Fate string

const (
	Kept     Fate = "kept"
	Dropped  Fate = "dropped"
	Rejected Fate = "rejected"
)

// Answer of a transform to one row image.
type Answer struct {
	Fate Fate
	// Code and Reason of a row that is rejected.
	Code, Reason string
	// Table that it leaves for.
	Table string
	// Row has the cells as a JSON object without blanks, in the table's order, new columns last; those not sent are absent.
	Row string
}

// Seen is what the plugin logged and counted in the last run.
var Seen struct {
	Log      []string
	Counters map[string]uint64
}

var native struct{ crypto map[string]string }

// NewCase has a table "public.t" without columns.
func NewCase(config string) *Case {
	return &Case{config: config, schema: Schema{Connector: "test", Namespace: "public", Table: "t", Images: 2}, crypto: map[string]string{}}
}

// Key adds a key column.
func (c *Case) Key(name, of string) *Case {
	c.schema.Columns = append(c.schema.Columns, ColumnDef{Name: name, Type: MustType(of), Key: true})
	return c
}

// Column adds a nullable column.
func (c *Case) Column(name, of string) *Case {
	c.schema.Columns = append(c.schema.Columns, ColumnDef{Name: name, Type: MustType(of), Nullable: true})
	return c
}

// Crypto grants a key.
func (c *Case) Crypto(name, material string) *Case {
	c.crypto[name] = material
	return c
}

// Insert adds an inserted row.
func (c *Case) Insert(row string) *Case { return c.image(Insert, row) }

// Delete adds a deleted row.
func (c *Case) Delete(row string) *Case { return c.image(Delete, row) }

// Update adds an update; before may be empty.
func (c *Case) Update(before, after string) *Case {
	if before != "" {
		c.image(UpdatePreimage, before)
	}
	return c.image(UpdatePostimage, after)
}

func (c *Case) image(change Change, row string) *Case {
	cells := map[string]json.RawMessage{}
	if err := json.Unmarshal([]byte(row), &cells); err != nil {
		panic(fmt.Sprintf("%s: %v", row, err))
	}
	c.images = append(c.images, image{change, cells})
	return c
}

// Run runs the exported transform on the rows cut into batches of so many; 0: all in one. The answer must not depend on it.
func (c *Case) Run(cut int) ([]Answer, error) {
	if err := c.start(); err != nil {
		return nil, err
	}
	plan, err := exported.plan(1, &c.schema)
	var answers []Answer
	for rows := range c.cut(cut) {
		if err != nil {
			return nil, err
		}
		if plan == nil {
			answers = append(answers, c.answers(&Plan{schema: &c.schema}, &draft{}, rows)...)
			continue
		}
		var d *draft
		if d, err = plan.run(c.batch(plan.reads, rows)); err == nil {
			answers = append(answers, c.answers(plan, d, rows)...)
		}
	}
	return answers, err
}

// Violations runs the exported validator: lines of "row: rule: message".
func (c *Case) Violations(cut int) ([]string, error) {
	if err := c.start(); err != nil {
		return nil, err
	}
	checks, err := exported.check(1, &c.schema)
	var lines []string
	first := 0
	for rows := range c.cut(cut) {
		if err != nil || checks == nil {
			break
		}
		var found []violation
		found, err = checks.run(c.batch(checks.reads, rows))
		for _, v := range found {
			lines = append(lines, fmt.Sprintf("%d: %s: %s", first+v.row, checks.rules[v.rule].name, v.message))
		}
		first += len(rows)
	}
	return lines, err
}

func (c *Case) start() (err error) {
	defer recovered(&err)
	native.crypto = c.crypto
	Seen.Log, Seen.Counters = nil, map[string]uint64{}
	return exported.configure(Config(c.config))
}

func (c *Case) cut(size int) func(func([]image) bool) {
	return func(yield func([]image) bool) {
		for rest := c.images; len(rest) > 0; {
			rows := len(rest)
			if size > 0 {
				rows = min(size, rows)
			}
			if !yield(rest[:rows]) {
				return
			}
			rest = rest[rows:]
		}
	}
}

func (c *Case) batch(reads []uint16, rows []image) *batch {
	b := &batch{rows: len(rows)}
	for _, row := range rows {
		b.changes = append(b.changes, byte(row.change))
	}
	for _, index := range reads {
		definition := &c.schema.Columns[index]
		out := newOut(definition.Type, len(rows), nil)
		for _, row := range rows {
			value, sent := row.cells[definition.Name]
			if !sent {
				out.NotSent()
			} else if string(value) != "null" || definition.Type.Kind == JSON {
				if err := put(out, value); err != nil {
					panic(fmt.Sprintf("column %s cannot hold %s as %s: %v", definition.Name, value, definition.Type, err))
				}
			}
			out.endRow()
		}
		b.columns = append(b.columns, &out.column)
	}
	return b
}

func put(out *Out, value json.RawMessage) error {
	of := out.column.Type
	switch of.Kind {
	case Boolean:
		return out.Bool(string(value) == "true")
	case Float32, Float64:
		number, err := strconv.ParseFloat(string(value), 64)
		if err != nil {
			return err
		}
		return out.Float(number)
	case Uint64:
		number, err := strconv.ParseUint(string(value), 10, 64)
		if err != nil {
			return err
		}
		return out.Uint(number)
	case JSON:
		var compact bytes.Buffer
		if err := json.Compact(&compact, value); err != nil {
			return err
		}
		return out.Text(compact.String())
	case Decimal64, Decimal, TextKind, UUID, Binary, Other:
		var text string
		if err := json.Unmarshal(value, &text); err != nil {
			return err
		}
		return putText(out, text)
	}
	number, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return err
	}
	return out.Int(number)
}

func putText(out *Out, text string) error {
	switch out.column.Type.Kind {
	case Decimal64:
		number, ok := Scaled(text, int(out.column.Type.Scale))
		if !ok {
			return fmt.Errorf("%q is no decimal of that type", text)
		}
		return out.Int(number)
	case UUID:
		uuid, err := ParseUUID(text)
		if err != nil {
			return err
		}
		text = string(uuid[:])
	case Binary:
		bytes, err := hex.DecodeString(text)
		if err != nil {
			return err
		}
		text = string(bytes)
	}
	return out.Text(text)
}

func cellJSON(cell Cell[Value]) []byte {
	if cell.State == Null {
		return []byte("null")
	}
	v := cell.Value
	switch v.Type.Kind {
	case JSON:
		return []byte(v.Text())
	case Decimal64, Decimal, TextKind, Binary, UUID, Other:
		quoted, err := json.Marshal(v.String())
		if err != nil {
			panic(err)
		}
		return quoted
	case Date, Timestamp, TimestampTZ:
		return strconv.AppendInt(nil, v.number, 10)
	case Float32, Float64:
		if math.IsNaN(v.float) || math.IsInf(v.float, 0) {
			return strconv.AppendQuote(nil, v.String())
		}
	}
	return []byte(v.String())
}

func (c *Case) answers(p *Plan, d *draft, rows []image) []Answer {
	answers := make([]Answer, len(rows))
	for at, row := range rows {
		a := Answer{Fate: Kept, Table: c.schema.Table, Row: c.after(p, d, row, at)}
		if p.table != "" {
			a.Table = p.table
		}
		if d.byRow != nil && d.tables[d.byRow[at]] != "" {
			a.Table = d.tables[d.byRow[at]]
		}
		if d.fates != nil && d.fates[at] == 1 {
			a.Fate = Dropped
		}
		for i := len(d.rejects) - 1; i >= 0; i-- {
			if r := d.rejects[i]; r.row == at {
				a.Fate, a.Code, a.Reason = Rejected, r.reject.Code, r.reject.Reason
			}
		}
		answers[at] = a
	}
	return answers
}

// after is the row image once the plan is done with it.
func (c *Case) after(p *Plan, d *draft, row image, at int) string {
	text := []byte("{")
	add := func(name string, value []byte) {
		if len(text) > 1 {
			text = append(text, ',')
		}
		text = append(strconv.AppendQuote(text, name), ':')
		text = append(text, value...)
	}
	written := func(replaces int) bool {
		found := false
		for i, w := range p.writes {
			if w.replaces != replaces {
				continue
			}
			found = true
			if column := d.columns[i]; column != nil && column.State(at) != NotSent {
				add(w.output.Name, cellJSON(column.Get(at)))
			}
		}
		return found
	}
	dropped := map[uint16]bool{}
	for _, index := range p.drops {
		dropped[index] = true
	}
	for i, definition := range c.schema.Columns {
		if written(i) || dropped[uint16(i)] {
			continue
		}
		name := definition.Name
		if to, renamed := p.renames[uint16(i)]; renamed {
			name = to
		}
		if value, sent := row.cells[definition.Name]; sent {
			var compact bytes.Buffer
			if err := json.Compact(&compact, value); err != nil {
				panic(err)
			}
			add(name, compact.Bytes())
		}
	}
	written(-1)
	return string(append(text, '}'))
}

func hostThreshold() uint32 { return uint32(LevelTrace) }

func hostWrite(level Level, message string, _ []Pair) {
	Seen.Log = append(Seen.Log, [...]string{"trace", "debug", "info", "warn", "error"}[level]+" "+message)
}

func hostCount(name string, _ []Pair, add uint64) { Seen.Counters[name] += add }

func hostObserve(string, []Pair, float64) {}

func hostHMAC(key string, column *Column) (*Column, error) {
	material, granted := native.crypto[key]
	if !granted {
		return nil, notGranted(key)
	}
	hashes := &Column{Type: Type{Kind: Binary}, Rows: column.Rows, Presence: column.Presence, Width: sha256.Size}
	for row := range column.Rows {
		mac := hmac.New(sha256.New, []byte(material))
		mac.Write(column.Bytes(row))
		hashes.Data = mac.Sum(hashes.Data)
	}
	return hashes, nil
}
