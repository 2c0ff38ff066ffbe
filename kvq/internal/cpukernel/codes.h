// Sums over the rows of blocks of codes, for all lanes: what keys and values need alike. Included
// for each kind of vectors (vectors_*.h).
//
// The sums are exact sums of whole numbers. What multiplies the codes of a row (an element of a
// query, or the weight of a token) is a number x; it is rounded to 24 bits of the largest of all
// rows, t = round(x/unit), and t is three digits from -128 to 127:
//
//	t = 65536·d2 + 256·d1 + d0
//
// A byte of four lanes' codes times a byte of digits is what processors add fastest: four products in
// a lane of 32 bits by one instruction. So codes are taken apart into bytes, four of a lane at once,
// as they lie in their word: with a plane of w bits, byte k of (word >> w·s) & mask is row
//
//	4·S·i + s + S·k    of word i, for s from 0 to S-1, S = 8/w
//
// The bits of a second plane are put above them. Digits lie in the same order, for each word i and s
// four dwords: the d0 of these rows, their d1, their d2, and nothing.

#define DIGITS 3
// what the largest x becomes: its first digit has to stay below 128
#define LARGEST_DIGITS 8355000.0f

// What dots reads and writes.
typedef struct {
  const uint32_t *low, *high;  // words of the first block: of the plane of low bits, and the other
  int64_t stride;              // from a word to the next of its lane
  int64_t block;               // from a block to the next
  int blocks, words;           // words of the low plane in a block
  const int32_t *digits[MOST_QUERIES]; // of each query: 4·S dwords a word
  float unit[MOST_QUERIES];            // of each query
  float *out;                  // [queries][lanes] sums
  int64_t out_stride;          // from a query to the next
} dots_of;

OP void dots(const int w0, const int w1, const int queries, const dots_of *a) {
  const int S = 8 / w0, each = w1 ? w0 / w1 : 1; // words of the low plane by a word of the high one
  VI sum[MOST_QUERIES][MOST_VECTORS][DIGITS];
#pragma GCC unroll 4
  for (int q = 0; q < queries; q++)
#pragma GCC unroll 2
    for (int v = 0; v < MOST_VECTORS; v++)
#pragma GCC unroll 3
      for (int d = 0; d < DIGITS; d++) sum[q][v][d] = i_set(0);
  int64_t at = 0; // dwords of digits before
  for (int n = 0; n < a->blocks; n++) {
    const uint32_t *low = a->low + n * a->block, *high = a->high + n * a->block;
    for (int i = 0; i < a->words; i += each) {
      VI y[MOST_VECTORS];
#pragma GCC unroll 2
      for (int v = 0; v < MOST_VECTORS; v++) y[v] = w1 ? i_load(high + v * LANES) : i_set(0);
      high += a->stride;
#pragma GCC unroll 4
      for (int m = 0; m < each; m++) {
        if (m > 0 && i + m >= a->words) break;
        VI x[MOST_VECTORS];
#pragma GCC unroll 2
        for (int v = 0; v < MOST_VECTORS; v++) x[v] = i_load(low + v * LANES);
        low += a->stride;
#pragma GCC unroll 8
        for (int s = 0; s < S; s++) {
          VI c[MOST_VECTORS];
#pragma GCC unroll 2
          for (int v = 0; v < MOST_VECTORS; v++) c[v] = i_codes(w0, w1, m, s, x[v], y[v]);
#pragma GCC unroll 4
          for (int q = 0; q < queries; q++)
#pragma GCC unroll 3
            for (int d = 0; d < DIGITS; d++) {
              const VI digit = i_set(a->digits[q][at + 4 * s + d]);
#pragma GCC unroll 2
              for (int v = 0; v < MOST_VECTORS; v++) sum[q][v][d] = i_dot(w0 + w1, sum[q][v][d], c[v], digit);
            }
        }
        at += 4 * S;
      }
    }
  }
#pragma GCC unroll 4
  for (int q = 0; q < queries; q++)
#pragma GCC unroll 2
    for (int v = 0; v < MOST_VECTORS; v++) {
      VF x = f_fma(f_of_int(sum[q][v][1]), f_set(256), f_of_int(sum[q][v][0]));
      x = f_fma(f_of_int(sum[q][v][2]), f_set(65536), x);
      f_store(a->out + q * a->out_stride + v * LANES, f_mul(x, f_set(a->unit[q])));
    }
}

typedef void (*dots_function)(const dots_of *a);

// A function for each width and number of queries.
#define DOTS(name, w0, w1, queries) \
  TARGET static void name##_##queries(const dots_of *a) { dots(w0, w1, queries, a); }
#if MOST_QUERIES == 4
#define DOTS_OF_WIDTH(name, w0, w1) DOTS(name, w0, w1, 1) DOTS(name, w0, w1, 2) DOTS(name, w0, w1, 3) DOTS(name, w0, w1, 4)
#define NAMES(name) {name##_1, name##_2, name##_3, name##_4}
#else
#define DOTS_OF_WIDTH(name, w0, w1) DOTS(name, w0, w1, 1)
#define NAMES(name) {name##_1}
#endif

DOTS_OF_WIDTH(dots1, 1, 0)
DOTS_OF_WIDTH(dots2, 2, 0)
DOTS_OF_WIDTH(dots3, 2, 1)
DOTS_OF_WIDTH(dots4, 4, 0)
DOTS_OF_WIDTH(dots5, 4, 1)
DOTS_OF_WIDTH(dots6, 4, 2)
DOTS_OF_WIDTH(dots8, 8, 0)

// By bits of a code - 1 and queries - 1.
static const dots_function dots_table[8][MOST_QUERIES] = {
    NAMES(dots1), NAMES(dots2), NAMES(dots3), NAMES(dots4), NAMES(dots5), NAMES(dots6), {0}, NAMES(dots8),
};

// unit is what a digit counts where the largest of all x is largest; inverse is 1/unit. Where some x
// is not finite, unit is NaN, and so is the sum.
OP void unit_of(float largest, float *unit, float *inverse) {
  *inverse = largest > 0 ? LARGEST_DIGITS / largest : 0;
  if (!(*inverse <= 0x1p126f)) *inverse = 0x1p126f;
  *unit = (*inverse > 0 ? 1 / *inverse : 0) + largest * 0;
}
