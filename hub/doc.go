// Package hub fetches models from the Hugging Face hub into the cache folder that Hugging Face's
// own tools use, and keeps the token that gated models want.
//
//	folder, err := hub.Fetch(ctx, "meta-llama/Llama-2-7b-chat-hf", hub.Options{})
//	files, err := llama.Open(folder)
//
// A download that was cut off goes on where it stopped, also in a later process; every file is
// checked by the hash that the hub names before it counts as there. Whatever goes wrong is one line
// that says what to do about it, and errors.Is tells the kinds apart ([ErrGated], [ErrToken],
// [ErrNoModel], …).
//
// # The token
//
// It is read from $HF_TOKEN, else $HUGGING_FACE_HUB_TOKEN, else the file that Hugging Face's login
// writes ([Login] writes the same one). It goes to the hub alone, never to the hosts that the hub
// redirects to, and is in no error, no log line and no value that this package returns.
//
// # Environment
//
// As the Python tools have it: HF_ENDPOINT, HF_HUB_CACHE, HF_HOME, HF_TOKEN, HF_TOKEN_PATH,
// HF_HUB_OFFLINE, HF_HUB_DOWNLOAD_TIMEOUT (seconds without a byte until a connection counts as
// stalled), XDG_CACHE_HOME, HTTPS_PROXY.
package hub
