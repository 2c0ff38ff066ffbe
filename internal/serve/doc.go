// Package serve answers requests over HTTP with one loaded model: the few endpoints that ordinary
// clients of OpenAI's API know, and nothing else.
//
//	GET  /v1/models
//	POST /v1/completions
//	POST /v1/chat/completions
//
// An engine owns the device: waiting requests become rows of one llama.Batch, go on from the
// longest common beginning of what a row holds, and are dropped when their client goes away.
package serve
