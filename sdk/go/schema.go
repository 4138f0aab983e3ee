package millrace

import (
	"fmt"
	"strconv"
	"strings"
)

// Kind of a type, in the contract's order.
type Kind uint8

const (
	Boolean Kind = iota
	Int8
	Int16
	Int32
	Int64
	Uint64
	Float32
	Float64
	// Decimal64 has a precision of 1 to 18.
	Decimal64
	// Decimal has any other precision; 0 is unconstrained.
	Decimal
	// TextKind is the kind of text; the view of it is called Text.
	TextKind
	Binary
	UUID
	// Date counts days since 1970-01-01.
	Date
	// Time counts microseconds since midnight.
	Time
	// Timestamp counts microseconds since 1970-01-01 of an unknown zone.
	Timestamp
	// TimestampTZ counts microseconds since 1970-01-01 UTC.
	TimestampTZ
	JSON
	// Other is a type of that name which the SDK does not know: pass it on.
	Other
)

// By Kind. The two decimals share a name: the precision tells them apart.
var kindNames = [...]string{"boolean", "int8", "int16", "int32", "int64", "uint64", "float32", "float64", "decimal", "decimal",
	"text", "binary", "uuid", "date", "time", "timestamp", "timestamp-tz", "json"}

// Type of a column.
type Type struct {
	Kind      Kind
	Precision uint8
	Scale     int8
	// Name of Other.
	Name string
}

// ParseType finds the type of a name: "int64", "text", "decimal(20,2)", "timestamp-tz" …
func ParseType(name string) (Type, error) {
	switch name {
	case "bool":
		name = "boolean"
	case "timestamp_tz":
		name = "timestamp-tz"
	case "decimal":
		return Type{Kind: Decimal}, nil
	}
	if inner, ok := strings.CutPrefix(name, "other("); ok && strings.HasSuffix(inner, ")") {
		return Type{Kind: Other, Name: strings.TrimSuffix(inner, ")")}, nil
	}
	if inner, ok := strings.CutPrefix(name, "decimal("); ok && strings.HasSuffix(inner, ")") {
		before, after, _ := strings.Cut(strings.TrimSuffix(inner, ")"), ",")
		precision, err := strconv.ParseUint(strings.TrimSpace(before), 10, 8)
		scale, wrong := strconv.ParseInt(strings.TrimSpace(after), 10, 8)
		if err == nil && wrong == nil && precision > 0 {
			kind := Decimal
			if precision <= 18 {
				kind = Decimal64
			}
			return Type{Kind: kind, Precision: uint8(precision), Scale: int8(scale)}, nil
		}
	}
	for kind, known := range kindNames {
		if known == name && Kind(kind) != Decimal64 && Kind(kind) != Decimal {
			return Type{Kind: Kind(kind)}, nil
		}
	}
	return Type{}, fmt.Errorf("no type %s", name)
}

// MustType is ParseType for names that are known to be right.
func MustType(name string) Type {
	t, err := ParseType(name)
	if err != nil {
		panic(err)
	}
	return t
}

// String is the type's name, as ParseType takes it.
func (t Type) String() string {
	switch {
	case t.Kind == Other:
		return "other(" + t.Name + ")"
	case t.Kind == Decimal64 || t.Kind == Decimal && t.Precision > 0:
		return fmt.Sprintf("decimal(%d,%d)", t.Precision, t.Scale)
	case int(t.Kind) < len(kindNames):
		return kindNames[t.Kind]
	}
	return fmt.Sprintf("type %d", t.Kind)
}

// How a type travels, in the contract's order.
type layout uint8

const (
	bools layout = iota
	i32s
	i64s
	f32s
	f64s
	vars
	fixed
)

func (t Type) layout() layout {
	switch t.Kind {
	case Boolean:
		return bools
	case Int8, Int16, Int32, Date:
		return i32s
	case Int64, Uint64, Decimal64, Time, Timestamp, TimestampTZ:
		return i64s
	case Float32:
		return f32s
	case Float64:
		return f64s
	case UUID:
		return fixed
	}
	return vars
}

// ColumnDef is one column of a table.
type ColumnDef struct {
	Name     string
	Type     Type
	Nullable bool
	// Key: part of the row's identity.
	Key bool
	// SourceType is the native name, e.g. "numeric(10,2)"; empty for a plugin's own column.
	SourceType string
	// Of a later contract: passed on.
	ext [][2]string
}

// Schema is a table at one schema version, as far as the pipeline granted it to the plugin.
type Schema struct {
	Connector, Namespace, Table string
	// Images says what updates and deletes carry of the row before: 0 nothing, 1 the key, 2 the whole row.
	Images uint8
	// Columns that are granted. The plugin can neither see, name, change nor drop any other.
	Columns []ColumnDef
}

// Column of that name; nil: the table has none, or it is not granted.
func (s *Schema) Column(name string) *ColumnDef {
	if i := s.index(name); i >= 0 {
		return &s.Columns[i]
	}
	return nil
}

func (s *Schema) index(name string) int {
	for i := range s.Columns {
		if s.Columns[i].Name == name {
			return i
		}
	}
	return -1
}
