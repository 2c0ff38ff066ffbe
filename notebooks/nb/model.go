package nb

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/janpfeifer/gonb/gonbui"

	"github.com/kvqbook/kvqbook/hub"
	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/progress"
)

// Model returns where a model's files are, for llama.Open. name is
//
//	""              the small model of the set-up
//	a path          a .gguf file or a folder in Hugging Face's layout
//	"owner/model"   a model of the Hugging Face hub, fetched into the cache that Hugging Face's own tools use
//
// A token is asked for only where the hub refuses the model without one, and none is in $HF_TOKEN
// or in the file that kvq login and Hugging Face's own login write. It is used for this download
// and kept nowhere.
func Model(name string) string {
	if name == "" {
		return Must(asset.SmallModel())
	}
	if _, err := os.Stat(name); err == nil {
		return name
	}
	if id, err := hub.ParseID(name); err != nil || !strings.Contains(id.Repo, "/") {
		Check(fmt.Errorf("model %q: want a .gguf file, a folder, or a name of the hub such as meta-llama/Llama-2-7b-chat-hf", name))
	}
	show := progress.Lines(os.Stdout, name)
	return Must(fetch(name, hub.Options{Progress: func(p hub.Progress) { show(p.Done, p.Total) }}, askToken))
}

// fetch gets a model from the hub. Where the hub refuses and no token was there to send, it tries
// again with the one that ask returns, which the environment of this cell's process then holds, and
// nothing else.
func fetch(name string, o hub.Options, ask func() (string, error)) (string, error) {
	dir, err := hub.Fetch(context.Background(), name, o)
	if !errors.Is(err, hub.ErrGated) && !errors.Is(err, hub.ErrToken) || hub.HasToken() {
		return dir, err
	}
	token, askErr := ask()
	if askErr != nil {
		return "", fmt.Errorf("%w (%w)", err, askErr)
	}
	if err := os.Setenv("HF_TOKEN", token); err != nil {
		return "", err
	}
	return hub.Fetch(context.Background(), name, o)
}

// askToken asks the reader, in the notebook and without showing what is typed.
func askToken() (string, error) {
	if !gonbui.IsNotebook {
		return "", fmt.Errorf("this model wants a token of the hub: set HF_TOKEN")
	}
	gonbui.RequestInput("Token of the Hugging Face hub: ", true)
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if line = strings.TrimSpace(line); line == "" {
		return "", fmt.Errorf("this model wants a token of the hub, and none came: set HF_TOKEN, or run the cell again (%v)", err)
	}
	return line, nil
}
