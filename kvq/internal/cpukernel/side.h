// What a call's first input says of keys or values, by side (call.go), and their arrays.
#pragma once
#include "attend.h"
#include "ffi.h"

typedef struct {
  int32_t bits, planes, width[2], word_bits, parts, rows, words_of_part;
  int32_t group, per_channel, groups, scale_type, rotate, dim, zeros, tokens;
} kvq_side;

// kvq_side_of takes the arrays of keys or values off a list.
static inline kvq_codes kvq_side_of(const kvq_side *s, ffi_buffer ***list) {
  kvq_codes c = {
      .bits = s->bits, .planes = s->planes, .width = {s->width[0], s->width[1]},
      .word_bits = s->word_bits, .parts = s->parts, .rows = s->rows, .words_of_part = s->words_of_part,
      .group = s->group, .per_channel = s->per_channel, .groups = s->groups,
      .scale_type = s->scale_type, .rotate = s->rotate, .dim = s->dim,
  };
  c.codes = (*(*list)++)->data;
  c.scales = (*(*list)++)->data;
  if (s->zeros) c.zeros = (*(*list)++)->data;
  if (s->tokens) c.tokens = (*(*list)++)->data;
  return c;
}
