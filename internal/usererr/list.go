package usererr

import (
	"fmt"
	"strings"
)

// OneOf lists what is allowed, for messages: "2, 3 or 4". Strings are quoted.
func OneOf[T any](values []T) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = fmt.Sprint(v)
		if text, ok := any(v).(string); ok {
			texts[i] = fmt.Sprintf("%q", text)
		}
	}
	last := len(texts) - 1
	if last < 1 {
		return strings.Join(texts, "")
	}
	return strings.Join(texts[:last], ", ") + " or " + texts[last]
}
