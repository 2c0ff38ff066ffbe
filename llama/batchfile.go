package llama

import (
	"encoding/json"
	"fmt"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Saved is what a file of [Batch.Save] says of the cache in it.
type Saved struct {
	// Model is the identity of the model whose keys and values these are, by
	// [modelfile.Files.Identity].
	Model string `json:"model"`
	// Tokens are those that the cache holds.
	Tokens []tokenizer.Token `json:"tokens"`
	// Note is the caller's own, such as the text that the tokens were made of.
	Note string `json:"note,omitempty"`

	// Config and Shape are those of the cache.
	Config kvq.Config `json:"-"`
	Shape  kvq.Shape  `json:"-"`
}

// Save writes what a batch of one row holds to a file, by a temporary name first, as [kvq.Save]
// does: [Batch.Held], also while a generation is under way. note is the caller's own text in it.
// The model has to be on one device and from files.
func (b *Batch) Save(path, note string) error {
	if b.ended {
		return b.check("Save", 0)
	}
	if err := b.canSave("Save"); err != nil {
		return err
	}
	held := b.rows[0].held
	if len(held) == 0 {
		return usererr.New("llama.Batch.Save: the row is empty, want at least one token")
	}
	model, err := b.g.model.files.Identity()
	if err != nil {
		return err
	}
	notes, err := json.Marshal(Saved{Model: model, Tokens: held, Note: note})
	if err != nil {
		return err
	}
	var state []*tensors.Tensor
	for _, x := range b.cache.state {
		state = append(state, x.parts[0])
	}
	return kvq.SaveWithNotes(path, b.cache.plan, state, string(notes))
}

// ReadSaved reads what a file says of its cache, and no array.
func ReadSaved(path string) (*Saved, error) {
	plan, notes, err := kvq.ReadNotes(path)
	if err != nil {
		return nil, err
	}
	s := &Saved{Config: plan.Config(), Shape: plan.Shape()}
	if notes == "" || json.Unmarshal([]byte(notes), s) != nil || s.Model == "" {
		return nil, usererr.New("%s: a cache that does not say which tokens it holds, want a file of llama.Batch.Save", path)
	}
	return s, nil
}

// Check tells whether the cache is one of this model and configuration. Its error is one line: what
// was wanted, what came. What else has to agree, such as the dtype, [Batch.Load] tells.
func (s *Saved) Check(files *Files, config kvq.Config) error {
	model, err := files.Identity()
	switch {
	case err != nil:
		return err
	case model != s.Model:
		return usererr.New("it was saved with another model than %s: take the model that it was saved with, or save the cache anew", files.Path())
	case s.Config != config:
		return usererr.New("it holds a cache of another configuration: %s; want %s", s.Config, config)
	}
	return nil
}

// Load takes the place of what a batch of one row holds by what Save wrote, with the same model and
// configuration. It returns what the file says. When it fails, the batch is as before.
func (b *Batch) Load(path string) (*Saved, error) {
	if err := b.check("Load", 0); err != nil {
		return nil, err
	}
	if err := b.canSave("Load"); err != nil {
		return nil, err
	}
	s, err := ReadSaved(path)
	if err != nil {
		return nil, err
	}
	if err := s.Check(b.g.model.files, b.g.cache); err != nil {
		return nil, usererr.New("%s: %w", path, err)
	}
	want, got := b.shape(s.Shape.Capacity), s.Shape
	if !want.Equal(got) {
		if want.DType != got.DType {
			return nil, usererr.New("%s: it was saved with %s, the model is loaded with %s", path, got.DType, want.DType)
		}
		return nil, usererr.New("%s: it holds a cache of shape %+v, want %+v", path, got, want)
	}
	plan, list, err := kvq.Load(path)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*Saved, error) {
		for _, x := range list {
			_ = x.FinalizeAll() // only fails when it is gone already
		}
		return nil, err
	}
	// What the counters say and what the notes say is one thing.
	if length, err := tensors.CopyFlatData[int32](list[0]); err != nil {
		return fail(err)
	} else if int(length[0]) != len(s.Tokens) {
		return fail(usererr.New("%s: a cache of %d tokens with notes of %d: the file is damaged", path, length[0], len(s.Tokens)))
	}
	for _, token := range s.Tokens {
		if token < 0 || int(token) >= b.g.model.config.VocabSize {
			return fail(usererr.New("%s: a token %d, want 0 to %d: the file is damaged", path, token, b.g.model.config.VocabSize-1))
		}
	}
	loaded := &session{g: b.g, plan: plan, clock: &b.clock}
	for i, x := range list {
		part, err := b.g.model.on.place(x, plan.HeadAxes()[i])
		if err != nil {
			loaded.free()
			return fail(fmt.Errorf("%s: %w", path, err))
		}
		loaded.state = append(loaded.state, part)
	}
	b.lose()
	b.cache = loaded
	b.rows[0].held = s.Tokens
	return s, nil
}

// canSave refuses what has no file.
func (b *Batch) canSave(method string) error {
	switch m := b.g.model; {
	case len(b.rows) != 1:
		return usererr.New("llama.Batch.%s: a batch of %d rows, want one", method, len(b.rows))
	case m.on.n > 1:
		return usererr.New("a cache that is sharded over %d devices has no file, want a model on one", m.on.n)
	case m.files == nil:
		return usererr.New("llama.Batch.%s: the model was not loaded from files, so that no file can say whose cache it is", method)
	}
	return nil
}
