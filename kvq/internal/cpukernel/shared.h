// What the kinds of vectors share.
#pragma once
#include <math.h>
#include <string.h>

#include "attend.h"

#define BLOCK 32             // tokens
#define UNSEEN (-1e38f)      // the score of what a query does not see
#define KVQ_MOST_DIM 512     // channels of a head
#define KVQ_MOST_GROUPS 64    // of a token and head
#define KVQ_PIECE_BLOCKS 16  // of a piece

// For each kind of vectors: attention over blocks of codes, and over exact tokens, of a row and
// key/value head counted over rows: a partial result for each query, {max, sum, out [dim of values]},
// so many floats apart. And what joins the parts of a query, which are each so many floats apart, to out
// [dim of values]; the last part is that of exact tokens.
#define KVQ_VECTORS(kind)                                                                                     \
  void kvq_codes_##kind(const kvq_attention *a, int64_t head, int first, int last, float *result);            \
  void kvq_exact_##kind(const kvq_attention *a, int64_t head, float *result);                                 \
  void kvq_join_##kind(const kvq_attention *a, const float *part, int64_t parts, int64_t apart, float *out);
KVQ_VECTORS(portable)
KVQ_VECTORS(avx2)
KVQ_VECTORS(avx512)

// The kind that is used: kvq_attend_vectors.
int kvq_vectors(void);

// 1/sqrt(n) for a power of two.
static inline float kvq_root(int n) {
  float root = 1;
  for (; n >= 4; n /= 4) root /= 2;
  return n == 2 ? root * 0.70710678118654752f : root;
}

// Tells whether a query sees one of n tokens.
static inline int kvq_seen(const int32_t *index, int n, int32_t low, int32_t high) {
  int any = 0;
  for (int i = 0; i < n; i++) any |= (index[i] > low) & (index[i] <= high);
  return any;
}

// The partial result of no token.
static inline void kvq_nothing(float *result, int dim) {
  result[0] = UNSEEN;
  memset(result + 1, 0, (dim + 1) * sizeof *result);
}
