package compiled

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// identity is everything except the program that decides what XLA makes of it.
type identity []byte

// cpuInfo is where Linux describes its processors.
const cpuInfo = "/proc/cpuinfo"

// nvidia is where NVIDIA's driver describes itself and its GPUs.
const nvidia = "/proc/driver/nvidia"

// identify returns the identity of the plugin at path, this machine's processor and XLA's settings,
// with gpu its GPUs too. Machine code for another processor might not run here.
func identify(path string, gpu bool) (identity, error) {
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
	if gpu {
		gpus, err := gpusOf(nvidia)
		if err != nil {
			return nil, err
		}
		processor += "\n" + gpus + "\n" + os.Getenv("CUDA_VISIBLE_DEVICES")
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

// gpusOf returns the version of NVIDIA's driver and the models of the GPUs, from its folder. XLA
// chooses kernels by timing them, on the very GPU.
func gpusOf(dir string) (string, error) {
	version, err := os.ReadFile(filepath.Join(dir, "version"))
	if err != nil {
		return "", err
	}
	paths, err := filepath.Glob(filepath.Join(dir, "gpus", "*", "information")) // sorted
	if err != nil || len(paths) == 0 {
		return "", fmt.Errorf("%s names no GPU", dir)
	}
	found := []string{string(version)}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "Model") {
				found = append(found, line)
			}
		}
	}
	return strings.Join(found, ""), nil
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
