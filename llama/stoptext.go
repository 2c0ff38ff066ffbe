package llama

import "github.com/kvqbook/kvqbook/tokenizer"

// stopText looks for stop strings in the text of a row.
type stopText struct {
	text *tokenizer.Stream
	stop *tokenizer.Stopper
}

// newStopText begins after the tokens of a prompt.
func newStopText(gc GenerateConfig, prompt []tokenizer.Token) *stopText {
	return &stopText{gc.Tokenizer.StreamAfter(prompt, true), tokenizer.NewStopper(gc.StopStrings...)}
}

// push takes the row's next token and says whether a stop string is there now.
func (t *stopText) push(token tokenizer.Token) bool {
	_, ended := t.stop.Push(t.text.Push(token))
	return ended
}
