package modelfile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// sampleBytes is how much Identity reads of each tensor.
const sampleBytes = 1 << 10

// Identity tells models apart, in 32 hexadecimal digits: it is a digest of the configuration, of
// the names, types and sizes of all weights, and of a sample of each weight's bytes in the files.
// It reads about a kilobyte a weight. The same weights in files of another format have another one.
func (f *Files) Identity() (string, error) {
	digest := sha256.New()
	if err := json.NewEncoder(digest).Encode(f.config); err != nil {
		return "", err
	}
	var file *os.File
	defer func() {
		if file != nil {
			_ = file.Close()
		}
	}()
	for _, w := range f.config.Weights() {
		s := f.stored(w)
		fmt.Fprintln(digest, s.name, s.format, s.dims, s.size)
		if file == nil || file.Name() != s.file {
			next, err := os.Open(s.file)
			if err != nil {
				return "", err
			}
			if file != nil {
				_ = file.Close()
			}
			file = next
		}
		n := min(s.size, sampleBytes)
		if _, err := io.Copy(digest, io.NewSectionReader(file, s.offset+(s.size-n)/2, n)); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(digest.Sum(nil)[:16]), nil
}
