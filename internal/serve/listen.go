package serve

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kvqbook/kvqbook/internal/filesys"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// ListenSocket listens at a Unix socket that its owner alone may open (mode 0600). A socket that a
// process left behind is removed; one that somebody still answers at is refused, and so is what is
// no socket.
func ListenSocket(path string) (net.Listener, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, usererr.New("%s is there and no socket: want another path", path)
	default:
		c, err := net.DialTimeout("unix", path, time.Second)
		if err == nil {
			_ = c.Close()
			return nil, usererr.New("%s: another process serves there: ask it, end it, or take another path", path)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, usererr.New("%s: %w", path, err)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	// It is made in a folder that nobody else may enter, so that there is no moment in which others
	// could open it.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".kvq-")
	if err != nil {
		return nil, usererr.New("a socket at %s: %w", path, err)
	}
	defer os.RemoveAll(dir)
	made := filepath.Join(dir, "s")
	l, err := net.Listen("unix", made)
	if err != nil {
		return nil, usererr.New("a socket at %s: %w", path, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err = os.Chmod(made, 0o600); err == nil {
		// Fails where another process was faster.
		if err = os.Link(made, path); err == nil {
			return &socket{l, path}, nil
		}
	}
	_ = l.Close()
	return nil, usererr.New("a socket at %s: %w", path, err)
}

// socket is a listener whose file goes when it is closed.
type socket struct {
	net.Listener
	path string
}

func (s *socket) Close() error {
	_ = os.Remove(s.path) // may be gone already
	return s.Listener.Close()
}

// OnSocketGone calls f once when the socket's file is not there any more, as when the folder of a
// notebook's kernel is removed: no client can come then. stop ends the watch.
func OnSocketGone(path string, f func()) (stop func()) {
	const every = 2 * time.Second
	done, first := make(chan struct{}), sync.Once{}
	go func() {
		look := time.NewTicker(every)
		defer look.Stop()
		for {
			select {
			case <-look.C:
				if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
					f()
					return
				}
			case <-done:
				return
			}
		}
	}()
	return func() { first.Do(func() { close(done) }) }
}

// ListenLoopback listens at a TCP port of this machine that others cannot reach, such as
// 127.0.0.1:8080 or localhost:0.
func ListenLoopback(address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, usererr.New("%q, want HOST:PORT, such as 127.0.0.1:8080", address)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, usererr.New("%q, want an address of this machine alone: 127.0.0.1, ::1 or localhost", address)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, usererr.New("%q: %w", address, listenProblem(err))
	}
	if a, ok := l.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() { // what localhost stands for is up to the machine
		_ = l.Close()
		return nil, usererr.New("%q is %s here, want an address of this machine alone: 127.0.0.1 or ::1", address, l.Addr())
	}
	return l, nil
}

// listenProblem leaves out of net's error what the message names already.
func listenProblem(err error) error {
	for {
		switch e := err.(type) {
		case *net.OpError:
			err = e.Err
		case *net.AddrError:
			return errors.New(e.Err)
		case *os.SyscallError:
			err = e.Err
		default:
			return err
		}
	}
}

// minTokenLength is that of a token that somebody chose.
const minTokenLength = 16

// TokenFile reads the token in a file, or makes one of 256 random bits where there is no file. The
// file's owner alone may read it (mode 0600).
func TokenFile(path string) (token string, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeToken(path)
	}
	if err != nil {
		return "", usererr.New("%w", err)
	}
	if !info.Mode().IsRegular() {
		return "", usererr.New("%s is no file: want one with the token, or a name that is free", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", usererr.New("%s: others may read it (mode %#o): chmod 600 it, and change the token", path, info.Mode().Perm())
	}
	data, err := filesys.Read(path)
	if err != nil {
		return "", usererr.New("%w", err)
	}
	token = strings.TrimSpace(string(data))
	if len(token) < minTokenLength || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", usererr.New("%s: want one line of at least %d letters, digits and signs", path, minTokenLength)
	}
	return token, nil
}

func makeToken(path string) (string, error) {
	var b [32]byte
	_, _ = rand.Read(b[:]) // does not fail
	token := hex.EncodeToString(b[:])
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", usererr.New("%w", err)
	}
	_, err = file.WriteString(token + "\n")
	if e := file.Close(); err == nil {
		err = e
	}
	return token, err
}
