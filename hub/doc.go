// Package hub fetches models from the Hugging Face hub into the cache folder that Hugging Face's own tools use, and keeps
// the token that gated models want.
//
//	folder, err := hub.Fetch(ctx, "meta-llama/Llama-2-7b-chat-hf", hub.Options{})
//	files, err := llama.Open(folder)
//
// A download that was cut off goes on where it stopped, also in a later process; every file is checked by the hash that
// the hub names before it counts as there. Whatever goes wrong is one line that says what to do about it, and errors.Is
// tells the kinds apart ([ErrGated], [ErrToken], [ErrNoModel], …).
//
// # The token
//
// It is read from $HF_TOKEN, else $HUGGING_FACE_HUB_TOKEN, else the file that Hugging Face's login writes ([Login] writes
// the same one). It goes to the hub alone, never to the hosts that the hub redirects to, and is in no error, no log line
// and no value that this package returns.
//
// # Environment
//
// As the Python tools have it: HF_ENDPOINT, HF_HUB_CACHE, HF_HOME, HF_TOKEN, HF_TOKEN_PATH, HF_HUB_OFFLINE,
// HF_HUB_DOWNLOAD_TIMEOUT (seconds without a byte until a connection counts as stalled), XDG_CACHE_HOME, HTTPS_PROXY.
//
// # Why not go-huggingface's downloader
//
// Of github.com/gomlx/go-huggingface/hub v0.4.11 this package uses the types of the hub's answers and the names of its
// headers. Its downloads could not be wrapped into what is needed here (library_test.go shows each but the last):
//   - a connection that breaks counts as success, and leaves a link to a file that does not exist: Download wraps the
//     wrong error, https://github.com/gomlx/go-huggingface/blob/v0.4.11/internal/downloader/downloader.go
//   - a partial file is deleted instead of resumed, and no hash is checked
//   - blobs get the storage's ETag for a name in place of the hub's, and no refs are written, so that Python does not find
//     the files offline: https://github.com/gomlx/go-huggingface/blob/v0.4.11/hub/files.go
//   - to know the commit it asks the hub every time, so that nothing works offline; and that request cannot be cancelled
//     https://github.com/gomlx/go-huggingface/blob/v0.4.11/hub/info.go
//   - a field of the answer that is of another kind than it expects, such as two licences, makes a model unreachable
//   - redirects are left to net/http, which sends the token on to subdomains of the hub and to other ports
//   - a connection that falls silent is waited for without end
package hub
