package hub_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/kvqbook/kvqbook/hub"
)

// Names of models, of one of their files, and of a revision.
func ExampleParseID() {
	for _, text := range []string{"meta-llama/Llama-2-7b-chat-hf", "org/name/model.Q4_1.gguf@v2", "../secrets"} {
		id, err := hub.ParseID(text)
		fmt.Printf("%q %q %q %v\n", id.Repo, id.File, id.Revision, errors.Is(err, hub.ErrID))
	}
	// Output:
	// "meta-llama/Llama-2-7b-chat-hf" "" "" false
	// "org/name" "model.Q4_1.gguf" "v2" false
	// "" "" "" true
}

// A model in the cache folder of Hugging Face's own tools, ready for llama.Open. (It is not run
// here: it wants the network.)
func ExampleFetch() {
	folder, err := hub.Fetch(context.Background(), "HuggingFaceTB/SmolLM2-135M-Instruct", hub.Options{})
	if errors.Is(err, hub.ErrGated) {
		log.Fatal("accept the licence first: ", err)
	} else if err != nil {
		log.Fatal(err)
	}
	fmt.Println(folder)
}
