// Package llama runs models of the Llama family with a key/value cache of package kvq: weights from
// a model's own files (package modelfile), the model as GoMLX graph functions, and generation in
// which the device makes a block of tokens per call.
//
//	files, err := llama.Open("SmolLM2-135M-Instruct.Q4_1.gguf")
//	model, err := files.Load(backend, llama.LoadOptions{})
//	generator, err := llama.NewGenerator(model, kvq.Tutorial())
//	tok, err := files.Tokenizer()
//	for text, err := range generator.StreamText(ctx, tok, "Hello", llama.GenerateConfig{}) {
//		fmt.Print(text)
//	}
//
// [Generator.Stream] yields tokens of several rows in blocks, [Generator.Generate] returns all at
// the end. [PresetFor] is a preset of kvq for a model, in place of [kvq.Tutorial]. Package evaluate
// scores given texts, package fit says what memory a run takes.
//
// The prompt goes through the model in one call, which fills the cache and gives the first logits.
// Then come calls of a loop inside one graph. An iteration appends to the cache, attends, makes
// logits, picks a token and tests whether all rows have ended. The cache is state of the loop,
// which XLA updates in place. The model knows the cache only as the interface kvq.Cache.
//
// Letters of shapes: B rows, H query heads, K key/value heads, T columns of a prompt, t new tokens
// of a call, D head dim, V vocabulary, N iterations of a loop.
//
// Functions that build graphs panic, through package exceptions; all others return errors. An error
// that bad input caused is one line, and errors.Is(err, ErrInput) recognizes it. The package
// imports no backend: the caller chooses one.
package llama
