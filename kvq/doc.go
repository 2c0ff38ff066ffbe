// Package kvq is a key/value cache for attention in GoMLX graphs that keeps old tokens as codes of
// a few bits.
//
// A model that generates text token by token needs the keys and values of all tokens before. Kept
// in full precision they soon take more memory than the model, and each step has to read all of
// them. Here groups of values share a scale and a zero point, and a value is a code of 2 to 8 bits:
// value ≈ scale·code + zero. The newest tokens wait in a window in full precision; what leaves it
// is coded once, and its codes never change. Attention reads the codes themselves: scales and zero
// points are factored out of the sums, and a dequantized cache is never written to memory.
//
// # Letters
//
// Shapes are written with the letters of docs/notation.md:
//
//	B batch (rows)   H query heads   K key/value heads, K divides H   T tokens   t new tokens of a step
//	D head dim       G group: values that share a scale
//
// # Use
//
// A [Session] is the whole of it: a model with a cache on the device, which prefills, steps,
// generates by a loop on the device, grows, crops, reorders, forks, saves and loads.
//
//	plan, err := kvq.New(kvq.Tutorial(), kvq.Shape{Layers: 30, Batch: 1, KVHeads: 3, HeadDim: 64, Capacity: 1024, DType: dtypes.Float32})
//	...
//	session, err := kvq.NewSession(backend, store, plan, model) // model is a Step: ids [B, t] to logits [B, t, V]
//	...
//	defer session.Finalize()
//	_, err = session.Prefill(ctx, [][]int32{prompt})
//	...
//	tokens, err := session.Generate(ctx, kvq.Generation{MaxTokens: 100})
//
// A [Batch] is a session whose rows come and go, as those of a server or a classroom do: a row that
// has ended is given to another prompt while the others go on.
//
// A [Config] says how to keep keys and values: [Tutorial], one of the [Presets], or one of your
// own; its zero value is full precision. [New] checks it against a [Shape] and gives a [Plan],
// which knows every array and every byte before anything is allocated. In a graph, [Plan.Init]
// makes an empty [Cache], and a step of a model is
//
//	cache := plan.Init(start)                    // in a graph; start [B] int32: padding on the left of each row
//	for i := range layers {
//		layer := cache.Layer(i)
//		// queries [B, H, t, D]; keys and values [B, K, t, D], rotary embedding of positions cache.Positions(t) applied
//		layer.Append(keys, values)
//		out := layer.Attend(queries)             // [B, H, t, D], causal, padding masked, scale 1/sqrt(D)
//	}
//	cache.Advance()                              // the new tokens are history now
//	state := cache.Nodes()                       // to loop state or outputs; plan.From(state) is the way back
//
// The model does not see whether its cache is quantized. The state is a flat list of nodes in the
// order of [Plan.Shapes], so it can be the state of a While, where XLA updates it in place, or go
// in and out of separate calls. A model made of GoMLX's layers goes into a While by [Loop].
//
// # Settings
//
// Two questions have two answers. When a token becomes codes is the policy's business, and how is
// the quantizer's. A [Backend] is a pair of both: [Quanto] and [HQQ] are transformers' policy, each
// with its quantizer; [Blocks] keeps the newest tokens exact and takes every [Quantizer], for keys
// and values apart. Scales, groups, bits, sinks and rotation are further fields of [Config].
// [Config.For] fits groups to a head dimension; for [Tutorial] and presets [New] does.
//
// # Errors
//
// Functions that build graphs panic with an error of package exceptions where shapes are wrong;
// GoMLX turns it into the error of the call that runs the graph. Everything else returns errors, of
// one line: what was wanted, what came. Those that bad input caused are [ErrInput] for errors.Is.
//
// Of a wrong use, a cache in a graph knows at once what shapes and the order of calls tell: a layer
// appended to twice, Advance forgotten, more new tokens than slots. How many tokens it holds is
// known on the device alone: there a step past the capacity, and every step after a Crop or Reorder
// of what is not there, gives NaN. A [Session] counts tokens and returns an error before the call.
// Nobody can see keys and heads in the wrong order where their numbers agree, or positions that
// were not applied.
//
// # Imports
//
// The package imports no model, and links no backend: the program opens one and hands it in, XLA or
// GoMLX's pure-Go backend as "go:ops_sequential", which needs no plugin. Of
// go-xla it imports stablehlo, the writer of programs, which needs neither cgo nor a plugin. Some
// of what it asks of GoMLX and go-xla is not public there; [Supported] tells whether a program has
// the versions that this was tested with.
package kvq
