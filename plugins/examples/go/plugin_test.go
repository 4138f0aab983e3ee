// Runs without a host: `go test`.
package main

import (
	"testing"

	millrace "github.com/millrace/millrace/sdk/go"
)

func orders(config string) *millrace.Case {
	return millrace.NewCase(config).Key("id", "int64").Column("status", "text").Column("customer", "text").Column("amount", "text")
}

func answers(t *testing.T, c *millrace.Case, cut int) []millrace.Answer {
	t.Helper()
	answers, err := c.Run(cut)
	if err != nil {
		t.Fatal(err)
	}
	return answers
}

func TestOrdersLeaveInCents(t *testing.T) {
	answer := answers(t, orders("").Insert(`{"id": 1, "status": "new", "customer": "Ann", "amount": "12.5"}`), 0)[0]
	if answer.Row != `{"id":1,"status":"new","customer_name":"Ann","amount":1250}` {
		t.Error(answer.Row)
	}
}

func TestTestOrdersAreLeftOut(t *testing.T) {
	got := answers(t, orders(`{"test_status": "dummy"}`).Insert(`{"id": 1, "status": "dummy"}`).Insert(`{"id": 2, "status": "test"}`), 1)
	if got[0].Fate != millrace.Dropped || got[1].Fate != millrace.Kept {
		t.Error(got)
	}
}

func TestWhatIsNoAmountIsRefused(t *testing.T) {
	got := answers(t, orders("").Insert(`{"id": 1, "amount": "much"}`).Insert(`{"id": 2, "amount": null}`).Delete(`{"id": 3}`), 0)
	if got[0].Code != "amount.parse" || got[1].Fate != millrace.Kept || got[2].Row != `{"id":3}` {
		t.Error(got)
	}
}
