package llama

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/randomllama"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// BenchmarkLoadWeights loads three shards of Llama-2-7B's layout with two layers of its width (1.3 GB as float16) and reports how fast
// that is relative to a plain read of the same files in the same run: their bytes into one block of memory that is made for it, as
// os.ReadFile has it. The files are in the page cache.
//
//	go test ./llama -run XXX -bench LoadWeights -benchtime 7x
func BenchmarkLoadWeights(b *testing.B) {
	shape, err := randomllama.Llama2(1)
	if err != nil {
		b.Fatal(err)
	}
	shape.Layers = 2
	dir := b.TempDir()
	if err := randomllama.Write(dir, shape, 3, 1); err != nil {
		b.Fatal(err)
	}
	f, err := Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	shards, err := filepath.Glob(filepath.Join(dir, "*.safetensors"))
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		backend func() compute.Backend
		dtype   dtypes.DType
	}{
		{"float16 to host", func() compute.Backend { return nil }, dtypes.Float16},
		{"float16 to XLA", func() compute.Backend { return testbackend.XLA(b) }, dtypes.Float16},
		{"float32 to XLA", func() compute.Backend { return testbackend.XLA(b) }, dtypes.Float32},
	} {
		b.Run(c.name, func(b *testing.B) {
			backend := c.backend()
			b.SetBytes(f.StoredBytes())
			var ratios, loads []float64
			for b.Loop() {
				start := time.Now()
				readPlain(b, shards)
				plain := time.Since(start)
				start = time.Now()
				w, err := f.LoadWeights(backend, c.dtype)
				if err != nil {
					b.Fatal(err)
				}
				load := time.Since(start)
				ratios, loads = append(ratios, plain.Seconds()/load.Seconds()), append(loads, load.Seconds())
				w.Finalize()
			}
			slices.Sort(ratios)
			slices.Sort(loads)
			b.ReportMetric(ratios[0], "of-plain-read-min")
			b.ReportMetric(ratios[len(ratios)/2], "of-plain-read-median")
			b.ReportMetric(loads[len(loads)/2], "load-s")
		})
	}
}

// readPlain reads files into memory as a whole, one after the other.
func readPlain(b *testing.B, paths []string) {
	b.Helper()
	var size int64
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		size += info.Size()
	}
	data := make([]byte, size)
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		info, err := file.Stat()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(file, data[:info.Size()]); err != nil {
			b.Fatal(err)
		}
		data = data[info.Size():]
		_ = file.Close()
	}
}

// BenchmarkLoadSmallModel loads the small model of the set-up, GGUF's Q4_1, as float32, and packs it.
func BenchmarkLoadSmallModel(b *testing.B) {
	backend, path := testbackend.XLA(b), smallModel(b)
	for b.Loop() {
		f, err := Open(path)
		if err != nil {
			b.Fatal(err)
		}
		m, err := f.LoadModel(backend, dtypes.Float32, 1)
		if err != nil {
			b.Fatal(err)
		}
		m.Finalize()
	}
}
