package millrace

import (
	"encoding/hex"
	"fmt"
	"math"
)

// Column holds the cells of one column of a batch, in the arrays that its type travels in; the others are nil.
type Column struct {
	Type Type
	Rows int
	// Presence has a State a row; nil: every row has a value.
	Presence []byte
	Bools    []byte
	I32s     []int32
	I64s     []int64
	F32s     []float32
	F64s     []float64
	// Offsets and Data of variable cells: row i is Data[Offsets[i]:Offsets[i+1]].
	Offsets []uint32
	Data    []byte
	// Width of fixed cells: row i is Data[i*Width:(i+1)*Width].
	Width int
}

// State of a row's cell.
func (c *Column) State(row int) State {
	if c.Presence == nil {
		return HasValue
	}
	return State(c.Presence[row])
}

// Bytes of a variable or fixed cell.
func (c *Column) Bytes(row int) []byte {
	if c.Width > 0 {
		return c.Data[row*c.Width : (row+1)*c.Width]
	}
	return c.Data[c.Offsets[row]:c.Offsets[row+1]]
}

// Get answers a row's cell.
func (c *Column) Get(row int) Cell[Value] {
	if state := c.State(row); state != HasValue {
		return Cell[Value]{State: state}
	}
	return Cell[Value]{HasValue, c.value(row)}
}

func (c *Column) value(row int) Value {
	v := Value{Type: c.Type}
	switch {
	case c.Offsets != nil || c.Width > 0:
		v.text = textOf(c.Bytes(row))
	case c.I64s != nil:
		v.number = c.I64s[row]
	case c.I32s != nil:
		v.number = int64(c.I32s[row])
		if c.Type.Kind == Date && c.I32s[row] == math.MaxInt32 {
			v.number = Infinity
		}
		if c.Type.Kind == Date && c.I32s[row] == math.MinInt32 {
			v.number = NegInfinity
		}
	case c.Bools != nil:
		v.number = int64(c.Bools[row])
	case c.F64s != nil:
		v.float = c.F64s[row]
	case c.F32s != nil:
		v.float = float64(c.F32s[row])
	}
	return v
}

// Hex answers fixed cells, such as the host's hashes, as hexadecimal text.
func (c *Column) Hex() *Column {
	text := &Column{Type: Type{Kind: TextKind}, Rows: c.Rows, Presence: c.Presence, Offsets: make([]uint32, c.Rows+1)}
	text.Data = make([]byte, 0, 2*len(c.Data))
	for row := range c.Rows {
		if c.State(row) == HasValue {
			text.Data = hex.AppendEncode(text.Data, c.Bytes(row))
		}
		text.Offsets[row+1] = uint32(len(text.Data))
	}
	return text
}

// View says how a column is read: Text, Bytes, Int, Float, Bool, or Any. A column that can not be is refused before any row flows.
type View[T any] struct {
	name string
	fits func(Type) bool
	get  func(c *Column, row int) T
}

var (
	// Text reads text, JSON and decimals.
	Text = View[string]{"text", isText, func(c *Column, row int) string { return textOf(c.Data[c.Offsets[row]:c.Offsets[row+1]]) }}
	// Bytes reads those, and binary. They must not be written to.
	Bytes = View[[]byte]{"bytes", func(t Type) bool { return isText(t) || t.Kind == Binary }, (*Column).Bytes}
	// Int reads integers but uint64, dates, times and timestamps.
	Int = View[int64]{"int", func(t Type) bool {
		return (t.layout() == i32s || t.layout() == i64s) && t.Kind != Uint64 && t.Kind != Decimal64
	}, func(c *Column, row int) int64 { return c.value(row).number }}
	// Float reads floats.
	Float = View[float64]{"float", func(t Type) bool { return t.Kind == Float32 || t.Kind == Float64 },
		func(c *Column, row int) float64 { return c.value(row).float }}
	// Bool reads booleans.
	Bool = View[bool]{"bool", func(t Type) bool { return t.Kind == Boolean }, func(c *Column, row int) bool { return c.Bools[row] != 0 }}
	// Any reads every type.
	Any = View[Value]{"any", func(Type) bool { return true }, (*Column).value}
)

func isText(t Type) bool { return t.Kind == TextKind || t.Kind == JSON || t.Kind == Decimal }

func (v View[T]) mustRead(column *ColumnDef, what string) error {
	if v.fits(column.Type) {
		return nil
	}
	return SchemaError("column %s is %s, which `%s` cannot read as %s", column.Name, column.Type, what, v.name)
}

// Out takes the cells that a plugin writes into one column, row after row. A row that is not set is NULL.
type Out struct {
	column Column
	layout layout
	set    bool
	state  State
	err    error
}

// like: a column of about as many bytes, or nil.
func newOut(t Type, rows int, like *Column) *Out {
	o := &Out{column: Column{Type: t}, layout: t.layout()}
	c := &o.column
	switch o.layout {
	case bools:
		c.Bools = make([]byte, rows)
	case i32s:
		c.I32s = make([]int32, rows)
	case i64s:
		c.I64s = make([]int64, rows)
	case f32s:
		c.F32s = make([]float32, rows)
	case f64s:
		c.F64s = make([]float64, rows)
	case fixed:
		c.Width = 16
		c.Data = make([]byte, 0, 16*rows)
	case vars:
		c.Offsets = make([]uint32, rows+1)
		size := 16 * rows
		if like != nil && like.Offsets != nil {
			size = len(like.Data)
		}
		c.Data = make([]byte, 0, size)
	}
	return o
}

func (o *Out) wrong(what string) error {
	if o.err == nil {
		o.err = fmt.Errorf("a column is written as %s, but is declared as %s", what, o.column.Type)
	}
	return o.err
}

// Write appends to a text, JSON, decimal, binary, uuid or unknown cell; may be called several times for a row.
func (o *Out) Write(bytes []byte) (int, error) {
	if o.layout != vars && o.layout != fixed {
		return 0, o.wrong("bytes")
	}
	o.column.Data = append(o.column.Data, bytes...)
	o.set = true
	return len(bytes), nil
}

// WriteString is Write of text.
func (o *Out) WriteString(text string) (int, error) {
	if o.layout != vars && o.layout != fixed {
		return 0, o.wrong("bytes")
	}
	o.column.Data = append(o.column.Data, text...)
	o.set = true
	return len(text), nil
}

// Text sets a text, JSON or decimal cell.
func (o *Out) Text(text string) error {
	_, err := o.WriteString(text)
	return err
}

// Int sets an integer, Decimal64, date, time or timestamp. The error refuses the row where the value does not fit the type:
// int.overflow.
func (o *Out) Int(value int64) error {
	if o.layout == i64s {
		o.column.I64s[o.column.Rows] = value
		o.set = true
		return nil
	}
	if o.layout != i32s {
		return o.wrong("an integer")
	}
	kind := o.column.Type.Kind
	most := int64(math.MaxInt32)
	switch {
	case kind == Int8:
		most = math.MaxInt8
	case kind == Int16:
		most = math.MaxInt16
	case kind == Date && value == Infinity:
		value = math.MaxInt32
	case kind == Date && value == NegInfinity:
		value = math.MinInt32
	}
	if value > most || value < -most-1 {
		return Refuse("int.overflow", "%d does not fit into %s", value, o.column.Type)
	}
	o.column.I32s[o.column.Rows] = int32(value)
	o.set = true
	return nil
}

// Uint sets an integer.
func (o *Out) Uint(value uint64) error {
	if value > math.MaxInt64 && o.column.Type.Kind != Uint64 {
		return Refuse("int.overflow", "%d does not fit into %s", value, o.column.Type)
	}
	return o.Int(int64(value))
}

// Float sets a float.
func (o *Out) Float(value float64) error {
	switch o.layout {
	case f64s:
		o.column.F64s[o.column.Rows] = value
	case f32s:
		o.column.F32s[o.column.Rows] = float32(value)
	default:
		return o.wrong("a float")
	}
	o.set = true
	return nil
}

// Bool sets a boolean.
func (o *Out) Bool(value bool) error {
	if o.layout != bools {
		return o.wrong("a boolean")
	}
	if value {
		o.column.Bools[o.column.Rows] = 1
	}
	o.set = true
	return nil
}

// Value sets a cell of any type, which must be the column's.
func (o *Out) Value(value Value) error {
	switch value.Type.Kind {
	case Boolean:
		return o.Bool(value.Bool())
	case Uint64:
		return o.Uint(value.Uint())
	case Float32, Float64:
		return o.Float(value.float)
	case Decimal, TextKind, Binary, UUID, JSON, Other:
		return o.Text(value.text)
	case Decimal64:
		if o.layout == vars {
			return o.Text(value.Text())
		}
	}
	return o.Int(value.number)
}

// Cell sets a value, NULL or not sent.
func (o *Out) Cell(cell Cell[Value]) error {
	if cell.State == HasValue {
		return o.Value(cell.Value)
	}
	o.absent(cell.State)
	return nil
}

// Null sets the cell to NULL.
func (o *Out) Null() { o.absent(Null) }

// NotSent says that the cell was not sent; allowed where the source had not sent it.
func (o *Out) NotSent() { o.absent(NotSent) }

func (o *Out) absent(state State) {
	o.set = false
	o.state = state
}

// rows the column was made for.
func (o *Out) rows() int {
	c := &o.column
	return max(len(c.Bools), len(c.I32s), len(c.I64s), len(c.F32s), len(c.F64s), len(c.Offsets)-1, cap(c.Data)/16*min(c.Width, 1))
}

func (o *Out) endRow() {
	c := &o.column
	row := c.Rows
	c.Rows++
	if !o.set {
		if c.Presence == nil {
			c.Presence = make([]byte, o.rows())
			for i := range c.Presence {
				c.Presence[i] = byte(HasValue)
			}
		}
		c.Presence[row] = byte(o.state)
		switch o.layout {
		case vars:
			c.Data = c.Data[:c.Offsets[row]]
		case fixed:
			c.Data = append(c.Data[:16*row], make([]byte, 16)...)
		}
	}
	if o.layout == vars {
		c.Offsets[row+1] = uint32(len(c.Data))
	} else if o.layout == fixed && len(c.Data) != 16*c.Rows && o.err == nil {
		o.err = fmt.Errorf("a uuid is written with %d bytes", len(c.Data)-16*row)
	}
	o.set, o.state = false, Null
}

// clear forgets what this row wrote: it is refused.
func (o *Out) clear() { o.absent(Null) }
