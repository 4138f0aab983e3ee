package millrace

import (
	"fmt"
	"strings"
	"testing"
)

// planned is a transform of one function.
type planned func(*Schema, *Plan) error

func (p planned) Plan(schema *Schema, plan *Plan) error { return p(schema, plan) }

func export(plan planned) {
	ExportTransform(Info{Name: "tested"}, func(Config) (Transform, error) { return plan, nil })
}

func run(t *testing.T, c *Case, cut int) []Answer {
	t.Helper()
	answers, err := c.Run(cut)
	if err != nil {
		t.Fatal(err)
	}
	return answers
}

func equal[T comparable](t *testing.T, got, expected T) {
	t.Helper()
	if got != expected {
		t.Fatalf("expected %v, got %v", expected, got)
	}
}

func TestADecimalBecomesAnIntegerExactlyOrNotAtAll(t *testing.T) {
	for text, expected := range map[string]int64{"12.5": 1250, "-0.05": -5, "+7.500": 750, "-92233720368547758.08": NegInfinity, "92233720368547758.07": Infinity, "1.": 100, ".5": 50} {
		got, ok := Scaled(text, 2)
		if !ok || got != expected {
			t.Errorf("%s: %d, %v", text, got, ok)
		}
	}
	if got, ok := Scaled("12000", -3); !ok || got != 12 {
		t.Errorf("12000 in thousands: %d, %v", got, ok)
	}
	for _, text := range []string{"7.501", "", "-", ".", "1e3", "1.2.3", "NaN", "92233720368547758.08", "99999999999999999999"} {
		if got, ok := Scaled(text, 2); ok {
			t.Errorf("%q is no amount, but %d", text, got)
		}
	}
}

func TestAnIntegerBecomesADecimal(t *testing.T) {
	equal(t, Unscaled(-1250, 2), "-12.50")
	equal(t, Unscaled(5, 2), "0.05")
	equal(t, Unscaled(NegInfinity, 3), "-9223372036854775.808")
	equal(t, Unscaled(12, -3), "12000")
	equal(t, Unscaled(0, -3), "0")
}

func TestTypesAreFoundByTheirNames(t *testing.T) {
	for _, name := range []string{"int64", "decimal(10,2)", "decimal(38,-2)", "decimal", "timestamp-tz", "other(interval)"} {
		equal(t, MustType(name).String(), name)
	}
	if _, err := ParseType("money"); err == nil {
		t.Error("money is a type")
	}
}

func TestValuesAreShownAsInEveryLanguage(t *testing.T) {
	export(func(_ *Schema, plan *Plan) error {
		Convert(plan, "a", MustType("text"), Any, func(v Value, out *Out) error { return out.Text(v.String()) })
		return nil
	})
	for of, rows := range map[string][2]string{
		"float64": {`0.1`, `"0.1"`}, "decimal(10,2)": {`"-12.50"`, `"-12.50"`}, "binary": {`"00ff"`, `"00ff"`}, "boolean": {`true`, `"true"`},
		"uint64": {`18446744073709551615`, `"18446744073709551615"`}, "date": {`5`, `"5"`}, "json": {`{"b":[1]}`, `"{\"b\":[1]}"`},
		"uuid": {`"123e4567-e89b-12d3-a456-426614174000"`, `"123e4567-e89b-12d3-a456-426614174000"`}, "timestamp": {`9223372036854775807`, `"infinity"`},
	} {
		answers := run(t, NewCase("").Key("id", "int64").Column("a", of).Insert(fmt.Sprintf(`{"id": 1, "a": %s}`, rows[0])), 0)
		equal(t, answers[0].Row, fmt.Sprintf(`{"id":1,"a":%s}`, rows[1]))
	}
}

func TestAFilterKeepsWhatWasNotSent(t *testing.T) {
	export(func(_ *Schema, plan *Plan) error {
		FilterCells(plan, "a", Text, func(cell Cell[string]) bool { return cell.State == HasValue })
		return nil
	})
	answers := run(t, NewCase("").Key("id", "int64").Column("a", "text").Insert(`{"id": 1, "a": null}`).Delete(`{"id": 2}`), 0)
	equal(t, answers[0].Fate, Dropped)
	equal(t, answers[1].Fate, Kept)
}

func TestRowsAreAnsweredAlikeHoweverTheyAreCut(t *testing.T) {
	export(func(_ *Schema, plan *Plan) error {
		a, b, sum := plan.Read("a"), plan.Read("b"), plan.AddColumn("sum", MustType("int8"))
		plan.EachRow(func(row *Row) error {
			if row.Get(a).State != HasValue || row.Get(b).State != HasValue {
				return nil
			}
			row.Route(fmt.Sprintf("t%d", row.Get(a).Value.Int()))
			return row.Out(sum).Int(row.Get(a).Value.Int() + row.Get(b).Value.Int())
		})
		plan.MayRoute()
		return nil
	})
	for cut := range 4 {
		c := NewCase("").Key("id", "int64").Column("a", "int64").Column("b", "int64")
		c.Insert(`{"id": 1, "a": 1, "b": 2}`).Insert(`{"id": 2, "a": 100, "b": 100}`).Insert(`{"id": 3, "a": 1}`)
		answers := run(t, c, cut)
		equal(t, answers[0].Row, `{"id":1,"a":1,"b":2,"sum":3}`)
		equal(t, answers[0].Table, "t1")
		equal(t, answers[1].Code, "int.overflow")
		equal(t, answers[2].Row, `{"id":3,"a":1,"sum":null}`)
	}
}

// RFC 4231, test case 2.
func TestHashesAreMadeUnderAGrantedKey(t *testing.T) {
	export(func(_ *Schema, plan *Plan) error {
		plan.MapColumn("a", MustType("text"), func(c *Column) (*Column, error) {
			hashes, err := HMACSHA256("pii", c)
			if err != nil {
				return nil, err
			}
			return hashes.Hex(), nil
		})
		return nil
	})
	c := NewCase("").Key("id", "int64").Column("a", "text").Insert(`{"id": 1, "a": "what do ya want for nothing?"}`)
	if _, err := c.Run(0); err == nil || !strings.Contains(err.Error(), "grant: { crypto: [pii] }") {
		t.Fatal(err)
	}
	equal(t, run(t, c.Crypto("pii", "Jefe"), 0)[0].Row, `{"id":1,"a":"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"}`)
}

func TestAPanicIsABugWithItsWords(t *testing.T) {
	export(func(_ *Schema, plan *Plan) error {
		Filter(plan, "a", Text, func(string) bool { panic("thrown on purpose") })
		return nil
	})
	_, err := NewCase("").Column("a", "text").Insert(`{"a": "x"}`).Run(0)
	if err == nil || asCallError(err).message != "thrown on purpose" {
		t.Fatal(err)
	}
}

func TestAColumnThatCanNotBeReadSoIsRefusedBeforeARowFlows(t *testing.T) {
	export(func(_ *Schema, plan *Plan) error {
		Filter(plan, "a", Text, func(string) bool { return true })
		return nil
	})
	_, err := NewCase("").Column("a", "boolean").Insert(`{"a": true}`).Run(0)
	if err == nil || asCallError(err).kind != unsupportedSchema || !strings.Contains(err.Error(), "column a is boolean") {
		t.Fatal(err)
	}
}

type judged struct{}

func (judged) Plan(_ *Schema, checks *Checks) error {
	checks.CheckRows("differ", []string{"a", "b"}, RejectChange, func(row *Row) string {
		a, _ := row.Text(0)
		if b, ok := row.Text(1); ok && a == b {
			return "a and b are both " + a
		}
		return ""
	})
	checks.Required("there", "a", Warn)
	return nil
}

func TestRulesNameWhatIsWrong(t *testing.T) {
	ExportValidator(Info{Name: "tested"}, func(Config) (Validator, error) { return judged{}, nil })
	c := NewCase("").Column("a", "text").Column("b", "text").Insert(`{"a": "x", "b": "x"}`).Insert(`{"a": null, "b": "x"}`).Delete(`{"a": "x"}`)
	for cut := range 3 {
		lines, err := c.Violations(cut)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, strings.Join(lines, "\n"), "0: differ: a and b are both x\n1: there: a is NULL")
	}
}
