package harm

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
)

// withVariable returns a line for each process whose environment has a variable ("NAME=value"), but
// this one.
func withVariable(variable string) (lines []string) {
	return processes(func(pid string) bool {
		env, err := os.ReadFile(filepath.Join("/proc", pid, "environ"))
		return err == nil && bytes.Contains(append([]byte{0}, env...), []byte("\x00"+variable+"\x00"))
	})
}

// withArguments returns a line for each process whose arguments have a text.
func withArguments(text string) (lines []string) {
	return processes(func(pid string) bool { return strings.Contains(arguments(pid), text) })
}

// processes returns a line for each process that is wanted, with its id and arguments. What ended
// and was not waited for has no environment and no arguments.
func processes(wanted func(pid string) bool) (lines []string) {
	folders, _ := filepath.Glob("/proc/[0-9]*")
	for _, folder := range folders {
		if pid := filepath.Base(folder); wanted(pid) {
			lines = append(lines, pid+" "+arguments(pid))
		}
	}
	return lines
}

func arguments(pid string) string {
	data, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
	return strings.TrimSpace(string(bytes.ReplaceAll(data, []byte{0}, []byte{' '})))
}
