package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

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
	path, err := FetchModel(c, f.Status(c.ErrOrStderr()), f.model, f.revision, f.offline)
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

// FetchModel fetches a model of the hub, and tells on status how far it is: on a terminal in the
// line that moves, elsewhere in a line now and then. A nil status tells nothing.
func FetchModel(c *cobra.Command, status *Status, id, revision string, offline bool) (string, error) {
	errs := c.ErrOrStderr()
	status.Stage("asking the hub for %s", id)
	defer status.Clear()
	return hub.Fetch(c.Context(), id, hub.Options{Revision: revision, Offline: offline, Progress: fetchProgress(errs, status, id), Log: func(line string) {
		status.Clear()
		fmt.Fprintln(errs, "kvq: "+line)
	}})
}

// fetchProgress shows how far a download is.
func fetchProgress(errs io.Writer, status *Status, id string) func(hub.Progress) {
	switch {
	case status == nil:
		return nil
	case !status.terminal:
		lines := progress.Lines(errs, id)
		return func(p hub.Progress) {
			status.Clear()
			lines(p.Done, p.Total)
		}
	}
	rate := progress.NewRate(status.now)
	return func(p hub.Progress) {
		status.Stage("fetching %s", id)
		status.Detail("%s", rate.Line(p.Done, p.Total))
	}
}
