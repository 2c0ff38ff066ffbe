package models

import (
	"os"
	"testing"

	"github.com/kvqbook/kvqbook/internal/soak"
)

func TestMain(m *testing.M) {
	soak.RunChild()
	os.Exit(m.Run())
}

// The quick form of every part.
func TestQuick(t *testing.T) { soak.QuickTest(t, Parts) }
