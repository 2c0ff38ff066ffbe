// Vectors of AVX-512 as processors from Ice Lake and Zen 4 on have it.
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi,fma,f16c,prefer-vector-width=512")))
#define LANES 16
#define MOST_VECTORS 2 // of a sum
#define MOST_QUERIES 4 // that a sum serves at once
typedef __m512 VF;
typedef __m512i VI;

#define OP static inline __attribute__((always_inline)) TARGET

OP VF f_set(float x) { return _mm512_set1_ps(x); }
OP VF f_load(const float *p) { return _mm512_loadu_ps(p); }
OP void f_store(float *p, VF x) { _mm512_storeu_ps(p, x); }
OP VF f_add(VF a, VF b) { return _mm512_add_ps(a, b); }
OP VF f_sub(VF a, VF b) { return _mm512_sub_ps(a, b); }
OP VF f_mul(VF a, VF b) { return _mm512_mul_ps(a, b); }
OP VF f_div(VF a, VF b) { return _mm512_div_ps(a, b); }
OP VF f_fma(VF a, VF b, VF c) { return _mm512_fmadd_ps(a, b, c); }
OP VF f_max(VF a, VF b) { return _mm512_max_ps(a, b); } // b where one is NaN
OP VF f_min(VF a, VF b) { return _mm512_min_ps(a, b); }
OP VF f_abs(VF a) { return _mm512_abs_ps(a); }
// the larger in size, NaN where one is
OP VF f_larger(VF a, VF b) { return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(f_abs(a)), _mm512_castps_si512(f_abs(b)))); }
OP float f_largest(VF a) {
  const int32_t bits = _mm512_reduce_max_epi32(_mm512_castps_si512(a));
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(bits)));
}
OP VF f_round(VF a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
OP VF f_sqrt(VF a) { return _mm512_sqrt_ps(a); }
OP float f_sum(VF a) { return _mm512_reduce_add_ps(a); }
OP float f_most(VF a) { return _mm512_reduce_max_ps(a); }
// a·b, and 0 where a is 0, whatever b is
OP VF f_mul_some(VF a, VF b) { return _mm512_maskz_mul_ps(_mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_NEQ_UQ), a, b); }
// 0 where x < least, else y
OP VF f_zero_below(VF x, float least, VF y) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, f_set(least), _CMP_NLT_UQ), y); }
// x·2^n for whole n from -126 to 126
OP VF f_scale2(VF x, VF n) { return _mm512_scalef_ps(x, n); }
// lanes exchanged where their numbers differ in bit h
OP VF f_swap(VF a, int h) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return _mm512_permutexvar_ps(_mm512_xor_si512(lane, _mm512_set1_epi32(h)), a);
}
// lanes of b where their number has bit h, else of a
OP VF f_by_bit(VF a, VF b, int h) {
  const int mask = h == 1 ? 0xaaaa : h == 2 ? 0xcccc : h == 4 ? 0xf0f0 : 0xff00;
  return _mm512_mask_mov_ps(a, (__mmask16)mask, b);
}
OP VF f_of_half(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
OP VF f_of_bfloat(const uint16_t *p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
OP VI i_of_bytes(const uint8_t *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)); }

OP VI i_set(int32_t x) { return _mm512_set1_epi32(x); }
OP VI i_load(const void *p) { return _mm512_loadu_si512(p); }
OP void i_store(void *p, VI x) { _mm512_storeu_si512(p, x); }
OP VI i_add(VI a, VI b) { return _mm512_add_epi32(a, b); }
OP VI i_sub(VI a, VI b) { return _mm512_sub_epi32(a, b); }
OP VI i_or(VI a, VI b) { return _mm512_or_si512(a, b); }
OP VI i_and(VI a, VI b) { return _mm512_and_si512(a, b); }
OP VF f_of_int(VI a) { return _mm512_cvtepi32_ps(a); }
OP VI i_of_float(VF a) { return _mm512_cvtps_epi32(a); } // of whole numbers
OP VF f_bits(VI a) { return _mm512_castsi512_ps(a); }
OP VI i_bits(VF a) { return _mm512_castps_si512(a); }
OP VI i_up(VI a, int n) { return _mm512_slli_epi32(a, n); }
OP VI i_down(VI a, int n) { return _mm512_srli_epi32(a, n); }
// a where x < y, else b, also where one is NaN
OP VF f_if_less(VF x, VF y, VF a, VF b) { return _mm512_mask_mov_ps(b, _mm512_cmp_ps_mask(x, y, _CMP_LT_OQ), a); }
// a where x < 16, else b
OP VF f_if_small(VI x, VF a, VF b) { return _mm512_mask_mov_ps(b, _mm512_cmplt_epi32_mask(x, i_set(16)), a); }
// score where low < index <= high, else other; some becomes not 0 where there is any
OP VF f_if_seen(VI index, int32_t low, int32_t high, VF score, VF other) {
  const __mmask16 seen = _mm512_cmpgt_epi32_mask(index, i_set(low)) & _mm512_cmple_epi32_mask(index, i_set(high));
  return _mm512_mask_mov_ps(other, seen, score);
}
OP int i_any_seen(VI index, int32_t low, int32_t high) {
  return (_mm512_cmpgt_epi32_mask(index, i_set(low)) & _mm512_cmple_epi32_mask(index, i_set(high))) != 0;
}

// Four codes of a lane as bytes: see codes.h.
OP VI i_codes(const int w0, const int w1, int m, int s, VI x, VI y) {
  const int S = 8 / w0;
  VI c = w0 == 8 ? x : _mm512_and_si512(_mm512_srli_epi32(x, w0 * s), i_set(((1 << w0) - 1) * 0x01010101));
  if (w1 == 0) return c;
  uint64_t from = 0; // bit of y that each byte begins with
  for (int k = 0; k < 4; k++) {
    const int at = w1 * (4 * S * m + s + S * k) - w0;
    from |= (uint64_t)(at & 63) << 8 * k | (uint64_t)(at + 32 & 63) << (8 * k + 32);
  }
  const VI high = _mm512_multishift_epi64_epi8(_mm512_set1_epi64((long long)from), y);
  return _mm512_ternarylogic_epi32(c, high, i_set((((1 << w1) - 1) << w0) * 0x01010101), 0xf8); // c | high & mask
}
// sum + Σ of four codes times four digits
// (as text, since GCC 12 moves the sums of its own function from register to register)
OP VI i_dot(const int bits, VI sum, VI codes, VI digits) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(digits));
  return sum;
}

// The bytes of rows in the order in which i_dot wants them: see codes.h.
#define ROW_OF(S, i, s, k) (4 * (4 * S * i + s + S * k))
#define QUAD(S, i, s, d) ROW_OF(S, i, s, 0) + d, ROW_OF(S, i, s, 1) + d, ROW_OF(S, i, s, 2) + d, ROW_OF(S, i, s, 3) + d
#define QUADS(S, i, s) QUAD(S, i, s, 0), QUAD(S, i, s, 1), QUAD(S, i, s, 2), QUAD(S, i, s, 3)
static const uint8_t byte_order[5][64] = {
    {QUADS(1, 0, 0), QUADS(1, 1, 0), QUADS(1, 2, 0), QUADS(1, 3, 0)},
    {QUADS(2, 0, 0), QUADS(2, 0, 1), QUADS(2, 1, 0), QUADS(2, 1, 1)},
    {QUADS(4, 0, 0), QUADS(4, 0, 1), QUADS(4, 0, 2), QUADS(4, 0, 3)},
    {QUADS(8, 0, 0), QUADS(8, 0, 1), QUADS(8, 0, 2), QUADS(8, 0, 3)},
    {QUADS(8, 0, 4), QUADS(8, 0, 5), QUADS(8, 0, 6), QUADS(8, 0, 7)},
};
OP VI digits_of(VF x, VF inverse) {
  return _mm512_xor_si512(_mm512_cvtps_epi32(f_fma(x, inverse, f_set(0x808080))), i_set(0x808080));
}
OP void digits(const float *x, int rows, int w0, float inverse, int32_t *out) {
  const VF by = f_set(inverse);
  if (w0 == 1) {
    for (int r = 0; r < rows; r += 32) {
      const VI a = digits_of(f_load(x + r), by), b = digits_of(f_load(x + r + 16), by);
      i_store(out + r, _mm512_permutex2var_epi8(a, i_load(byte_order[3]), b));
      i_store(out + r + 16, _mm512_permutex2var_epi8(a, i_load(byte_order[4]), b));
    }
    return;
  }
  const VI order = i_load(byte_order[w0 == 8 ? 0 : w0 == 4 ? 1 : 2]);
  for (int r = 0; r < rows; r += 16) i_store(out + r, _mm512_permutexvar_epi8(order, digits_of(f_load(x + r), by)));
}
