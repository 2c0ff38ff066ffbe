package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// kinds are licences by phrases of their texts, all of which have to be there. A text is of the
// first kind that fits.
var kinds = []struct {
	name    string // of SPDX
	phrases []string
}{
	{"Apache-2.0", []string{"Apache License", "Version 2.0, January 2004", "Grant of Patent License"}},
	{"MPL-2.0", []string{"Mozilla Public License Version 2.0"}},
	{"OFL-1.1", []string{"SIL OPEN FONT LICENSE Version 1.1"}},
	{"GPL", []string{"GNU GENERAL PUBLIC LICENSE"}},
	{"LGPL", []string{"GNU LESSER GENERAL PUBLIC LICENSE"}},
	{"AGPL", []string{"GNU AFFERO GENERAL PUBLIC LICENSE"}},
	{"ISC", []string{"Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted"}},
	{"MIT", []string{"Permission is hereby granted, free of charge, to any person obtaining a copy", "The above copyright notice and this permission notice shall be included"}},
	{"MIT-0", []string{"MIT No Attribution", "Permission is hereby granted, free of charge, to any person obtaining a copy"}},
	{"BSD-3-Clause", []string{"Redistribution and use in source and binary forms", "Redistributions in binary form", "endorse or promote products"}},
	{"BSD-2-Clause", []string{"Redistribution and use in source and binary forms", "Redistributions in binary form"}},
	{"FTL", []string{"The FreeType Project LICENSE"}},
	{"CC-BY-4.0", []string{"Creative Commons Attribution 4.0"}},
	{"CC-BY-3.0", []string{"Creative Commons Attribution 3.0"}},
}

// Licences that ask nothing of who links a program but to name them. Anything else is looked at
// before it is taken.
var welcome = []string{"Apache-2.0", "MIT", "MIT-0", "BSD-3-Clause", "BSD-2-Clause", "ISC", "OFL-1.1", "FTL"}

// looked are modules with a licence file that is of no kind above by itself, and what it says.
var looked = map[string]string{
	// A choice of the FreeType licence or the GPL 2: the former is taken.
	"github.com/golang/freetype": "FTL",
	// LICENSE is a link, LICENSE-link.txt where it leads to.
	"github.com/ajstarks/svgo": "CC-BY-4.0",
}

// kindOf names the licence of a text, "" for none that is known.
func kindOf(text string) string {
	text = strings.Join(strings.Fields(strings.NewReplacer("*", " ", "#", " ", "//", " ").Replace(text)), " ")
	for _, k := range kinds {
		if !slices.ContainsFunc(k.phrases, func(p string) bool { return !strings.Contains(strings.ToLower(text), strings.ToLower(p)) }) {
			return k.name
		}
	}
	return ""
}

// licences are those of a folder's licence files, sorted.
func licences(module, dir string) ([]string, error) {
	if known := looked[module]; known != "" {
		return []string{known}, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		name := strings.ToUpper(e.Name())
		if e.IsDir() || !strings.HasPrefix(name, "LICEN") && !strings.HasPrefix(name, "COPYING") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		kind := kindOf(string(text))
		if kind == "" {
			return nil, fmt.Errorf("%s: %s is a licence of no known kind: look at it, and add it to internal/cmd/notice/licence.go", module, e.Name())
		}
		if !slices.Contains(found, kind) {
			found = append(found, kind)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s: no licence file in %s", module, dir)
	}
	slices.Sort(found)
	return found, nil
}
