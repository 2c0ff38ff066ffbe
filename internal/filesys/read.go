package filesys

import (
	"io"
	"io/fs"
	"os"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// MostText is the size of the largest text that is read whole, in bytes: a hundred books. The
// largest tokenizer.json that is known has 34 MB.
const MostText = 256 << 20

// Read is os.ReadFile for a file of at most MostText bytes. What is larger, or has no end, such as
// /dev/zero, is refused.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := ReadAll(f)
	if usererr.Is(err) {
		return nil, usererr.New("%s: %w", path, err)
	}
	return data, err
}

// ReadAll is io.ReadAll for at most MostText bytes.
func ReadAll(r io.Reader) ([]byte, error) { return readAll(r, MostText) }

func readAll(r io.Reader, most int64) ([]byte, error) {
	if f, ok := r.(interface{ Stat() (fs.FileInfo, error) }); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Size() > most {
			return nil, tooMuch(most)
		}
	}
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(data)) > most {
		return nil, tooMuch(most)
	}
	return data, err
}

func tooMuch(most int64) error { return usererr.New("more than %d bytes, want less", most) }
