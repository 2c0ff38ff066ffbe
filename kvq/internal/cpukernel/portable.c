//go:build linux && cgo

#include "shared.h"

#include "vectors_portable.h"

#define CODES kvq_codes_portable
#define EXACT kvq_exact_portable
#define ROTATE kvq_rotate_portable

#include "codes.h"
#include "piece.h"
