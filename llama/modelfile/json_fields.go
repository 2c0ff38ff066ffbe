package modelfile

import (
	"bytes"
	"encoding/json"
	"math"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// number is a JSON number that must be whole; 4096.0 is as good as 4096, as in Python.
type number int

func (n *number) UnmarshalJSON(data []byte) error {
	var f float64
	if err := json.Unmarshal(data, &f); err != nil {
		return usererr.New("came %s, want a whole number", clip(data))
	}
	if f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return usererr.New("came %s, want a whole number", clip(data))
	}
	*n = number(f)
	return nil
}

// tokenIDs is one token id or a list of them.
type tokenIDs []int

func (t *tokenIDs) UnmarshalJSON(data []byte) error {
	var list []number
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("[")) {
		if err := json.Unmarshal(data, &list); err != nil {
			return usererr.New("came %s, want a token id or a list of them", clip(data))
		}
	} else {
		var one number
		if err := one.UnmarshalJSON(data); err != nil {
			return usererr.New("came %s, want a token id or a list of them", clip(data))
		}
		list = []number{one}
	}
	*t = make(tokenIDs, len(list))
	for i, id := range list {
		(*t)[i] = int(id)
	}
	return nil
}

func clip(data []byte) string {
	const most = 60
	if len(data) > most {
		return string(data[:most]) + "…"
	}
	return string(data)
}

// decodeFields decodes field by field, so that an error can name the field.
func decodeFields(data []byte, into any) error {
	err := json.Unmarshal(data, into)
	if err == nil {
		return nil
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(data, &fields) != nil {
		return usererr.New("want a JSON object: %w", err)
	}
	for name, value := range fields {
		one, _ := json.Marshal(map[string]json.RawMessage{name: value})
		if err := json.Unmarshal(one, into); err != nil {
			return usererr.New("field %q: %w", name, plainJSONError(err, value))
		}
	}
	return usererr.New("%w", err)
}

// plainJSONError replaces encoding/json's words about Go types by what the field wanted.
func plainJSONError(err error, value json.RawMessage) error {
	if t, ok := err.(*json.UnmarshalTypeError); ok {
		want := map[string]string{"float64": "a number", "bool": "true or false", "string": "a text"}[t.Type.String()]
		if want != "" {
			return usererr.New("came %s, want %s", clip(value), want)
		}
	}
	return err
}
