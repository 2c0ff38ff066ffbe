package nb

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
)

// Save keeps v under a name for later cells: values do not outlive the cell that made them. What
// was saved before under the name is replaced. It lies in the kernel's own temporary folder, so a
// new kernel begins with nothing.
//
// settings are what v was made from, a struct; nil where nothing can be changed. [Load] compares.
func Save(name string, settings, v any) { Check(save(name, settings, v)) }

// Load returns what an earlier cell saved. Where that was made with other settings than those given
// now, it is out of date: the cell then ends with one line that says in which.
func Load[T any](name string, settings any) T {
	var v T
	stale, err := load(name, settings, &v)
	Check(err)
	if stale != "" {
		fmt.Println(stale)
		os.Exit(0)
	}
	return v
}

// saved is what lies in a file.
type saved struct {
	Settings json.RawMessage
	Value    json.RawMessage
}

func save(name string, settings, v any) error {
	path, err := storePath(name)
	if err != nil {
		return err
	}
	var s saved
	if s.Settings, err = json.Marshal(settings); err == nil {
		s.Value, err = json.Marshal(v)
	}
	if err != nil {
		return fmt.Errorf("nb.Save: %q: %w", name, err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("nb.Save: %q: %w", name, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// load fills v, or says that it was made with other settings.
func load(name string, settings, v any) (stale string, err error) {
	path, err := storePath(name)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("nothing was saved as %q yet: run the cells above first", name)
	}
	if err != nil {
		return "", err
	}
	var s saved
	if err = json.Unmarshal(text, &s); err == nil {
		err = json.Unmarshal(s.Value, v)
	}
	if err != nil {
		return "", fmt.Errorf("nb.Load: %q: %w", name, err)
	}
	now, err := json.Marshal(settings)
	if err != nil {
		return "", fmt.Errorf("nb.Load: %q: %w", name, err)
	}
	if what := differing(s.Settings, settings, now); what != "" {
		return fmt.Sprintf("out of date: %q was made with %s. Run the cell that makes it again.", name, what), nil
	}
	return "", nil
}

// differing names the first field in which settings differ from those of then, as JSON: "" for
// none.
func differing(then json.RawMessage, settings any, now json.RawMessage) string {
	if bytes.Equal(then, now) {
		return ""
	}
	var a, b map[string]json.RawMessage
	if t := reflect.TypeOf(settings); t != nil && t.Kind() == reflect.Struct && json.Unmarshal(then, &a) == nil && json.Unmarshal(now, &b) == nil {
		for i := range t.NumField() {
			key := t.Field(i).Name
			if was, is := a[key], b[key]; was != nil && !bytes.Equal(was, is) {
				return fmt.Sprintf("%s %s, and now it is %s", key, was, is)
			}
		}
	}
	return fmt.Sprintf("%s, and now it is %s", then, now)
}

func storePath(name string) (string, error) {
	if name == "" || name != filepath.Base(name) {
		return "", fmt.Errorf("nb: want a plain name for what is saved, got %q", name)
	}
	dir := os.Getenv("GONB_TMP_DIR")
	if dir == "" {
		return "", errors.New("nb: GONB_TMP_DIR is not set: results are kept between the cells of a notebook only")
	}
	return filepath.Join(dir, "saved", name+".json"), nil
}
