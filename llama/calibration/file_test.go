package calibration_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama/calibration"
)

// small is a calibration of 2 layers of 1 head of 2 channels.
func small() *calibration.Queries {
	return &calibration.Queries{Model: "0123", Layers: 2, KVHeads: 1, HeadDim: 2, Tokens: 7, Texts: []string{"ab", "cd"},
		Means: []float32{1, 0.5, 0.5, 2, 3, -1, -1, 4}}
}

func written(t testing.TB, q *calibration.Queries) (path string, data []byte) {
	t.Helper()
	path = calibration.Path(filepath.Join(t.TempDir(), "model.gguf/"))
	if err := calibration.Write(path, q); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, data
}

func TestRoundTrip(t *testing.T) {
	path, _ := written(t, small())
	if filepath.Base(path) != "model.gguf.kvq-queries" {
		t.Errorf("written to %s", path)
	}
	if got, err := calibration.Read(path); err != nil || !reflect.DeepEqual(got, small()) {
		t.Errorf("%+v, %v, want %+v", got, err, small())
	}
	if _, err := calibration.Read(path + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v of a file that is not there", err)
	}
}

// What no queries have is refused, and so is whatever a file was damaged to.
func TestReadRefuses(t *testing.T) {
	nan := float32(math.NaN())
	for want, change := range map[string]func(q *calibration.Queries){
		"layer 1, head 0, channels 0 and 1: NaN is no number":         func(q *calibration.Queries) { q.Means[5] = nan },
		"layer 0, head 0, channels 1 and 1: +Inf is no number":        func(q *calibration.Queries) { q.Means[3] = float32(math.Inf(1)) },
		"layer 0, head 0, channels 0 and 1: 0.75 is no mean":          func(q *calibration.Queries) { q.Means[1] = 0.75 },
		"layer 0, head 0, channels 0 and 1: 1.5 is no mean":           func(q *calibration.Queries) { q.Means[1], q.Means[2] = 1.5, 1.5 },
		"layer 1, head 0, channels 0 and 0: -3 is no mean":            func(q *calibration.Queries) { q.Means[4], q.Means[5], q.Means[6], q.Means[7] = -3, 0, 0, -1 },
		"want sizes from 1 to 65536, got [0 1 2 2]":                   func(q *calibration.Queries) { q.Layers = 0 },
		"want sizes from 1 to 65536, got [2 1 9000000000000000000 ":   func(q *calibration.Queries) { q.HeadDim = 9000000000000000000 },
		"want 17179869184 bytes of data, got 32: cut off, or damaged": func(q *calibration.Queries) { q.HeadDim, q.Layers = 1<<16, 1 },
		"want 64 bytes of data, got 32: cut off, or damaged":          func(q *calibration.Queries) { q.Layers = 4 },
		"want at least one token, got 0":                              func(q *calibration.Queries) { q.Tokens = 0 },
	} {
		q := small()
		change(q)
		path, _ := written(t, q)
		requireRefused(t, path, want)
	}
	_, data := written(t, small())
	for want, damaged := range map[string][]byte{
		"got 0 bytes: cut off":                    {},
		"in a file of 9: cut off":                 append(binary.LittleEndian.AppendUint64(nil, 100), 0),
		"in a file of 8: cut off":                 binary.LittleEndian.AppendUint64(nil, math.MaxUint64),
		"want F32 at [0, 31]":                     data[:len(data)-1],
		"the data is not what was written":        append(bytes.Clone(data[:len(data)-1]), 1),
		`got format "kvq-cache"`:                  bytes.Replace(data, []byte(`"kvq-queries"`), []byte(`"kvq-cache"  `), 1),
		"want version 1 of the format, got \"2\"": bytes.Replace(data, []byte(`"version":"1"`), []byte(`"version":"2"`), 1),
		"got another header":                      bytes.Replace(data, []byte(`"queries":{`), []byte(`"answers":{`), 1),
		"array queries: want F32":                 bytes.Replace(data, []byte(`"F32"`), []byte(`"F16"`), 1),
	} {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, damaged, 0o644); err != nil {
			t.Fatal(err)
		}
		requireRefused(t, path, want)
	}
	requireRefused(t, t.TempDir(), "got a folder")
}

// requireRefused wants one line of bad input that names the file.
func requireRefused(t *testing.T, path, want string) {
	t.Helper()
	q, err := calibration.Read(path)
	if err == nil || q != nil || !usererr.Is(err) || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), path) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v, %v, want a line with %q", q, err, want)
	}
}

// Whatever is read is refused in one line, or holds as many finite numbers as it says, no more than
// the file has room for, and is written again as it was.
func FuzzRead(f *testing.F) {
	_, data := written(f, small())
	f.Add(data)
	f.Add(data[:len(data)-3])
	f.Add(bytes.Replace(data, []byte(`"Layers\":2`), []byte(`"Layers\":9`), 1))
	f.Add(bytes.Replace(data, []byte(`[2,1,2,2]`), []byte(`[2,1,-2,2]`), 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "fuzz")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		q, err := calibration.Read(path)
		if err != nil {
			requireRefused(t, path, "")
			return
		}
		if n := q.Layers * q.KVHeads * q.HeadDim * q.HeadDim; n != len(q.Means) || 4*n > len(data) {
			t.Fatalf("%d numbers for %d x %d x %d², from %d bytes", len(q.Means), q.Layers, q.KVHeads, q.HeadDim, len(data))
		}
		for _, x := range q.Means {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
				t.Fatalf("%v came through", x)
			}
		}
		if err := calibration.Write(path, q); err != nil {
			return // too many texts
		}
		if again, err := calibration.Read(path); err != nil || !reflect.DeepEqual(again, q) {
			t.Fatalf("%+v was written, and read as %+v, %v", q, again, err)
		}
	})
}
