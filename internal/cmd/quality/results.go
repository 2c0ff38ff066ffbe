package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"sync"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// key says what a result is of: a row that has the same need not be measured again.
type key struct {
	Config  string `json:"config"` // kvq.Config as JSON
	Texts   string `json:"texts"`  // a hash of all tokens that were read
	Model   string `json:"model"`
	Device  string `json:"device"`
	Version string `json:"version"` // of the code that was measured
}

// result is a measured row. Passkeys have Keys, texts have Scores, rows of --judge have Judged.
type result struct {
	key
	Name    string  `json:"name"` // as --only takes it, for people who read the file
	Date    string  `json:"date"`
	Bits    float64 `json:"bits"` // a value, scales and zero points included
	Seconds float64 `json:"seconds"`
	Compile float64 `json:"compile_s"` // of these, waiting for graphs to be compiled

	Scores []textScore `json:"scores,omitempty"`
	Keys   *keyScore   `json:"keys,omitempty"`
	Judged *judged     `json:"judged,omitempty"`
}

// textScore is one text, all means over Tokens scored ones, in nats.
type textScore struct {
	Set     string  `json:"set"` // "golden" or "unseen"
	Text    string  `json:"text"`
	Tokens  int     `json:"tokens"`
	NLL     float64 `json:"nll"`
	FullNLL float64 `json:"full_nll"` // of the full-precision cache
	KL      float64 `json:"kl"`
	Same    float64 `json:"top1"`
}

// keyScore is how many keys of one length were found.
type keyScore struct {
	Length int `json:"length"`
	Trials int `json:"trials"`
	Found  int `json:"found"`
	Tokens int `json:"key_tokens"`       // of all keys together
	Right  int `json:"key_tokens_found"` // of these, found
}

// store keeps results in a file of JSON lines, which is whole at any time. Safe for concurrent use.
type store struct {
	path string
	mu   sync.Mutex
	list []result
}

// openStore reads the results that are there already. No file is the same as none.
func openStore(path string) (*store, error) {
	s := &store{path: path}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	n := 0
	for line := range bytes.Lines(data) {
		if n++; len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var r result
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, usererr.New("%s, line %d: want a result as this program writes it: %w", path, n, err)
		}
		s.list = append(s.list, r)
	}
	return s, nil
}

// find returns the newest result of a key.
func (s *store) find(k key) (result, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.list) - 1; i >= 0; i-- {
		if s.list[i].key == k {
			return s.list[i], true
		}
	}
	return result{}, false
}

// add writes one more result.
func (s *store) add(r result) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, r)
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	for _, r := range s.list {
		if err := e.Encode(r); err != nil {
			return err
		}
	}
	return writeFile(s.path, b.Bytes())
}

// writeFile writes through a temporary name, so that the old file stays whole until the new one is.
func writeFile(path string, data []byte) error {
	temporary := path + ".tmp"
	if err := os.WriteFile(temporary, data, 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
