// Package millrace is for writing Millrace plugins in Go: WebAssembly components that filter, rename, convert, mask, route or judge
// change events, sandboxed: a plugin sees the columns that the pipeline granted, and nothing else.
//
// A plugin is a type with a method Plan, which runs once for each table schema and says what is done with its columns; the functions
// that it names then run on every batch:
//
//	type filter struct{ Status string }
//
//	func (f *filter) Plan(schema *millrace.Schema, plan *millrace.Plan) error {
//		millrace.Filter(plan, "status", millrace.Text, func(status string) bool { return status != f.Status })
//		return nil
//	}
//
//	func init() {
//		transform.Export(millrace.Info{Name: "order-filter", Version: "0.1.0"}, func(config millrace.Config) (millrace.Transform, error) {
//			f := &filter{Status: "test"}
//			return f, config.Decode(f)
//		})
//	}
//
//	func main() {}
//
// What a plugin answers for a row must depend on the row and the config alone: the host cuts batches as it likes, and replaces
// instances at any time. A panic is a bug of the plugin: the host looks for the row, refuses its change with the panic's words, and
// goes on with the rest.
package millrace

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Info is what a plugin says of itself.
type Info struct {
	Name, Version, Description string
	// ConfigSchema is the JSON Schema of the config document, which the host checks; empty: anything.
	ConfigSchema string
}

// Transform filters, renames, converts, masks, adds and routes.
type Transform interface {
	// Plan says what is done with the rows of a table. A plan that stays empty lets its rows pass by the plugin.
	Plan(schema *Schema, plan *Plan) error
}

// Validator judges rows. It can not change data.
type Validator interface {
	// Plan names the rules of a table. A plan without rules lets its rows pass by the plugin.
	Plan(schema *Schema, checks *Checks) error
}

// Config is the config document that the pipeline file gives a plugin, as JSON. Empty: it gives none.
type Config string

// Decode reads the document into a value of the plugin's own, as package encoding/json does. A missing document counts as {}.
func (c Config) Decode(into any) error {
	document := string(c)
	if strings.TrimSpace(document) == "" {
		document = "{}"
	}
	if err := json.Unmarshal([]byte(document), into); err != nil {
		return ConfigError("config: %v", err)
	}
	return nil
}

// Reject is an error that refuses a row: the change goes to the dead letters.
type Reject struct {
	// Code is stable and machine-readable: "area.reason".
	Code string
	// Reason is for people: what is wrong with which value.
	Reason string
	// Retryable: the host may try the row again, with its back-off, before it becomes a dead letter.
	Retryable bool
}

func (r *Reject) Error() string { return r.Code + ": " + r.Reason }

// Refuse is a Reject for good.
func Refuse(code, format string, arguments ...any) error {
	return &Reject{Code: code, Reason: fmt.Sprintf(format, arguments...)}
}

// errorKind in the contract's order.
type errorKind uint8

const (
	retryLater errorKind = iota
	unsupportedSchema
	invalidConfig
	bug
)

// callError refuses a whole call.
type callError struct {
	kind    errorKind
	afterMS uint32
	message string
}

func (e *callError) Error() string {
	return [...]string{"retry later: ", "unsupported schema: ", "invalid config: ", "bug: "}[e.kind] + e.message
}

// ConfigError says that the config document is wrong: what, and what would be right.
func ConfigError(format string, arguments ...any) error {
	return &callError{kind: invalidConfig, message: fmt.Sprintf(format, arguments...)}
}

// SchemaError says that a table can not be handled, which quarantines it: which column, and why.
func SchemaError(format string, arguments ...any) error {
	return &callError{kind: unsupportedSchema, message: fmt.Sprintf(format, arguments...)}
}

// RetryLater decides nothing: the host calls again after so many milliseconds.
func RetryLater(afterMS uint32, format string, arguments ...any) error {
	return &callError{kind: retryLater, afterMS: afterMS, message: fmt.Sprintf(format, arguments...)}
}

// asCallError: any error that is not of this package is a bug of the plugin.
func asCallError(err error) *callError {
	var call *callError
	if errors.As(err, &call) {
		return call
	}
	return &callError{kind: bug, message: err.Error()}
}

// slot holds a configured plugin and its plans, by the host's schema id: the same code in the sandbox and in tests.
type slot struct {
	info       Info
	transform  func(Config) (Transform, error)
	validator  func(Config) (Validator, error)
	transforms Transform
	validates  Validator
	plans      map[uint32]*Plan
	checks     map[uint32]*Checks
}

// exported is the one plugin of this program.
var exported slot

// ExportTransform is what transform.Export calls.
func ExportTransform(info Info, configure func(Config) (Transform, error)) {
	exported = slot{info: info, transform: configure}
}

// ExportValidator is what validator.Export calls.
func ExportValidator(info Info, configure func(Config) (Validator, error)) {
	exported = slot{info: info, validator: configure}
}

func (s *slot) configure(config Config) (err error) {
	s.plans, s.checks = map[uint32]*Plan{}, map[uint32]*Checks{}
	if s.validator != nil {
		s.validates, err = s.validator(config)
	} else if s.transform != nil {
		s.transforms, err = s.transform(config)
	} else {
		err = errors.New("no plugin is exported: call transform.Export or validator.Export in an init function")
	}
	return err
}

// plan answers nil where there is nothing to do.
func (s *slot) plan(id uint32, schema *Schema) (*Plan, error) {
	if s.transforms == nil {
		return nil, errors.New("called before configure")
	}
	plan := &Plan{schema: schema}
	if err := s.transforms.Plan(schema, plan); err != nil {
		return nil, err
	}
	if plan.err != nil || plan.isEmpty() {
		return nil, plan.err
	}
	s.plans[id] = plan
	return plan, nil
}

func (s *slot) check(id uint32, schema *Schema) (*Checks, error) {
	if s.validates == nil {
		return nil, errors.New("called before configure")
	}
	checks := &Checks{schema: schema}
	if err := s.validates.Plan(schema, checks); err != nil {
		return nil, err
	}
	if checks.err != nil || len(checks.rules) == 0 {
		return nil, checks.err
	}
	s.checks[id] = checks
	return checks, nil
}

// recovered turns a panic into an error: the instance lives, and the words reach the dead letter.
func recovered(err *error) {
	if panicked := recover(); panicked != nil {
		*err = fmt.Errorf("%v", panicked)
	}
}
