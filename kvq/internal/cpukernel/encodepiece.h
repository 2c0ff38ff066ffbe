// Coding of a piece by vectors: included for each kind of them, behind piece.h, with ENCODE as the
// function's name.

#include <float.h>

#include "encodeshared.h"
#include "stored.h"

#define LARGEST_DIVISOR 0x1p126f // its reciprocal is a normal number
#define RANGE_LIMIT 0x1.fp126f   // of either end of a range
#define TINY 1e-30f
#define LEAST_GAIN 0.8f
#define MOST_GAIN 1.6f
#define TOKEN_SCALE_ROUNDS 3

// 1 where x is not a normal number above 0, so that it can divide.
OP VF positive(VF x) { return f_if_less(x, f_set(FLT_MIN), f_set(1), x); }

// Turns four by four numbers.
OP void turn_four(const float *from, int64_t apart, float *to, int64_t to_apart) {
#if LANES > 4
  __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + apart), c = _mm_loadu_ps(from + 2 * apart), d = _mm_loadu_ps(from + 3 * apart);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  _mm_storeu_ps(to, a);
  _mm_storeu_ps(to + to_apart, b);
  _mm_storeu_ps(to + 2 * to_apart, c);
  _mm_storeu_ps(to + 3 * to_apart, d);
#else
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++) to[i * to_apart + j] = from[j * apart + i];
#endif
}

// Turns [rows, columns] to [columns, rows], multiples of 4.
TARGET static void turn(const float *from, int rows, int columns, float *to) {
  for (int r = 0; r < rows; r += 4)
    for (int c = 0; c < columns; c += 4) turn_four(from + (int64_t)r * columns + c, columns, to + (int64_t)c * rows + r, rows);
}

// Loads the numbers of a piece, rotated where that is to be, and which tokens count. It tells whether
// all do, and all numbers are finite.
TARGET static int load_piece(const kvq_encoding *e, const kvq_room *p, int64_t head, int64_t first) {
  const int64_t row = head / e->heads;
  const int dim = e->to.dim;
  VF most = f_set(0);
  int whole = 1;
  for (int t = 0; t < p->tokens; t++) {
    int64_t at = e->from[row] + first + t;
    at = at < e->all ? at : e->all - 1;
    float *x = p->x + (int64_t)t * p->wide;
    memcpy(x, e->x + (head * e->all + at) * dim, (size_t)dim * sizeof *x);
    memset(x + dim, 0, (size_t)(p->wide - dim) * sizeof *x);
    if (e->to.rotate) rotate(x, dim);
    for (int c = 0; c < p->wide; c += LANES) most = f_larger(most, f_load(x + c));
    p->counts[t] = e->valid == NULL || e->valid[row * e->tokens + first + t] != 0;
    whole &= p->counts[t] != 0;
  }
  return whole && f_largest(most) <= FLT_MAX;
}

// Writes down which numbers have a vote.
static void count_votes(const kvq_room *p) {
  for (int t = 0; t < p->tokens; t++)
    for (int c = 0; c < p->wide; c++) {
      const int64_t i = (int64_t)t * p->wide + c;
      p->votes[i] = p->counts[t] == 0 ? -1 : fabsf(p->x[i]) <= FLT_MAX;
    }
}

// The sizes of tokens: dualScaling of package numbers (tokenscale.go), of squares [tokens, wide].
TARGET static void size_tokens(const kvq_room *p, int dim, const float *squares, float *channels, float *token) {
  const VF per_channel = f_set(1 / (float)dim), per_token = f_set(1 / (float)p->tokens);
  for (int round = 0; round < TOKEN_SCALE_ROUNDS; round++) {
    if (round > 0) {
      for (int c = 0; c < p->wide; c += LANES) {
        VF sum = f_set(0);
        for (int t = 0; t < p->tokens; t++) {
          const float size = token[t] < FLT_MIN ? 1 : 1 / token[t];
          sum = f_fma(f_load(squares + (int64_t)t * p->wide + c), f_set(size), sum);
        }
        f_store(channels + c, f_div(f_set(1), positive(f_mul(sum, per_token))));
      }
    }
    for (int t = 0; t < p->tokens; t++) {
      VF sum = f_set(0);
      for (int c = 0; c < p->wide; c += LANES) {
        const VF x = f_load(squares + (int64_t)t * p->wide + c);
        sum = round > 0 ? f_fma(x, f_load(channels + c), sum) : f_add(x, sum);
      }
      token[t] = f_sum(f_mul(sum, per_channel));
    }
  }
}

// Finds scales of tokens, writes them and divides by them, and what errors count then: TokenScales
// and TokenWeights of package numbers. It tells whether each has one above 0.
TARGET static int scale_tokens(const kvq_encoding *e, const kvq_room *p, int whole, int64_t head, int64_t first) {
  float *squares = p->turned, *channels = p->errors, token[p->tokens];
  VF most = f_set(0);
  const int64_t n = (int64_t)p->tokens * p->wide;
  for (int64_t i = 0; i < n; i += LANES) {
    VF x = f_abs(f_load(p->x + i));
    if (!whole) x = f_if_less(f_set(0), f_load(p->votes + i), x, f_set(0));
    f_store(squares + i, x);
    most = f_max(x, most);
  }
  const VF inverse = f_div(f_set(1), f_min(positive(f_set(f_most(most))), f_set(LARGEST_DIVISOR)));
  for (int64_t i = 0; i < n; i += LANES) {
    const VF x = f_mul(f_load(squares + i), inverse);
    f_store(squares + i, f_mul(x, x));
  }
  size_tokens(p, e->to.dim, squares, channels, token);
  VF largest = f_set(0);
  for (int t = 0; t < p->tokens; t += LANES) {
    const VF size = f_sqrt(f_load(token + t));
    f_store(token + t, size);
    largest = f_max(size, largest);
  }
  const float divisor = f_most(largest) > 0 ? f_most(largest) : 1;
  int all = 1;
  for (int t = 0; t < p->tokens; t += LANES) {
    const int64_t block = (first + t) / BLOCK * e->rows * e->heads + head;
    const VF scale = nearest_byte(f_div(f_load(token + t), f_set(divisor)));
    put_lanes((void *)e->to.tokens, block * BLOCK + t % BLOCK, 1, byte_of(scale), LANES);
    f_store(token + t, scale);
    const VF above = positive(scale);
    f_store(p->weights + t, f_div(f_set(1), f_mul(above, above)));
  }
  for (int t = 0; t < p->tokens; t++) {
    if (token[t] == 0) {
      p->counts[t] = 0;
      all = 0;
      continue;
    }
    float *x = p->x + (int64_t)t * p->wide;
    const VF by = f_set(1 / token[t]), limit = f_set(FLT_MAX), infinite = f_set(INFINITY);
    for (int c = 0; c < p->wide; c += LANES) {
      const VF a = f_load(x + c);
      const VF b = f_min(f_max(f_mul(a, by), f_set(-FLT_MAX)), limit);
      f_store(x + c, f_if_less(f_abs(a), infinite, b, a));
    }
  }
  return all;
}

// A range under trial, in units: its middle, and the width of a code and its inverse.
typedef struct { VF middle, fine, inverse; } range_of;

OP range_of cut_range(VF low, VF high, VF cut_low, VF cut_high, float levels) {
  const VF width = f_sub(high, low), a = f_fma(width, cut_low, low), b = f_sub(high, f_mul(width, cut_high));
  range_of r = {.middle = f_mul(f_add(a, b), f_set(0.5f)), .fine = f_div(f_sub(b, a), f_set(levels))};
  r.inverse = f_div(f_set(1), positive(r.fine));
  return r;
}

// Steps from the middle, of a number in units.
OP VF steps_of(VF x, range_of r, VF half) {
  const VF at = f_fma(f_sub(x, r.middle), r.inverse, half);
  return f_sub(f_round(f_min(f_max(at, f_set(0)), f_add(half, half))), half);
}

// Steps of the n numbers of a group, and what they are widened by.
OP VF gain_of(const float *units, const float *centred, float *steps, int n, range_of r, VF half, VF spread) {
  VF common = f_set(0);
  for (int i = 0; i < n * LANES; i += LANES) {
    const VF step = steps_of(f_load(units + i), r, half);
    f_store(steps + i, step);
    common = f_fma(f_load(centred + i), step, common);
  }
  common = f_max(f_mul(common, r.fine), f_set(TINY));
  return f_min(f_max(f_div(spread, common), f_set(LEAST_GAIN)), f_set(MOST_GAIN));
}

// Scales and codes of LANES groups, whose numbers are at in, in + apart, ...; votes and out likewise.
// place is where their scales are in p's and, counted from to, in the cache's arrays, of which there
// are so many. It is rangesAndCodes of package numbers (unbiased.go).
OP void find(const kvq_encoding *e, const kvq_room *p, const int whole, const float *in, const float *votes, float *out, int apart, int place,
             int64_t to, int most) {
  const int n = p->group, keys = e->keys, weighed = e->to.tokens != NULL; // a group is of tokens then
  float *const units = p->units, *const centred = p->centred, *const steps = p->steps;
  const float levels = (float)((1 << e->to.bits) - 1);
  const VF none = f_set(0), half = f_set(levels / 2), infinite = f_set(INFINITY);
  VF low = infinite, high = f_set(-INFINITY);
  for (int i = 0; i < n; i++) {
    VF x = f_load(in + (int64_t)i * apart), y = x;
    if (!whole) {
      const VF vote = f_load(votes + (int64_t)i * apart);
      x = f_if_less(none, vote, x, infinite);
      y = f_if_less(none, vote, y, f_set(-INFINITY));
    }
    low = f_min(low, x);
    high = f_max(high, y);
  }
  if (!whole) {
    const VF empty = f_if_less(high, low, none, low);
    high = f_if_less(high, low, none, high);
    low = empty;
  }
  low = f_min(f_max(low, f_set(-RANGE_LIMIT)), f_set(RANGE_LIMIT));
  high = f_min(f_max(high, f_set(-RANGE_LIMIT)), f_set(RANGE_LIMIT));
  const VF unit = f_min(positive(f_max(f_abs(low), f_abs(high))), f_set(LARGEST_DIVISOR)), inverse = f_div(f_set(1), unit);
  low = f_div(low, unit);
  high = f_div(high, unit);

  VF sum = none, count = f_set((float)n), spread = none;
  if (!whole) count = none;
  for (int i = 0; i < n; i++) {
    VF x = f_min(f_max(f_mul(f_load(in + (int64_t)i * apart), inverse), low), high);
    if (!whole) {
      const VF vote = f_max(f_load(votes + (int64_t)i * apart), none);
      x = f_if_less(none, vote, x, none);
      count = f_add(count, vote);
    }
    f_store(units + i * LANES, x);
    sum = f_add(sum, x);
  }
  const VF mean = f_div(sum, f_max(count, f_set(1)));
  for (int i = 0; i < n; i++) {
    VF x = f_sub(f_load(units + i * LANES), mean);
    if (!whole) x = f_if_less(none, f_load(votes + (int64_t)i * apart), x, none);
    f_store(centred + i * LANES, x);
    spread = f_fma(x, x, spread);
  }

  VF best = infinite, cut_low = none, cut_high = none;
  for (int cut = 0; e->cuts > 1 && cut < e->cuts * e->cuts; cut++) {
    const VF a = f_set(e->first + e->step * (float)(cut / e->cuts)), b = f_set(e->first + e->step * (float)(cut % e->cuts));
    const range_of r = cut_range(low, high, a, b, levels);
    const VF step = f_mul(r.fine, gain_of(units, centred, steps, n, r, half, spread));
    VF cost = none;
    for (int i = 0; i < n; i++) {
      VF wrong = f_sub(f_fma(f_load(steps + i * LANES), step, r.middle), f_load(units + i * LANES));
      if (weighed) wrong = f_mul(wrong, f_set(p->weights[i]));
      VF more = f_mul(wrong, wrong);
      if (keys) more = f_mul(more, f_abs(wrong));
      if (!whole) more = f_if_less(none, f_load(votes + (int64_t)i * apart), more, none);
      cost = f_add(cost, more);
    }
    cut_low = f_if_less(cost, best, a, cut_low);
    cut_high = f_if_less(cost, best, b, cut_high);
    best = f_min(best, cost);
  }
  if (e->cuts == 1) cut_low = cut_high = f_set(e->first);
  const range_of r = cut_range(low, high, cut_low, cut_high, levels);
  const VF step = f_mul(f_mul(r.fine, gain_of(units, centred, steps, n, r, half, spread)), unit), middle = f_mul(r.middle, unit);
  const stored_of kept = stored(e->to.scale_type, step, f_sub(middle, f_mul(step, half)), e->to.bits);
  f_store(p->scale + place, kept.scale);
  f_store(p->zero + place, kept.zero);
  f_store(p->width + place, f_mul(r.fine, unit));
  const int bytes = e->to.scale_type == 0 ? 4 : e->to.scale_type == 3 ? 1 : 2;
  const int there = most - place < LANES ? most - place : LANES;
  if (there > 0) {
    put_lanes((void *)e->to.scales, to + place, bytes, kept.scale_bits, there);
    put_lanes((void *)e->to.zeros, to + place, bytes, kept.zero_bits, there);
  }
  for (int i = 0; i < n; i++) {
    VF code = f_add(f_load(steps + i * LANES), half);
    if (!whole) { // what is infinite is at its end of the range
      const VF vote = f_load(votes + (int64_t)i * apart), end = f_if_less(none, f_load(in + (int64_t)i * apart), f_add(half, half), none);
      code = f_if_less(none, vote, code, f_if_less(vote, none, none, end));
    }
    f_store(out + (int64_t)i * apart, f_if_less(none, kept.scale, code, none));
  }
}

TARGET static void find_whole(const kvq_encoding *e, const kvq_room *p, const float *in, float *out, int apart, int place, int64_t to, int most) {
  find(e, p, 1, in, NULL, out, apart, place, to, most);
}

TARGET static void find_voting(const kvq_encoding *e, const kvq_room *p, const float *in, const float *votes, float *out, int apart, int place,
                               int64_t to, int most) {
  find(e, p, 0, in, votes, out, apart, place, to, most);
}

// Scales and codes of a piece whose first token is first.
TARGET static void find_all(const kvq_encoding *e, const kvq_room *p, int whole, int64_t head, int64_t first) {
  const int64_t heads = (int64_t)e->rows * e->heads;
  if (e->to.per_channel) {
    const int64_t to = (first / p->tokens * heads + head) * e->to.dim;
    for (int c = 0; c < p->wide; c += LANES)
      if (whole) find_whole(e, p, p->x + c, p->codes + c, p->wide, c, to, e->to.dim);
      else find_voting(e, p, p->x + c, p->votes + c, p->codes + c, p->wide, c, to, e->to.dim);
    return;
  }
  const int most = e->to.groups * p->tokens;
  const int64_t to = (first / BLOCK * heads + head) * most;
  for (int g = 0; g < e->to.groups; g++)
    for (int t = 0; t < p->tokens; t += LANES) {
      const int64_t at = (int64_t)g * p->group * p->tokens + t;
      const int place = g * p->tokens + t;
      if (whole) find_whole(e, p, p->turned + at, p->codes_turned + at, p->tokens, place, to, most);
      else find_voting(e, p, p->turned + at, p->votes_turned + at, p->codes_turned + at, p->tokens, place, to, most);
    }
}

// What rounding does to numbers x of a channel at target: errors, and the code.
OP VF round_fed(const kvq_encoding *e, VF x, VF target, VF scale, VF zero, VF width, VF counts, float *errors) {
  const float levels = (float)((1 << e->to.bits) - 1);
  const VF none = f_set(0), half = f_set(levels / 2), infinite = f_set(INFINITY);
  target = f_if_less(f_abs(target), infinite, target, x); // the sum left float32
  const VF middle = f_fma(scale, half, zero);
  const VF at = f_add(f_div(f_sub(target, middle), f_if_less(none, width, width, f_set(1))), half);
  VF code = f_round(f_min(f_max(at, none), f_set(levels)));
  code = f_if_less(none, scale, code, none);
  const VF wrong = f_sub(x, f_fma(code, scale, zero));
  f_store(errors, f_if_less(f_abs(wrong), infinite, wrong, none));
  return f_if_less(none, counts, code, none);
}

// Codes of all channels, the last one first, with the errors of those behind fed back: Feedback of
// package numbers (feedback.go).
TARGET static void feed_back(const kvq_encoding *e, const kvq_room *p, const float *factor) {
  const int dim = e->to.dim, tokens = p->tokens;
  for (int t = 0; t < tokens; t += 2 * LANES)
    for (int d = dim - 1; d >= 0; d--) {
      const float *weights = factor + (int64_t)d * dim, *behind = p->errors + t;
      const int64_t at = (int64_t)d * tokens + t;
      const VF x = f_load(p->turned + at), y = f_load(p->turned + at + LANES);
      VF a = x, b = y, c = f_set(0), f = f_set(0);
      int i = d + 1;
      for (; i + 1 < dim; i += 2) {
        const VF one = f_set(weights[i]), other = f_set(weights[i + 1]);
        const float *from = behind + (int64_t)i * tokens;
        a = f_fma(one, f_load(from), a);
        b = f_fma(one, f_load(from + LANES), b);
        c = f_fma(other, f_load(from + tokens), c);
        f = f_fma(other, f_load(from + tokens + LANES), f);
      }
      if (i < dim) {
        const VF one = f_set(weights[i]);
        a = f_fma(one, f_load(behind + (int64_t)i * tokens), a);
        b = f_fma(one, f_load(behind + (int64_t)i * tokens + LANES), b);
      }
      for (int side = 0; side < 2; side++) {
        const int64_t here = at + side * LANES;
        VF scale, zero, width;
        if (e->to.per_channel) {
          scale = f_set(p->scale[d]), zero = f_set(p->zero[d]), width = f_set(p->width[d]);
        } else {
          const int64_t of = (int64_t)(d / p->group) * tokens + t + side * LANES;
          scale = f_load(p->scale + of), zero = f_load(p->zero + of), width = f_load(p->width + of);
        }
        const VF target = side ? f_add(b, f) : f_add(a, c), counts = f_load(p->counts + t + side * LANES);
        f_store(p->codes_turned + here, round_fed(e, side ? y : x, target, scale, zero, width, counts, p->errors + here));
      }
    }
}

// Whether errors are fed back in a head.
static int is_fed(const kvq_encoding *e, int64_t head) {
  if (e->factor == NULL) return 0;
  const int64_t n = (int64_t)e->to.dim * e->to.dim;
  for (int64_t i = 0; i < n; i++)
    if (e->factor[head * n + i] != 0) return 1;
  return 0;
}

// Packs the codes of a piece into words (package codes, words.go): rows of so many numbers, lanes of
// them from one block on.
TARGET static void pack(const kvq_encoding *e, const float *codes, int rows, int apart, int lanes, int64_t block) {
  const kvq_codes *to = &e->to;
  for (int part = 0; part < to->parts; part++) {
    int64_t line = (block * to->parts + part) * to->words_of_part;
    int low = 0;
    for (int plane = 0; plane < to->planes; plane++) {
      const int width = to->width[plane], fields = to->word_bits / width;
      const VI mask = i_set((1 << width) - 1);
      for (int first = 0; first < to->rows; first += fields, line++) {
        for (int l = 0; l < lanes; l += LANES) {
          VI word = i_set(0);
          for (int f = 0; f < fields; f++) {
            const int row = part * to->rows + first + f;
            if (row >= rows) break; // padding
            const VI code = i_of_float(f_load(codes + (int64_t)row * apart + l));
            word = i_or(word, i_up(i_and(i_down(code, low), mask), f * width));
          }
          put_lanes((void *)to->codes, line * lanes + l, to->word_bits / 8, word, lanes - l < LANES ? lanes - l : LANES);
        }
      }
      low += width;
    }
  }
}

TARGET void ENCODE(const kvq_encoding *e, int64_t piece, void *scratch) {
  kvq_room room, *p = &room;
  kvq_room_of(e, p, scratch);
  const int64_t pieces = e->tokens / p->tokens, head = piece / pieces, first = piece % pieces * p->tokens;
  const int dim = e->to.dim;
  int whole = load_piece(e, p, head, first);
  if (!whole) count_votes(p);
  if (e->to.tokens != NULL && !scale_tokens(e, p, whole, head, first)) {
    whole = 0;
    count_votes(p);
  }
  const int fed = is_fed(e, head);
  if (fed || !e->to.per_channel) turn(p->x, p->tokens, p->wide, p->turned);
  if (!whole && !e->to.per_channel) turn(p->votes, p->tokens, p->wide, p->votes_turned);
  find_all(e, p, whole, head, first);
  if (fed) feed_back(e, p, e->factor + head * dim * dim);
  const int turned = fed || !e->to.per_channel; // where codes are
  if (e->keys && !turned) turn(p->codes, p->tokens, p->wide, p->codes_turned);
  if (!e->keys && turned) turn(p->codes_turned, p->wide, p->tokens, p->codes);
  for (int t = 0; t < p->tokens; t += BLOCK) {
    const int64_t block = (first + t) / BLOCK * e->rows * e->heads + head;
    if (e->keys) pack(e, p->codes_turned + t, dim, p->tokens, BLOCK, block);
    else pack(e, p->codes + (int64_t)t * p->wide, BLOCK, p->wide, dim, block);
  }
}
