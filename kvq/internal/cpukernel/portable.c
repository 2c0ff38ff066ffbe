//go:build linux && cgo

#include "shared.h"

// For tests, and for the day when another processor is worth its own vectors: quick to compile.
#pragma GCC optimize("O1")

#include "vectors_portable.h"

#define CODES kvq_codes_portable
#define EXACT kvq_exact_portable
#define JOIN kvq_join_portable
#define ENCODE kvq_encode_portable

#include "codes.h"
#include "piece.h"
#include "encodepiece.h"
