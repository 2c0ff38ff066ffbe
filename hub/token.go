package hub

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/kvqbook/kvqbook/internal/filesys"
)

// token is a secret and where it came from. Printing it in any way gives the source alone.
type token struct {
	secret string // "" for none
	source string // for messages: "$HF_TOKEN" or a path
}

// Format makes every verb of package fmt print the source, %#v and a token inside a struct
// included.
func (t token) Format(s fmt.State, _ rune) { _, _ = fmt.Fprintf(s, "token from %s", t.source) }

// renew says how a new token gets into the old one's place.
func (t token) renew() string {
	if strings.HasPrefix(t.source, "$") {
		return "put it into " + t.source[1:]
	}
	return "run kvq login"
}

// redact takes the secret out of a text that came from elsewhere: a server may send back what it
// got.
func (t token) redact(s string) string {
	if t.secret == "" {
		return s
	}
	return strings.ReplaceAll(s, t.secret, "(token)")
}

// tokenVariables in the order in which they count.
var tokenVariables = []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}

// findToken returns the token of the environment, else of the token file, else none.
func findToken() (token, error) {
	for _, name := range tokenVariables {
		if secret := strings.TrimSpace(os.Getenv(name)); secret != "" {
			return newToken(secret, "$"+name)
		}
	}
	path, err := tokenPath()
	if err != nil {
		return token{}, err
	}
	text, err := filesys.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return token{}, nil
	}
	if err != nil {
		return token{}, fail(ErrToken, err, "the token file cannot be read: %v; correct its permissions, or set HF_TOKEN", err)
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" {
		return token{}, nil
	}
	return newToken(secret, path)
}

// newToken checks what could not be sent in a header.
func newToken(secret, source string) (token, error) {
	t := token{secret, source}
	if secret == "" {
		return t, fail(ErrToken, nil, "the token is empty; want one that begins with hf_")
	}
	for _, r := range secret {
		if r <= ' ' || r > '~' {
			return token{}, fail(ErrToken, nil, "what came from %s is no token: it has blanks or other characters that no token has; want one that begins with hf_", source)
		}
	}
	return t, nil
}

// tokenPath is the token file of Hugging Face's own tools.
func tokenPath() (string, error) {
	if path := os.Getenv("HF_TOKEN_PATH"); path != "" {
		return expand(path)
	}
	home, err := home()
	return filepath.Join(home, "token"), err
}

// home is the folder of Hugging Face's own tools.
func home() (string, error) {
	if dir := os.Getenv("HF_HOME"); dir != "" {
		return expand(dir)
	}
	if dir := os.Getenv("XDG_CACHE_HOME"); dir != "" {
		dir, err := expand(dir)
		return filepath.Join(dir, "huggingface"), err
	}
	dir, err := os.UserHomeDir()
	if err != nil {
		return "", fail(ErrCache, err, "no home folder to keep models in (%v); set HF_HOME to a folder", err)
	}
	return filepath.Join(dir, ".cache", "huggingface"), nil
}

// expand does what a shell does not do to a variable that a file or a notebook sets.
func expand(path string) (string, error) {
	path = os.ExpandEnv(path)
	if rest, ok := strings.CutPrefix(path, "~"); ok && (rest == "" || rest[0] == '/') {
		dir, err := os.UserHomeDir()
		if err != nil {
			return "", fail(ErrCache, err, "%s: no home folder (%v)", path, err)
		}
		path = dir + rest
	}
	return filepath.Abs(path)
}

// Account is whom a token belongs to.
type Account struct {
	Name   string // of the user or organization
	Source string // where the token is: "$HF_TOKEN", a path
}

// WhoAmI asks the hub at endpoint ("" for $HF_ENDPOINT, else https://huggingface.co) whose token is
// in use. Without a token the error is ErrToken.
func WhoAmI(ctx context.Context, endpoint string) (Account, error) {
	t, err := findToken()
	if err != nil {
		return Account{}, err
	}
	if t.secret == "" {
		return Account{}, fail(ErrToken, nil, "not logged in: no token in $HF_TOKEN and none stored; run kvq login")
	}
	return whoAmI(ctx, endpoint, t)
}

func whoAmI(ctx context.Context, endpoint string, t token) (Account, error) {
	c, err := newClient(Options{Endpoint: endpoint}, t)
	if err != nil {
		return Account{}, err
	}
	var answer struct {
		Name string `json:"name"`
	}
	if err := c.json(ctx, c.endpoint+"/api/whoami-v2", subject{}, &answer); err != nil {
		return Account{}, err
	}
	if answer.Name == "" {
		return Account{}, fail(ErrServer, nil, "%s: the answer names no account; is HF_ENDPOINT a hub?", c.endpoint)
	}
	return Account{Name: line(answer.Name), Source: t.source}, nil
}

// Login checks a token with the hub at endpoint and stores it in the token file of Hugging Face's
// own tools, readable by this user alone. Account.Source is that file. A token that the hub does
// not accept is not stored.
func Login(ctx context.Context, endpoint, secret string) (Account, error) {
	t, err := newToken(strings.TrimSpace(secret), "the input")
	if err != nil {
		return Account{}, err
	}
	account, err := whoAmI(ctx, endpoint, t)
	if err != nil {
		return Account{}, err
	}
	if account.Source, err = tokenPath(); err != nil {
		return Account{}, err
	}
	return account, storeToken(account.Source, t)
}

// storeToken never leaves half a token, and never one that others can read, not even for a moment.
func storeToken(path string, t token) error {
	fault := func(err error) error {
		return fail(ErrCache, err, "the token could not be stored: %v; set HF_HOME or HF_TOKEN_PATH to a place that can be written", err)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fault(err)
	}
	file, err := os.CreateTemp(dir, ".token-*") // mode 600
	if err != nil {
		return fault(err)
	}
	defer os.Remove(file.Name()) // does nothing once it has its name
	_, err = file.WriteString(t.secret)
	if err == nil {
		err = file.Sync()
	}
	if e := file.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return fault(err)
	}
	return nil
}

// Logout removes the token file and returns its path, "" if there was none.
func Logout() (string, error) {
	path, err := tokenPath()
	if err != nil {
		return "", err
	}
	switch err := os.Remove(path); {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", fail(ErrCache, err, "the token could not be removed: %v", err)
	}
	return path, nil
}

// TokenVariable is the environment variable that holds a token and so wins over the stored one, ""
// if none does.
func TokenVariable() string {
	for _, name := range tokenVariables {
		if strings.TrimSpace(os.Getenv(name)) != "" {
			return name
		}
	}
	return ""
}

// HasToken tells whether there is a token to send, in the environment or in the token file.
func HasToken() bool {
	t, err := findToken()
	return err == nil && t.secret != ""
}
