// What the kinds of vectors share of coding.
#pragma once
#include "encode.h"

#define KVQ_MOST_LANES 16

// The memory of a piece: tokens and channels, either of which may come first. wide is the number of
// channels up to a multiple of the lanes; those behind the last one are 0.
typedef struct {
  int tokens, wide, group;
  float *x, *turned;           // [tokens, wide], [wide, tokens]
  float *votes, *votes_turned; // likewise: 1 has a vote, 0 is not finite, -1 is of a token that does not count
  float *codes, *codes_turned; // likewise
  float *errors;               // [wide, tokens]
  float *counts;               // [tokens]: 1 where a token counts
  float *weights;              // [tokens]: what its errors count where tokens have scales
  float *scale, *zero, *width; // [wide], or [groups, tokens]: as they decode
  float *units, *centred, *steps; // [group, lanes]
  int64_t floats;              // of all
} kvq_room;

static inline void kvq_room_of(const kvq_encoding *e, kvq_room *r, float *at) {
  r->tokens = kvq_encode_tokens(e);
  r->wide = (e->to.dim + KVQ_MOST_LANES - 1) / KVQ_MOST_LANES * KVQ_MOST_LANES;
  r->group = e->to.per_channel ? r->tokens : e->to.dim / e->to.groups;
  const int64_t square = (int64_t)r->tokens * r->wide, column = (int64_t)r->group * KVQ_MOST_LANES;
  const int64_t scales = e->to.per_channel ? r->wide : (int64_t)e->to.groups * r->tokens;
  float **arrays[] = {&r->x, &r->turned, &r->votes, &r->votes_turned, &r->codes, &r->codes_turned, &r->errors};
  r->floats = 0;
  for (int i = 0; i < 7; i++, r->floats += square) *arrays[i] = at ? at + r->floats : 0;
  float **more[] = {&r->scale, &r->zero, &r->width};
  for (int i = 0; i < 3; i++, r->floats += scales) *more[i] = at ? at + r->floats : 0;
  float **columns[] = {&r->units, &r->centred, &r->steps};
  for (int i = 0; i < 3; i++, r->floats += column) *columns[i] = at ? at + r->floats : 0;
  float **tokens[] = {&r->counts, &r->weights};
  for (int i = 0; i < 2; i++, r->floats += r->tokens) *tokens[i] = at ? at + r->floats : 0;
}

// A piece, for each kind of vectors.
void kvq_encode_portable(const kvq_encoding *e, int64_t piece, void *scratch);
void kvq_encode_avx2(const kvq_encoding *e, int64_t piece, void *scratch);
void kvq_encode_avx512(const kvq_encoding *e, int64_t piece, void *scratch);
