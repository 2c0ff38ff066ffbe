package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kvqbook/kvqbook/hub"
	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

func init() { register(newLogin) }

func newLogin() *cobra.Command {
	return withoutSecrets(&cobra.Command{
		Use:   "login",
		Short: "Store a token of the Hugging Face hub, for gated models",
		Long: `login asks for a token of the Hugging Face hub (https://huggingface.co/settings/tokens; reading is all it needs to allow),
without showing it, checks it with the hub, and stores it where Hugging Face's own tools keep it (HF_TOKEN_PATH, HF_HOME/token,
else ~/.cache/huggingface/token), for this user's eyes alone. Without a terminal it reads one line from standard input.

A token in the environment, HF_TOKEN, needs no login and wins over the stored one.`,
		Example: `  kvq login
  cat token.txt | kvq login`,
		RunE: func(c *cobra.Command, _ []string) error { return runLogin(c) },
	})
}

// withoutSecrets makes a command refuse arguments without repeating them: one may be a token, which
// has no place in a list of processes, in a shell's history or in an error.
func withoutSecrets(c *cobra.Command) *cobra.Command {
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("%s takes no argument, came %d; a token is asked for, or read from standard input", c.CommandPath(), len(args))
		}
		return nil
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, _ error) error {
		return fmt.Errorf("%s: no such flag (%[1]s --help lists the flags); a token is asked for, or read from standard input", c.CommandPath())
	})
	return c
}

func runLogin(c *cobra.Command) error {
	secret, err := readSecret(c.Context(), c.InOrStdin(), c.ErrOrStderr())
	if err != nil {
		return err
	}
	account, err := hub.Login(c.Context(), "", secret)
	if err != nil {
		return err
	}
	warnOfVariable(c, "wins over the stored token")
	_, err = fmt.Fprintf(c.OutOrStdout(), "logged in as %s, token stored in %s\n", account.Name, account.Source)
	return err
}

// warnOfVariable says what a token in the environment does.
func warnOfVariable(c *cobra.Command, does string) {
	if name := hub.TokenVariable(); name != "" {
		fmt.Fprintf(c.ErrOrStderr(), "kvq: warning: $%s is set and %s\n", name, does)
	}
}

// maxSecret is more than any token has; a file given by mistake is not read whole.
const maxSecret = 4096

// readSecret asks on a terminal, without showing what is typed, and else reads a line.
func readSecret(ctx context.Context, in io.Reader, errs io.Writer) (string, error) {
	file, ok := in.(*os.File)
	if !ok || !cli.IsTerminal(file) {
		line, err := bufio.NewReader(io.LimitReader(in, maxSecret)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", usererr.New("reading the token from standard input: %w", err)
		}
		return strings.TrimSpace(line), nil
	}
	fd := int(file.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	fmt.Fprint(errs, "token (it is not shown): ")
	defer fmt.Fprintln(errs)
	type answer struct {
		secret []byte
		err    error
	}
	came := make(chan answer, 1)
	go func() {
		secret, err := term.ReadPassword(fd)
		came <- answer{secret, err}
	}()
	select {
	case a := <-came:
		if a.err != nil && !errors.Is(a.err, io.EOF) {
			return "", a.err
		}
		return string(a.secret), nil
	case <-ctx.Done(): // ReadPassword goes on waiting, and would leave the terminal without echo
		_ = term.Restore(fd, before)
		return "", ctx.Err()
	}
}
