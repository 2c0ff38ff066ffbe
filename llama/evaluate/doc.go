// Package evaluate scores how well a model predicts given texts through a cache: perplexity, and,
// against a reference, KL divergence and top-1 agreement.
//
//	full, err := llama.NewGenerator(model, kvq.Config{})
//	tested, err := llama.NewGenerator(model, kvq.Tutorial())
//	result, err := evaluate.Score(ctx, tested, texts, evaluate.Options{Reference: full})
//	all := result.All()
//	fmt.Println(all.Perplexity(), all.MeanKL(), all.Agreement())
//
// Texts are teacher-forced: the model reads each token of the text, whatever it would have written
// itself. The scores are made on the device, a block of tokens per call, so memory does not grow
// with the texts. [Keep] makes the predictions of a reference once, to compare several caches with;
// they stay on the device. [Cheapest] looks for the cache with the fewest bits whose divergence
// stays within a budget. [Spend] spreads bits over layers so that the divergence becomes small, by
// reading whole texts at once, as [Read] does, which takes seconds a cache.
package evaluate
