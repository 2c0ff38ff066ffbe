package benchcmd

import (
	"context"
	"fmt"
	"iter"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/internal/bench"
	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// newServe is this library as a side of comparisons, see [bench.Side]. Other benchmarks start it,
// so it is hidden from people.
func newServe() *cobra.Command {
	var model cli.ModelFlags
	var cache cli.CacheFlags
	var random string
	c := &cobra.Command{
		Use:    "serve",
		Short:  "Wait for benchmarks to run, as lines of JSON on standard input",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			config, err := cache.Parse(c.Flags())
			if err != nil {
				return err
			}
			return serve(c, &model, random, func(model llama.Config) kvq.Config { return cache.Fit(c.Flags(), config, model) })
		},
	}
	model.Register(c.Flags())
	cache.Register(c.Flags())
	registerRandom(c.Flags(), &random)
	return c
}

// serve has the cache that config gives for the model.
func serve(c *cobra.Command, flags *cli.ModelFlags, random string, config func(model llama.Config) kvq.Config) error {
	m, info, _, closeModel, err := (&commonFlags{}).benchModel(c, flags, random)
	if err != nil {
		return err
	}
	defer closeModel()
	g, err := llama.NewGenerator(m, config(m.Config()))
	if err != nil {
		return err
	}
	defer g.Finalize()
	s := &server{ctx: c.Context(), generator: g}
	defer s.forget()
	ready := bench.Reply{Versions: map[string]string{"kvq": cli.Version(), "pjrt": info.Version}, Device: deviceName(info), GPU: info.GPU()}
	return bench.Serve(c.Context(), c.InOrStdin(), c.OutOrStdout(), ready, s.handle)
}

// server holds at most one generation under way, or one timer over a made-up cache.
type server struct {
	ctx       context.Context
	generator *llama.Generator
	running   *pausedGeneration
	timer     engine.DecodeTimer
	steps     int // of the timer
	before    int64
}

func (s *server) handle(r bench.Request) (reply bench.Reply, err error) {
	switch r.Op {
	case "prefill":
		reply, err = s.prefill(r)
	case "decode":
		reply, err = s.decode(r)
	case "fill":
		reply, err = s.fill(r)
	case "end":
		reply.CacheBytes, err = s.forget()
	default:
		err = usererr.New("request %q, want prefill, decode, fill or end", r.Op)
	}
	reply.Before, reply.Peak = s.before, bench.ReadProcessMemory().Peak
	return reply, err
}

// fresh gives back what there was, so that the peak which follows is that of the new work.
func (s *server) fresh() error {
	if _, err := s.forget(); err != nil {
		return err
	}
	bench.ResetPeak()
	s.before = bench.ReadProcessMemory().Resident
	return nil
}

func (s *server) prefill(r bench.Request) (bench.Reply, error) {
	if err := s.fresh(); err != nil {
		return bench.Reply{}, err
	}
	start := time.Now()
	s.running = startPaused(s.ctx, s.generator, r.IDs, llama.GenerateConfig{MaxNewTokens: max(1, r.Limit), EOS: []tokenizer.Token{}, BlockSize: r.Block})
	tokens, err := s.running.next()
	return bench.Reply{Seconds: time.Since(start).Seconds(), Tokens: tokens}, err
}

// decode runs whole calls of the device until there are enough tokens. A call may make more than
// were asked for.
func (s *server) decode(r bench.Request) (bench.Reply, error) {
	if s.timer != nil {
		took, err := s.timer.Run(s.ctx)
		return bench.Reply{Seconds: took.Seconds() * float64(s.steps), Made: s.steps}, err
	}
	if s.running == nil {
		return bench.Reply{}, usererr.New("decode without a prompt: want prefill or fill first")
	}
	var reply bench.Reply
	start := time.Now()
	for reply.Made < r.Tokens {
		block, err := s.running.next()
		if err != nil {
			return reply, err
		}
		if reply.Tokens == nil {
			reply.Tokens = make([][]int32, len(block))
		}
		for i, row := range block {
			reply.Tokens[i] = append(reply.Tokens[i], row...)
		}
		reply.Made += len(block[0])
	}
	reply.Seconds = time.Since(start).Seconds()
	return reply, nil
}

func (s *server) fill(r bench.Request) (bench.Reply, error) {
	if err := s.fresh(); err != nil {
		return bench.Reply{}, err
	}
	t, err := engine.NewDecodeTimer(s.ctx, s.generator, r.Batch, r.Context, r.Tokens, false)
	if err != nil {
		return bench.Reply{}, err
	}
	s.timer, s.steps = t, r.Tokens
	bench.ResetPeak() // what compiling took is not what decoding takes
	live, err := t.Live()
	return bench.Reply{Compile: t.Compile().Seconds(), CacheBytes: live.Total(), FormulaBytes: t.Memory().Total()}, err
}

// forget ends what is under way and returns the bytes that its cache took.
func (s *server) forget() (int64, error) {
	if s.timer != nil {
		s.timer.Finalize()
		s.timer = nil
	}
	if s.running == nil {
		return 0, nil
	}
	result := s.running.end()
	s.running = nil
	if result == nil {
		return 0, nil
	}
	return result.Cache.Total(), nil
}

// pausedGeneration is a generation that waits after each block of tokens until the next one is
// wanted.
type pausedGeneration struct {
	pull   func() (llama.Block, error, bool)
	stop   func()
	result *llama.Result // nil before the first block
}

func startPaused(ctx context.Context, g *llama.Generator, ids [][]tokenizer.Token, gc llama.GenerateConfig) *pausedGeneration {
	p := &pausedGeneration{}
	p.pull, p.stop = iter.Pull2(g.Stream(ctx, tokenizer.Batch{IDs: ids}, gc))
	return p
}

// next lets the generation make its next block.
func (p *pausedGeneration) next() ([][]tokenizer.Token, error) {
	block, err, more := p.pull()
	if !more {
		return nil, usererr.New("no token is left: the generation had a limit of %d", len(p.result.Tokens[0]))
	}
	p.result = block.Result
	return block.Tokens, err
}

// end frees its memory on the device.
func (p *pausedGeneration) end() *llama.Result {
	p.stop()
	return p.result
}

// kvqSide starts this program as a side with a cache: args are flags of serve.
func kvqSide(c *cobra.Command, name string, args ...string) (*bench.Side, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("starting kvq bench serve: %w", err)
	}
	return bench.StartSide(c.Context(), name, append([]string{self, "bench", "serve", "--quiet"}, args...), c.ErrOrStderr())
}
