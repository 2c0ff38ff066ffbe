// Package tokenizer turns text into token ids and back, for models of the Llama family: byte-level
// BPE (GPT-2, SmolLM2, Llama-3) and SentencePiece's BPE with byte fallback (Llama-2, Mistral,
// TinyLlama), read from tokenizer.json, tokenizer.model or a GGUF file's metadata. It also pads
// batches, streams text token by token and renders chat templates.
//
// Text goes through the stages of Hugging Face's tokenizers, in its order:
//
//	text ─► added tokens cut out ─► normalizer ─► pre-tokenizer ─► BPE ─► template (<s> …) ─► ids
//	ids  ─► pieces ─► decoder ─► text
//
// A file that asks for a stage this package does not have is refused by name; nothing is
// approximated. The results are compared with Hugging Face's tokenizers and with SentencePiece by
// scripts/compare-tokenizers.
//
// Errors that bad input caused are one line each, and [ErrInput]; a Tokenizer, once made, is safe
// for concurrent use.
package tokenizer
