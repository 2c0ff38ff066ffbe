//go:build linux && cgo

#include "shared.h"

#if defined(__x86_64__)
#include "vectors_avx2.h"

#define CODES kvq_codes_avx2
#define EXACT kvq_exact_avx2
#define JOIN kvq_join_avx2
#define ENCODE kvq_encode_avx2

#include "codes.h"
#include "piece.h"
#include "encodepiece.h"
#endif
