package usererr

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// What encoding/json refuses is told in the words of the file, not in those of Go; the error itself
// stays within reach.
func TestJSONInPlainWords(t *testing.T) {
	type inner struct {
		Size uint16    `json:"size"`
		List []float32 `json:"list"`
	}
	type outer struct {
		Count *int           `json:"count"`
		Name  string         `json:"name"`
		On    bool           `json:"on"`
		Inner inner          `json:"inner"`
		Map   map[string]int `json:"map"`
	}
	for text, want := range map[string]string{
		`[]`:                      "came a list, want an object",
		`{"count": 1.5}`:          `field "count": came 1.5, want a whole number`,
		`{"count": "many"}`:       `field "count": came a text, want a whole number`,
		`{"name": 7}`:             `field "name": came a number, want a text`,
		`{"on": {}}`:              `field "on": came an object, want true or false`,
		`{"inner": {"size": -1}}`: `field "inner.size": came -1, want a whole number of 0 or more`,
		`{"inner": {"list": 3}}`:  `field "inner.list": came a number, want a list`,
		`{"map": true}`:           `field "map": came true or false, want an object`,
		`{"stranger": 1}`:         `unknown field "stranger"`,
		`{`:                       "unexpected EOF",
	} {
		d := json.NewDecoder(strings.NewReader(text))
		d.DisallowUnknownFields()
		cause := d.Decode(&outer{})
		err := New("file.json: %w", cause)
		if got := err.Error(); got != "file.json: "+want || !errors.Is(err, cause) {
			t.Errorf("%s: %q, want %q with the cause", text, got, "file.json: "+want)
		}
	}
}
