package main

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/google/licensecheck"
	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/cli"
)

// Bytes that a module may have. Go's own limits are hundreds of times more.
const (
	mostOfFile = 1 << 20
	mostOfZip  = 16 << 20
	listed     = 8 // the largest files that are named
)

var release = regexp.MustCompile(`(?m)^## (?:\[?(v?\d+\.\d+\.\d+)\]?(?: .*)?|Unreleased)$`)

// changelog compares the newest version of CHANGELOG.md with the constant.
func changelog(root string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, "CHANGELOG.md"))
	if err != nil {
		return "", err
	}
	for _, m := range release.FindAllStringSubmatch(string(text), -1) {
		if m[1] == "" { // Unreleased
			continue
		}
		if m[1] != cli.Release {
			return "", fmt.Errorf("the newest section is %s, the constant cli.Release is %s", m[1], cli.Release)
		}
		return m[1], nil
	}
	return "", errors.New("no section of a version")
}

// modFile looks for what only the main module of a build may have.
func modFile(root string) (string, error) {
	data, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return "", err
	}
	f, err := modfile.Parse("go.mod", data, nil)
	if err != nil {
		return "", err
	}
	switch {
	case f.Module.Mod.Path != asset.Module:
		return "", fmt.Errorf("module %s, want %s", f.Module.Mod.Path, asset.Module)
	case len(f.Replace) > 0:
		return "", fmt.Errorf("replace %s: who imports the module does not get it", f.Replace[0].Old.Path)
	case len(f.Exclude) > 0:
		return "", fmt.Errorf("exclude %s: who imports the module does not get it", f.Exclude[0].Mod.Path)
	}
	direct := 0
	for _, r := range f.Require {
		if !r.Indirect {
			direct++
		}
	}
	return fmt.Sprintf("go %s, %d modules required directly, no replace", f.Go.Version, direct), nil
}

// makeZip writes the zip of the commit HEAD as a module proxy does, and lists its largest files.
func makeZip(root string, m module.Version, path string) (string, error) {
	out, err := os.Create(path)
	if err != nil {
		return "", err
	}
	err = modzip.CreateFromVCS(out, m, root, "HEAD", "")
	if err = errors.Join(err, out.Close()); err != nil {
		return "", err
	}
	checked, err := modzip.CheckZip(m, path)
	if err = errors.Join(err, checked.Err()); err != nil {
		return "", err
	}
	r, err := zip.OpenReader(path)
	if err != nil {
		return "", err
	}
	defer r.Close()
	files := slices.SortedFunc(slices.Values(r.File), func(a, b *zip.File) int { return int(b.UncompressedSize64) - int(a.UncompressedSize64) })
	var total uint64
	var large, list []string
	for i, f := range files {
		name := strings.TrimPrefix(f.Name, m.Path+"@"+m.Version+"/")
		total += f.UncompressedSize64
		if f.UncompressedSize64 > mostOfFile {
			large = append(large, name)
		}
		if i < listed {
			list = append(list, fmt.Sprintf("\n            %9s  %s", humanize.IBytes(f.UncompressedSize64), name))
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	found := fmt.Sprintf("%d files, %s, zipped %s; the largest:%s",
		len(files), humanize.IBytes(total), humanize.IBytes(uint64(info.Size())), strings.Join(list, ""))
	switch {
	case len(large) > 0:
		return "", fmt.Errorf("files of more than %s: %s", humanize.IBytes(mostOfFile), strings.Join(large, ", "))
	case info.Size() > mostOfZip:
		return "", fmt.Errorf("more than %s: %s", humanize.IBytes(mostOfZip), found)
	}
	return found, nil
}

// enough is the share of a text that has to be a licence for pkg.go.dev to take it for one, in
// percent.
const enough = 75

// licence recognizes the licence of the zip as pkg.go.dev does, which shows no documentation
// without one.
func licence(path string, m module.Version) (string, error) {
	r, err := zip.OpenReader(path)
	if err != nil {
		return "", err
	}
	defer r.Close()
	f, err := r.Open(m.Path + "@" + m.Version + "/LICENSE")
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return "", err
	}
	c := licensecheck.Scan(text)
	if c.Percent < enough || len(c.Match) != 1 || c.Match[0].ID != "Apache-2.0" {
		return "", fmt.Errorf("LICENSE: %.0f %% of it is %v, want %d %% of Apache-2.0", c.Percent, c.Match, enough)
	}
	return fmt.Sprintf("LICENSE is %s, %.0f %% of it", c.Match[0].ID, c.Percent), nil
}

// removeAll removes a folder with Go's module cache in it, whose folders cannot be written to.
func removeAll(dir string) error {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return err
	})
	return errors.Join(err, os.RemoveAll(dir))
}
