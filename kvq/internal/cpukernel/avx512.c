//go:build linux && cgo

#include "shared.h"

#if defined(__x86_64__)
#include "vectors_avx512.h"

#define CODES kvq_codes_avx512
#define EXACT kvq_exact_avx512
#define JOIN kvq_join_avx512
#define ENCODE kvq_encode_avx512

#include "codes.h"
#include "piece.h"
#include "encodepiece.h"
#endif
