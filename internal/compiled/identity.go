package compiled

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"runtime"
	"strings"
)

// identity is everything except the program that decides what XLA makes of it.
type identity []byte

// cpuInfo is where Linux describes its processors.
const cpuInfo = "/proc/cpuinfo"

// identify returns the identity of the plugin at path, this machine's processor and XLA's settings.
// Machine code for another processor might not run here.
func identify(path string) (identity, error) {
	plugin, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(cpuInfo)
	if err != nil {
		return nil, err
	}
	processor := processorOf(content)
	if processor == "" {
		return nil, fmt.Errorf("%s names no processor", cpuInfo)
	}
	return fmt.Appendf(nil, "3\n%d\n%d\n%d\n%s\n%s\n", plugin.Size(), plugin.ModTime().UnixNano(), runtime.NumCPU(), os.Getenv("XLA_FLAGS"), processor), nil
}

// processorOf returns the model and the features of the first processor in the text of [cpuInfo].
func processorOf(text []byte) string {
	var found []string
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() && lines.Text() != "" {
		if key, value, _ := strings.Cut(lines.Text(), ":"); strings.HasPrefix(key, "model name") || strings.HasPrefix(key, "flags") {
			found = append(found, strings.TrimSpace(value))
		}
	}
	return strings.Join(found, "\n")
}

// name returns the file name for a program.
func (i identity) name(parts ...[]byte) string {
	h := sha256.New()
	for _, part := range append([][]byte{i}, parts...) {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(part))))
		h.Write(part)
	}
	return hex.EncodeToString(h.Sum(nil)) + suffix
}
