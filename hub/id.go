package hub

import (
	"path"
	"regexp"
	"strings"
	"unicode"
)

// ID is the name of a model on the hub, or of one file of a model.
type ID struct {
	Repo     string // "org/name", or "name" for the oldest models
	Revision string // a branch, a tag or a commit; "" if the text named none
	File     string // path in the repository; "" for the whole model
}

// Parts of names, as the hub allows them:
// https://huggingface.co/docs/huggingface_hub/package_reference/utilities (validate_repo_id).
var (
	repoName     = regexp.MustCompile(`^\w[\w.-]{0,95}$`)
	revisionName = regexp.MustCompile(`^[\w][\w./+-]{0,254}$`)
	commitName   = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

// ParseID reads "org/name", "org/name@revision", "org/name/path/of/a.file" and
// "org/name/path/of/a.file@revision". The error is ErrID.
func ParseID(text string) (ID, error) {
	name, revision, pinned := strings.Cut(text, "@")
	if pinned && !validRevision(revision) {
		return ID{}, fail(ErrID, nil, "model %.200q: %.200q is no revision; want a branch, a tag or a commit", text, revision)
	}
	id := ID{Revision: revision}
	parts := strings.SplitN(name, "/", 3)
	if len(parts) == 3 {
		if id.File = parts[2]; !validFile(id.File) {
			return ID{}, fail(ErrID, nil, "model %.200q: %.200q cannot be a file of a model; want a path below it, of names up to %d bytes without control characters", text, id.File, maxName)
		}
		parts = parts[:2]
	}
	for _, part := range parts {
		if !repoName.MatchString(part) || strings.Contains(part, "--") || strings.Contains(part, "..") ||
			strings.HasSuffix(part, ".") || strings.HasSuffix(part, "-") || strings.HasSuffix(part, ".git") {
			return ID{}, fail(ErrID, nil, "model %.200q: not a name of the hub; want one such as meta-llama/Llama-2-7b-chat-hf, with @revision to pin it", text)
		}
	}
	id.Repo = strings.Join(parts, "/")
	return id, nil
}

// String is what ParseID reads.
func (id ID) String() string {
	s := id.Repo
	if id.File != "" {
		s += "/" + id.File
	}
	if id.Revision != "" {
		s += "@" + id.Revision
	}
	return s
}

// Lengths that file systems take.
const (
	maxName = 255  // bytes of a file's or folder's name
	maxPath = 1024 // of a path below a model's folder
)

// validRevision keeps names out that would leave the cache's refs folder, or that it cannot hold.
func validRevision(s string) bool {
	return revisionName.MatchString(s) && path.Clean(s) == s && !strings.HasPrefix(s, "../") && s != ".." && fits(s+incomplete)
}

// validFile keeps names out that would leave the model's folder, or that it cannot hold.
func validFile(s string) bool {
	return s != "" && s != "." && path.Clean(s) == s && !path.IsAbs(s) && s != ".." && !strings.HasPrefix(s, "../") &&
		!strings.Contains(s, "\\") && !strings.ContainsFunc(s, unicode.IsControl) && fits(s)
}

// fits says that a file system takes a path.
func fits(s string) bool {
	for name := range strings.SplitSeq(s, "/") {
		if len(name) > maxName {
			return false
		}
	}
	return len(s) <= maxPath
}
