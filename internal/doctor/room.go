package doctor

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/dustin/go-humanize"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/filesys"
	"github.com/kvqbook/kvqbook/internal/trust"
)

// Bytes that things take.
const (
	// the small model, what XLA takes beside it (717 MiB, docs/benchmarks.md), and a cell's program
	enoughMemory = 1 << 30
	setupTakes   = 1 << 30   // 600 MB stay, wheels lie beside them for a while
	enoughDisk   = 200 << 20 // for compiled graphs, executed notebooks, programs of cells
)

// memory is what programs can have.
func (m *Machine) memory(context.Context) Finding {
	mem := m.Memory()
	if mem.Limit == 0 {
		return missing("", "how much memory is free cannot be told here")
	}
	found := humanize.IBytes(uint64(mem.Limit)) + " free (" + mem.Source + ")"
	if mem.Limit < enoughMemory {
		return ill("end other programs, or give the container more; `kvq memory` says what a run needs",
			"%s, the small model and a cell of a notebook want %s", found, humanize.IBytes(enoughMemory))
	}
	return well("%s", found)
}

// disk is the clone's, or what keeps compiled graphs where there is no clone.
func (m *Machine) disk(context.Context) Finding {
	if m.Clone == "" {
		return noClone("folder to write to")
	}
	enough, why := int64(enoughDisk), "compiled graphs and notebooks want"
	if dir := m.ownFolder(); dir != "" {
		return folder(dir, enough, why, "make room there", "set XDG_DATA_HOME to a folder that you can write to")
	}
	if _, err := os.Stat(filepath.Join(m.Clone, asset.SetupDir, "stamps", "go")); err != nil {
		enough, why = setupTakes, "set-up wants"
	}
	return folder(filepath.Join(m.Clone, asset.SetupDir), enough, why,
		"make room, or clone to another disk", "clone to a folder that you can write to")
}

// ownFolder is where a user keeps what is theirs beside a clone of somebody else that is set up for
// everybody, as scripts/env.sh has it; "" for other clones.
func (m *Machine) ownFolder() string {
	setup := filepath.Join(m.Clone, asset.SetupDir)
	if _, err := os.Stat(filepath.Join(setup, "stamps", "shared")); err != nil || trust.Writable(setup) {
		return ""
	}
	data := os.Getenv("XDG_DATA_HOME")
	if data == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		data = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(data, "kvqbook")
}

// temporary is where Go builds the program of a cell.
func (m *Machine) temporary(context.Context) Finding {
	return folder(os.TempDir(), enoughDisk, "programs of cells want",
		"make room there, or set TMPDIR to a folder on another disk", "set TMPDIR to a folder that you can write to")
}

// folder tells whether a folder, or the nearest one above it that is there, can be written to and
// has room.
func folder(dir string, enough int64, why, full, closed string) Finding {
	if err := writable(dir); err != nil {
		if isFull(err) {
			return ill(full, "%s is full: %v", dir, err)
		}
		return ill(closed, "%s cannot be written to: %v", dir, err)
	}
	free, known := freeBytes(filesys.Nearest(dir))
	switch {
	case !known:
		return well("%s can be written to", dir)
	case free < enough:
		return ill(full, "%s has %s free, %s %s", dir, humanize.IBytes(uint64(free)), why, humanize.IBytes(uint64(enough)))
	}
	return well("%s, %s free", dir, humanize.IBytes(uint64(free)))
}

// writable writes a page into a folder, or into the nearest one above it, and takes it away again.
func writable(dir string) error {
	f, err := os.CreateTemp(filesys.Nearest(dir), ".kvq-doctor-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(make([]byte, 4096))
	return errors.Join(err, f.Close())
}
