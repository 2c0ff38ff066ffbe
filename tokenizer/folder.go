package tokenizer

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Names in a folder of Hugging Face's layout.
const (
	jsonFile     = "tokenizer.json"
	modelFile    = "tokenizer.model"
	settingsFile = "tokenizer_config.json"
	templateFile = "chat_template.jinja"
)

// settings is a tokenizer_config.json.
type settings struct {
	Class        string                   `json:"tokenizer_class"`
	AddBOS       *bool                    `json:"add_bos_token"`
	AddEOS       *bool                    `json:"add_eos_token"`
	Legacy       *bool                    `json:"legacy"`
	BOS          *tokenName               `json:"bos_token"`
	EOS          *tokenName               `json:"eos_token"`
	Pad          *tokenName               `json:"pad_token"`
	Unknown      *tokenName               `json:"unk_token"`
	ChatTemplate chatTemplates            `json:"chat_template"`
	Added        map[string]settingsToken `json:"added_tokens_decoder"`
}

type settingsToken struct {
	addedJSON
}

// tokenName is a token's name, as a text or as an object that has it as its content.
type tokenName string

func (n *tokenName) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*n = tokenName(text)
		return nil
	}
	var object struct {
		Content string `json:"content"`
	}
	if err := json.Unmarshal(data, &object); err != nil {
		return usererr.New("came %s, want a token's name", data)
	}
	*n = tokenName(object.Content)
	return nil
}

// chatTemplates is one template, or several with names of which "default" counts.
type chatTemplates string

func (c *chatTemplates) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*c = chatTemplates(text)
		return nil
	}
	var list []struct{ Name, Template string }
	if err := json.Unmarshal(data, &list); err != nil {
		return usererr.New("want a template or a list of named templates")
	}
	for _, t := range list {
		if t.Name == "default" {
			*c = chatTemplates(t.Template)
		}
	}
	return nil
}

// FromFolder makes the tokenizer of a folder in Hugging Face's layout: of tokenizer.json or else
// tokenizer.model, with tokenizer_config.json where there is one.
func FromFolder(dir string) (*Tokenizer, error) {
	config, err := readSettings(filepath.Join(dir, settingsFile))
	if err != nil {
		return nil, err
	}
	var more []addedToken
	for _, id := range sortedKeys(config.Added) {
		token := config.Added[id].token()
		if err := json.Unmarshal([]byte(id), &token.id); err != nil {
			return nil, usererr.New("%s: added_tokens_decoder has the key %q, want an id", filepath.Join(dir, settingsFile), id)
		}
		more = append(more, token)
	}
	t, path, err := readTokenizer(dir, config, more)
	if err != nil {
		return nil, err
	}
	if err := t.apply(config, filepath.Base(path) == jsonFile); err != nil {
		return nil, usererr.New("%s: %w", path, err)
	}
	template, err := os.ReadFile(filepath.Join(dir, templateFile))
	switch {
	case err == nil: // the newer place has the last word
		t.chatTemplate = string(template)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return t, nil
}

func readSettings(path string) (settings, error) {
	var config settings
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return config, nil
	}
	if err != nil {
		return config, err
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return config, usererr.New("%s: %w", path, err)
	}
	return config, nil
}

func readTokenizer(dir string, config settings, more []addedToken) (*Tokenizer, string, error) {
	path := filepath.Join(dir, jsonFile)
	data, err := os.ReadFile(path)
	if err == nil {
		t, err := parseJSON(data, more)
		if err != nil {
			return nil, path, usererr.New("%s: %w", path, err)
		}
		return t, path, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, path, err
	}
	path = filepath.Join(dir, modelFile)
	data, err = os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, path, usererr.New("%s: no %s and no %s; want a tokenizer", dir, jsonFile, modelFile)
	}
	if err != nil {
		return nil, path, err
	}
	// transformers: "legacy" (its default) puts a blank behind special tokens too.
	scheme := prefixEach
	if config.Legacy != nil && !*config.Legacy {
		scheme = prefixFirst
	}
	t, err := fromSentencePiece(data, scheme)
	if err != nil {
		return nil, path, usererr.New("%s: %w", path, err)
	}
	if len(more) > 0 {
		list := make([]addedToken, 0, len(t.added.byID)+len(more))
		for _, id := range sortedKeys(t.added.byID) {
			list = append(list, t.added.byID[id])
		}
		if err := t.setAdded(append(list, more...)); err != nil {
			return nil, path, usererr.New("%s: %w", path, err)
		}
	}
	t.setTemplate(true, false) // LlamaTokenizer's defaults
	return t, path, nil
}

// apply takes over what tokenizer_config.json says; fromJSON: beside a tokenizer.json.
func (t *Tokenizer) apply(config settings, fromJSON bool) error {
	for _, n := range []struct {
		what string
		name *tokenName
		to   *Token
	}{
		{"bos_token", config.BOS, &t.bos},
		{"eos_token", config.EOS, &t.eos},
		{"pad_token", config.Pad, &t.pad},
		{"unk_token", config.Unknown, &t.unknown},
	} {
		if n.name == nil || *n.name == "" {
			continue
		}
		id, found := t.ID(string(*n.name))
		if !found {
			return usererr.New("%s names %s %q, which the vocabulary does not have", settingsFile, n.what, string(*n.name))
		}
		*n.to = id
		t.special[id] = true
	}
	// Version 4 of transformers made LlamaTokenizer's template anew from these two, whatever
	// tokenizer.json said. Version 5 ignores both beside a tokenizer.json.
	if !fromJSON && strings.HasPrefix(config.Class, "LlamaTokenizer") {
		t.setTemplate(config.AddBOS == nil || *config.AddBOS, config.AddEOS != nil && *config.AddEOS)
	}
	t.chatTemplate = string(config.ChatTemplate)
	return nil
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}
