package llama

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// writeZeros writes a folder of one file with tensors of zeros, as large as the configuration says.
func writeZeros(b *testing.B, config map[string]any) string {
	b.Helper()
	dir := b.TempDir()
	writeFile(b, mustJSON(b, config), dir, configFile)
	c, err := parseConfig(mustJSON(b, config), nil)
	if err != nil {
		b.Fatal(err)
	}
	header := map[string]any{}
	size := int64(0)
	for _, p := range c.parameters() {
		n := int64(2)
		for _, d := range p.dims {
			n *= int64(d)
		}
		header[p.hf] = map[string]any{"dtype": "F16", "shape": p.dims, "data_offsets": []int64{size, size + n}}
		size += n
	}
	text, err := json.Marshal(header)
	if err != nil {
		b.Fatal(err)
	}
	file, err := os.Create(filepath.Join(dir, weightsFile))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)); err != nil {
		b.Fatal(err)
	}
	chunk := make([]byte, 1<<20)
	for left := size; left > 0; left -= int64(len(chunk)) {
		if _, err := file.Write(chunk[:min(left, int64(len(chunk)))]); err != nil {
			b.Fatal(err)
		}
	}
	return dir
}

// BenchmarkLoadWeights loads two layers of Llama-2-7B's width (1.3 GB as float16) and reports how fast that is relative
// to reading the same file into memory, in the same run.
func BenchmarkLoadWeights(b *testing.B) {
	dir := writeZeros(b, with(fakeConfig(), map[string]any{"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32,
		"num_key_value_heads": 32, "vocab_size": 32000, "num_hidden_layers": 2}))
	f, err := Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		backend func() compute.Backend
		dtype   dtypes.DType
	}{
		{"float16 to host", func() compute.Backend { return nil }, dtypes.Float16},
		{"float32 to host", func() compute.Backend { return nil }, dtypes.Float32},
		{"float16 to XLA", func() compute.Backend { return testbackend.XLA(b) }, dtypes.Float16},
		{"float32 to XLA", func() compute.Backend { return testbackend.XLA(b) }, dtypes.Float32},
	} {
		b.Run(c.name, func(b *testing.B) {
			backend := c.backend()
			b.SetBytes(f.StoredBytes())
			var plain, load time.Duration
			for b.Loop() {
				start := time.Now()
				readPlain(b, filepath.Join(dir, weightsFile))
				plain += time.Since(start)
				start = time.Now()
				w, err := f.LoadWeights(backend, c.dtype)
				if err != nil {
					b.Fatal(err)
				}
				load += time.Since(start)
				w.Finalize()
			}
			b.ReportMetric(plain.Seconds()/load.Seconds(), "of-plain-read")
		})
	}
}

// readPlain reads a file into memory as a whole.
func readPlain(b *testing.B, path string) {
	b.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	if len(data) == 0 {
		b.Fatal("the file is empty")
	}
}
