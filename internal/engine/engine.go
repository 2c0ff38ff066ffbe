// Package engine is the inner side of package llama, for the packages of this module that build on
// a model without being part of it: llama/evaluate, llama/fit and the benchmarks. Package llama
// sets its variables when it is initialized, so they are there wherever there is a generator.
// Nothing of it is for other modules.
package engine

import (
	"context"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama/modelfile"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// NewSession checks prompts, rows of tokens of one length, and lays out a cache for them that
// begins with room for up to more further tokens a row. generator is a *llama.Generator. Nothing
// runs yet.
var NewSession func(generator any, prompts [][]tokenizer.Token, more int) (Session, error)

// NewSketch is a model without weights, for graphs that are compiled and never run: on so many
// devices, with weights of dtype, or packed as a GGUF file has them.
var NewSketch func(backend compute.Backend, config modelfile.Config, dtype dtypes.DType, devices int, packed bool, cache kvq.Config) (Sketch, error)

// Sketch compiles the two large graphs of a generation.
type Sketch interface {
	// takes a prompt in; plan is of one device's cache
	Prompt(plan *kvq.Plan, columns int) Program
	// the decode loop, greedy
	Step(plan *kvq.Plan) Program
	Finalize()
}

// WeightBytes is what the weights of a model take on one device.
var WeightBytes func(config modelfile.Config, dtype dtypes.DType, packed bool) int64

// NewRandom is a *llama.Model of a configuration's shapes with random weights, made on the devices
// themselves, for benchmarks of models whose weights are not at hand. One seed always gives the
// same weights.
var NewRandom func(backend compute.Backend, config modelfile.Config, dtype dtypes.DType, devices int, seed int64) (model any, err error)

// Generate is the method Generate of a *llama.Generator, which also shows the cache at the end: the
// plan and the arrays of the first device, which are freed afterwards. config is a
// llama.GenerateConfig, the result a *llama.Result.
var Generate func(ctx context.Context, generator any, batch tokenizer.Batch, config any, seen func(*kvq.Plan, []*tensors.Tensor) error) (result any, err error)

// NewDecodeTimer prepares a decode loop of steps tokens for batch rows that hold context tokens
// each. own: rows have lengths of their own, each a token less than the one before. generator is a
// *llama.Generator.
var NewDecodeTimer func(ctx context.Context, generator any, batch, contextTokens, steps int, own bool) (DecodeTimer, error)

// DecodeTimer measures what a token costs at a given context, without reading a prompt of that
// length first: its cache has made-up contents.
type DecodeTimer interface {
	Compile() time.Duration // of the decode graph
	// makes the steps once, and returns the time of one
	Run(ctx context.Context) (time.Duration, error)
	// makes the steps once, each in a call of its own, and returns the time of each
	Each(ctx context.Context) ([]time.Duration, error)
	Memory() kvq.Memory // bytes of the cache
	// bytes of its arrays, as they are on the first device
	Live() (kvq.Memory, error)
	Finalize()
}

// NewReader prepares to read texts [B][n], filled up to the longest one with padding behind them, a
// layer at a time; the first prompt tokens go in at once. generator is a *llama.Generator, whose
// cache says how codes are made.
var NewReader func(generator any, texts [][]tokenizer.Token, prompt int) (Reader, error)

// Reader runs the layers of a model over whole texts, one after the other. A token attends to what
// a cache would hold when the tokens come one by one. Each layer is a graph of its own, which equal
// layers share: little is compiled, whatever the layers are told. Not safe for concurrent use.
type Reader interface {
	// Embed is what the first layer reads: [B, T, hidden].
	Embed(ctx context.Context) (Array, error)
	// Layer runs a layer over x, which it leaves as it is.
	Layer(ctx context.Context, layer int, coded LayerCodes, x Array) (Array, error)
	// Top runs a graph over what comes out of the last layer, after the last norm: build gets head,
	// which makes logits [..., V] (float32) of hidden states [..., hidden], those of x [B, T,
	// hidden], and inputs. key is comparable and tells apart all graphs of the reader, beside the
	// shapes.
	Top(ctx context.Context, key any, x Array, inputs []any, shapes []shapes.Shape, build func(head func(*graph.Node) *graph.Node, x *graph.Node, in []*graph.Node) []*graph.Node) ([]Array, error)
	// Free drops the compiled graphs.
	Free()
}

// LayerCodes is what of a layer is read as codes, and how many bits these have; the rest is exact.
type LayerCodes struct {
	Keys, Values       bool
	KeyBits, ValueBits int
}

// ScoreBlock is how many tokens one call of llama/evaluate's scoring loop feeds. It bounds the
// predictions that a reference keeps, [N, B, V] float32, which llama/fit counts.
const ScoreBlock = 32

// Session is a batch under way: its cache on the device, and how far it is filled. Not safe for
// concurrent use.
type Session interface {
	// Program begins to compile a graph in the background, unless one with this key was begun
	// already. key is comparable and tells apart all graphs of one generator, whatever the
	// session's cache holds at the moment. inputs are the shapes of what Run and Step hand over.
	Program(key any, inputs []shapes.Shape, build func(in []*graph.Node) []*graph.Node) Program
	// Loop is Program for a graph that reads and writes the cache: build returns the cache's
	// arrays, then its results.
	Loop(key any, inputs []shapes.Shape, build func(Model) []*graph.Node) Program
	// Prefill takes the prompts in and returns the logits [B, V] (float32) of the last column.
	Prefill(ctx context.Context) (Array, error)
	// Run calls what Program returned. inputs are Arrays, or Go values and tensors of the host.
	Run(ctx context.Context, p Program, inputs ...any) ([]Array, error)
	// Step calls what Loop returned, which adds so many tokens to each row of the cache. It returns
	// the results behind the cache's arrays.
	Step(ctx context.Context, p Program, tokens int, inputs ...any) ([]Array, error)
	// Plan is the layout of one device's cache. Room is how many more tokens fit into it, Grow
	// moves it into one of a larger capacity.
	Plan() *kvq.Plan
	Room() int
	Grow(ctx context.Context, capacity int) error
	// Memory is what the cache takes on all devices together.
	Memory() (kvq.Memory, error)
	// Clock says where the time went.
	Clock() Clock
	// Free gives the cache's memory back.
	Free()
}

// Model is what a graph with a cache is built from.
type Model struct {
	Plan   *kvq.Plan     // of the cache, on one device
	State  []*graph.Node // its arrays, donated: the arrays that build returns take their place
	Inputs []*graph.Node
	// Logits feeds tokens ids [B, t] (int32) through the model: the cache takes them in and has
	// advanced afterwards. It returns the logits [B, V] (float32) of the last column.
	Logits func(ids *graph.Node, cache kvq.Cache) *graph.Node
}

// Program is a graph that is being compiled, or was.
type Program interface {
	// Wait returns when it is compiled, or early with the context's error.
	Wait(ctx context.Context) error
	// Needs is what it takes of each device's memory, by XLA's figures, once it is compiled; an
	// error where there are none.
	Needs() (gx.Compiled, error)
}

// Array is an array on the devices. Every device has all of it.
type Array interface {
	Float32() ([]float32, error) // copies its elements to the host
	Bool() ([]bool, error)
	Free()
}

// Clock is llama.Timing.
type Clock struct {
	Compile, Prefill, Decode time.Duration
	Steps                    int
}
