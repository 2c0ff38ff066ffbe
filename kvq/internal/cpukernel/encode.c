//go:build linux && cgo

#include "encode.h"

#include "encodeshared.h"
#include "shared.h"

typedef void (*function)(const kvq_encoding *e, int64_t piece, void *scratch);

static const function kinds[] = {
    kvq_encode_portable,
#if defined(__x86_64__)
    kvq_encode_avx2,
    kvq_encode_avx512,
#endif
};

void kvq_encode_plan(const kvq_encoding *e, int64_t *pieces, int64_t *scratch) {
  const int tokens = kvq_encode_tokens(e);
  *pieces = (int64_t)e->rows * e->heads * (e->tokens / tokens);
  kvq_room room = {0};
  kvq_room_of(e, &room, 0);
  *scratch = room.floats * (int64_t)sizeof(float);
}

void kvq_encode_piece(const kvq_encoding *e, int64_t piece, void *scratch) { kinds[kvq_vectors()](e, piece, scratch); }
