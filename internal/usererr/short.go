package usererr

import (
	"strings"
	"unicode/utf8"
)

// Values from files are quoted in messages, by this program and by the libraries under it, such as
// a number of 100,000 digits by encoding/json.
const (
	maxWord    = 200  // bytes without a blank, unless they are a path
	maxMessage = 2000 // bytes in all
)

// short cuts long words, then the whole: the beginning and a bit of the end stay.
func short(message string) string {
	if len(message) <= maxWord {
		return message
	}
	words := strings.Split(message, " ")
	for i, word := range words {
		if !strings.Contains(word, "/") {
			words[i] = cut(word, maxWord)
		}
	}
	return cut(strings.Join(words, " "), maxMessage)
}

// cut takes out the middle of what is longer than most bytes.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	head, tail := most*3/4, len(text)-most/8
	for head > 0 && !utf8.RuneStart(text[head]) {
		head--
	}
	for tail < len(text) && !utf8.RuneStart(text[tail]) {
		tail++
	}
	return text[:head] + "…" + text[tail:]
}
