//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/kvqbook/kvqbook/internal/pty"
)

// scene is a command that a user calls, and what they type while it runs.
type scene struct {
	args  []string
	types string
}

// seen is what came of a scene. Times are since the call; negative ones are of what never came.
type seen struct {
	args                      []string
	stages                    []stage
	firstLine, firstText, end time.Duration
	silence, cpu              time.Duration // the longest; what the processors spent
	screen                    string        // of the results, as it was left
	failure                   error
}

// stage is something that a user is told they wait for.
type stage struct {
	at   time.Duration
	says string
}

// longest is how long a scene may take.
const longest = 10 * time.Minute

// play calls kvq on two terminals of 80 columns: one for results, and one for what is told
// meanwhile and for what is typed. A person has one for both; two tell the first text from a
// stage.
func (s scene) play(kvq, compiled string) (*seen, error) {
	results, err := pty.New(80)
	if err != nil {
		return nil, err
	}
	defer results.Close()
	told, err := pty.New(80)
	if err != nil {
		return nil, err
	}
	defer told.Close()
	ctx, cancel := context.WithTimeout(context.Background(), longest)
	defer cancel()
	c := exec.CommandContext(ctx, kvq, s.args...)
	c.Env = append(os.Environ(), "KVQ_COMPILED="+compiled)
	c.Stdin, c.Stdout, c.Stderr = told.Program, results.Program, told.Program
	go func() { // who sees something begins to type
		for ctx.Err() == nil && len(told.Moments())+len(results.Moments()) == 0 {
			time.Sleep(10 * time.Millisecond)
		}
		_, _ = told.Person.WriteString(s.types) // a command that has ended reads nothing
	}()
	begin := time.Now()
	failure := c.Run()
	end := time.Since(begin)
	results.End()
	told.End()
	v := &seen{args: s.args, end: end, firstLine: -1, firstText: -1, screen: left(results.Shown()), failure: failure, stages: stages(told)}
	if c.ProcessState != nil {
		v.cpu = c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	}
	if ctx.Err() != nil {
		v.failure = errors.New("took longer than " + longest.String())
	}
	var at []time.Duration
	for _, t := range []*pty.Terminal{results, told} {
		for _, m := range t.Moments() {
			at = append(at, m.At)
		}
	}
	slices.Sort(at)
	if len(at) > 0 {
		v.firstLine = at[0]
	}
	var last time.Duration
	for _, a := range append(at, end) {
		v.silence, last = max(v.silence, a-last), a
	}
	shown := results.Shown()
	for _, m := range results.Moments() {
		if strings.ContainsFunc(escape.ReplaceAllString(shown[:m.End], ""), unicode.IsLetter) {
			v.firstText = m.At
			break
		}
	}
	return v, nil
}

var (
	escape = regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`)
	passed = regexp.MustCompile(`, \d+ s(,.*)?$`) // how long a stage lasts, and how far it is
)

// stages are what a terminal told, each when it came first.
func stages(t *pty.Terminal) (list []stage) {
	shown, from := t.Shown(), 0
	known := map[string]bool{}
	for _, m := range t.Moments() {
		for _, line := range strings.FieldsFunc(shown[from:m.End], func(r rune) bool { return r == '\r' || r == '\n' }) {
			says := strings.TrimSpace(passed.ReplaceAllString(escape.ReplaceAllString(line, ""), ""))
			if says != "" && !known[says] {
				known[says] = true
				list = append(list, stage{m.At, says})
			}
		}
		from = m.End
	}
	return list
}

// left is what a screen has in the end: lines that were drawn over or erased are gone. It knows
// what kvq does on a terminal: \r, and the escapes that erase a line, erase what is below, and go
// up.
func left(shown string) string {
	lines, row, column := [][]rune{nil}, 0, 0
	put := func(r rune) {
		for len(lines[row]) <= column {
			lines[row] = append(lines[row], ' ')
		}
		lines[row][column] = r
		column++
	}
	for len(shown) > 0 {
		if at := escape.FindStringIndex(shown); at != nil && at[0] == 0 {
			code := shown[:at[1]]
			shown = shown[at[1]:]
			n := 0
			_, _ = fmt.Sscanf(code[2:], "%d", &n)
			switch code[len(code)-1] {
			case 'A':
				row = max(0, row-max(n, 1))
			case 'K':
				lines[row] = lines[row][:min(column, len(lines[row]))]
			case 'J':
				lines = lines[:row+1]
				lines[row] = lines[row][:min(column, len(lines[row]))]
			}
			continue
		}
		r := []rune(shown[:min(4, len(shown))])[0]
		shown = shown[len(string(r)):]
		switch r {
		case '\r':
			column = 0
		case '\n':
			if row++; row == len(lines) {
				lines = append(lines, nil)
			}
		default:
			put(r)
		}
	}
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(strings.TrimRight(string(l), " ") + "\n")
	}
	return strings.TrimRight(b.String(), "\n")
}

func (v *seen) print() {
	fmt.Printf("\n$ kvq %s\n", strings.Join(short(v.args), " "))
	first := v.firstText < 0
	token := func() {
		first = true
		fmt.Printf("%8.2f s  *** the first text\n", v.firstText.Seconds())
	}
	for _, s := range v.stages {
		if !first && v.firstText < s.at {
			token()
		}
		fmt.Printf("%8.2f s  %s\n", s.at.Seconds(), s.says)
	}
	if !first {
		token()
	}
	how := "well"
	if v.failure != nil {
		how = v.failure.Error()
	}
	fmt.Printf("%8.2f s  ended %s; at most %.2f s without a sign of life\n", v.end.Seconds(), how, v.silence.Seconds())
	const above, below = 4, 9
	lines := strings.Split(v.screen, "\n")
	for i, line := range lines {
		switch {
		case i < above || i >= len(lines)-below:
			fmt.Println("            | " + line)
		case i == above:
			fmt.Printf("            | … %d lines …\n", len(lines)-above-below)
		}
	}
}
