// The interface between helpers "ckernel" (writes the arithmetic) and "host" (writes the call).
// Folder: kvq/internal/cpukernel. Both copy this text into kvq/internal/cpukernel/attend.h; changes
// only after telling the other (append a line to /work/wt/notes/cpukernel-talk.md and look there).
#pragma once
#include <stdint.h>

// Keys or values of a layer as codes. How they lie: kvq/internal/codes (layout.go, words.go,
// widths.go, blocks.go).
typedef struct {
  int32_t bits;          // of a code
  int32_t planes;        // 1 or 2
  int32_t width[2];      // bits of each plane, low bits first
  int32_t word_bits;     // 32, 16 or 8
  int32_t parts, rows;   // of a head; rows of a part, with padding
  int32_t words_of_part; // in all planes
  int32_t group;         // values that share a scale
  int32_t per_channel;   // a group is one channel of `group` tokens, else `group` channels of a token
  int32_t groups;        // scales of a token and head; 1 where per_channel
  int32_t scale_type;    // 0 float32, 1 float16, 2 bfloat16, 3 a byte (numbers.Scale8)
  int32_t rotate;        // keys or values are rotated (numbers.Rotate)
  int32_t dim;           // channels of a head
  const void *codes, *scales;
  const void *zeros;     // NULL: none, then code 1 << (bits-1) stands for 0
  const uint8_t *tokens; // NULL: none; scales of tokens, bytes
} kvq_codes;

typedef struct {
  int32_t rows, heads, queries; // B, K, Q
  int32_t blocks;               // N, of 32 slots
  int32_t exact;                // E, slots of sinks and window
  int32_t sliding_window;       // 0: no limit
  int32_t query_type, cache_type; // 0 float32, 1 float16, 2 bfloat16
  float scale, soft_cap;        // soft_cap 0: none
  const void *query;            // [B, K, Q, D], neither scaled nor rotated
  const int32_t *position;      // [B]: index of the token under way
  const int32_t *used;          // [B]: code slots in use; slots from there on are not read
  const int32_t *code_index;    // [B, 32 N]: token in each slot, -1: none
  const int32_t *exact_index;   // [B, E]
  const void *exact_keys, *exact_values; // [B, K, E, D], [B, K, E, dim of values], of cache_type
  const float *slopes;          // [K, Q], NULL: none
  kvq_codes key, value;
  float *out;                   // [B, K, Q, dim of values]: the finished attention
} kvq_attention;

// A call is cut into pieces that threads share. The cut depends on the shape alone, neither on the
// number of threads nor on which thread does what, so results are the same bit for bit everywhere.
// What is not in use (used[]) makes pieces that return at once.
//
// kvq_attend_plan says how many pieces there are and how many bytes of scratch memory all of it
// needs. A call so small that waking a thread costs more than it saves is one piece (where
// that can be told from the shape; the host may also do all pieces itself: kvq_attend_work says about
// how many codes the call reads, from used[]).
void kvq_attend_plan(const kvq_attention *a, int64_t *pieces, int64_t *scratch);
int64_t kvq_attend_work(const kvq_attention *a);
// A piece writes a partial result (max, sum, out) to its place in scratch. Pieces may run at once.
void kvq_attend_piece(const kvq_attention *a, int64_t piece, void *scratch);
// Merges the pieces into out, after all of them.
void kvq_attend_merge(const kvq_attention *a, void *scratch);

// NULL where this processor and shape have what is needed, else a phrase for users.
const char *kvq_attend_lacks(void);
// The vectors that are used: 0 those of plain C, 1 AVX2, 2 AVX-512. Tests and benchmarks set fewer than there are; not
// while a call is under way. Returns what was set.
int kvq_attend_vectors(int most);
