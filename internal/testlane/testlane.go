// Package testlane sorts tests into the three lanes of ./scripts/test.
//
//	./scripts/test --quick   what takes moments, for every save; go test -short
//	./scripts/test           what CI runs
//	./scripts/test --all     everything; KVQ_TEST_ALL=1
//
// A test without a call of this package runs in every lane. What a lane leaves out is counted by
// internal/testreport as left out, apart from tests that were skipped. Only tests import this
// package.
package testlane

import (
	"os"
	"testing"
)

// AllVariable, set to 1, is the lane --all.
const AllVariable = "KVQ_TEST_ALL"

// LeftOut begins the reason of every test that its lane leaves out. internal/testreport looks for
// it.
const LeftOut = "left out of this lane: "

// Slow leaves a test or subtest out of --quick. why says what takes its time, or which faster test
// covers the same ground.
func Slow(t testing.TB, why string) {
	t.Helper()
	if Quick() {
		t.Skip(LeftOut + why)
	}
}

// OnlyAll leaves a test or subtest out of every lane but --all.
func OnlyAll(t testing.TB, why string) {
	t.Helper()
	if !All() {
		t.Skip(LeftOut + why)
	}
}

// Quick reports whether the lane is --quick.
func Quick() bool { return testing.Short() && !All() }

// All reports whether the lane is --all.
func All() bool { return os.Getenv(AllVariable) == "1" }
