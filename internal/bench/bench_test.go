package bench

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestRatios(t *testing.T) {
	// By hand: minima 2 and 4: 2 times faster. Pairs 6/3, 4/2, 10/2: 2, 2, 5; the middle one is 2.
	ours, theirs := Times{3, 2, 2}, Times{6, 4, 10}
	if got := ours.Faster(theirs); got.Min != 2 || got.Median != 2 {
		t.Errorf("got %+v, want 2 and 2", got)
	}
	if m := (Times{4, 1, 3, 2}).Median(); m != 2 { // (2+3)/2 in whole nanoseconds
		t.Errorf("median %d, want 2", m)
	}
}

func TestAlternateTakesTurns(t *testing.T) {
	var order []int
	contestant := func(n int) Run {
		return func(context.Context) (time.Duration, error) {
			order = append(order, n)
			return time.Duration(n*10 + len(order)), nil
		}
	}
	got, err := Alternate(context.Background(), 2, contestant(1), contestant(2))
	if err != nil {
		t.Fatal(err)
	}
	if want := []int{1, 2, 1, 2, 1, 2}; !equal(order, want) {
		t.Errorf("ran in the order %v, want %v", order, want)
	}
	if len(got) != 2 || len(got[0]) != 2 || got[0][0] != 13 || got[1][1] != 26 {
		t.Errorf("times %v: the first round must not count", got)
	}
	broken := errors.New("broken")
	if _, err := Alternate(context.Background(), 2, func(context.Context) (time.Duration, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
