// Package buildcache is a build cache for Go in two layers: one that is shared and only read, and
// the user's own, which is written. Without it every user of a shared clone compiles all packages
// once more, a minute of two processors each.
//
// The go command speaks with it over standard input and output: GOCACHEPROG, "go doc
// cmd/go/internal/cacheprog". Both layers have the layout of Go's own build cache, so the shared
// one is made by an ordinary build with GOCACHE, and one's own is the usual folder.
package buildcache

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/kvqbook/kvqbook/internal/trust"
)

// Cache has two layers.
type Cache struct {
	shared, own layer
}

// Open returns the cache with the folder shared, which may be absent, below the folder own.
//
// What is shared is linked into programs that run: a shared folder that neither the user, root nor
// the owners given could alone have written is not read, and the error says why. The cache is
// usable all the same.
func Open(shared, own string, owners trust.Owners) (*Cache, error) {
	c := &Cache{shared: layer{shared}, own: layer{own}}
	info, err := os.Stat(shared)
	if err == nil {
		err = owners.Check(shared, info)
	}
	if err != nil {
		c.shared = layer{}
	}
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return c, err
}

// request and response are those of cmd/go/internal/cacheprog.
type request struct {
	ID       int64
	Command  string
	ActionID []byte
	OutputID []byte
	BodySize int64
}

type response struct {
	ID            int64
	Err           string     `json:",omitempty"`
	KnownCommands []string   `json:",omitempty"`
	Miss          bool       `json:",omitempty"`
	OutputID      []byte     `json:",omitempty"`
	Size          int64      `json:",omitempty"`
	Time          *time.Time `json:",omitempty"`
	DiskPath      string     `json:",omitempty"`
}

// Serve answers the go command until it says "close" or goes away. An error is one of the protocol;
// what fails on the disk is told to the go command.
func (c *Cache) Serve(from io.Reader, to io.Writer) error {
	in := bufio.NewReaderSize(from, 1<<16)
	out := bufio.NewWriter(to)
	answer := func(r response) error {
		line, err := json.Marshal(r)
		if err == nil {
			_, err = out.Write(append(line, '\n'))
		}
		return errors.Join(err, out.Flush())
	}
	if err := answer(response{KnownCommands: []string{"get", "put", "close"}}); err != nil {
		return err
	}
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF && len(line) <= 1 {
			return nil
		}
		if err != nil {
			return err
		}
		if len(line) == 1 {
			continue // between a body and the next request
		}
		var r request
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("wanted a request in JSON, came %.80q: %w", line, err)
		}
		reply, err := c.do(r, in)
		if err != nil {
			return err
		}
		if err := answer(reply); err != nil || r.Command == "close" {
			return err
		}
	}
}

// do carries out one request. An error means that the rest of in cannot be understood.
func (c *Cache) do(r request, in *bufio.Reader) (response, error) {
	reply := response{ID: r.ID}
	switch r.Command {
	case "get":
		for _, l := range []layer{c.own, c.shared} {
			e, ok := l.get(r.ActionID)
			if ok {
				reply.OutputID, reply.Size, reply.Time, reply.DiskPath = e.output, e.size, &e.at, e.path
				return reply, nil
			}
		}
		reply.Miss = true
	case "put":
		body, err := readBody(in, r.BodySize)
		if err != nil {
			return reply, err
		}
		path, err := c.own.put(r.ActionID, r.OutputID, body)
		if reply.DiskPath = path; err != nil {
			reply.Err = err.Error()
		}
	case "close":
		c.own.trim(time.Now())
	default:
		reply.Err = fmt.Sprintf("unknown command %q", r.Command)
	}
	return reply, nil
}

// readBody reads the JSON string of base64 that follows a request with a body.
func readBody(in *bufio.Reader, size int64) ([]byte, error) {
	if size == 0 {
		return nil, nil
	}
	quote, err := in.ReadByte()
	for err == nil && quote == '\n' {
		quote, err = in.ReadByte()
	}
	if err != nil || quote != '"' {
		return nil, fmt.Errorf("wanted a body of %d bytes, came %q, %v", size, quote, err)
	}
	text := make([]byte, base64.StdEncoding.EncodedLen(int(size))+1)
	if _, err := io.ReadFull(in, text); err != nil {
		return nil, fmt.Errorf("wanted a body of %d bytes: %w", size, err)
	}
	text, end := text[:len(text)-1], text[len(text)-1]
	body, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil || end != '"' || int64(len(body)) != size {
		return nil, fmt.Errorf("wanted a body of %d bytes, came %d and %q, %v", size, len(body), end, err)
	}
	return body, nil
}

// Own is the folder of the user's own layer: $GOCACHE, else the one that Go takes.
func Own() (string, error) {
	if dir := os.Getenv("GOCACHE"); filepath.IsAbs(dir) {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "go-build"), err
}
