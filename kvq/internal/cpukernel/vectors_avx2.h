// Vectors of AVX2 with FMA and F16C: processors from Haswell and Zen on.
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma,f16c")))
#define LANES 8
#define MOST_VECTORS 1 // of a sum
#define MOST_QUERIES 4 // that a sum serves at once
typedef __m256 VF;
typedef __m256i VI;

#define OP static inline __attribute__((always_inline)) TARGET

OP VF f_set(float x) { return _mm256_set1_ps(x); }
OP VF f_load(const float *p) { return _mm256_loadu_ps(p); }
OP void f_store(float *p, VF x) { _mm256_storeu_ps(p, x); }
OP VF f_add(VF a, VF b) { return _mm256_add_ps(a, b); }
OP VF f_sub(VF a, VF b) { return _mm256_sub_ps(a, b); }
OP VF f_mul(VF a, VF b) { return _mm256_mul_ps(a, b); }
OP VF f_div(VF a, VF b) { return _mm256_div_ps(a, b); }
OP VF f_fma(VF a, VF b, VF c) { return _mm256_fmadd_ps(a, b, c); }
OP VF f_max(VF a, VF b) { return _mm256_max_ps(a, b); } // b where one is NaN
OP VF f_min(VF a, VF b) { return _mm256_min_ps(a, b); }
OP VF f_abs(VF a) { return _mm256_andnot_ps(f_set(-0.0f), a); }
// the larger in size, NaN where one is
OP VF f_larger(VF a, VF b) { return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(f_abs(a)), _mm256_castps_si256(f_abs(b)))); }
OP float f_largest(VF a) {
  __m128i x = _mm_max_epi32(_mm256_castsi256_si128(_mm256_castps_si256(a)), _mm256_extracti128_si256(_mm256_castps_si256(a), 1));
  x = _mm_max_epi32(x, _mm_shuffle_epi32(x, 0x4e));
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(x, _mm_shuffle_epi32(x, 0xb1))));
}
OP VF f_round(VF a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
OP VF f_sqrt(VF a) { return _mm256_sqrt_ps(a); }
OP float f_sum(VF a) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
OP float f_most(VF a) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
// a·b, and 0 where a is 0, whatever b is
OP VF f_mul_some(VF a, VF b) { return _mm256_and_ps(_mm256_cmp_ps(a, _mm256_setzero_ps(), _CMP_NEQ_UQ), f_mul(a, b)); }
// 0 where x < least, else y
OP VF f_zero_below(VF x, float least, VF y) { return _mm256_and_ps(_mm256_cmp_ps(x, f_set(least), _CMP_NLT_UQ), y); }
// x·2^n for whole n from -126 to 126
OP VF f_scale2(VF x, VF n) {
  const __m256i e = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return f_mul(x, _mm256_castsi256_ps(e));
}
// lanes exchanged where their numbers differ in bit h
OP VF f_swap(VF a, int h) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_permutevar8x32_ps(a, _mm256_xor_si256(lane, _mm256_set1_epi32(h)));
}
// lanes of b where their number has bit h, else of a
OP VF f_by_bit(VF a, VF b, int h) {
  return h == 1 ? _mm256_blend_ps(a, b, 0xaa) : h == 2 ? _mm256_blend_ps(a, b, 0xcc) : _mm256_blend_ps(a, b, 0xf0);
}
OP VF f_of_half(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
OP VF f_of_bfloat(const uint16_t *p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
OP VI i_of_bytes(const uint8_t *p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)); }

OP VI i_set(int32_t x) { return _mm256_set1_epi32(x); }
OP VI i_load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
OP void i_store(void *p, VI x) { _mm256_storeu_si256((__m256i *)p, x); }
OP VI i_add(VI a, VI b) { return _mm256_add_epi32(a, b); }
OP VI i_sub(VI a, VI b) { return _mm256_sub_epi32(a, b); }
OP VI i_or(VI a, VI b) { return _mm256_or_si256(a, b); }
OP VI i_and(VI a, VI b) { return _mm256_and_si256(a, b); }
OP VF f_of_int(VI a) { return _mm256_cvtepi32_ps(a); }
OP VI i_of_float(VF a) { return _mm256_cvtps_epi32(a); } // of whole numbers
OP VF f_bits(VI a) { return _mm256_castsi256_ps(a); }
OP VI i_bits(VF a) { return _mm256_castps_si256(a); }
OP VI i_up(VI a, int n) { return _mm256_slli_epi32(a, n); }
OP VI i_down(VI a, int n) { return _mm256_srli_epi32(a, n); }
// a where x < y, else b, also where one is NaN
OP VF f_if_less(VF x, VF y, VF a, VF b) { return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, y, _CMP_LT_OQ)); }
// a where x < 16, else b
OP VF f_if_small(VI x, VF a, VF b) { return _mm256_blendv_ps(b, a, f_bits(_mm256_cmpgt_epi32(i_set(16), x))); }
OP VI i_seen(VI index, int32_t low, int32_t high) {
  return _mm256_andnot_si256(_mm256_cmpgt_epi32(index, i_set(high)), _mm256_cmpgt_epi32(index, i_set(low)));
}
// score where low < index <= high, else other
OP VF f_if_seen(VI index, int32_t low, int32_t high, VF score, VF other) {
  return _mm256_blendv_ps(other, score, f_bits(i_seen(index, low, high)));
}
OP int i_any_seen(VI index, int32_t low, int32_t high) { return _mm256_movemask_epi8(i_seen(index, low, high)) != 0; }

// Four codes of a lane as bytes: see codes.h.
OP VI i_codes(const int w0, const int w1, int m, int s, VI x, VI y) {
  const int S = 8 / w0;
  VI c = w0 == 8 ? x : _mm256_and_si256(_mm256_srli_epi32(x, w0 * s), i_set(((1 << w0) - 1) * 0x01010101));
  if (w1 == 0) return c;
  // The byte of y in which the bits of each row lie, and where in it.
  uint32_t byte = 0, bits = 0;
  int at[4];
  for (int k = 0; k < 4; k++) {
    at[k] = w1 * (4 * S * m + s + S * k);
    byte |= (uint32_t)(at[k] / 8) << 8 * k;
    bits |= (uint32_t)((1 << w1) - 1) << (8 * k + at[k] % 8);
  }
  const __m256i order = _mm256_add_epi8(i_set((int)byte), _mm256_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c, 0, 0x04040404, 0x08080808, 0x0c0c0c0c));
  const __m256i bytes = _mm256_shuffle_epi8(y, order);
  if (w1 == 1) {
    const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, i_set((int)bits)), i_set((int)bits));
    return _mm256_or_si256(c, _mm256_and_si256(set, i_set((1 << w0) * 0x01010101)));
  }
  // 6 bits: bits 2s and 2s + 4 of the bytes in turns, to bit 4.
  const __m256i even = _mm256_and_si256(_mm256_slli_epi32(bytes, 4 - 2 * s), i_set(0x00300030));
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bytes, 2 * s), i_set(0x30003000));
  return _mm256_or_si256(c, _mm256_or_si256(even, odd));
}
OP VI i_dot_small(VI codes, VI digits) { return _mm256_madd_epi16(_mm256_maddubs_epi16(codes, digits), _mm256_set1_epi16(1)); }
// sum + Σ of four codes times four digits; two products of 8 bits by 8 do not fit 16 bits
OP VI i_dot(const int bits, VI sum, VI codes, VI digits) {
  if (bits < 8) return i_add(sum, i_dot_small(codes, digits));
  const VI nibble = i_set(0x0f0f0f0f);
  sum = i_add(sum, i_dot_small(_mm256_and_si256(codes, nibble), digits));
  return i_add(sum, i_up(i_dot_small(_mm256_and_si256(_mm256_srli_epi32(codes, 4), nibble), digits), 4));
}

// The bytes of rows in the order in which i_dot wants them: see codes.h.
OP void digits(const float *x, int rows, int w0, float inverse, int32_t *out) {
  const int S = 8 / w0;
  const VF by = f_set(inverse);
  const __m128i turn = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  for (int r = 0; r < rows; r += 32) {
    int32_t t[32];
    for (int i = 0; i < 32; i += 8)
      i_store(t + i, _mm256_xor_si256(_mm256_cvtps_epi32(f_fma(f_load(x + r + i), by, f_set(0x808080))), i_set(0x808080)));
    for (int i = 0; i < 32; i += 4 * S)
      for (int s = 0; s < S; s++) {
        const int32_t *row = t + i + s;
        const __m128i four = _mm_setr_epi32(row[0], row[S], row[2 * S], row[3 * S]);
        _mm_storeu_si128((__m128i *)(out + r + i + 4 * s), _mm_shuffle_epi8(four, turn));
      }
  }
}
