// Package llama runs models of the Llama family with a key/value cache of package kvq: weights
// from a model's own files (package modelfile), the model as GoMLX graph functions, and generation in which the device makes a block of
// tokens per call.
//
//	files, err := llama.Open("SmolLM2-135M-Instruct.Q4_1.gguf")
//	model, err := files.Load(backend, llama.LoadOptions{})
//	generator, err := llama.NewGenerator(model, kvq.Tutorial())
//	result, err := generator.Generate(ctx, ids, mask, llama.GenerateConfig{MaxNewTokens: 20}, nil)
//
// The way of a token: newPrompt checks ids and mask; Generator.prefill runs the whole prompt in one call, which fills
// the cache and gives the first logits; Generator.decode is a loop inside one graph, whose turns are append, attend,
// logits, pick, stop test, with the cache as state that XLA updates in place. The model knows the cache only as
// the interface kvq.Cache.
//
// Letters of shapes: B rows, H query heads, K key/value heads, T columns of a prompt, t new tokens of a call, D head dim,
// V vocabulary, N turns of a loop.
//
// Functions that build graphs panic, through package exceptions; all others return errors. An error that bad input
// caused is one line, and errors.Is(err, ErrInput) recognizes it. The package imports no backend: the caller chooses one.
package llama
