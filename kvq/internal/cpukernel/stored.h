// How scales and zero points are stored, by vectors: encodeNearest and byteOfScale of package numbers
// (scale.go, round.go). Included for each kind of vectors.

// What is stored, in as many low bytes of a lane as that takes, and as it decodes.
typedef struct {
  VF scale, zero;
  VI scale_bits, zero_bits;
} stored_of;

OP VF f_between(VF x, float low, float high) { return f_min(f_max(x, f_set(low)), f_set(high)); }

// The nearest number of a format with so many bits of a mantissa. least is its smallest number above 0,
// and least·2^mantissa the smallest that is normal; 0: those of float32.
OP VF nearest(VF x, const int mantissa, const float least, const float largest) {
  x = f_between(x, -largest, largest);
  const int cut = 23 - mantissa;
  VF y = f_bits(i_and(i_add(i_bits(x), i_set(1 << (cut - 1))), i_set(-(1 << cut))));
  if (least > 0) {
    const VF small = f_mul(f_round(f_between(f_mul(x, f_set(1 / least)), -0x1p20f, 0x1p20f)), f_set(least));
    y = f_if_less(f_abs(x), f_set(least * (float)(1 << mantissa)), small, y);
  }
  return f_between(y, -largest, largest);
}

// A scale in a byte: the nearest one that there is, its byte, and the way back.
#define BYTE_LEAST 0x1p-12f
#define BYTE_OFFSET ((127 - 9) << 4)
OP VF nearest_byte(VF x) { return nearest(x, 4, BYTE_LEAST, 124); }
OP VI byte_of(VF scale) {
  const VF small = f_min(f_mul(scale, f_set(1 / BYTE_LEAST)), f_set(16));
  return i_of_float(f_if_less(scale, f_set(16 * BYTE_LEAST), small, f_of_int(i_sub(i_down(i_bits(scale), 19), i_set(BYTE_OFFSET)))));
}

// The bits of numbers that float16 has.
OP VI half_of(VF x) {
  const VI sign = i_and(i_down(i_bits(x), 16), i_set(0x8000));
  const VF size = f_abs(x), small = f_min(f_mul(size, f_set(0x1p24f)), f_set(1024));
  const VF normal = f_of_int(i_sub(i_down(i_bits(size), 13), i_set(112 << 10)));
  return i_or(sign, i_of_float(f_if_less(size, f_set(0x1p-14f), small, normal)));
}

// Scales and values of code 0, in the format of scale_type (attend.h), for codes of so many bits.
OP stored_of stored(int scale_type, VF scale, VF low, int bits) {
  stored_of s;
  switch (scale_type) {
  case 3: {
    const float unit = bits < 6 ? 1 / (float)(1 << (6 - bits)) : 1;
    s.scale = nearest_byte(f_max(scale, f_div(f_abs(low), f_set(unit * 127))));
    s.scale_bits = byte_of(s.scale);
    const VF step = f_mul(s.scale, f_set(unit)), ratio = f_div(low, f_if_less(f_set(0), step, step, f_set(1)));
    s.zero = f_round(f_between(ratio, -128, 127));
    s.zero_bits = i_of_float(f_add(s.zero, f_set(128)));
    s.zero = f_mul(s.zero, step);
    return s;
  }
  case 1:
    s.scale = nearest(scale, 10, 0x1p-24f, 65504);
    s.zero = nearest(low, 10, 0x1p-24f, 65504);
    s.scale_bits = half_of(s.scale);
    s.zero_bits = half_of(s.zero);
    return s;
  case 2:
    s.scale = nearest(scale, 7, 0, 0x1.fep127f);
    s.zero = nearest(low, 7, 0, 0x1.fep127f);
    s.scale_bits = i_down(i_bits(s.scale), 16);
    s.zero_bits = i_down(i_bits(s.zero), 16);
    return s;
  }
  s.scale = scale;
  s.zero = low;
  s.scale_bits = i_bits(scale);
  s.zero_bits = i_bits(low);
  return s;
}

// Puts the low bytes of n lanes to places from i on of an array of such numbers.
OP void put_lanes(void *to, int64_t i, int bytes, const VI x, int n) {
  uint32_t lanes[LANES];
  i_store(lanes, x);
  switch (bytes) {
  case 1:
    for (int l = 0; l < n; l++) ((uint8_t *)to)[i + l] = (uint8_t)lanes[l];
    return;
  case 2:
    for (int l = 0; l < n; l++) ((uint16_t *)to)[i + l] = (uint16_t)lanes[l];
    return;
  }
  memcpy((uint32_t *)to + i, lanes, (size_t)n * sizeof *lanes);
}
