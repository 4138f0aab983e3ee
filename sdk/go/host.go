package millrace

import "fmt"

// Level of a line in the log.
type Level uint32

const (
	LevelTrace Level = iota
	LevelDebug
	LevelInfo
	LevelWarn
	LevelError
)

// Pair is a field of a log line, or a label of a metric. Labels must have few values.
type Pair struct{ Name, Value string }

// Log writes a line to the host's log. The host keeps a bounded number of lines a second.
func Log(level Level, message string, fields ...Pair) {
	if uint32(level) >= hostThreshold() {
		hostWrite(level, message, fields)
	}
}

// Logf is Log with a format.
func Logf(level Level, format string, arguments ...any) {
	if uint32(level) >= hostThreshold() {
		hostWrite(level, fmt.Sprintf(format, arguments...), nil)
	}
}

// Count adds to a counter of the plugin's.
func Count(name string, add uint64, labels ...Pair) { hostCount(name, labels, add) }

// Observe adds a value to a histogram of the plugin's.
func Observe(name string, value float64, labels ...Pair) { hostObserve(name, labels, value) }

// HMACSHA256 of each cell of a text or binary column under the named key, which never enters the sandbox: 32 bytes a row (Column.Hex
// makes text of them); NULL and not sent stay. The error says that the key is not granted to the plugin.
func HMACSHA256(key string, column *Column) (*Column, error) {
	if column.Offsets == nil {
		return nil, fmt.Errorf("hmac: a column of %s is not of text or bytes", column.Type)
	}
	return hostHMAC(key, column)
}

func notGranted(key string) error {
	return ConfigError("the key %q is not granted: add `grant: { crypto: [%s] }` to the stage", key, key)
}
