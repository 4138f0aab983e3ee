// Leaves test orders out, renames `customer`, and turns the text `amount` into whole cents; what is no amount is refused.
package main

import (
	millrace "github.com/millrace/millrace/sdk/go"
	"github.com/millrace/millrace/sdk/go/transform"
)

type orderCents struct {
	TestStatus string `json:"test_status"`
}

func (o *orderCents) Plan(_ *millrace.Schema, plan *millrace.Plan) error {
	millrace.Filter(plan, "status", millrace.Text, func(status string) bool { return status != o.TestStatus })
	plan.Rename("customer", "customer_name")
	millrace.Convert(plan, "amount", millrace.MustType("int64"), millrace.Text, cents)
	return nil
}

func cents(amount string, out *millrace.Out) error {
	value, ok := millrace.Scaled(amount, 2)
	if !ok {
		return millrace.Refuse("amount.parse", "%q is no amount", amount)
	}
	return out.Int(value)
}

func init() {
	info := millrace.Info{
		Name:         "order-cents-go",
		Version:      "0.1.0",
		Description:  "Leaves test orders out, renames customer, and turns the text amount into whole cents",
		ConfigSchema: `{ "type": "object", "properties": { "test_status": { "type": "string" } }, "additionalProperties": false }`,
	}
	transform.Export(info, func(config millrace.Config) (millrace.Transform, error) {
		plugin := &orderCents{TestStatus: "test"}
		return plugin, config.Decode(plugin)
	})
}

func main() {}
