package decoder_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kvqbook/kvqbook/kvq"
)

// A long prompt is read once and saved. Every later program loads its cache and continues it, as
// often as it likes: Fork makes a session of its own for each continuation, here of three rows that
// begin alike and are drawn apart.
func Example_savedPrompt() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "prompt")
	check(err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "prompt.kvq")

	reader := newSession(kvq.Tutorial(), 1)
	_, err = reader.Prefill(ctx, [][]int32{{17, 4, 65, 30, 11, 90, 2, 55, 12, 71, 8, 33}})
	check(err)
	check(reader.Save(ctx, path))
	reader.Finalize()

	s := newSession(kvq.Tutorial(), 1)
	defer s.Finalize()
	check(s.Load(path))
	fmt.Println("loaded tokens:", s.Length())
	for _, question := range []int32{5, 80} {
		rows, err := s.Fork(ctx, 0, 0, 0)
		check(err)
		_, err = rows.Step(ctx, [][]int32{{question}, {question}, {question}})
		check(err)
		answers, err := rows.Generate(ctx, kvq.Generation{MaxTokens: 5, Sample: true, Temperature: 0.8, Seed: 1})
		check(err)
		fmt.Println(question, answers)
		rows.Finalize()
	}
	fmt.Println("still:", s.Length())
	// Output:
	// loaded tokens: 12
	// 5 [[51 86 33 94 29] [0 88 11 14 59] [30 70 29 29 70]]
	// 80 [[70 92 25 90 26] [0 88 11 5 67] [30 70 29 29 70]]
	// still: 12
}
