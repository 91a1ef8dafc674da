package failure

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestOf(t *testing.T) {
	inner := New(Permission, io.EOF, "ask")
	for _, row := range []struct {
		name string
		err  error
		want *Failure
	}{
		{"no error", nil, nil},
		{"a plain error", io.EOF, &Failure{Code: General, Text: "EOF"}},
		{"a failure", inner, &Failure{Code: Permission, Text: "EOF", Hint: "ask"}},
		{"a wrapped failure keeps code and hint", fmt.Errorf("while connecting: %w", inner), &Failure{Code: Permission, Text: "while connecting: EOF", Hint: "ask"}},
	} {
		got := Of(row.err)
		if (got == nil) != (row.want == nil) || got != nil && (got.Code != row.want.Code || got.Text != row.want.Text || got.Hint != row.want.Hint) {
			t.Errorf("%s: %+v, want %+v", row.name, got, row.want)
		}
		if got != nil && !errors.Is(got, io.EOF) {
			t.Errorf("%s: the cause is lost", row.name)
		}
	}
}

func TestWithHintLeavesTheOriginal(t *testing.T) {
	f := Newf(Usage, "bad %d", 1)
	if g := f.WithHint("try %d", 2); g.Hint != "try 2" || f.Hint != "" || g.Text != "bad 1" {
		t.Errorf("%+v, %+v", f, g)
	}
}
