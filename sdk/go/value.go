package millrace

import (
	"encoding/hex"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"unsafe"
)

// State of a cell. One that the source did not send is neither NULL nor a value: sources leave out large columns that an update did
// not change, and the columns beside the key in a delete.
type State uint8

const (
	Null State = iota
	HasValue
	NotSent
)

// Cell is a value, NULL, or not sent.
type Cell[T any] struct {
	State State
	Value T
}

// The infinities of dates and timestamps.
const (
	Infinity    = math.MaxInt64
	NegInfinity = math.MinInt64
)

// Value of any type.
type Value struct {
	Type   Type
	number int64
	float  float64
	text   string
}

// Bool of a boolean.
func (v Value) Bool() bool { return v.number != 0 }

// Int of an integer, date, time or timestamp; also Infinity and NegInfinity. Of a Decimal64: the value times 10^Type.Scale.
func (v Value) Int() int64 { return v.number }

// Uint of a uint64.
func (v Value) Uint() uint64 { return uint64(v.number) }

// Float of a float.
func (v Value) Float() float64 { return v.float }

// Text of text, JSON and decimals; the bytes of binary, a uuid or an unknown type.
func (v Value) Text() string {
	if v.Type.Kind == Decimal64 {
		return Unscaled(v.number, int(v.Type.Scale))
	}
	return v.text
}

// IsText: the value is of type text.
func (v Value) IsText() bool { return v.Type.Kind == TextKind }

// String is the value as text, the same in the SDK of every language.
func (v Value) String() string {
	switch v.Type.Kind {
	case Boolean:
		return strconv.FormatBool(v.Bool())
	case Uint64:
		return strconv.FormatUint(v.Uint(), 10)
	case Float32:
		return strconv.FormatFloat(v.float, 'f', -1, 32)
	case Float64:
		return strconv.FormatFloat(v.float, 'f', -1, 64)
	case Decimal64, Decimal, TextKind, JSON:
		return v.Text()
	case UUID:
		return uuidText(v.text)
	case Binary, Other:
		return hex.EncodeToString([]byte(v.text))
	case Date, Timestamp, TimestampTZ:
		if v.number == Infinity {
			return "infinity"
		}
		if v.number == NegInfinity {
			return "-infinity"
		}
	}
	return strconv.FormatInt(v.number, 10)
}

// Show is the cell as text: "null" and "not sent" for what is no value.
func Show(cell Cell[Value]) string {
	switch cell.State {
	case Null:
		return "null"
	case NotSent:
		return "not sent"
	}
	return cell.Value.String()
}

func uuidText(bytes string) string {
	digits := hex.EncodeToString([]byte(bytes))
	if len(digits) != 32 {
		return digits
	}
	return digits[:8] + "-" + digits[8:12] + "-" + digits[12:16] + "-" + digits[16:20] + "-" + digits[20:]
}

// ParseUUID answers the sixteen bytes of text with or without dashes.
func ParseUUID(text string) ([16]byte, error) {
	var uuid [16]byte
	bytes, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || copy(uuid[:], bytes) != 16 || len(bytes) != 16 {
		return uuid, fmt.Errorf("%q is no UUID", text)
	}
	return uuid, nil
}

// Scaled reads a decimal such as "-12.50" as an integer of so many digits after the point: -1250 for 2. False: no plain decimal, more
// digits that are not zero, or out of range.
func Scaled(text string, digits int) (int64, bool) {
	if digits < 0 {
		value, ok := Scaled(text, 0)
		for ; ok && digits < 0; digits++ {
			value, ok = value/10, value%10 == 0
		}
		return value, ok
	}
	negative := len(text) > 0 && text[0] == '-'
	if negative || len(text) > 0 && text[0] == '+' {
		text = text[1:]
	}
	short := len(text)+digits <= 18
	var sum uint64
	seen, after, point := 0, 0, false
	for i := 0; i < len(text); i++ {
		digit := text[i] - '0'
		switch {
		case digit < 10 && point && after == digits:
			if digit != 0 {
				return 0, false
			}
			seen++
		case digit < 10:
			if point {
				after++
			}
			seen++
			if short {
				sum = sum*10 + uint64(digit)
			} else if high, low := bits.Mul64(sum, 10); high != 0 || low+uint64(digit) < low {
				return 0, false
			} else {
				sum = low + uint64(digit)
			}
		case text[i] == '.' && !point:
			point = true
		default:
			return 0, false
		}
	}
	for ; after < digits; after++ {
		high, low := bits.Mul64(sum, 10)
		if high != 0 {
			return 0, false
		}
		sum = low
	}
	if seen == 0 || sum > math.MaxInt64 && !(negative && sum == 1<<63) {
		return 0, false
	}
	if negative {
		return -int64(sum), true
	}
	return int64(sum), true
}

// Unscaled is the way back: -1250 with scale 2 is "-12.50".
func Unscaled(value int64, scale int) string {
	if scale <= 0 {
		if value == 0 {
			return "0"
		}
		return strconv.FormatInt(value, 10) + strings.Repeat("0", -scale)
	}
	digits := strings.TrimPrefix(strconv.FormatInt(value, 10), "-")
	if missing := scale + 1 - len(digits); missing > 0 {
		digits = strings.Repeat("0", missing) + digits
	}
	sign := ""
	if value < 0 {
		sign = "-"
	}
	return sign + digits[:len(digits)-scale] + "." + digits[len(digits)-scale:]
}

// textOf looks at bytes as text without a copy. Nothing writes to the bytes of a batch, and the collector keeps them as long as
// somebody holds a part.
func textOf(bytes []byte) string { return unsafe.String(unsafe.SliceData(bytes), len(bytes)) }
