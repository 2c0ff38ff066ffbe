package kvq_test

import (
	"testing"

	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
)

// Every cache does on GoMLX's pure-Go backend, which needs no plugin, what it does with XLA.
func TestSuiteOnPureGo(t *testing.T) {
	for _, c := range suiteCases(t) {
		t.Run(c.name, func(t *testing.T) {
			testlane.OnlyAll(t, "TestPureGo shows that the operations are there")
			t.Parallel()
			c.check(t, testbackend.Go(t))
		})
	}
}

// One cache of every form on the pure-Go backend: attention equals the oracle's, and a loop does
// what separate calls do.
func TestPureGo(t *testing.T) {
	for _, c := range suiteCases(t) {
		if !c.quick {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			checkWhile(t, c.record(t, testbackend.Go(t)))
		})
	}
}
