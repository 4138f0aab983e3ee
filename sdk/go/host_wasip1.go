package millrace

import (
	"errors"
	"unsafe"
)

//go:wasmimport millrace:plugin/log@0.1.0 threshold
func hostThreshold() uint32

//go:wasmimport millrace:plugin/log@0.1.0 write
func importWrite(level, message, messageLen, fields, fieldsLen uint32)

//go:wasmimport millrace:plugin/metrics@0.1.0 count
func importCount(name, nameLen, labels, labelsLen uint32, add uint64)

//go:wasmimport millrace:plugin/metrics@0.1.0 observe
func importObserve(name, nameLen, labels, labelsLen uint32, value float64)

// The column goes flat: its presence, then the tag of its cells and what the widest of them (vars) needs.
//
//go:wasmimport millrace:plugin/crypto@0.1.0 hmac-sha256
func importHMAC(key, keyLen, some, presence, presenceLen, tag, a, b, c, d uint32, answer uint32)

func lendPairs(pairs []Pair) list {
	var lists []abiPair
	for _, pair := range pairs {
		lists = append(lists, abiPair{lendText(pair.Name), lendText(pair.Value)})
	}
	return lend(lists)
}

func hostWrite(level Level, message string, fields []Pair) {
	m, f := lendText(message), lendPairs(fields)
	importWrite(uint32(level), m.ptr, m.len, f.ptr, f.len)
}

func hostCount(name string, labels []Pair, add uint64) {
	n, l := lendText(name), lendPairs(labels)
	importCount(n.ptr, n.len, l.ptr, l.len, add)
}

func hostObserve(name string, labels []Pair, value float64) {
	n, l := lendText(name), lendPairs(labels)
	importObserve(n.ptr, n.len, l.ptr, l.len, value)
}

func hostHMAC(key string, column *Column) (*Column, error) {
	answer := &abiResult[abiColumn]{}
	k, c := lendText(key), columnTo(column)
	importHMAC(k.ptr, k.len, uint32(c.presence.some), c.presence.value.ptr, c.presence.value.len, uint32(c.tag), c.a, c.b, c.c, c.d, pin(answer))
	if answer.failed == 0 {
		return columnFrom(Type{Kind: Binary}, column.Rows, &answer.value), nil
	}
	// error: not-granted, or failed with a reason
	wrong := (*struct {
		tag    uint8
		reason list
	})(unsafe.Pointer(&answer.value))
	if wrong.tag == 0 {
		return nil, notGranted(key)
	}
	return nil, errors.New(takenText(wrong.reason))
}
