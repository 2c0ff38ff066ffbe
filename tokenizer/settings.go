package tokenizer

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/kvqbook/kvqbook/internal/filesys"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// settings is a tokenizer_config.json.
type settings struct {
	Class  string `json:"tokenizer_class"`
	AddBOS flag   `json:"add_bos_token"`
	AddEOS flag   `json:"add_eos_token"`

	AddPrefixSpace flag `json:"add_prefix_space"`

	Legacy       legacyFlag               `json:"legacy"`
	BOS          tokenName                `json:"bos_token"`
	EOS          tokenName                `json:"eos_token"`
	Pad          tokenName                `json:"pad_token"`
	Unknown      tokenName                `json:"unk_token"`
	Separator    tokenName                `json:"sep_token"`
	Classifier   tokenName                `json:"cls_token"`
	Mask         tokenName                `json:"mask_token"`
	Additional   tokenNames               `json:"additional_special_tokens"`
	Extra        tokenNames               `json:"extra_special_tokens"`
	ChatTemplate chatTemplates            `json:"chat_template"`
	Added        map[string]settingsToken `json:"added_tokens_decoder"`

	listed   []addedToken // of Added, else of added_tokens.json, in the order of their ids
	ofConfig tokenNames   // Additional without special_tokens_map.json
}

type settingsToken struct {
	addedJSON
}

// UnmarshalJSON: a token that is not special is looked for in normalized text, where the file does
// not say otherwise.
func (a *settingsToken) UnmarshalJSON(data []byte) error {
	var asked struct {
		Normalized *bool `json:"normalized"`
	}
	if err := json.Unmarshal(data, &a.addedJSON); err != nil {
		return err
	}
	if err := json.Unmarshal(data, &asked); err != nil {
		return err
	}
	if asked.Normalized == nil {
		a.Normalized = !a.Special
	}
	return nil
}

// tokenName is a token's name, as a text or as an object that has it as its content; "" for none.
// set: the field is there, and be it null.
type tokenName struct {
	name string
	set  bool
}

func (n *tokenName) UnmarshalJSON(data []byte) error {
	n.set = true
	if isNull(data) {
		return nil
	}
	if json.Unmarshal(data, &n.name) == nil {
		return nil
	}
	var object struct {
		Content string `json:"content"`
	}
	if err := json.Unmarshal(data, &object); err != nil {
		return usererr.New("came %.60s, want a token's name", data)
	}
	n.name = object.Content
	return nil
}

// tokenNames are those of a list, or of an object that gives each a role, in the file's order.
type tokenNames []tokenName

func (n *tokenNames) UnmarshalJSON(data []byte) error {
	if isNull(data) {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(data))
	open, err := d.Token()
	if open != json.Delim('[') && open != json.Delim('{') || err != nil {
		return usererr.New("came %.60s, want a list of tokens' names", data)
	}
	for d.More() {
		if open == json.Delim('{') {
			if _, err := d.Token(); err != nil { // the role
				return err
			}
		}
		var one tokenName
		if err := d.Decode(&one); err != nil {
			return err
		}
		*n = append(*n, one)
	}
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

// readSettings reads a tokenizer_config.json. Two older files beside it count where it does not
// list added tokens itself: special_tokens_map.json, whose names then have the last word, and
// added_tokens.json.
func readSettings(dir string) (settings, error) {
	var config settings
	if err := readOptional(filepath.Join(dir, settingsFile), &config); err != nil {
		return config, err
	}
	config.ofConfig = config.Additional
	if config.Added != nil {
		for id, token := range config.Added {
			a := token.token()
			if err := json.Unmarshal([]byte(id), &a.id); err != nil {
				return config, usererr.New("%s: added_tokens_decoder has the key %.60q, want an id", filepath.Join(dir, settingsFile), id)
			}
			config.listed = append(config.listed, a)
		}
	} else {
		config.Additional = nil
		if err := readOptional(filepath.Join(dir, "special_tokens_map.json"), &config); err != nil {
			return config, err
		}
		if config.Additional == nil {
			config.Additional = config.ofConfig
		}
		var ids map[string]Token
		if err := readOptional(filepath.Join(dir, "added_tokens.json"), &ids); err != nil {
			return config, err
		}
		names := make(map[string]bool)
		for _, n := range config.named() {
			names[n.name] = true
		}
		for content, id := range ids {
			special := names[content]
			config.listed = append(config.listed, addedToken{id: id, content: content, normalized: !special, special: special})
		}
	}
	slices.SortFunc(config.listed, func(a, b addedToken) int { return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.content, b.content)) })
	return config, nil
}

// readOptional leaves into as it is where there is no such file.
func readOptional(path string, into any) error {
	data, err := filesys.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return usererr.New("%s: %w", path, err)
	}
	return nil
}

// named are the names of special tokens in the settings, in the order of transformers.
func (s settings) named() []tokenName {
	return slices.Concat([]tokenName{s.BOS, s.EOS, s.Unknown, s.Separator, s.Pad, s.Classifier, s.Mask}, s.Additional, s.Extra)
}

// legacyFlag is a field that Python reads by its truth: null is there, and false.
type legacyFlag struct{ set, value bool }

func (b *legacyFlag) UnmarshalJSON(data []byte) error {
	b.set = true
	if isNull(data) {
		return nil
	}
	return json.Unmarshal(data, &b.value)
}

// or is the field's value, or what counts where it is absent.
func (b legacyFlag) or(absent bool) bool {
	if b.set {
		return b.value
	}
	return absent
}

// flag is a field that may be absent or null, which is the same.
type flag struct{ value *bool }

func (f *flag) UnmarshalJSON(data []byte) error { return json.Unmarshal(data, &f.value) }

func (f flag) or(absent bool) bool {
	if f.value != nil {
		return *f.value
	}
	return absent
}
