package nb

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/gomlx/go-huggingface/hub"
	"github.com/janpfeifer/gonb/gonbui"

	"github.com/kvqbook/kvqbook/internal/asset"
)

// Model returns where a model's files are, for llama.Open. name is
//
//	""              the small model of the set-up
//	a path          a .gguf file or a folder in Hugging Face's layout
//	"owner/model"   a model of the Hugging Face hub, fetched into the cache that Hugging Face's own tools use
//
// A token is asked for only where the hub refuses the model without one, and none is in $HF_TOKEN or in the file that
// Hugging Face's own login writes. It is used for this download and kept nowhere.
func Model(name string) string {
	if name == "" {
		return Must(asset.SmallModel())
	}
	if _, err := os.Stat(name); err == nil {
		return name
	}
	if !hubID.MatchString(name) {
		Check(fmt.Errorf("model %q: want a .gguf file, a folder, or a name of the hub such as meta-llama/Llama-2-7b-chat-hf", name))
	}
	return Must(fetch(func() *hub.Repo { return hub.New(name) }, storedToken(), askToken))
}

var hubID = regexp.MustCompile(`^[\w][\w.-]*/[\w][\w.-]*$`)

// refused are the hub's answers to one who may not read a model, or not without a token.
var refused = regexp.MustCompile(`\b(status code )?40[13]\b`)

// wanted are the files that package llama reads.
var wanted = regexp.MustCompile(`^([\w-]*config\.json|model[\w.-]*\.safetensors|model\.safetensors\.index\.json|tokenizer\.(json|model))$`)

// fetch downloads a model, with the token it has or, where the hub refuses that, with the one that ask returns.
// It makes a new repo for another token: one that has asked the hub before goes on with its first.
func fetch(newRepo func() *hub.Repo, token string, ask func() (string, error)) (dir string, err error) {
	repo := newRepo().WithAuth(token)
	err = repo.DownloadInfo(false)
	if err != nil && refused.MatchString(err.Error()) && token == "" {
		if token, err = ask(); err != nil {
			return "", err
		}
		repo = newRepo().WithAuth(token)
		err = repo.DownloadInfo(true)
	}
	if err != nil && refused.MatchString(err.Error()) {
		return "", fmt.Errorf("the hub does not give %s to this token: ask for access on the model's page, then try again", repo.ID)
	}
	if err != nil {
		return "", fmt.Errorf("asking the hub for %s: %w", repo.ID, err)
	}
	var names []string
	for name, err := range repo.IterFileNames() {
		if err != nil {
			return "", err
		}
		if wanted.MatchString(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "", fmt.Errorf("%s holds no config.json and no safetensors files: want a model in Hugging Face's layout", repo.ID)
	}
	paths, err := repo.DownloadFiles(names...)
	if err != nil {
		return "", fmt.Errorf("fetching %s: %w", repo.ID, err)
	}
	return filepath.Dir(paths[0]), nil
}

// storedToken is $HF_TOKEN, else what Hugging Face's own login stored, else "".
func storedToken() string {
	if token := os.Getenv("HF_TOKEN"); token != "" {
		return token
	}
	home := os.Getenv("HF_HOME")
	if home == "" {
		dir, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		home = filepath.Join(dir, ".cache", "huggingface")
	}
	text, _ := os.ReadFile(filepath.Join(home, "token"))
	return strings.TrimSpace(string(text))
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
