// Package fit says what memory a generation takes, before anything is loaded: predicted from the
// configuration of model and cache, or by XLA's own figures for the graphs.
//
//	files, err := llama.Open("SmolLM2-135M-Instruct.Q4_1.gguf")
//	request := fit.Request{
//		Model: files.Config(), DType: dtypes.Float32, Cache: kvq.Tutorial(),
//		Batch: 1, Prompt: 512, NewTokens: 512,
//	}
//	needs, err := request.Needs(true) // a CPU
//	fmt.Println(needs.Total(), "bytes")
//
// Weights and cache are exact; what a computation needs in passing is a prediction.
// [Request.Compile] compiles the graphs without weights and returns what XLA says.
package fit
