// Vectors of four in plain C, for any processor.
#include <math.h>
#include <string.h>

#define TARGET
#define LANES 4
#define MOST_VECTORS 1 // of a sum
#define MOST_QUERIES 1 // that a sum serves at once
typedef struct { float v[4]; } VF;
typedef struct { int32_t v[4]; } VI;

#define OP static inline __attribute__((always_inline))
#define EACH for (int l = 0; l < 4; l++)

OP VF f_set(float x) { return (VF){{x, x, x, x}}; }
OP VF f_load(const float *p) { VF a; memcpy(&a, p, sizeof a); return a; }
OP void f_store(float *p, VF x) { memcpy(p, &x, sizeof x); }
OP VF f_add(VF a, VF b) { EACH a.v[l] += b.v[l]; return a; }
OP VF f_sub(VF a, VF b) { EACH a.v[l] -= b.v[l]; return a; }
OP VF f_mul(VF a, VF b) { EACH a.v[l] *= b.v[l]; return a; }
OP VF f_div(VF a, VF b) { EACH a.v[l] /= b.v[l]; return a; }
OP VF f_fma(VF a, VF b, VF c) { EACH c.v[l] += a.v[l] * b.v[l]; return c; }
OP VF f_max(VF a, VF b) { EACH b.v[l] = a.v[l] > b.v[l] ? a.v[l] : b.v[l]; return b; } // b where one is NaN
OP VF f_min(VF a, VF b) { EACH b.v[l] = a.v[l] < b.v[l] ? a.v[l] : b.v[l]; return b; }
OP VF f_abs(VF a) { EACH a.v[l] = fabsf(a.v[l]); return a; }
// the larger in size, NaN where one is
OP float larger(float a, float b) { return a != a || fabsf(a) > fabsf(b) ? fabsf(a) : fabsf(b); }
OP VF f_larger(VF a, VF b) { EACH b.v[l] = larger(a.v[l], b.v[l]); return b; }
OP float f_largest(VF a) { return larger(larger(a.v[0], a.v[1]), larger(a.v[2], a.v[3])); }
// Below 2^22 in size, or NaN.
OP VF f_round(VF a) { EACH { volatile float up = a.v[l] + 0x1.8p23f; a.v[l] = up - 0x1.8p23f; } return a; }
OP VF f_sqrt(VF a) { EACH a.v[l] = sqrtf(a.v[l]); return a; }
OP float f_sum(VF a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
OP float f_most(VF a) {
  float x = a.v[0];
  EACH x = a.v[l] > x ? a.v[l] : x;
  return x;
}
// a·b, and 0 where a is 0, whatever b is
OP VF f_mul_some(VF a, VF b) { EACH b.v[l] = a.v[l] == 0 ? 0 : a.v[l] * b.v[l]; return b; }
// 0 where x < least, else y
OP VF f_zero_below(VF x, float least, VF y) { EACH y.v[l] = x.v[l] < least ? 0 : y.v[l]; return y; }
OP VF f_bits(VI a) { VF b; memcpy(&b, &a, sizeof b); return b; }
OP VI i_bits(VF a) { VI b; memcpy(&b, &a, sizeof b); return b; }
OP int32_t whole(float x) { return x > -0x1p31f && x < 0x1p31f ? (int32_t)lrintf(x) : 0; }
// x·2^n for whole n from -126 to 126
OP VF f_scale2(VF x, VF n) {
  VI e;
  EACH e.v[l] = (int32_t)((uint32_t)(whole(n.v[l]) + 127) << 23);
  return f_mul(x, f_bits(e));
}
// lanes exchanged where their numbers differ in bit h
OP VF f_swap(VF a, int h) { VF b; EACH b.v[l] = a.v[l ^ h]; return b; }
// lanes of b where their number has bit h, else of a
OP VF f_by_bit(VF a, VF b, int h) { EACH if (l & h) a.v[l] = b.v[l]; return a; }
OP float of_half(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fff;
  uint32_t bits;
  float x;
  if (rest < 0x0400) { // subnormal
    x = (float)rest * 0x1p-24f;
    return sign ? -x : x;
  }
  bits = sign | (rest << 13) + (rest < 0x7c00 ? 112u << 23 : 224u << 23);
  memcpy(&x, &bits, sizeof x);
  return x;
}
OP VF f_of_half(const uint16_t *p) { VF a; EACH a.v[l] = of_half(p[l]); return a; }
OP VF f_of_bfloat(const uint16_t *p) { VI a; EACH a.v[l] = (int32_t)((uint32_t)p[l] << 16); return f_bits(a); }
OP VI i_of_bytes(const uint8_t *p) { VI a; EACH a.v[l] = p[l]; return a; }

OP VI i_set(int32_t x) { return (VI){{x, x, x, x}}; }
OP VI i_load(const void *p) { VI a; memcpy(&a, p, sizeof a); return a; }
OP void i_store(void *p, VI x) { memcpy(p, &x, sizeof x); }
OP VI i_add(VI a, VI b) { EACH a.v[l] += b.v[l]; return a; }
OP VI i_sub(VI a, VI b) { EACH a.v[l] -= b.v[l]; return a; }
OP VI i_or(VI a, VI b) { EACH a.v[l] |= b.v[l]; return a; }
OP VI i_and(VI a, VI b) { EACH a.v[l] &= b.v[l]; return a; }
OP VF f_of_int(VI a) { VF b; EACH b.v[l] = (float)a.v[l]; return b; }
OP VI i_of_float(VF a) { VI b; EACH b.v[l] = (int32_t)a.v[l]; return b; } // of whole numbers
OP VI i_up(VI a, int n) { EACH a.v[l] = (int32_t)((uint32_t)a.v[l] << n); return a; }
OP VI i_down(VI a, int n) { EACH a.v[l] = (int32_t)((uint32_t)a.v[l] >> n); return a; }
// a where x < y, else b, also where one is NaN
OP VF f_if_less(VF x, VF y, VF a, VF b) { EACH if (x.v[l] < y.v[l]) b.v[l] = a.v[l]; return b; }
// a where x < 16, else b
OP VF f_if_small(VI x, VF a, VF b) { EACH if (x.v[l] < 16) b.v[l] = a.v[l]; return b; }
OP int seen(int32_t index, int32_t low, int32_t high) { return index > low && index <= high; }
// score where low < index <= high, else other
OP VF f_if_seen(VI index, int32_t low, int32_t high, VF score, VF other) {
  EACH if (seen(index.v[l], low, high)) other.v[l] = score.v[l];
  return other;
}
OP int i_any_seen(VI index, int32_t low, int32_t high) {
  int any = 0;
  EACH any |= seen(index.v[l], low, high);
  return any;
}

// Four codes of a lane as bytes: see codes.h.
OP VI i_codes(const int w0, const int w1, int m, int s, VI x, VI y) {
  const int S = 8 / w0;
  VI c;
  EACH {
    uint32_t b = (uint32_t)x.v[l] >> w0 * s & (uint32_t)((1 << w0) - 1) * 0x01010101u;
    for (int k = 0; w1 > 0 && k < 4; k++)
      b |= ((uint32_t)y.v[l] >> w1 * (4 * S * m + s + S * k) & ((1u << w1) - 1)) << (8 * k + w0);
    c.v[l] = (int32_t)b;
  }
  return c;
}
// sum + Σ of four codes times four digits
OP VI i_dot(const int bits, VI sum, VI codes, VI digits) {
  (void)bits;
  for (int k = 0; k < 4; k++) {
    const int32_t d = (int8_t)((uint32_t)digits.v[0] >> 8 * k); // all lanes have the same
    EACH sum.v[l] += (int32_t)((uint32_t)codes.v[l] >> 8 * k & 255) * d;
  }
  return sum;
}

// The bytes of rows in the order in which i_dot wants them: see codes.h.
OP void digits(const float *x, int rows, int w0, float inverse, int32_t *out) {
  const int S = 8 / w0;
  for (int r = 0; r < rows; r += 4 * S)
    for (int s = 0; s < S; s++) {
      uint32_t d[4] = {0, 0, 0, 0};
      for (int k = 0; k < 4; k++) {
        const uint32_t t = (uint32_t)whole(x[r + s + S * k] * inverse + 0x808080) ^ 0x808080u;
        for (int i = 0; i < 4; i++) d[i] |= (t >> 8 * i & 255) << 8 * k;
      }
      memcpy(out + r + 4 * s, d, sizeof d);
    }
}
