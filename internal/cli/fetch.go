package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/hub"
	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/progress"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// RegisterHub adds the flags of models that come from the hub.
func RegisterHub(fs *pflag.FlagSet, revision *string, offline *bool) {
	fs.StringVar(revision, "revision", "", "`branch`, tag or commit of a model of the hub (default main)")
	fs.BoolVar(offline, "offline", false, "do not ask the hub, use what was fetched before")
}

// path is where the model's files are. What exists here comes first, so that a file never becomes a
// download.
func (f *ModelFlags) path(c *cobra.Command) (string, error) {
	here := f.model == ""
	if !here {
		_, err := os.Stat(f.model)
		here = err == nil || !hubName(f.model)
	}
	switch {
	case here && f.revision != "":
		return "", usererr.New("--revision %q: only a model of the hub has revisions, want its name for --model, such as meta-llama/Llama-2-7b-chat-hf", f.revision)
	case f.model == "":
		path, err := asset.SmallModel()
		if err != nil {
			return "", usererr.New("%w", err)
		}
		return path, nil
	case here:
		return f.model, nil
	}
	path, err := FetchModel(c, f.model, f.revision, f.offline)
	if errors.Is(err, hub.ErrNoModel) || errors.Is(err, hub.ErrOffline) {
		return "", usererr.New("%w; there is no file or folder %s either", err, f.model)
	}
	return path, err
}

// hubName says whether a model that does not exist here may be one of the hub, "owner/name" and
// maybe more. Others are mistyped paths.
func hubName(model string) bool {
	id, err := hub.ParseID(model)
	return err == nil && strings.Contains(id.Repo, "/") && !strings.HasSuffix(id.Repo, ".gguf")
}

// FetchModel fetches a model of the hub, with a progress bar on a terminal and a line now and then
// elsewhere.
func FetchModel(c *cobra.Command, id, revision string, offline bool) (string, error) {
	errs := c.ErrOrStderr()
	lines := progress.Lines(errs, id)
	show, clear := func(p hub.Progress) { lines(p.Done, p.Total) }, func() {}
	if IsTerminal(errs) {
		show, clear = fetchProgress(errs, id)
	}
	defer func() { clear() }()
	return hub.Fetch(c.Context(), id, hub.Options{Revision: revision, Offline: offline, Progress: show, Log: func(line string) {
		clear()
		fmt.Fprintln(errs, "kvq: "+line)
	}})
}

// fetchProgress shows a bar, which clear takes away until the next bytes come.
func fetchProgress(w io.Writer, id string) (show func(hub.Progress), clear func()) {
	var bar *progressbar.ProgressBar
	show = func(p hub.Progress) {
		if bar == nil {
			bar = progressbar.NewOptions64(p.Total, progressbar.OptionSetWriter(w), progressbar.OptionShowBytes(true), progressbar.OptionShowCount(),
				progressbar.OptionSetDescription("fetching "+id), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond))
		}
		_ = bar.Set64(p.Done)
	}
	clear = func() {
		if bar != nil {
			_ = bar.Clear()
		}
	}
	return show, clear
}
