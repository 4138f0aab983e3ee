package millrace

import "unsafe"

// How the contract's types (wit/0.1.0) lie in memory: that of these structs is the component model's canonical ABI. Addresses are 32
// bits wide there and 64 in Go's own types, so that lists are read and written by hand.

// list is a string or a list: an address, and a number of elements.
type list struct{ ptr, len uint32 }

type (
	abiPair   struct{ name, value list }
	abiOption struct {
		some  uint8
		value list
	}
	abiType struct {
		tag uint8
		// Of a decimal precision and scale, in its first two bytes; else the name of another type.
		name list
	}
	abiColumnDef struct {
		name          list
		of            abiType
		nullable, key uint8
		sourceType    list
		ext           list
	}
	abiSchema struct {
		connector, namespace, table list
		registryRef                 abiOption
		images                      uint8
		ext, columns                list
	}
	abiPlanArguments struct {
		id     uint32
		schema abiSchema
	}
	abiColumn struct {
		presence abiOption
		tag      uint8
		// A list; of vars two: offsets, data; of fixed the width, and a list.
		a, b, c, d uint32
	}
	abiOptionalColumn struct {
		some   uint8
		column abiColumn
	}
	abiInfo struct {
		name, version, description, configSchema list
		memoryMiB, milliseconds                  uint32
		ext                                      list
	}
	abiError struct {
		tag uint8
		// Of retry-later the milliseconds, and a text; else a text.
		a, b, c uint32
	}
	abiRename struct {
		column uint16
		to     list
	}
	abiWrite struct {
		some     uint8
		replaces uint16
		output   abiColumnDef
	}
	abiTransformPlan struct {
		reads, meta, effects                list
		renameTable                         abiOption
		drops, renames, writes, shapes, ext list
	}
	abiReject struct {
		row          uint32
		code, reason list
		column       abiOption
		retryable    uint8
		ext          list
	}
	abiOutcome struct {
		fates                       abiOption
		columns, rejects, emissions list
		routing                     uint8
		names, byRow                list
	}
	abiRule struct {
		name         list
		severity     uint8
		columns, ext list
	}
	abiCheckPlan struct{ reads, meta, rules, ext list }
	abiViolation struct {
		row     uint32
		rule    uint16
		message list
	}
	// result of T: an error, or T. The error's place is that of the first field of T.
	abiResult[T any] struct {
		failed uint8
		value  T
	}
	abiOptional[T any] struct {
		some  uint8
		value T
	}
)

// What crossed the boundary in this call, both ways: the collector keeps it until the host has read the answer.
var pinned []any

func pin[T any](value *T) uint32 {
	pinned = append(pinned, value)
	return uint32(uintptr(unsafe.Pointer(value)))
}

// lend hands a slice to the host.
func lend[T any](slice []T) list {
	if len(slice) == 0 {
		return list{}
	}
	return list{pin(&slice[0]), uint32(len(slice))}
}

func lendText(text string) list {
	if text == "" {
		return list{}
	}
	return list{pin(unsafe.StringData(text)), uint32(len(text))}
}

// taken looks at what the host handed over. It lies in memory that realloc made, which the collector keeps as long as somebody
// holds a part of it.
func taken[T any](from list) []T {
	if from.len == 0 {
		return nil
	}
	return unsafe.Slice((*T)(pointer(from.ptr)), from.len)
}

func takenText(from list) string { return textOf(taken[byte](from)) }

func pointer(address uint32) unsafe.Pointer { return unsafe.Pointer(uintptr(address)) }

// Small pieces are cut from a larger one. Of words, so that all of them are aligned.
const chunkWords = 1024

var chunk []uint64

//go:wasmexport cabi_realloc
func realloc(old, oldSize, align, size uint32) uint32 {
	if size == 0 {
		return align
	}
	words := int(size+7) / 8
	var made []uint64
	if words > chunkWords/4 {
		made = make([]uint64, words)
		pin(&made[0])
	} else {
		if len(chunk) < words {
			chunk = make([]uint64, chunkWords)
			pin(&chunk[0])
		}
		made, chunk = chunk[:words], chunk[words:]
	}
	if oldSize > 0 {
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&made[0])), size), unsafe.Slice((*byte)(pointer(old)), oldSize))
	}
	return uint32(uintptr(unsafe.Pointer(&made[0])))
}

// EndCall lets go of what crossed the boundary.
func EndCall() {
	clear(pinned)
	pinned = pinned[:0]
	chunk = nil
}
