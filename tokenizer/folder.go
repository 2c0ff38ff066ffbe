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

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Names in a folder of Hugging Face's layout.
const (
	jsonFile     = "tokenizer.json"
	modelFile    = "tokenizer.model"
	settingsFile = "tokenizer_config.json"
	templateFile = "chat_template.jinja"
)

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
	t, made, err := readTokenizer(dir, config, more)
	if err != nil {
		return nil, err
	}
	t.apply(made.class.defaults(config), made)
	template, err := os.ReadFile(filepath.Join(dir, templateFile))
	switch {
	case err == nil: // the newer place has the last word
		t.chatTemplate = string(template)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return t, nil
}

// readTokenizer also returns the class that made the tokenizer: classFile also for one that is a
// tokenizer.model's, with the rule of its flags; see apply.
func readTokenizer(dir string, config settings, more []addedToken) (*Tokenizer, origin, error) {
	model := readModelSettings(dir)
	path := filepath.Join(dir, jsonFile)
	data, err := os.ReadFile(path)
	if err == nil {
		made := origin{json: true}
		t, err := parseFile(data, more, func(f *fileJSON) {
			made.class = classOf(config, model, f.hasByteLevel())
			made.class.remake(f, config)
		})
		if err == nil {
			err = t.addNamed(made.class.defaults(config))
		}
		if err != nil {
			return nil, made, usererr.New("%s: %w", path, err)
		}
		return t, made, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, origin{}, err
	}
	path = filepath.Join(dir, modelFile)
	data, err = os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, origin{}, usererr.New("%s: no %s and no %s; want a tokenizer", dir, jsonFile, modelFile)
	}
	if err != nil {
		return nil, origin{}, err
	}
	made := origin{class: classOf(config, model, false)}
	t, err := fromSentencePiece(data, made.class.prefix(config))
	if err == nil && len(more) > 0 {
		err = t.addMore(more)
	}
	if err == nil {
		err = t.addNamed(made.class.defaults(config))
	}
	if err != nil {
		return nil, made, usererr.New("%s: %w", path, err)
	}
	return t, made, nil
}

// origin is what a folder's tokenizer was made of.
type origin struct {
	class class
	json  bool // a tokenizer.json rather than a tokenizer.model
}

// addMore adds tokens to those that are there.
func (t *Tokenizer) addMore(more []addedToken) error {
	list := make([]addedToken, 0, len(t.added.byID)+len(more))
	for _, id := range sortedKeys(t.added.byID) {
		list = append(list, t.added.byID[id])
	}
	return t.setAdded(append(list, more...))
}

// addNamed adds the special tokens that the settings name and the vocabulary does not have, as
// transformers does: behind the last id.
func (t *Tokenizer) addNamed(config settings) error {
	var more []addedToken
	for _, n := range config.named() {
		_, found := t.ID(n.name)
		if n.name == "" || found || slices.ContainsFunc(more, func(a addedToken) bool { return a.content == n.name }) {
			continue
		}
		more = append(more, addedToken{id: Token(t.VocabSize() + len(more)), content: n.name, special: true})
	}
	if len(more) == 0 {
		return nil
	}
	return t.addMore(more)
}

// apply takes over what tokenizer_config.json says.
func (t *Tokenizer) apply(config settings, made origin) {
	for _, n := range []struct {
		name tokenName
		to   *Token
	}{
		{config.BOS, &t.bos}, {config.EOS, &t.eos}, {config.Pad, &t.pad}, {config.Unknown, &t.unknown},
	} {
		if n.name.name == "" {
			continue
		}
		if id, found := t.ID(n.name.name); found {
			*n.to = id
			t.special[id] = true
		}
	}
	// Version 5 of transformers ignores these two beside a tokenizer.json; without one they are the
	// whole rule. (Version 4 made LlamaTokenizer's template of them, and added bos by default.)
	if !made.json || made.class == classCodeLlama {
		t.setTemplate(config.AddBOS.or(made.class == classCodeLlama), config.AddEOS.or(false))
	}
	t.chatTemplate = string(config.ChatTemplate)
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}
