// Keys or values as codes: what Format.EncodeFed of package codes makes by graph operations, of a
// prompt or a flush, in unbiased ranges (package numbers: unbiased.go, tokenscale.go, feedback.go).
#pragma once
#include "attend.h"

typedef struct {
  int32_t rows, heads, tokens; // B, K, T: tokens of a row that are coded, whole pieces
  int32_t all;                 // tokens of a row in x
  int32_t keys;                // else values
  int32_t cuts;                // parts of a range that may be cut off at either end
  float first, step;           // the parts: first, first + step, ...
  const float *x;              // [B, K, all, D]
  const int32_t *from;         // [B]: the first token that is coded; behind the end of a row its last token repeats
  const uint8_t *valid;        // [B, T], 1: the token counts; NULL: all do
  const float *factor;         // [B, K, D, D]: row d has the weights for channel d of those behind it; NULL: no feedback
  kvq_codes to;                // how the codes lie, and the arrays that they are written to
} kvq_encoding;

// The tokens of a piece share the scales of channels, and are a block at least.
static inline int kvq_encode_tokens(const kvq_encoding *e) { return e->to.per_channel ? e->to.group : 32; }

// A call is cut into pieces, each of which writes its own part of the arrays: results do not depend
// on who does what. kvq_encode_plan says how many pieces there are, and how many bytes of memory a
// thread needs for itself.
void kvq_encode_plan(const kvq_encoding *e, int64_t *pieces, int64_t *scratch);
// scratch begins at a multiple of 64 bytes.
void kvq_encode_piece(const kvq_encoding *e, int64_t piece, void *scratch);
