// Trained trains a small model on a short story, byte by byte, and continues the story's beginning
// with it: in full precision, and with caches of a few bits. It takes about a minute on a CPU.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/loss"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/docs/texts"
	"github.com/kvqbook/kvqbook/examples/decoder"
	"github.com/kvqbook/kvqbook/kvq"
)

// reader reads bytes. Its positions are those it is trained on.
var reader = decoder.Model{Vocabulary: 256, Positions: 128, Layers: 2, Heads: 2, KVHeads: 1, HeadDim: 32}

// learned is how many steps it takes to know the story: the loss has stopped falling by then.
const learned = 1000

func main() {
	name := flag.String("backend", "", "xla:cpu, xla:cuda, go, or xla: and the path of a PJRT plugin; empty: the first that is found")
	steps := flag.Int("steps", learned, "training steps")
	flag.Parse()
	backend, err := device.Open(*name)
	if err == nil {
		_, err = run(os.Stdout, backend, *steps, 8)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "trained:", err)
		os.Exit(1)
	}
}

// continuation is what a cache made of the story.
type continuation struct {
	name  string
	text  []byte
	right int // bytes that are the story's
}

// run trains the model for so many steps on batches of so many excerpts, and continues the story.
func run(w io.Writer, backend compute.Backend, steps, batch int) ([]continuation, error) {
	store := model.NewStore()
	store.SetParam(model.ParamInitialSeed, int64(1))
	if err := learn(w, backend, store, steps, batch); err != nil {
		return nil, err
	}
	var all []continuation
	for _, config := range []kvq.Config{{}, kvq.Tutorial(), lowBits()} {
		c, err := goOn(backend, store, config)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(w, "%-22s %d of %d bytes are the story's: %q\n", c.name, c.right, len(c.text), c.text)
		all = append(all, c)
	}
	return all, nil
}

// lowBits is a cache that shows what too few bits do.
func lowBits() kvq.Config {
	c := kvq.Tutorial()
	c.NBits = 2
	return c
}

// learn trains the model, without a cache, on excerpts of the story drawn at random. After its end
// the story begins anew, so that each of its bytes is in as many excerpts.
func learn(w io.Writer, backend compute.Backend, store *model.Store, steps, batch int) error {
	story, length := []byte(texts.Story), reader.Positions
	trainer := train.NewTrainer(backend, store, reader.Logits, loss.SparseCategoricalCrossEntropyLogits,
		optimizer.Adam().LearningRate(3e-3).Done(), nil, nil)
	random := rand.New(rand.NewPCG(1, 2))
	for step := range steps {
		inputs, next := make([][]int32, batch), make([][][]int32, batch)
		for row := range batch {
			from := random.IntN(len(story))
			for i := range length {
				inputs[row] = append(inputs[row], int32(story[(from+i)%len(story)]))
				next[row] = append(next[row], []int32{int32(story[(from+i+1)%len(story)])})
			}
		}
		metrics, err := trainer.TrainStep(train.Batch{
			Inputs: []*tensors.Tensor{tensors.FromValue(inputs)},
			Labels: []*tensors.Tensor{tensors.FromValue(next)},
		})
		if err != nil {
			return err
		}
		if step%100 == 0 || step == steps-1 {
			fmt.Fprintf(w, "step %d: loss %.2f\n", step, metrics[0].Value())
		}
	}
	return nil
}

// goOn continues the story's first 80 bytes by 40, greedily.
func goOn(backend compute.Backend, store *model.Store, config kvq.Config) (continuation, error) {
	const prompt, more = 80, 40
	plan, err := kvq.New(config, reader.Shape(1, reader.Positions))
	if err != nil {
		return continuation{}, err
	}
	s, err := kvq.NewSession(backend, store, plan, func(scope *model.Scope, cache kvq.Cache, inputs []*graph.Node) []*graph.Node {
		return reader.Step(scope, cache, inputs)
	})
	if err != nil {
		return continuation{}, err
	}
	defer s.Finalize()
	ids := make([]int32, prompt)
	for i := range ids {
		ids[i] = int32(texts.Story[i])
	}
	ctx := context.Background()
	if _, err := s.Prefill(ctx, [][]int32{ids}); err != nil {
		return continuation{}, err
	}
	rows, err := s.Generate(ctx, kvq.Generation{MaxTokens: more})
	if err != nil {
		return continuation{}, err
	}
	c := continuation{name: config.String()}
	for i, id := range rows[0] {
		c.text = append(c.text, byte(id))
		if byte(id) == texts.Story[prompt+i] {
			c.right++
		}
	}
	return c, nil
}
