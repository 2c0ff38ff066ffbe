package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// tokens of each text, and how many of them go in at once.
const tokensPerText, prefill = 576, 64

// Sets of texts.
const (
	setGolden = "golden" // those that transformers read
	setUnseen = "unseen" // those that nobody tuned on
)

// text is one text's name and tokens.
type text struct {
	set, name string
	ids       []tokenizer.Token
}

// readTexts returns the first tokens of every .txt file in a folder.
func readTexts(tok *tokenizer.Tokenizer, set, dir string) ([]text, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil || len(paths) == 0 {
		return nil, usererr.New("--%s %s: want a folder with .txt files", set, dir)
	}
	var list []text
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		t := text{set: set, name: strings.TrimSuffix(filepath.Base(path), ".txt")}
		ids := tok.Encode(string(data))
		t.ids = ids[:min(len(ids), tokensPerText)]
		list = append(list, t)
	}
	return list, nil
}

// hashOf tells apart what was read.
func hashOf(rows ...[]tokenizer.Token) string {
	h := sha256.New()
	for _, ids := range rows {
		_ = binary.Write(h, binary.LittleEndian, int64(len(ids))) // a hash takes everything
		_ = binary.Write(h, binary.LittleEndian, ids)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}
