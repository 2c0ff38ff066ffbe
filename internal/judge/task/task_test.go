package task

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/passkey"
	"github.com/kvqbook/kvqbook/internal/smallmodel"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// solve answers a question from the text alone, without what the makers know.
var solve = map[Kind]func(t *testing.T, text, question string) string{
	Keys: func(t *testing.T, text, question string) string {
		name := regexp.MustCompile(`What is the key of the (\w+ \w+)\?`).FindStringSubmatch(question)[1]
		all := regexp.MustCompile(`The key of the (\w+) (\w+) is (\d{3})\.`).FindAllStringSubmatch(text, -1)
		var found []string
		sameColour, sameThing, digits := 0, 0, map[string]bool{}
		colour, thing, _ := strings.Cut(name, " ")
		for _, k := range all {
			digits[k[3]] = true
			switch {
			case k[1] == colour && k[2] == thing:
				found = append(found, k[3])
			case k[1] == colour:
				sameColour++
			case k[2] == thing:
				sameThing++
			}
		}
		if len(all) != keyCount || len(found) != 1 || sameColour != 1 || sameThing != 1 || len(digits) != keyCount {
			t.Errorf("%s: %d keys, %d of this name, %d of its colour, %d of its thing, %d different", name, len(all), len(found), sameColour, sameThing, len(digits))
		}
		return found[0] + "."
	},
	Instruction: func(_ *testing.T, _, question string) string {
		if m := regexp.MustCompile(`Count from (\d+) to (\d+)\.`).FindStringSubmatch(question); m != nil {
			first, _ := strconv.Atoi(m[1])
			last, _ := strconv.Atoi(m[2])
			var list []string
			for i := first + 1; i <= last; i++ {
				list = append(list, fmt.Sprint(i))
			}
			return " " + strings.Join(list, ", ")
		}
		_, rest, _ := strings.Cut(regexp.MustCompile(`Write these words: ([a-z, ]+)\.`).FindStringSubmatch(question)[1], ",")
		return rest
	},
	Copy: func(_ *testing.T, text, _ string) string {
		return " " + regexp.MustCompile(`The list of words is: ([a-z, ]+)\.`).FindStringSubmatch(text)[1]
	},
	Sums: func(t *testing.T, text, question string) string {
		for _, m := range regexp.MustCompile(`(\d+) \+ (\d+) = (\d+)\.`).FindAllStringSubmatch(text, -1) {
			a, _ := strconv.Atoi(m[1])
			b, _ := strconv.Atoi(m[2])
			if fmt.Sprint(a+b) != m[3] {
				t.Errorf("a wrong example: %s", m[0])
			}
		}
		m := regexp.MustCompile(`What is (\d+) \+ (\d+)\?`).FindStringSubmatch(question)
		a, _ := strconv.Atoi(m[1])
		b, _ := strconv.Atoi(m[2])
		return fmt.Sprint(a+b) + "."
	},
}

// Every kind's answer is what another reading of its text gives; it is the end of the tail, the
// texts are as long as they may be, all different, and the same for the same seed.
func TestAnswersAreRight(t *testing.T) {
	_, tok := smallmodel.Open(t)
	const length, count = 500, 10
	for _, k := range Kinds {
		trials, err := Trials(t.Context(), tok, k.Kind, length, count, 7)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for i, trial := range trials {
			text, tail := tok.Decode(trial.Text, false), tok.Decode(trial.Tail, false)
			answer := tok.Decode(trial.Tail[len(trial.Tail)-trial.Last:], false)
			question := strings.TrimSuffix(tail, answer)
			if want := solve[k.Kind](t, text, question); answer != want || question == tail {
				t.Errorf("%s %d: answer %q, want %q, of\n%s%s", k.Kind, i, answer, want, text, tail)
			}
			if n := len(trial.Text) + len(trial.Tail); n != trial.Length || n > length || n < length-20 || seen[text+tail] {
				t.Errorf("%s %d: %d tokens, said to be %d, want nearly %d, and a text of its own", k.Kind, i, n, trial.Length, length)
			}
			seen[text+tail] = true
		}
		again, err := Trials(t.Context(), tok, k.Kind, length, 2, 7)
		same := func(a, b passkey.Trial) bool { return slices.Equal(a.Text, b.Text) && slices.Equal(a.Tail, b.Tail) }
		if err != nil || !same(again[1], trials[1]) {
			t.Errorf("%s: the same seed gave other texts: %v", k.Kind, err)
		}
		if other, err := Trials(t.Context(), tok, k.Kind, length, 1, 8); err != nil || same(other[0], trials[0]) {
			t.Errorf("%s: another seed gave the same text: %v", k.Kind, err)
		}
		if _, err := Trials(t.Context(), tok, k.Kind, 40, 1, 7); !usererr.Is(err) {
			t.Errorf("%s in 40 tokens gave %v", k.Kind, err)
		}
	}
	if _, err := Trials(t.Context(), tok, "dreams", length, 1, 7); !usererr.Is(err) {
		t.Errorf("an unknown kind gave %v", err)
	}
}

// Keys stand at their depths, in whatever order these come.
func TestHideByHand(t *testing.T) {
	keys := []hiddenKey{{"red", "door", "111"}, {"blue", "box", "222"}, {"red", "box", "333"}}
	got := hide([]string{"a.", "b.", "c.", "d."}, keys, []float64{0.5, 0, 0.75})
	want := "The key of the blue box is 222. Remember it. a. b. The key of the red door is 111. Remember it. c. The key of the red box is 333. Remember it. d."
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if got := hide(nil, keys, []float64{0.5, 0, 0.75}); strings.Count(got, "Remember") != 3 {
		t.Errorf("without sentences: %s", got)
	}
}

// All names and digits of a text differ.
func TestKeysAreTold(t *testing.T) {
	for seed := range uint64(200) {
		names, digits := map[string]bool{}, map[string]bool{}
		for _, k := range hiddenKeys(rand.New(rand.NewPCG(seed, 0))) {
			names[k.colour+k.thing], digits[k.digits] = true, true
			if len(k.digits) != 3 {
				t.Fatalf("key %s", k.digits)
			}
		}
		if len(names) != keyCount || len(digits) != keyCount {
			t.Fatalf("seed %d: names %v, digits %v", seed, names, digits)
		}
	}
}
