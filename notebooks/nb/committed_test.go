package nb

import (
	"reflect"
	"strings"
	"testing"
)

const twoTables = `# A document

## First

Made with ` + "`a command`" + `,
on a day.

| what | tokens | ms | |
| --- | ---:| --- | --- |
| one | 1,024 | 0.5 / 0.6 | x |
| two | 4096 | 2 | |

After it.

## Second

An older paragraph.

Another
machine.

| what | gain |
| --- | --- |
| three | -1.5 % |
`

func TestCommittedTables(t *testing.T) {
	m := firstTable(twoTables, "First")
	if m.How != "Made with `a command`, on a day." || m.Title != "First" || len(m.Rows) != 2 {
		t.Fatalf("%+v", m)
	}
	if got := m.Column("tokens"); !reflect.DeepEqual(got, []float64{1024, 4096}) {
		t.Errorf("tokens %v", got)
	}
	if got := m.Where("what", "one").Column("ms"); !reflect.DeepEqual(got, []float64{0.5}) {
		t.Errorf("ms %v", got)
	}
	if got := firstTable(twoTables, "Second"); strings.TrimSpace(got.How) != "Another machine." || got.Column("gain")[0] != -1.5 {
		t.Errorf("%+v", got)
	}
	if got := firstTable(twoTables, ""); got.Title != "First" {
		t.Errorf("without a heading: %+v", got)
	}
	twice := Measured{Names: []string{"cache", "ms", "cache"}}
	if got := twice.columns([]string{"cache", "ms", "cache"}); !reflect.DeepEqual(got, []int{0, 1, 2}) {
		t.Errorf("a name that stands twice: columns %v", got)
	}
	if got := (Measured{How: "bandwidth 39.5 GB/s"}).Number(`bandwidth ([\d.]+) GB/s`); got != 39.5 {
		t.Errorf("the bandwidth is %g", got)
	}
	if got := firstTable(twoTables, "Third"); got.Names != nil {
		t.Errorf("a heading that is not there: %+v", got)
	}
}

// The documents that the notebooks read have what they read.
func TestCommittedDocuments(t *testing.T) {
	for path, columns := range map[string][]string{
		"docs/bench/h200/10-attention.md":        {"tokens", "quantized ms", "full ms"},
		"docs/bench/h200/22-llama2.md":           {"batch", "tokens", "quantized ms", "full ms", "bytes", "full bytes"},
		"docs/bench/h200/23-llama2-balanced.md":  {"batch", "tokens", "quantized ms", "full ms", "bytes", "full bytes"},
		"docs/bench/h200/24-llama2-32768.md":     {"batch", "tokens", "quantized ms", "full ms", "bytes", "full bytes"},
		"docs/bench/h100/22-llama2.md":           {"batch", "tokens", "quantized ms", "full ms"},
		"docs/bench/h100/80-llama2-full-size.md": {"load s", "compile s", "tokens/s of both rows"},
	} {
		m, err := committed(path, "")
		if err != nil {
			t.Error(err)
			continue
		}
		for _, name := range columns {
			if got := m.Column(name); len(got) != len(m.Rows) || len(got) == 0 || got[0] <= 0 {
				t.Errorf("%s: %q are %v", path, name, got)
			}
		}
		if !strings.Contains(m.How, "2026-") {
			t.Errorf("%s: %q says no date", path, m.How)
		}
	}
	if _, err := committed("no such document", ""); err == nil {
		t.Error("a document that is not there was read")
	}
}
