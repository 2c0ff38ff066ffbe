package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"time"
)

// Request is a line of JSON to a side: a process that has loaded a model and waits for work on its
// standard input.
type Request struct {
	// Op is one of:
	//   prefill: forget everything, read the prompts IDs, pick the first new token of each
	//   decode:  go on for Tokens tokens
	//   fill:    forget everything, make up a cache of Batch rows of Context tokens; decode then times the loop over it (kvq alone)
	//   end:     forget everything, say what the cache took
	Op  string    `json:"op"`
	IDs [][]int32 `json:"ids,omitempty"` // prefill: rows of one length
	// prefill: new tokens that will be asked for at most, the first included
	Limit int `json:"limit,omitempty"`
	// prefill: tokens of one call of the device; 0: the side chooses
	Block   int `json:"block,omitempty"`
	Tokens  int `json:"tokens,omitempty"`  // decode; fill: of one decode to come
	Batch   int `json:"batch,omitempty"`   // fill
	Context int `json:"context,omitempty"` // fill
}

// Reply is a side's answer, a line of JSON. The first one, unasked, says that the model is loaded.
type Reply struct {
	Error    string            `json:"error,omitempty"`
	Versions map[string]string `json:"versions,omitempty"` // of the first reply
	Device   string            `json:"device,omitempty"`   // of the first reply
	GPU      bool              `json:"gpu,omitempty"`      // of the first reply
	Seconds  float64           `json:"seconds,omitempty"`
	Compile  float64           `json:"compile_s,omitempty"` // fill: of the decode graph
	// new tokens of a row in Seconds
	Made         int       `json:"made,omitempty"`
	Tokens       [][]int32 `json:"tokens,omitempty"`        // the new tokens of each row
	CacheBytes   int64     `json:"cache_bytes,omitempty"`   // end, fill: of the live arrays
	FormulaBytes int64     `json:"formula_bytes,omitempty"` // fill: predicted
	// resident before the last prefill or fill
	Before int64 `json:"before_bytes,omitempty"`
	Peak   int64 `json:"peak_bytes,omitempty"` // of the process since then
}

// Side is a contestant in a process of its own, which stays alive between runs: what it costs to
// load and compile is in no run, and its memory is its own. Not safe for concurrent use.
type Side struct {
	Name  string
	Ready Reply // its first reply
	Load  time.Duration
	// Device is the GPU memory that came into use while this side was at work: frameworks keep what
	// they have taken, so it is a peak. 0 on a CPU.
	Device int64

	command *exec.Cmd
	in      io.WriteCloser
	out     *json.Decoder
}

// StartSide starts a process and waits until its model is loaded. What it writes to standard error
// goes to errs.
func StartSide(ctx context.Context, name string, argv []string, errs io.Writer) (*Side, error) {
	s := &Side{Name: name, command: exec.CommandContext(ctx, argv[0], argv[1:]...)}
	s.command.Stderr = errs
	var err error
	if s.in, err = s.command.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = json.NewDecoder(bufio.NewReader(out))
	start, before := time.Now(), GPUMemory()
	if err := s.command.Start(); err != nil {
		return nil, fmt.Errorf("side %s: %w", name, err)
	}
	if s.Ready, err = s.read(); err != nil {
		s.Close()
		return nil, err
	}
	s.Load = time.Since(start)
	s.Device = max(0, GPUMemory()-before)
	return s, nil
}

func (s *Side) read() (Reply, error) {
	var r Reply
	if err := s.out.Decode(&r); err != nil {
		return r, fmt.Errorf("side %s ended, or wrote what is no reply: %w", s.Name, err)
	}
	if r.Error != "" {
		return r, fmt.Errorf("side %s: %s", s.Name, r.Error)
	}
	return r, nil
}

// Do sends a request and waits for the reply.
func (s *Side) Do(r Request) (Reply, error) {
	line, err := json.Marshal(r)
	if err != nil {
		return Reply{}, err
	}
	var before int64
	if s.Ready.GPU {
		before = GPUMemory()
	}
	if _, err := s.in.Write(append(line, '\n')); err != nil {
		return Reply{}, fmt.Errorf("side %s has ended: %w", s.Name, err)
	}
	reply, err := s.read()
	if s.Ready.GPU {
		s.Device += max(0, GPUMemory()-before)
	}
	return reply, err
}

// Run is a [Run] that does a request: the time of each new token.
func (s *Side) Run(r Request, seen func(Reply)) Run {
	return func(context.Context) (time.Duration, error) {
		reply, err := s.Do(r)
		if err != nil {
			return 0, err
		}
		if seen != nil {
			seen(reply)
		}
		return time.Duration(reply.Seconds / float64(max(1, reply.Made)) * float64(time.Second)), nil
	}
}

// Close ends the process.
func (s *Side) Close() {
	_ = s.in.Close()
	ended := make(chan struct{})
	go func() { _ = s.command.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(5 * time.Second): // it may hang in a call of the device
		_ = s.command.Process.Kill()
		<-ended
	}
}

// Serve answers requests from in until it ends, as a side does: handle does the work, ready is the
// first reply.
func Serve(ctx context.Context, in io.Reader, out io.Writer, ready Reply, handle func(Request) (Reply, error)) error {
	write := func(r Reply) error { return json.NewEncoder(out).Encode(r) }
	if err := write(ready); err != nil {
		return err
	}
	for requests := json.NewDecoder(in); ctx.Err() == nil; {
		var request Request
		if err := requests.Decode(&request); err == io.EOF {
			return nil
		} else if err != nil {
			return write(Reply{Error: "not a request: " + err.Error()})
		}
		reply, err := handle(request)
		if err != nil {
			reply = Reply{Error: err.Error()}
		}
		if err := write(reply); err != nil {
			return err
		}
	}
	return ctx.Err()
}
