package tokenizer

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/kvqbook/kvqbook/internal/filesys"
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
	config, err := readSettings(dir)
	if err != nil {
		return nil, err
	}
	t, made, err := readTokenizer(dir, config)
	if err != nil {
		return nil, err
	}
	t.apply(made.class.defaults(config), made)
	template, err := filesys.Read(filepath.Join(dir, templateFile))
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
func readTokenizer(dir string, config settings) (*Tokenizer, origin, error) {
	model := readModelSettings(dir)
	path := filepath.Join(dir, jsonFile)
	data, err := filesys.Read(path)
	if err == nil {
		made := origin{json: true}
		t, err := parseFile(data, func(f *fileJSON) {
			made.class = classOf(config, model, f.hasByteLevel())
			made.class.remake(f, config)
		})
		if err == nil {
			err = t.addAll(made.class.defaults(config))
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
	data, err = filesys.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, origin{}, usererr.New("%s: no %s and no %s; want a tokenizer", dir, jsonFile, modelFile)
	}
	if err != nil {
		return nil, origin{}, err
	}
	made := origin{class: classOf(config, model, false)}
	t, err := fromSentencePiece(data, made.class.prefix(config))
	if err == nil {
		// transformers loses those of special_tokens_map.json here
		config.Additional = config.ofConfig
		for i := range config.listed {
			// each piece of text between them gets a blank of its own
			config.listed[i].normalized = config.listed[i].normalized && made.class != classFile
		}
		err = t.addAll(made.class.defaults(config))
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

// addAll adds the tokens of the settings to those that are there: listed ones in the order of their
// ids, then special tokens by name that are no added tokens yet. As in transformers a token that
// the vocabulary does not have gets the next id, whatever the list says.
func (t *Tokenizer) addAll(config settings) error {
	list := make([]addedToken, 0, len(t.added.byID))
	ids := make(map[string]Token)
	for _, id := range sortedKeys(t.added.byID) {
		list = append(list, t.added.byID[id])
	}
	next := Token(t.VocabSize())
	add := func(a addedToken) {
		var found bool
		if a.id, found = ids[a.content]; !found {
			if a.id, found = t.ID(a.content); !found {
				a.id, next = next, next+1
			}
			ids[a.content] = a.id
		}
		list = append(list, a)
	}
	for _, a := range config.listed {
		if _, taken := t.added.byID[a.id]; a.content != "" && (config.Added != nil || !taken) {
			add(a)
		}
	}
	for _, n := range config.named() {
		_, added := ids[n.name]
		if _, found := t.added.byContent[n.name]; n.name != "" && !found && !added {
			add(addedToken{content: n.name, special: true})
		}
	}
	return t.setAdded(list)
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
