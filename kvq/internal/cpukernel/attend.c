//go:build linux && cgo

#include "shared.h"

typedef struct {
  void (*codes)(const kvq_attention *a, int64_t head, int first, int last, float *result);
  void (*exact)(const kvq_attention *a, int64_t head, float *result);
  void (*join)(const kvq_attention *a, const float *part, int64_t parts, int64_t apart, float *out);
} vectors;

static const vectors kinds[] = {
    {kvq_codes_portable, kvq_exact_portable, kvq_join_portable},
#if defined(__x86_64__)
    {kvq_codes_avx2, kvq_exact_avx2, kvq_join_avx2},
    {kvq_codes_avx512, kvq_exact_avx512, kvq_join_avx512},
#endif
};

// What the processor has, as an index of kinds.
static int has(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi"))
    return 2;
  return 1;
#else
  return 0;
#endif
}

static int chosen = -1;

int kvq_attend_vectors(int most) {
  const int there = has();
  chosen = most < there ? most : there;
  return chosen;
}

int kvq_vectors(void) {
  if (chosen < 0) kvq_attend_vectors(2);
  return chosen;
}

static const vectors *kind(void) { return &kinds[kvq_vectors()]; }

const char *kvq_attend_lacks(void) { return has() > 0 ? 0 : "a processor without AVX2"; }

// Pieces of codes of a row and head; with the exact tokens behind them it is all pieces.
static int64_t of_codes(const kvq_attention *a) { return (a->blocks + KVQ_PIECE_BLOCKS - 1) / KVQ_PIECE_BLOCKS; }

static int64_t used_blocks(const kvq_attention *a, int64_t row) {
  const int64_t used = ((int64_t)a->used[row] + BLOCK - 1) / BLOCK;
  return used < 0 ? 0 : used > a->blocks ? a->blocks : used;
}

// Floats of a piece's partial result.
static int64_t room(const kvq_attention *a) { return (int64_t)a->queries * (a->value.dim + 2); }

void kvq_attend_plan(const kvq_attention *a, int64_t *pieces, int64_t *scratch) {
  *pieces = (int64_t)a->rows * a->heads * (of_codes(a) + 1);
  *scratch = *pieces * room(a) * (int64_t)sizeof(float);
}

int64_t kvq_attend_work(const kvq_attention *a) {
  int64_t tokens = 0;
  for (int row = 0; row < a->rows; row++) tokens += used_blocks(a, row) * BLOCK + a->exact;
  return tokens * a->heads * (a->key.dim + a->value.dim);
}

void kvq_attend_piece(const kvq_attention *a, int64_t piece, void *scratch) {
  const int64_t each = of_codes(a) + 1, head = piece / each, part = piece % each;
  float *result = (float *)scratch + piece * room(a);
  if (part == each - 1) {
    kind()->exact(a, head, result);
    return;
  }
  const int64_t first = part * KVQ_PIECE_BLOCKS, blocks = used_blocks(a, head / a->heads);
  const int64_t last = first + KVQ_PIECE_BLOCKS < blocks ? first + KVQ_PIECE_BLOCKS : blocks;
  kind()->codes(a, head, (int)first, (int)(first < last ? last : first), result);
}

void kvq_attend_merge(const kvq_attention *a, void *scratch) {
  const int64_t each = of_codes(a) + 1, heads = (int64_t)a->rows * a->heads;
  for (int64_t head = 0; head < heads; head++)
    for (int q = 0; q < a->queries; q++) {
      const float *part = (const float *)scratch + head * each * room(a) + q * (room(a) / a->queries);
      kind()->join(a, part, each, room(a), a->out + (head * a->queries + q) * a->value.dim);
    }
}
