// Package modelfile reads models of the architectures that package llama runs: what their files say
// of them, and their weights, a tensor at a time.
//
//	files, err := modelfile.Open("SmolLM2-135M-Instruct.Q4_1.gguf") // or a folder in Hugging Face's layout
//	fmt.Println(files.Config().ParameterCount(), "parameters")
//	for _, w := range files.Config().Weights() {
//		err := files.Read(ctx, w, modelfile.As{DType: dtypes.Float32}, elements)
//	}
//
// A model is known by three tables, each the one place of its kind:
//
//	architectures  arch.go     what tells one architecture from another: biases, norms, windows, names
//	weights        weights.go  every weight: its names, its shape, what it is joined with, how devices share it
//	GGUF keys      gguf.go     which metadata holds which field of the configuration
//
// Nothing here touches a device: package llama puts weights there. Errors that bad input caused are
// one line, which names the file and the tensor or field, what was wanted and what came.
package modelfile
