package hub

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Kinds of errors, for errors.Is. The errors themselves say in one line what happened and what to
// do.
var (
	ErrID = errors.New("hub: not a model's name") // or not a revision's
	// the licence is not accepted, or no token came
	ErrGated = errors.New("hub: gated model")
	// wrong, expired, unreadable or absent
	ErrToken   = errors.New("hub: bad token")
	ErrNoModel = errors.New("hub: no such model")            // or a private one
	ErrNoFile  = errors.New("hub: no such file or revision") // of a model that is there
	// not in the cache, and the hub must not be asked
	ErrOffline = errors.New("hub: offline")
	// no name resolution, refused, broken, stalled
	ErrNetwork = errors.New("hub: no connection")
	// 5xx, too many requests, answers that make no sense
	ErrServer = errors.New("hub: the hub fails")
	// or not enough room for what is to come
	ErrDiskFull = errors.New("hub: disk full")
	ErrCorrupt  = errors.New("hub: a download has the wrong hash") // twice
	ErrCache    = errors.New("hub: cache folder not writable")
)

// ErrInput is what errors.Is finds, besides the kind, in every error that the caller can mend:
// [ErrID], [ErrGated], [ErrToken], [ErrNoModel], [ErrNoFile], [ErrOffline] and [ErrCache]. The
// other kinds are failures of network, hub or disk. It is one value in all packages of this module.
var ErrInput = usererr.ErrInput

// failure is an error of this package: one line, a kind, maybe a cause.
type failure struct {
	kind, cause error
	message     string
}

func (f *failure) Error() string { return f.message }

func (f *failure) Unwrap() []error {
	if f.cause == nil {
		return []error{f.kind}
	}
	return []error{f.kind, f.cause}
}

// fail makes an error of a kind. Those that the user's input caused are marked as such.
func fail(kind, cause error, format string, args ...any) error {
	f := &failure{kind: kind, cause: cause, message: line(fmt.Sprintf(format, args...))}
	switch kind {
	case ErrID, ErrGated, ErrToken, ErrNoModel, ErrNoFile, ErrOffline, ErrCache:
		return usererr.New("%w", f)
	}
	return f
}

// line is s on one line, and without characters that would act on a terminal.
func line(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsControl(r) }), " ")
}

// temporary marks a failure that may pass: the request is repeated.
type temporary struct {
	error
	after time.Duration // what the server wants to be waited, negative if it did not say
}

func (t *temporary) Unwrap() error { return t.error }

// errStalled is the cause of a request's end when nothing came for too long.
var errStalled = errors.New("no data came")

// networkError says in words why a request got no answer, or its answer broke off. It drops the
// *url.Error, whose text has the whole address: for a storage that includes the signature that lets
// anybody download the file. What is left may quote the server, which may quote the token.
func (c *client) networkError(ctx *watch, host string, err error) error {
	const advice = "check the network (and HTTPS_PROXY), and run the same again: a download goes on where it stopped"
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, errStalled) {
		return cause // the caller's: Ctrl-C
	} else if errors.Is(cause, errStalled) {
		return &temporary{fail(ErrNetwork, errStalled, "%s: the connection stalled: no data for %s; %s", host, c.stall, advice), -1}
	}
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	if safe := c.token.redact(err.Error()); safe != err.Error() {
		err = errors.New(safe)
	}
	var dns *net.DNSError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var wrongName x509.HostnameError
	switch {
	case errors.As(err, &dns):
		f := fail(ErrNetwork, err, "%s: no address found for %q; check the network (and HTTPS_PROXY), or work with what is in the cache: --offline or HF_HUB_OFFLINE=1", host, dns.Name)
		if dns.IsNotFound {
			return f
		}
		return &temporary{f, -1}
	case errors.Is(err, syscall.ECONNREFUSED):
		return fail(ErrNetwork, err, "%s: the connection was refused (%v); check the network (and HTTPS_PROXY, HF_ENDPOINT), or work with what is in the cache: --offline or HF_HUB_OFFLINE=1", host, err)
	case errors.As(err, &unknown), errors.As(err, &invalid), errors.As(err, &wrongName):
		return fail(ErrNetwork, err, "%s: its certificate is not to be trusted: %v; check the clock, the proxy and SSL_CERT_FILE", host, err)
	}
	return &temporary{fail(ErrNetwork, err, "%s: the connection broke: %v; %s", host, err, advice), -1}
}

// cacheError is about a file of the cache that could not be written.
func cacheError(dir string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fail(ErrDiskFull, err, "the disk of the cache folder %s is full; make room and run the same again: the download goes on where it stopped; or set HF_HUB_CACHE to a folder on another disk", dir)
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		return fail(ErrCache, err, "the cache folder %s cannot be written: %s: %v; set HF_HUB_CACHE or HF_HOME to a folder that can", dir, path.Path, path.Err)
	}
	return fail(ErrCache, err, "the cache folder %s cannot be written: %v; set HF_HUB_CACHE or HF_HOME to a folder that can", dir, err)
}
