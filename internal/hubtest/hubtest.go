// Package hubtest is a hub of models on loopback that behaves as huggingface.co does, and
// misbehaves on request. Only tests and package soak import it.
//
// Answers, headers and error codes follow the hub's own, as huggingface_hub reads them
// (https://github.com/huggingface/huggingface_hub/blob/v1.0.0/src/huggingface_hub/utils/_http.py
// and file_download.py): metadata of a gated model is public, its files are not; a model that is
// not there looks like a private one to who has no token; files in LFS are redirected to a storage
// at another address, whose ETags are its own.
package hubtest

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// Repo is a model on the hub.
type Repo struct {
	ID     string
	Commit string // 40 hexadecimal digits
	// branches and tags beside main, with their commits; every commit has the same files
	Refs    map[string]string
	Gated   bool // files want a token that may read it
	Private bool // nothing is to be seen without such a token
	License any  // as the model's card has it: a text, or a list of texts
	Files   []File
}

// File is one file of a model.
type File struct {
	Name string
	Data []byte
	LFS  bool // served by the storage
}

// Hash is what the hub calls the file: sha256 in LFS, git's sha1 else.
func (f File) Hash() string {
	if f.LFS {
		sum := sha256.Sum256(f.Data)
		return hex.EncodeToString(sum[:])
	}
	return f.BlobID()
}

// BlobID is git's sha1 of the content.
func (f File) BlobID() string {
	sum := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(f.Data)), f.Data...))
	return hex.EncodeToString(sum[:])
}

// Token is one that the hub knows.
type Token struct {
	Account string
	May     []string // gated and private models that it may read
}

// Fault answers a request in place of the server, or returns false to let it do its work.
type Fault func(w http.ResponseWriter, r *http.Request) bool

// Request is one that came.
type Request struct {
	Storage       bool // it came to the storage, not to the hub
	Method, Path  string
	Range         string
	Authorization string
}

// Server is the hub. Set its exported fields before the first request; change faults with
// SetFaults.
type Server struct {
	URL        string // of the hub
	StorageURL string
	Repos      []Repo
	Tokens     map[string]Token

	mu         sync.Mutex
	hub, store Fault
	log        []Request
	closing    chan struct{}
}

// New starts a hub and its storage, which end with the test.
func New(t testing.TB, tokens map[string]Token, repos ...Repo) *Server {
	s, stop := Start(tokens, repos...)
	t.Cleanup(stop)
	return s
}

// Start starts a hub and its storage, which end with stop.
func Start(tokens map[string]Token, repos ...Repo) (s *Server, stop func()) {
	s = &Server{Repos: repos, Tokens: tokens, closing: make(chan struct{})}
	hub := httptest.NewServer(http.HandlerFunc(s.serveHub))
	store := httptest.NewServer(http.HandlerFunc(s.serveStorage))
	s.URL, s.StorageURL = hub.URL, store.URL
	return s, func() {
		close(s.closing) // ends stalled answers
		hub.Close()
		store.Close()
	}
}

// SetFaults sets what goes wrong on the hub and on the storage; nil for nothing.
func (s *Server) SetFaults(hub, storage Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hub, s.store = hub, storage
}

// Requests returns what came so far, and forgets it.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.log
	s.log = nil
	return log
}

func (s *Server) note(r *http.Request, storage bool) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, Request{storage, r.Method, r.URL.Path, r.Header.Get("Range"), r.Header.Get("Authorization")})
	if storage {
		return s.store
	}
	return s.hub
}

func (s *Server) serveHub(w http.ResponseWriter, r *http.Request) {
	if fault := s.note(r, false); fault != nil && fault(w, r) {
		return
	}
	secret := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	token, known := s.Tokens[secret]
	if secret != "" && !known {
		deny(w, http.StatusUnauthorized, "", "Invalid credentials in Authorization header")
		return
	}
	path := r.URL.EscapedPath()
	switch {
	case path == "/api/whoami-v2" && secret == "":
		deny(w, http.StatusUnauthorized, "", "Invalid username or password.")
	case path == "/api/whoami-v2":
		answer(w, map[string]any{"type": "user", "name": token.Account, "orgs": []any{}, "auth": map[string]any{"type": "access_token"}})
	case strings.HasPrefix(path, "/api/models/") && strings.Contains(path, "/tree/"):
		id, revision, _ := strings.Cut(strings.TrimPrefix(path, "/api/models/"), "/tree/")
		if repo := s.visible(w, id, token, secret != ""); repo != nil && repo.commit(w, revision) != "" {
			answer(w, repo.tree())
		}
	case strings.HasPrefix(path, "/api/models/"):
		id, revision, found := strings.Cut(strings.TrimPrefix(path, "/api/models/"), "/revision/")
		if repo := s.visible(w, id, token, secret != ""); repo != nil {
			if !found {
				revision = "main"
			}
			s.serveInfo(w, *repo, revision, r.URL.Query().Get("blobs") != "")
		}
	default:
		id, rest, found := strings.Cut(strings.TrimPrefix(path, "/"), "/resolve/")
		if !found {
			deny(w, http.StatusNotFound, "", "Sorry, we can't find the page you are looking for.")
			return
		}
		if repo := s.visible(w, id, token, secret != ""); repo != nil {
			revision, file, _ := strings.Cut(rest, "/")
			s.serveFile(w, r, *repo, revision, file, token, secret != "")
		}
	}
}

// visible returns a model, or answers as if it were not there.
func (s *Server) visible(w http.ResponseWriter, id string, token Token, loggedIn bool) *Repo {
	for i, repo := range s.Repos {
		if repo.ID == id && (!repo.Private || token.may(id)) {
			return &s.Repos[i]
		}
	}
	if loggedIn {
		deny(w, http.StatusNotFound, "RepoNotFound", "Repository not found")
	} else {
		deny(w, http.StatusUnauthorized, "RepoNotFound", "Invalid username or password.")
	}
	return nil
}

func (t Token) may(id string) bool {
	for _, m := range t.May {
		if m == id {
			return true
		}
	}
	return false
}

// commit is what a revision is, "" after it answered that there is none.
func (repo Repo) commit(w http.ResponseWriter, revision string) string {
	revision = strings.ReplaceAll(revision, "%2F", "/")
	if commit, found := repo.Refs[revision]; found {
		return commit
	}
	for _, commit := range repo.Refs {
		if revision == commit {
			return commit
		}
	}
	if revision == "main" || revision == repo.Commit {
		return repo.Commit
	}
	deny(w, http.StatusNotFound, "RevisionNotFound", "Invalid rev id: "+revision)
	return ""
}

// tree is the other list of files, which Python asks for.
func (repo Repo) tree() []map[string]any {
	var list []map[string]any
	for _, f := range repo.Files {
		entry := map[string]any{"type": "file", "path": f.Name, "size": len(f.Data), "oid": f.BlobID()}
		if f.LFS {
			entry["lfs"] = map[string]any{"oid": f.Hash(), "size": len(f.Data), "pointerSize": 134}
		}
		list = append(list, entry)
	}
	return list
}

func (s *Server) serveInfo(w http.ResponseWriter, repo Repo, revision string, blobs bool) {
	commit := repo.commit(w, revision)
	if commit == "" {
		return
	}
	var siblings []map[string]any
	for _, f := range repo.Files {
		sibling := map[string]any{"rfilename": f.Name}
		if blobs {
			sibling["size"], sibling["blobId"] = len(f.Data), f.BlobID()
			if f.LFS {
				sibling["blobId"] = strings.Repeat("0", 40) // of the pointer, not of the file
				sibling["lfs"] = map[string]any{"sha256": f.Hash(), "size": len(f.Data), "pointerSize": 134}
			}
		}
		siblings = append(siblings, sibling)
	}
	gated := any(false)
	if repo.Gated {
		gated = "manual"
	}
	answer(w, map[string]any{"_id": "0", "id": repo.ID, "modelId": repo.ID, "sha": commit, "private": repo.Private, "gated": gated,
		"siblings": siblings, "tags": []string{}, "cardData": map[string]any{"license": repo.License}})
}

func (s *Server) serveFile(w http.ResponseWriter, r *http.Request, repo Repo, revision, name string, token Token, loggedIn bool) {
	commit := repo.commit(w, revision)
	if commit == "" {
		return
	}
	w.Header().Set("X-Repo-Commit", commit)
	if repo.Gated && !token.may(repo.ID) {
		if loggedIn {
			deny(w, http.StatusForbidden, "GatedRepo", "Access to model "+repo.ID+" is restricted and you are not in the authorized list. Visit https://huggingface.co/"+repo.ID+" to ask for access.")
		} else {
			deny(w, http.StatusUnauthorized, "GatedRepo", "Access to model "+repo.ID+" is restricted. You must have access to it and be authenticated to access it. Please log in.")
		}
		return
	}
	for _, f := range repo.Files {
		if f.Name != name {
			continue
		}
		if !f.LFS {
			w.Header().Set("ETag", `"`+f.Hash()+`"`)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.Data))
			return
		}
		w.Header().Set("X-Linked-Etag", `"`+f.Hash()+`"`)
		w.Header().Set("X-Linked-Size", fmt.Sprint(len(f.Data)))
		http.Redirect(w, r, s.StorageURL+"/repos/"+f.Hash()+"?signature=secret-of-the-storage", http.StatusFound)
		return
	}
	deny(w, http.StatusNotFound, "EntryNotFound", "Entry not found")
}

func (s *Server) serveStorage(w http.ResponseWriter, r *http.Request) {
	if fault := s.note(r, true); fault != nil && fault(w, r) {
		return
	}
	if r.URL.Query().Get("signature") == "" {
		http.Error(w, "<Error><Code>AccessDenied</Code></Error>", http.StatusForbidden)
		return
	}
	hash := strings.TrimPrefix(r.URL.Path, "/repos/")
	for _, repo := range s.Repos {
		for _, f := range repo.Files {
			if f.LFS && f.Hash() == hash {
				w.Header().Set("ETag", `"`+hash[:32]+`-2"`) // as of an upload in two parts
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.Data))
				return
			}
		}
	}
	http.NotFound(w, r)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(v)
}

func deny(w http.ResponseWriter, status int, code, message string) {
	if code != "" {
		w.Header().Set("X-Error-Code", code)
	}
	w.Header().Set("X-Error-Message", message)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": message})
}
