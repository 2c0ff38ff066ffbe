// Attention over a piece: some blocks of codes, or the exact tokens, of a row and key/value head. Included
// for each kind of vectors, after codes.h. Scores count log2(e) times, so that exponentials are
// powers of two.

#define LOG2E 1.44269504088896341f
#define MOST_DIM KVQ_MOST_DIM // channels of a head
#define MOST_GROUPS KVQ_MOST_GROUPS
#define BEHIND 40             // zeros behind the channels of a head: sums take 32 rows at once
#define OUT_ROOM (MOST_DIM + MOST_VECTORS * LANES)
#define EACH_QUERY _Pragma("GCC unroll 4") for (int q = 0; q < queries; q++)
#define LINE __attribute__((aligned(64)))
#define ROOM (MOST_DIM + 64)
#define TOKENS (KVQ_PIECE_BLOCKS * BLOCK)

// 2^x for x <= 0 (relative error 2e-7); below -126 it is 0. The polynomial is that of Cephes' exp2f.
OP VF exp2_of(VF x) {
  const VF in = f_max(f_set(-126), x), n = f_round(in), r = f_sub(in, n);
  VF p = f_set(1.535336188319500e-4f);
  p = f_fma(p, r, f_set(1.339887440266574e-3f));
  p = f_fma(p, r, f_set(9.618437357674640e-3f));
  p = f_fma(p, r, f_set(5.550332471162809e-2f));
  p = f_fma(p, r, f_set(2.402264791363012e-1f));
  p = f_fma(p, r, f_set(6.931472028550421e-1f));
  p = f_fma(p, r, f_set(1));
  return f_zero_below(x, -126, f_scale2(p, n));
}

// tanh(x) = 1 - 2/(e^2|x| + 1) with the sign of x.
OP VF tanh_of(VF x) {
  const VF power = exp2_of(f_mul(f_abs(x), f_set(-2 * LOG2E))); // e^-2|x|
  const VF t = f_div(f_sub(f_set(1), power), f_add(f_set(1), power));
  // -1 to 1 as x is: small ones are x itself, since 1 - e^-2|x| has lost their digits
  const VF sign = f_max(f_set(-1), f_min(f_set(1), f_mul(x, f_set(0x1p100f))));
  return f_mul(t, sign);
}

// n numbers (at most LANES) of a type from number i on, and 0 behind them.
OP VF load(const void *p, int type, int64_t i, int n) {
  if (n >= LANES) {
    switch (type) {
      case 0: return f_load((const float *)p + i);
      case 1: return f_of_half((const uint16_t *)p + i);
      default: return f_of_bfloat((const uint16_t *)p + i);
    }
  }
  float wide[LANES] = {0};
  uint16_t narrow[LANES] = {0};
  if (n <= 0) return f_set(0);
  if (type == 0) {
    memcpy(wide, (const float *)p + i, n * sizeof *wide);
    return f_load(wide);
  }
  memcpy(narrow, (const uint16_t *)p + i, n * sizeof *narrow);
  return type == 1 ? f_of_half(narrow) : f_of_bfloat(narrow);
}
OP VI load_bytes(const void *p, int64_t i, int n) {
  if (n >= LANES) return i_of_bytes((const uint8_t *)p + i);
  uint8_t some[LANES] = {0};
  if (n > 0) memcpy(some, (const uint8_t *)p + i, n);
  return i_of_bytes(some);
}

// What a byte stands for as a scale: package numbers, scale.go.
OP VF of_byte(VI code) {
  const VF normal = f_bits(i_up(i_add(code, i_set((127 - 9) << 4)), 23 - 4));
  return f_if_small(code, f_mul(f_of_int(code), f_set(0x1p-12f)), normal);
}
// Scale and zero point of n groups (at most LANES), from number i on.
OP VF scale_of(const kvq_codes *c, int64_t i, int n) {
  return c->scale_type == 3 ? of_byte(load_bytes(c->scales, i, n)) : load(c->scales, c->scale_type, i, n);
}
OP VF zero_of(const kvq_codes *c, int64_t i, int n, VF scale) {
  if (!c->zeros) return f_mul(scale, f_set(-(float)(1 << (c->bits - 1))));
  if (c->scale_type != 3) return load(c->zeros, c->scale_type, i, n);
  const float unit = c->bits < 6 ? 1.0f / (float)(1 << (6 - c->bits)) : 1;
  return f_mul(f_of_int(i_sub(load_bytes(c->zeros, i, n), i_set(128))), f_mul(scale, f_set(unit)));
}

// x [dim], with zeros behind it up to a multiple of LANES, times the Walsh-Hadamard matrix of package
// numbers, rotate.go.
TARGET static void rotate(float *x, int dim) {
  const int n = dim & -dim;
  for (int h = 1; h < n; h *= 2) {
    if (h < LANES) {
      const VF sign = f_by_bit(f_set(1), f_set(-1), h);
      for (int i = 0; i < dim; i += LANES) {
        const VF a = f_load(x + i);
        f_store(x + i, f_fma(a, sign, f_swap(a, h)));
      }
      continue;
    }
    for (int i = 0; i < dim; i += 2 * h)
      for (int j = i; j < i + h; j += LANES) {
        const VF a = f_load(x + j), b = f_load(x + j + h);
        f_store(x + j, f_add(a, b));
        f_store(x + j + h, f_sub(a, b));
      }
  }
  const VF size = f_set(kvq_root(n));
  for (int i = 0; i < dim; i += LANES) f_store(x + i, f_mul(f_load(x + i), size));
}

// The queries of a piece from number first on, scaled; with zeros behind them.
OP void load_queries(const kvq_attention *a, int64_t head, int first, const int queries, int rotated, float x[MOST_QUERIES][ROOM]) {
  const int dim = a->key.dim;
  const VF scale = f_set(a->soft_cap > 0 ? a->scale : a->scale * LOG2E);
  EACH_QUERY {
    const int64_t from = (head * a->queries + first + q) * dim;
    int i = 0;
    for (; i < dim; i += LANES) f_store(x[q] + i, f_mul(load(a->query, a->query_type, from + i, dim - i), scale));
    memset(x[q] + i, 0, BEHIND * sizeof(float));
    if (rotated) rotate(x[q], dim);
  }
}

// What a query sees of a row: low < index <= high.
typedef struct { int32_t low, high; } view;
static view view_of(const kvq_attention *a, int64_t row) {
  view v = {-1, a->position[row]};
  if (a->sliding_window > 0 && (int64_t)v.high - a->sliding_window > -1) v.low = v.high - a->sliding_window;
  return v;
}

// Scores of products: what Scores.of of package attend makes of them, and the mask.
OP VF score_of(const kvq_attention *a, VF x, VI index, view see, float slope) {
  if (a->soft_cap > 0) x = f_mul(tanh_of(f_mul(x, f_set(1 / a->soft_cap))), f_set(a->soft_cap * LOG2E));
  if (a->slopes) x = f_sub(x, f_mul(f_set(slope * LOG2E), f_of_int(i_sub(i_set(see.high), index))));
  return f_if_seen(index, see.low, see.high, x, f_set(UNSEEN));
}

// Where the words of keys lie, in dwords of a lane. A run is rows whose words are in a row and that
// share a scale; spans share a scale.
typedef struct {
  int w0, w1;     // bits of the planes
  int rows;       // of a run
  int runs, spans;
  int low, high;  // dwords of a run in each plane
  int digits;     // of a run
  int staged;     // words are narrower than 32 bits, and widened first
  int head;       // dwords of a head
} key_layout;

static key_layout layout_of(const kvq_codes *c) {
  key_layout l = {.w0 = c->width[0], .w1 = c->planes > 1 ? c->width[1] : 0, .rows = c->rows};
  l.spans = c->per_channel ? 1 : c->groups;
  if (l.spans > 1 && c->group < c->rows) l.rows = c->group;
  l.runs = c->parts * (c->rows / l.rows);
  l.low = (l.rows * l.w0 + 31) / 32;
  l.high = (l.rows * l.w1 + 31) / 32;
  l.digits = l.low * 32 / l.w0;
  l.staged = c->word_bits < 32;
  l.head = l.staged ? l.runs * (l.low + l.high) : c->parts * c->words_of_part;
  return l;
}
// Where the words of a run begin, in each plane.
static inline int low_of(const kvq_codes *c, const key_layout *l, int run) {
  if (l->staged) return run * (l->low + l->high);
  const int each = c->rows / l->rows;
  return run / each * c->words_of_part + run % each * l->low;
}
static inline int high_of(const kvq_codes *c, const key_layout *l, int run) {
  if (l->staged) return run * (l->low + l->high) + l->low;
  const int each = c->rows / l->rows;
  return run / each * c->words_of_part + each * l->low + run % each * l->high;
}

// The words of a head in a block, 32 bits each: narrower ones are joined, run by run.
static const uint32_t *widened(const kvq_codes *c, const key_layout *l, int64_t head, uint32_t *stage) {
  const int64_t from = head * c->parts * c->words_of_part * BLOCK;
  if (!l->staged) return (const uint32_t *)c->codes + from;
  const int bits = c->word_bits, each = 32 / bits, inner = c->rows / l->rows;
  memset(stage, 0, (size_t)l->head * BLOCK * sizeof *stage);
  for (int run = 0; run < l->runs; run++) {
    int64_t part = from + (int64_t)(run / inner) * c->words_of_part * BLOCK;
    for (int plane = 0; plane < (l->w1 ? 2 : 1); plane++) {
      const int count = l->rows * (plane ? l->w1 : l->w0) / bits;
      uint32_t *to = stage + (plane ? high_of(c, l, run) : low_of(c, l, run)) * BLOCK;
      for (int w = 0; w < count; w++) {
        const int64_t at = part + (int64_t)(run % inner * count + w) * BLOCK;
        for (int t = 0; t < BLOCK; t++) {
          const uint32_t x = bits == 16 ? ((const uint16_t *)c->codes)[at + t] : ((const uint8_t *)c->codes)[at + t];
          to[w / each * BLOCK + t] |= x << bits * (w % each);
        }
      }
      part += (int64_t)inner * count * BLOCK;
    }
  }
  return stage;
}

// Asks for memory ahead of its use: processors do not foresee the steps from block to block of a head.
static inline void fetch(const void *p, int64_t from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)p + from + i);
}
// The codes of a head in a block, and its scales where groups lie along channels.
static void fetch_codes(const kvq_codes *c, int64_t block, int lanes) {
  const int64_t bytes = (int64_t)c->parts * c->words_of_part * lanes * c->word_bits / 8;
  fetch(c->codes, block * bytes, bytes);
}
static void fetch_scales(const kvq_codes *c, int64_t block) {
  static const int sizes[] = {4, 2, 2, 1};
  if (c->per_channel) return;
  const int64_t bytes = (int64_t)c->groups * BLOCK * sizes[c->scale_type];
  fetch(c->scales, block * bytes, bytes);
  if (c->zeros) fetch(c->zeros, block * bytes, bytes);
}

// Digits of x [rows of a head] for the runs of a span, and what goes with them.
OP void digits_of_runs(const key_layout *l, const float *x, int first, int runs, int32_t *out, float *unit, float *total) {
  const int padded = (l->rows + 31) / 32 * 32;
  VF most = f_set(0), sum = f_set(0);
  float rows[ROOM];
  for (int pass = 0; pass < 2; pass++) {
    float inverse = 0;
    if (pass == 1) {
      unit_of(f_largest(most), unit, &inverse);
      *total = f_sum(sum);
    }
    for (int run = first; run < first + runs; run++) {
      const float *from = x + run * l->rows;
      if (padded > l->rows) {
        memcpy(rows, from, l->rows * sizeof *rows);
        memset(rows + l->rows, 0, (padded - l->rows) * sizeof *rows);
        from = rows;
      }
      if (pass == 1) {
        digits(from, padded, l->w0, inverse, out + run * l->digits);
        continue;
      }
      for (int i = 0; i < padded; i += LANES) {
        const VF v = f_load(from + i);
        most = f_larger(most, v);
        sum = f_add(sum, v);
      }
    }
  }
}

// Scores [queries][blocks from first to last] of the codes of keys of a head, counted over rows.
OP void scores_of_codes(const kvq_attention *a, const int queries, int64_t head, int query, view see, int first, int last,
                        float scores[MOST_QUERIES][TOKENS], VF best[MOST_QUERIES]) {
  const kvq_codes *c = &a->key;
  const key_layout l = layout_of(c);
  const int64_t heads = (int64_t)a->rows * a->heads, row = head / a->heads;
  const int32_t *index = a->code_index + row * a->blocks * BLOCK;
  LINE float x[MOST_QUERIES][ROOM], product[ROOM], sums[MOST_GROUPS][MOST_QUERIES][BLOCK];
  LINE int32_t digits[MOST_QUERIES][4 * MOST_DIM + 64];
  float slope[MOST_QUERIES], unit[MOST_QUERIES][MOST_GROUPS], total[MOST_QUERIES][MOST_GROUPS];
  LINE uint32_t stage[(MOST_DIM + 8) / 4 * BLOCK];
  load_queries(a, head, query, queries, c->rotate, x);
  const int runs = l.runs / l.spans;
  dots_of d = {.stride = BLOCK, .blocks = runs, .words = l.low, .out_stride = BLOCK};
  d.block = (int64_t)(l.staged ? l.low + l.high : c->words_of_part) * BLOCK;
  EACH_QUERY {
    slope[q] = a->slopes ? a->slopes[head % a->heads * a->queries + query + q] : 0;
    best[q] = f_set(UNSEEN);
    if (!c->per_channel)
      for (int g = 0; g < l.spans; g++) digits_of_runs(&l, x[q], g * runs, runs, digits[q], &unit[q][g], &total[q][g]);
  }
  const dots_function sum = dots_table[c->bits - 1][queries - 1];
  int64_t group = -1; // of tokens
  for (int n = first; n < last; n++) {
    const int64_t block = n * heads + head;
    const uint32_t *words = widened(c, &l, block, stage);
    if (n + 1 < last) {
      fetch_codes(c, block + heads, BLOCK);
      fetch_scales(c, block + heads);
    }
    if (c->per_channel && n / (c->group / BLOCK) != group) {
      group = n / (c->group / BLOCK);
      const int64_t from = (group * heads + head) * c->dim;
      EACH_QUERY {
        VF zeros = f_set(0);
        int i = 0;
        for (; i < c->dim; i += LANES) {
          const VF scale = scale_of(c, from + i, c->dim - i), at = f_load(x[q] + i);
          f_store(product + i, f_mul(at, scale));
          zeros = f_fma(at, zero_of(c, from + i, c->dim - i, scale), zeros);
        }
        memset(product + i, 0, BEHIND * sizeof *product);
        float none;
        digits_of_runs(&l, product, 0, runs, digits[q], &unit[q][0], &none);
        total[q][0] = f_sum(zeros);
      }
    }
    for (int g = 0; g < l.spans; g++) {
      EACH_QUERY {
        d.digits[q] = digits[q] + g * runs * l.digits;
        d.unit[q] = unit[q][g];
      }
      for (int t = 0; t < BLOCK; t += MOST_VECTORS * LANES) {
        d.low = words + (int64_t)low_of(c, &l, g * runs) * BLOCK + t;
        d.high = words + (int64_t)high_of(c, &l, g * runs) * BLOCK + t;
        d.out = &sums[g][0][t];
        sum(&d);
      }
    }
    for (int t = 0; t < BLOCK; t += LANES) {
      VF s[MOST_QUERIES];
      if (c->per_channel) {
        const VF token = c->tokens ? of_byte(i_of_bytes(c->tokens + block * BLOCK + t)) : f_set(1);
        EACH_QUERY s[q] = f_mul(f_add(f_load(&sums[0][q][t]), f_set(total[q][0])), token);
      } else {
        EACH_QUERY s[q] = f_set(0);
        for (int g = 0; g < l.spans; g++) {
          const int64_t at = (block * l.spans + g) * BLOCK + t;
          const VF scale = scale_of(c, at, LANES), zero = zero_of(c, at, LANES, scale);
          EACH_QUERY s[q] = f_add(s[q], f_fma(f_load(&sums[g][q][t]), scale, f_mul(zero, f_set(total[q][g]))));
        }
      }
      const VI token = i_load(index + n * BLOCK + t);
      EACH_QUERY {
        const VF x = score_of(a, s[q], token, see, slope[q]);
        f_store(&scores[q][(n - first) * BLOCK + t], x);
        best[q] = f_max(x, best[q]); // what is NaN is not taken
      }
    }
  }
}

// The weights of scores [tokens], in their place, and their sum.
OP float weigh(float *scores, int tokens, float best) {
  VF sum = f_set(0);
  const VF top = f_set(best);
  for (int t = 0; t < tokens; t += LANES) {
    const VF w = exp2_of(f_sub(f_load(scores + t), top));
    f_store(scores + t, w);
    sum = f_add(sum, w);
  }
  return f_sum(sum);
}

// Sums over the blocks from first to last of the codes of values, in the lanes from channel on, at
// most `lanes` of them: [queries][lanes].
OP void sum_values(const kvq_attention *a, int bits, int w0, const int queries, dots_of *d, int64_t head, int first, int channel,
                   int lanes, float *out) {
  const kvq_codes *c = &a->value;
  const int64_t heads = (int64_t)a->rows * a->heads;
  LINE uint32_t stage[KVQ_PIECE_BLOCKS * 8 * MOST_VECTORS * LANES];
  const uint32_t *words = (const uint32_t *)c->codes + (first * heads + head) * c->words_of_part * c->dim;
  d->words = w0;
  d->out_stride = OUT_ROOM;
  const dots_function sum = dots_table[bits - 1][queries - 1];
  for (int from = channel; from < channel + lanes; from += MOST_VECTORS * LANES) {
    const int left = channel + lanes - from;
    d->out = out + from;
    d->stride = c->dim;
    d->block = heads * c->words_of_part * c->dim;
    d->low = words + from;
    if (left < MOST_VECTORS * LANES) { // the last lanes by themselves: nothing behind them is read
      memset(stage, 0, sizeof stage);
      for (int n = 0; n < d->blocks; n++)
        for (int w = 0; w < c->words_of_part; w++)
          memcpy(stage + (n * c->words_of_part + w) * MOST_VECTORS * LANES, d->low + n * d->block + (int64_t)w * c->dim, left * sizeof *stage);
      d->low = stage;
      d->stride = MOST_VECTORS * LANES;
      d->block = c->words_of_part * MOST_VECTORS * LANES;
    }
    d->high = d->low + d->words * d->stride;
    sum(d);
  }
}

// The values of blocks from first to last by weights [queries][tokens]: out [queries][OUT_ROOM].
OP void sum_of_values(const kvq_attention *a, const int queries, int64_t head, int first, int last, float weights[MOST_QUERIES][TOKENS], float *out) {
  const kvq_codes *c = &a->value;
  const int64_t heads = (int64_t)a->rows * a->heads;
  const int stride = OUT_ROOM;
  LINE float product[MOST_QUERIES][TOKENS], sums[MOST_QUERIES * OUT_ROOM];
  LINE int32_t digit[MOST_QUERIES][TOKENS];
  dots_of d;
  EACH_QUERY d.digits[q] = digit[q];
  if (c->per_channel) {
    memset(out, 0, (size_t)queries * stride * sizeof *out);
    for (int n = first; n < last;) {
      const int blocks = c->group / BLOCK, end = n / blocks * blocks + blocks < last ? n / blocks * blocks + blocks : last;
      float total[MOST_QUERIES];
      EACH_QUERY {
        const float *w = &weights[q][(n - first) * BLOCK];
        VF most = f_set(0), sum = f_set(0);
        for (int t = 0; t < (end - n) * BLOCK; t += LANES) {
          const VF x = f_load(w + t);
          most = f_larger(most, x);
          sum = f_add(sum, x);
        }
        float inverse;
        total[q] = f_sum(sum);
        unit_of(f_largest(most), &d.unit[q], &inverse);
        digits(w, (end - n) * BLOCK, c->width[0], inverse, digit[q]);
      }
      d.blocks = end - n;
      sum_values(a, c->bits, c->width[0], queries, &d, head, n, 0, c->dim, sums);
      const int64_t from = ((int64_t)(n / blocks) * heads + head) * c->dim;
      for (int i = 0; i < c->dim; i += LANES) {
        const VF scale = scale_of(c, from + i, c->dim - i), zero = zero_of(c, from + i, c->dim - i, scale);
        EACH_QUERY {
          if (total[q] == 0) continue; // nothing is seen of it
          float *to = out + q * stride + i;
          f_store(to, f_add(f_load(to), f_fma(f_load(sums + q * stride + i), scale, f_mul(zero, f_set(total[q])))));
        }
      }
      n = end;
    }
    return;
  }
  d.blocks = last - first;
  for (int g = 0; g < c->groups; g++) {
    VF most[MOST_QUERIES], zeros[MOST_QUERIES];
    EACH_QUERY most[q] = zeros[q] = f_set(0);
    for (int n = first; n < last; n++) {
      if (g == 0) {
        fetch_codes(c, n * heads + head, c->dim);
        if (n + 1 < last) fetch_scales(c, (n + 1) * heads + head);
      }
      for (int t = 0; t < BLOCK; t += LANES) {
        const int64_t at = ((n * heads + head) * c->groups + g) * BLOCK + t;
        const VF scale = scale_of(c, at, LANES), zero = zero_of(c, at, LANES, scale);
        EACH_QUERY {
          const int i = (n - first) * BLOCK + t;
          const VF w = f_load(&weights[q][i]), p = f_mul_some(w, scale);
          f_store(&product[q][i], p);
          most[q] = f_larger(most[q], p);
          zeros[q] = f_add(zeros[q], f_mul_some(w, zero));
        }
      }
    }
    float zero[MOST_QUERIES];
    EACH_QUERY {
      float inverse;
      unit_of(f_largest(most[q]), &d.unit[q], &inverse);
      digits(product[q], (last - first) * BLOCK, c->width[0], inverse, digit[q]);
      zero[q] = f_sum(zeros[q]);
    }
    sum_values(a, c->bits, c->width[0], queries, &d, head, first, g * c->group, c->group, out);
    EACH_QUERY
      for (int i = g * c->group; i < (g + 1) * c->group; i++) out[q * stride + i] += zero[q];
  }
}

// A partial result: {max, sum, out [dim of values]} of each query.
TARGET static void put(const kvq_attention *a, int query, int queries, const VF best[MOST_QUERIES], const float sum[MOST_QUERIES], const float *out, float *result) {
  const int dim = a->value.dim;
  EACH_QUERY {
    float *to = result + (query + q) * (int64_t)(dim + 2);
    to[0] = f_most(best[q]);
    to[1] = sum[q];
    memcpy(to + 2, out + q * OUT_ROOM, dim * sizeof *to);
  }
}

OP void piece_of_codes(const kvq_attention *a, const int queries, int64_t head, int query, int first, int last, float *result) {
  LINE float scores[MOST_QUERIES][TOKENS], out[MOST_QUERIES * OUT_ROOM];
  float sum[MOST_QUERIES];
  VF best[MOST_QUERIES];
  scores_of_codes(a, queries, head, query, view_of(a, head / a->heads), first, last, scores, best);
  EACH_QUERY sum[q] = weigh(scores[q], (last - first) * BLOCK, f_most(best[q]));
  sum_of_values(a, queries, head, first, last, scores, out);
  put(a, query, queries, best, sum, out, result);
}

// Sums of the lanes of LANES vectors, one after the other in x.
OP VF sums_of(const float *x) {
  VF v[LANES];
#pragma GCC unroll 16
  for (int i = 0; i < LANES; i++) v[i] = f_load(x + i * LANES);
#pragma GCC unroll 4
  for (int h = 1; h < LANES; h *= 2)
#pragma GCC unroll 8
    for (int i = 0; i < LANES / (2 * h); i++) {
      const VF x = v[2 * i], y = v[2 * i + 1];
      v[i] = f_add(f_by_bit(x, y, h), f_swap(f_by_bit(y, x, h), h));
    }
  return v[0];
}

// Rows of exact keys or values as float32, padded with zeros to whole vectors: those that are so
// already where they lie, others in stage.
OP void rows_of(const void *p, int type, int64_t base, int dim, const int32_t *slots, int n, float *stage, const float **rows) {
  const int padded = (dim + LANES - 1) / LANES * LANES;
  for (int l = 0; l < n; l++) {
    const int64_t at = (base + slots[l]) * dim;
    rows[l] = (const float *)p + at;
    if (type == 0 && padded == dim) continue;
    float *to = stage + l * padded;
    for (int i = 0; i < dim; i += LANES) f_store(to + i, load(p, type, at + i, dim - i));
    rows[l] = to;
  }
}

// Attention over exact tokens: slots [tokens] of those that are seen, at most TOKENS.
OP void piece_of_exact(const kvq_attention *a, const int queries, int64_t head, int query, view see, const int32_t *slots, int tokens,
                       float *best, float *sum, float *out) {
  const int dim = a->key.dim, wide = (a->value.dim + LANES - 1) / LANES * LANES, type = a->cache_type;
  const int64_t row = head / a->heads, base = head * a->exact;
  const int32_t *index = a->exact_index + row * a->exact;
  LINE float x[MOST_QUERIES][ROOM], scores[MOST_QUERIES][TOKENS], dot[MOST_QUERIES][LANES * LANES], stage[LANES * (MOST_DIM + LANES)];
  const float *rows[LANES];
  VF top[MOST_QUERIES];
  load_queries(a, head, query, queries, 0, x);
  EACH_QUERY top[q] = f_set(UNSEEN);
  for (int t = 0; t < tokens; t += LANES) {
    const int n = tokens - t < LANES ? tokens - t : LANES;
    int32_t token[LANES];
    for (int l = 0; l < LANES; l++) token[l] = l < n ? index[slots[t + l]] : -1;
    rows_of(a->exact_keys, type, base, dim, slots + t, n, stage, rows);
    for (int l = 0; l < n; l += 2) { // two at a time share the loads of queries
      const float *k0 = rows[l], *k1 = rows[l + 1 < n ? l + 1 : l];
      VF s0[MOST_QUERIES], s1[MOST_QUERIES];
      EACH_QUERY s0[q] = s1[q] = f_set(0);
      for (int i = 0; i < dim; i += LANES) {
        const VF y0 = f_load(k0 + i), y1 = f_load(k1 + i);
        EACH_QUERY {
          const VF from = f_load(x[q] + i);
          s0[q] = f_fma(y0, from, s0[q]);
          s1[q] = f_fma(y1, from, s1[q]);
        }
      }
      EACH_QUERY {
        f_store(&dot[q][l * LANES], s0[q]);
        f_store(&dot[q][(l + 1) * LANES], s1[q]);
      }
    }
    EACH_QUERY {
      const float slope = a->slopes ? a->slopes[head % a->heads * a->queries + query + q] : 0;
      memset(&dot[q][(n + n % 2) * LANES], 0, (LANES - n - n % 2) * LANES * sizeof(float));
      const VF s = score_of(a, sums_of(dot[q]), i_load(token), see, slope);
      f_store(&scores[q][t], s);
      top[q] = f_max(s, top[q]);
    }
  }
  EACH_QUERY {
    best[q] = f_most(top[q]);
    sum[q] = weigh(scores[q], (tokens + LANES - 1) / LANES * LANES, best[q]);
    memset(out + q * OUT_ROOM, 0, wide * sizeof *out);
  }
  for (int t = 0; t < tokens; t += LANES) {
    const int n = tokens - t < LANES ? tokens - t : LANES;
    rows_of(a->exact_values, type, base, a->value.dim, slots + t, n, stage, rows);
    for (int i = 0; i < wide; i += 2 * LANES) {
      const int next = i + LANES < wide ? LANES : 0; // the same again where there is one vector left
      VF o[MOST_QUERIES][2];
      EACH_QUERY {
        o[q][0] = f_load(out + q * OUT_ROOM + i);
        o[q][1] = f_load(out + q * OUT_ROOM + i + next);
      }
      for (int l = 0; l < n; l++) {
        const VF v0 = f_load(rows[l] + i), v1 = f_load(rows[l] + i + next);
        EACH_QUERY {
          const VF w = f_set(scores[q][t + l]);
          o[q][0] = f_fma(w, v0, o[q][0]);
          o[q][1] = f_fma(w, v1, o[q][1]);
        }
      }
      EACH_QUERY {
        f_store(out + q * OUT_ROOM + i, o[q][0]);
        f_store(out + q * OUT_ROOM + i + next, o[q][1]);
      }
    }
  }
}

// Joins a part to a partial result, whose out has room up to a multiple of LANES: it is the online
// softmax of FlashAttention.
OP void join(float *result, float best, float sum, const float *out, int dim) {
  if (sum == 0) return;
  const int first = result[1] == 0;
  const float top = first || best > result[0] ? best : result[0];
  const VF x = first ? f_set(0) : exp2_of(f_set(result[0] - top)), y = exp2_of(f_set(best - top));
  float old[LANES], new[LANES];
  f_store(old, x);
  f_store(new, y);
  result[0] = top;
  result[1] = result[1] * old[0] + sum * new[0];
  for (int i = 0; i < dim; i += LANES) f_store(result + 2 + i, f_add(f_mul_some(x, f_load(result + 2 + i)), f_mul(load(out, 0, i, dim - i), y)));
}

TARGET void JOIN(const kvq_attention *a, const float *part, int64_t parts, int64_t apart, float *out) {
  const int dim = a->value.dim;
  LINE float sum[2 + MOST_DIM + LANES];
  kvq_nothing(sum, MOST_DIM + LANES);
  for (int64_t i = 0; i < parts; i++, part += apart) {
    if (i == parts - 1 && a->value.rotate) rotate(sum + 2, dim);
    join(sum, part[0], part[1], part + 2, dim);
  }
  const float by = sum[1] == 0 ? 1 : sum[1];
  for (int i = 0; i < dim; i += LANES) f_store(sum + 2 + i, f_div(f_load(sum + 2 + i), f_set(by)));
  memcpy(out, sum + 2, dim * sizeof *out);
}

// What is above for each number of queries, so that their loops are written out.
#define CODES_OF(n) \
  TARGET static void codes_##n(const kvq_attention *a, int64_t head, int query, int first, int last, float *result) { \
    piece_of_codes(a, n, head, query, first, last, result); \
  }
#define EXACT_OF(n) \
  TARGET static void exact_##n(const kvq_attention *a, int64_t head, int query, view see, const int32_t *slots, int tokens, float *best, \
                               float *sum, float *out) { \
    piece_of_exact(a, n, head, query, see, slots, tokens, best, sum, out); \
  }
CODES_OF(1) EXACT_OF(1)
#if MOST_QUERIES == 4
CODES_OF(2) CODES_OF(3) CODES_OF(4) EXACT_OF(2) EXACT_OF(3) EXACT_OF(4)
#define BY_QUERIES(name) {name##_1, name##_2, name##_3, name##_4}
#else
#define BY_QUERIES(name) {name##_1}
#endif
typedef void (*codes_function)(const kvq_attention *a, int64_t head, int query, int first, int last, float *result);
typedef void (*exact_function)(const kvq_attention *a, int64_t head, int query, view see, const int32_t *slots, int tokens, float *best, float *sum,
                               float *out);
static const codes_function codes_table[MOST_QUERIES] = BY_QUERIES(codes);
static const exact_function exact_table[MOST_QUERIES] = BY_QUERIES(exact);

// How many of the queries that are left go together: of five, no one alone.
static int tile_of(int left) { return left <= MOST_QUERIES ? left : left == 5 && MOST_QUERIES > 2 ? 3 : MOST_QUERIES; }

// Attention over the blocks from first to last of a row and head.
TARGET void CODES(const kvq_attention *a, int64_t head, int first, int last, float *result) {
  const int64_t row = head / a->heads;
  const view see = view_of(a, row);
  const int32_t *index = a->code_index + row * a->blocks * BLOCK;
  while (first < last && !kvq_seen(index + (int64_t)first * BLOCK, BLOCK, see.low, see.high)) first++;
  while (first < last && !kvq_seen(index + (int64_t)(last - 1) * BLOCK, BLOCK, see.low, see.high)) last--;
  for (int q = 0, n; q < a->queries; q += n) {
    n = tile_of(a->queries - q);
    if (first == last) {
      for (int i = q; i < q + n; i++) kvq_nothing(result + i * (int64_t)(a->value.dim + 2), a->value.dim);
      continue;
    }
    codes_table[n - 1](a, head, q, first, last, result);
  }
}

// Attention over the exact tokens of a row and head.
TARGET void EXACT(const kvq_attention *a, int64_t head, float *result) {
  const int64_t row = head / a->heads;
  const view see = view_of(a, row);
  const int32_t *index = a->exact_index + row * a->exact;
  const int dim = a->value.dim;
  for (int q = 0; q < a->queries; q++) kvq_nothing(result + q * (int64_t)(dim + 2), dim);
  for (int from = 0; from < a->exact;) {
    int32_t slots[TOKENS];
    int tokens = 0;
    for (; from < a->exact && tokens < TOKENS; from++) {
      slots[tokens] = from;
      tokens += index[from] > see.low && index[from] <= see.high;
    }
    if (tokens == 0) continue;
    for (int q = 0, n; q < a->queries; q += n) {
      n = tile_of(a->queries - q);
      LINE float out[MOST_QUERIES * OUT_ROOM];
      float best[MOST_QUERIES], sum[MOST_QUERIES];
      exact_table[n - 1](a, head, q, see, slots, tokens, best, sum, out);
      for (int i = 0; i < n; i++) {
        LINE float both[2 + MOST_DIM + LANES];
        float *to = result + (q + i) * (int64_t)(dim + 2);
        memcpy(both, to, (dim + 2) * sizeof *both);
        join(both, best[i], sum[i], out + i * OUT_ROOM, dim);
        memcpy(to, both, (dim + 2) * sizeof *both);
      }
    }
  }
}
