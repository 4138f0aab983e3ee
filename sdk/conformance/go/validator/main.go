// The conformance kit's validator, by the Go SDK. ../../README.md says what each kind of rule does.
package main

import (
	"fmt"

	millrace "github.com/millrace/millrace/sdk/go"
	"github.com/millrace/millrace/sdk/go/validator"
)

type rule struct {
	Name, Severity, Kind, Column, Value string
	Columns                             []string
	severity                            millrace.Severity
}

type kit struct{ Rules []rule }

func (k *kit) Plan(_ *millrace.Schema, checks *millrace.Checks) error {
	for _, r := range k.Rules {
		switch r.Kind {
		case "required":
			checks.Required(r.Name, r.Column, r.severity)
		case "differ":
			checks.CheckRows(r.Name, r.Columns, r.severity, func(row *millrace.Row) string {
				a, hasA := row.Text(0)
				if b, hasB := row.Text(1); hasA && hasB && a == b {
					return fmt.Sprintf("%s and %s are both %s", r.Columns[0], r.Columns[1], a)
				}
				return ""
			})
		default:
			millrace.Check(checks, r.Name, r.Column, r.severity, millrace.Text, func(text string) string {
				if text != r.Value {
					return ""
				}
				if r.Kind == "throw" {
					panic("thrown on purpose")
				}
				return "is " + text
			})
		}
	}
	return nil
}

func init() {
	info := millrace.Info{Name: "conformance-validator", Version: "0.1.0", Description: "The conformance kit's plugin, by the Go SDK"}
	validator.Export(info, func(config millrace.Config) (millrace.Validator, error) {
		k := &kit{}
		if err := config.Decode(k); err != nil {
			return nil, err
		}
		for i := range k.Rules {
			r := &k.Rules[i]
			switch r.Kind {
			case "required", "not", "throw", "differ":
			default:
				return nil, millrace.ConfigError("there is no kind %s", r.Kind)
			}
			var err error
			if r.severity, err = millrace.ParseSeverity(r.Severity); err != nil {
				return nil, err
			}
		}
		return k, nil
	})
}

func main() {}
