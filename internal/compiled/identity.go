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
		processor += "\n" + gpus + "\n" + os.Getenv("CUDA_VISIBLE_DEVICES") + "\n" + librariesOf(path)
	}
	return fmt.Appendf(nil, "3\n%s\n%d\n%s\n%s\n", stamp(plugin), runtime.NumCPU(), flags(os.Getenv("XLA_FLAGS")), processor), nil
}

// stamp tells versions of a file apart.
func stamp(file os.FileInfo) string {
	return fmt.Sprintf("%d\n%d", file.Size(), file.ModTime().UnixNano())
}

// flags are XLA's settings by the value of XLA_FLAGS, which may be the name of a file of them.
func flags(value string) string {
	if name := strings.TrimSpace(value); name != "" && !strings.HasPrefix(name, "-") {
		if content, err := os.ReadFile(name); err == nil {
			return string(content)
		}
	}
	return value
}

// loaderCache is written when libraries of the system come or go.
const loaderCache = "/etc/ld.so.cache"

// librariesOf describes NVIDIA's libraries where the plugin at path finds them (cuDNN, cuBLAS and
// what they need), and its assembler: a line each. XLA asks them for plans and kernels, and keeps
// those in what it compiled. It loads them as late as it can, so they are not asked for their
// versions; those that are there and not used do no harm but to compile once more.
func librariesOf(path string) string {
	near := filepath.Dir(path)
	folders := filepath.SplitList(os.Getenv("LD_LIBRARY_PATH"))
	for _, wheels := range []string{"../../nvidia", "../nvidia"} { // the plugin's own search path
		for _, part := range []string{"lib", "bin"} {
			some, _ := filepath.Glob(filepath.Join(escapeGlob(filepath.Join(near, wheels)), "*", part)) // no error: the pattern is right
			folders = append(folders, some...)
		}
	}
	found := []string{"NVIDIA_TF32_OVERRIDE=" + os.Getenv("NVIDIA_TF32_OVERRIDE")}
	add := func(path string) {
		if file, err := os.Stat(path); err == nil {
			found = append(found, path+" "+stamp(file))
		}
	}
	add(loaderCache)
	for _, folder := range folders {
		for _, pattern := range []string{"libcu*.so*", "libnv*.so*", "ptxas"} {
			list, _ := filepath.Glob(filepath.Join(escapeGlob(folder), pattern)) // sorted
			for _, path := range list {
				add(path)
			}
		}
	}
	return strings.Join(found, "\n")
}

// escapeGlob makes filepath.Glob take path literally.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
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
