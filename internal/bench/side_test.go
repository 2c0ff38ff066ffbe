package bench

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

// Two requests in, the first reply and two answers out; an error of the work is an answer too, not
// an end.
func TestServe(t *testing.T) {
	in := strings.NewReader(`{"op":"decode","tokens":3}` + "\n" + `{"op":"fly"}` + "\n")
	var out strings.Builder
	err := Serve(context.Background(), in, &out, Reply{Device: "here"}, func(r Request) (Reply, error) {
		if r.Op != "decode" {
			return Reply{}, errors.New("no wings")
		}
		return Reply{Seconds: 1.5, Made: r.Tokens}, nil
	})
	want := `{"device":"here"}` + "\n" + `{"seconds":1.5,"made":3}` + "\n" + `{"error":"no wings"}` + "\n"
	if err != nil || out.String() != want {
		t.Errorf("%v, %q, want %q", err, out.String(), want)
	}
}

// A process that speaks no JSON, or says what went wrong, is an error that names the side.
func TestSideFailures(t *testing.T) {
	for command, want := range map[string]string{
		"echo hello":                      "side x ended, or wrote what is no reply",
		`echo '{"error":"no such file"}'`: "side x: no such file",
	} {
		_, err := StartSide(context.Background(), "x", []string{"sh", "-c", command}, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", command, err, want)
		}
	}
}
