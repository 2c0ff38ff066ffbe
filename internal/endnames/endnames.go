// Package endnames knows the tokens that end a generation by their names.
//
// GGUF files name the end of a sequence by its id, but most leave out the end of a turn. llama.cpp
// (src/llama-vocab.cpp) therefore also ends at tokens of certain names, and so do we.
package endnames

import "slices"

// names end a generation wherever they are in a vocabulary. The list is llama.cpp's.
var names = []string{
	"<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
	"<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
	"<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[",
	// Parts of prompts that are filled in the middle: padding, a repository, a file.
	"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]",
	"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>",
	"<|file_sep|>",
}

// Is says that a token of this name ends a generation.
func Is(name string) bool { return slices.Contains(names, name) }

// In lists the ids of the tokens that end a generation, in ascending order.
func In(vocabulary []string) []int {
	found := make(map[string]int)
	for id, name := range vocabulary {
		if Is(name) {
			if _, twice := found[name]; !twice {
				found[name] = id
			}
		}
	}
	has := func(all ...string) bool {
		for _, name := range all {
			if _, there := found[name]; !there {
				return false
			}
		}
		return true
	}
	// llama.cpp's two exceptions: models whose answers contain these names.
	if has("<|return|>", "<|call|>") || has("<|calls|>", "<|flush|>") || has("<|call|>", "<|flush|>") {
		delete(found, "<|end|>")
	}
	if has("<|tool_response>") {
		delete(found, "</s>")
	}
	ids := make([]int, 0, len(found))
	for _, id := range found {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
