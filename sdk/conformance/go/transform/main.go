// The conformance kit's transform, by the Go SDK. ../../README.md says what each operation does.
package main

import (
	"encoding/json"
	"errors"
	"fmt"

	millrace "github.com/millrace/millrace/sdk/go"
	"github.com/millrace/millrace/sdk/go/transform"
)

type kit struct {
	Op, Column, To, Not, Name, Type, Key string
	Value                                json.RawMessage
	plan                                 func(*kit, *millrace.Schema, *millrace.Plan) error
}

func (k *kit) Plan(schema *millrace.Schema, plan *millrace.Plan) error {
	return k.plan(k, schema, plan)
}

// data are the columns beside the key.
func data(schema *millrace.Schema) (names []string) {
	for _, column := range schema.Columns {
		if column.Name != "id" {
			names = append(names, column.Name)
		}
	}
	return names
}

// value of the config, if it is text.
func (k *kit) value() (string, bool) {
	var text *string
	if json.Unmarshal(k.Value, &text) != nil || text == nil {
		return "", false
	}
	return *text, true
}

func show(v millrace.Value, out *millrace.Out) error { return out.Text(v.String()) }

func cents(text string, out *millrace.Out) error {
	value, ok := millrace.Scaled(text, 2)
	if !ok {
		return millrace.Refuse("decimal.parse", "%q is no amount", text)
	}
	return out.Int(value)
}

type operation = func(*kit, *millrace.Schema, *millrace.Plan) error

func pass(*kit, *millrace.Schema, *millrace.Plan) error { return nil }

var operations = map[string]operation{
	"pass": pass, "refuse-config": pass, "throw-in-configure": pass,
	"refuse-plan": func(*kit, *millrace.Schema, *millrace.Plan) error {
		return millrace.SchemaError("the kit refuses this table")
	},
	"throw-in-plan": func(*kit, *millrace.Schema, *millrace.Plan) error { panic("thrown on purpose") },
	"copy":          copyRows,
	"copy-columns": func(_ *kit, schema *millrace.Schema, plan *millrace.Plan) error {
		for _, name := range data(schema) {
			millrace.Map(plan, name, millrace.Any, func(v millrace.Value, out *millrace.Out) error { return out.Value(v) })
		}
		return nil
	},
	"show": showRows,
	"kinds": func(_ *kit, _ *millrace.Schema, plan *millrace.Plan) error {
		kind := plan.AddColumn("kind", millrace.MustType("text"))
		plan.EachRow(func(row *millrace.Row) error { return row.Out(kind).Text(row.Change().String()) })
		return nil
	},
	"drop":         func(k *kit, _ *millrace.Schema, plan *millrace.Plan) error { plan.DropColumn(k.Column); return nil },
	"rename":       func(k *kit, _ *millrace.Schema, plan *millrace.Plan) error { plan.Rename(k.Column, k.To); return nil },
	"rename-table": func(k *kit, _ *millrace.Schema, plan *millrace.Plan) error { plan.RenameTable(k.To); return nil },
	"add":          add,
	"cast": func(k *kit, _ *millrace.Schema, plan *millrace.Plan) error {
		to, err := millrace.ParseType(k.To)
		millrace.Convert(plan, k.Column, to, millrace.Any, show)
		return err
	},
	"cents": func(k *kit, _ *millrace.Schema, plan *millrace.Plan) error {
		millrace.Convert(plan, k.Column, millrace.MustType("int64"), millrace.Text, cents)
		return nil
	},
	"increase": increase,
	"filter": func(k *kit, _ *millrace.Schema, plan *millrace.Plan) error {
		millrace.Filter(plan, k.Column, millrace.Text, func(text string) bool { return text != k.Not })
		return nil
	},
	"filter-null": func(k *kit, _ *millrace.Schema, plan *millrace.Plan) error {
		millrace.FilterCells(plan, k.Column, millrace.Text, func(cell millrace.Cell[string]) bool { return cell.State == millrace.HasValue })
		return nil
	},
	"filter-rows": func(k *kit, schema *millrace.Schema, plan *millrace.Plan) error {
		plan.MayDrop()
		return k.eachText(plan, func(row *millrace.Row, text string) error {
			if text == k.Not {
				row.Drop()
			}
			return nil
		})
	},
	"route": func(k *kit, _ *millrace.Schema, plan *millrace.Plan) error {
		millrace.Route(plan, k.Column, millrace.Text, func(text string) string { return "to_" + text })
		return nil
	},
	"route-rows": func(k *kit, schema *millrace.Schema, plan *millrace.Plan) error {
		plan.MayRoute()
		return k.eachText(plan, func(row *millrace.Row, text string) error { row.Route("to_" + text); return nil })
	},
	"reject-rows": func(k *kit, schema *millrace.Schema, plan *millrace.Plan) error {
		refused, _ := k.value()
		return k.eachText(plan, func(row *millrace.Row, text string) error {
			if text == refused {
				return millrace.Refuse("kit.refused", "not this one")
			}
			return nil
		})
	},
	"hash": func(k *kit, _ *millrace.Schema, plan *millrace.Plan) error {
		plan.MapColumn(k.Column, millrace.MustType("text"), func(column *millrace.Column) (*millrace.Column, error) {
			hashes, err := millrace.HMACSHA256(k.Key, column)
			if err != nil {
				return nil, err
			}
			return hashes.Hex(), nil
		})
		return nil
	},
	"log": func(k *kit, _ *millrace.Schema, plan *millrace.Plan) error {
		return k.eachText(plan, func(_ *millrace.Row, text string) error {
			millrace.Logf(millrace.LevelInfo, "saw %s", text)
			return nil
		})
	},
	"fail": func(k *kit, _ *millrace.Schema, plan *millrace.Plan) error {
		return k.eachText(plan, func(_ *millrace.Row, text string) error { return fail(text) })
	},
	"retry": func(_ *kit, _ *millrace.Schema, plan *millrace.Plan) error {
		plan.Inspect("id", func(*millrace.Column) error { return millrace.RetryLater(5, "not now") })
		return nil
	},
}

func copyRows(_ *kit, schema *millrace.Schema, plan *millrace.Plan) error {
	type pair struct {
		input  millrace.Input
		output millrace.Output
	}
	var pairs []pair
	for _, name := range data(schema) {
		pairs = append(pairs, pair{plan.Read(name), plan.Write(name, schema.Column(name).Type)})
	}
	plan.EachRow(func(row *millrace.Row) error {
		for _, p := range pairs {
			if err := row.Out(p.output).Cell(row.Get(p.input)); err != nil {
				return err
			}
		}
		return nil
	})
	return nil
}

func showRows(_ *kit, schema *millrace.Schema, plan *millrace.Plan) error {
	var inputs []millrace.Input
	for _, name := range data(schema) {
		inputs = append(inputs, plan.Read(name))
	}
	shown := plan.AddColumn("shown", millrace.MustType("text"))
	plan.EachRow(func(row *millrace.Row) error {
		out := row.Out(shown)
		err := out.Text("")
		for i, input := range inputs {
			if i > 0 {
				err = errors.Join(err, out.Text(";"))
			}
			err = errors.Join(err, out.Text(millrace.Show(row.Get(input))))
		}
		return err
	})
	return nil
}

func add(k *kit, _ *millrace.Schema, plan *millrace.Plan) error {
	of, err := millrace.ParseType(k.Type)
	if err != nil {
		return millrace.ConfigError("%v", err)
	}
	added := plan.AddColumn(k.Name, of)
	value, given := k.value()
	plan.EachRow(func(row *millrace.Row) error {
		if !given {
			return nil
		}
		return row.Out(added).Text(value)
	})
	return nil
}

func increase(k *kit, schema *millrace.Schema, plan *millrace.Plan) error {
	definition := schema.Column(k.Column)
	if definition == nil {
		return nil
	}
	input, output := plan.Read(k.Column), plan.Write(k.Column, definition.Type)
	plan.EachRow(func(row *millrace.Row) error {
		cell := row.Get(input)
		if cell.State != millrace.HasValue {
			return row.Out(output).Cell(cell)
		}
		if cell.Value.Int() == millrace.Infinity {
			return millrace.Refuse("int.overflow", "%d is the greatest", cell.Value.Int())
		}
		return row.Out(output).Int(cell.Value.Int() + 1)
	})
	return nil
}

// eachText is the row view on the text of one column.
func (k *kit) eachText(plan *millrace.Plan, each func(*millrace.Row, string) error) error {
	input := plan.Read(k.Column)
	if input < 0 {
		return nil
	}
	plan.EachRow(func(row *millrace.Row) error {
		cell := row.Get(input)
		if cell.State != millrace.HasValue || !cell.Value.IsText() {
			return nil
		}
		return each(row, cell.Value.Text())
	})
	return nil
}

var held [][]byte

func fail(how string) error {
	switch how {
	case "throw":
		panic("thrown on purpose")
	case "spin":
		for {
		}
	case "memory":
		for {
			held = append(held, make([]byte, 1<<20))
		}
	case "recursion":
		return fmt.Errorf("again: %w", fail(how))
	}
	return nil
}

func init() {
	info := millrace.Info{
		Name: "conformance", Version: "0.1.0", Description: "The conformance kit's plugin, by the Go SDK",
		ConfigSchema: `{"type":"object","required":["op"],"properties":{"op":{"type":"string"}}}`,
	}
	transform.Export(info, func(config millrace.Config) (millrace.Transform, error) {
		k := &kit{}
		if err := config.Decode(k); err != nil {
			return nil, err
		}
		switch k.Op {
		case "refuse-config":
			return nil, millrace.ConfigError("the kit refuses this config")
		case "throw-in-configure":
			panic("thrown on purpose")
		}
		k.plan = operations[k.Op]
		if k.plan == nil {
			return nil, millrace.ConfigError("there is no operation %s", k.Op)
		}
		return k, nil
	})
}

func main() {}
