package usererr

import (
	"encoding/json"
	"reflect"
	"strings"
)

// inPlainWords replaces the errors of encoding/json among a message's arguments, which name Go's
// types, by what came and what was wanted. They stay reachable for errors.As.
func inPlainWords(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		if err, ok := a.(error); ok && strings.HasPrefix(err.Error(), "json: ") {
			a = plainJSON{JSONMessage(err), err}
		}
		out[i] = a
	}
	return out
}

// plainJSON is an error of encoding/json in other words.
type plainJSON struct {
	message string
	err     error
}

func (p plainJSON) Error() string { return p.message }
func (p plainJSON) Unwrap() error { return p.err }

// JSONMessage is what encoding/json's error says, without Go's types: `field "n": came a text, want
// a whole number`.
func JSONMessage(err error) string {
	t, ok := err.(*json.UnmarshalTypeError)
	if !ok {
		return strings.TrimPrefix(err.Error(), "json: ")
	}
	came, isNumber := strings.CutPrefix(t.Value, "number ")
	if word, ok := map[string]string{"string": "a text", "array": "a list", "object": "an object", "number": "a number", "bool": "true or false"}[came]; ok && !isNumber {
		came = word
	}
	message := "came " + came
	if wanted := jsonWord(t.Type); wanted != "" {
		message += ", want " + wanted
	}
	if t.Field != "" {
		message = "field \"" + t.Field + "\": " + message
	}
	return message
}

// jsonWord says what JSON has for a type of Go; "" where there is no word for it.
func jsonWord(t reflect.Type) string {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil {
		return ""
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number of 0 or more"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.String:
		return "a text"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "an object"
	}
	return ""
}
