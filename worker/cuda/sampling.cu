/*
 * Drawing tokens from rows of logits: see stages.h. The arithmetic is worker/sampler_inline.h's.
 *
 * Three kinds of launches, and one more before and after where logits are edited, blocks of each
 * sharing a row: `scan` finds the likeliest token and a
 * NaN; `narrow`, five times, finds the least logit that top_k and top_p leave, a digit of its key
 * at a time, by how many tokens each digit has and how much mass; `score` draws among those left.
 * In each the block that is done last brings the row's blocks together. Nothing depends on how a
 * row is cut: maxima and exact sums of integers have no order.
 */
#include "worker/cuda/common.cuh"
#include "worker/sampler_inline.h"

typedef unsigned long long wide; /* what atomics and shuffles take */

enum {
    SAMPLE_THREADS = 512,
    SAMPLE_WARPS = SAMPLE_THREADS / 32,
    SAMPLE_BLOCKS = 264, /* in all where the draws are fewer: two on each of 132 processors */
    SAMPLE_DRAWS = 128,  /* of one launch: rows enough to fill a device, and bounds the work */
    SAMPLE_PIECE = 2048, /* least columns worth a block */
    EDIT_BLOCKS = 4,     /* of a draw's edits */
    SAMPLE_AHEAD = 4,    /* loads under way in a thread */
    DIGITS = 2048,       /* keys have 32 bits: digits of 11, 11 and 10 */
    DIGITS_THREAD = DIGITS / SAMPLE_THREADS,
    LEVELS = 3,
    PASSES = 5 /* three digits of top_k's cut or top_p's; two more of top_p's after top_k's */
};

/* The cut as far as it is found. */
struct cut {
    wide want;       /* of tokens, or units of 2^-32 of mass, below what is larger than `prefix` */
    wide mass;       /* of all that is larger, in the same units */
    unsigned prefix; /* the digits found, then the whole key */
    unsigned ties;   /* tokens of this key */
    int by_mass;
    int tie_end; /* of its tokens those below this id are left */
};

/* The tokens of each value of a digit. */
struct digits {
    wide mass[DIGITS];
    unsigned count[DIGITS];
};

/* What the blocks of a draw share. */
struct row_state {
    struct cut cut;
    struct digits digits[LEVELS];
    unsigned done; /* blocks of this launch; zero between launches */
};

struct scored {
    double score;
    long long id;
};

/* Everything that a launch is given. */
struct sample_job {
    const cuda_draw *draw; /* [draws] */
    cuda_edit *edit;       /* of all draws; an edit's `add` is the logit while it is edited */
    float *logits;
    int rows, cols, vocab;
    int pieces, piece;     /* a shard's blocks, and the columns of each */
    row_state *rows_state; /* [draws] */
    wide *top;             /* [draws][blocks] */
    scored *best;          /* [draws][blocks] */
    int32_t *drawn;
};

/* A block's part of its row: x[begin..end) are the logits of ids first + begin.. */
struct stretch {
    const float *x;
    int first, begin, end;
};

/* --- rows, keys and blocks --- */

DEVICE stretch stretch_of(const sample_job &j, int row, int shard, int piece)
{
    int first = shard * j.cols, begin = piece * j.piece;
    int end = min(min(begin + j.piece, j.cols), j.vocab - first);
    return {j.logits + ((size_t)shard * j.rows + row) * j.cols, first, begin, end};
}

DEVICE float *logit_at(const sample_job &j, int row, int id)
{
    int shard = id / j.cols;
    return j.logits + ((size_t)shard * j.rows + row) * j.cols + (id - shard * j.cols);
}

DEVICE stretch own_stretch(const sample_job &j, const cuda_draw &d)
{
    return stretch_of(j, d.row, blockIdx.y / j.pieces, blockIdx.y % j.pieces);
}

/* f(logit, id) for each of the stretch by one thread of the block. */
template <class F> DEVICE void for_each(const stretch &s, F f)
{
    for (int base = s.begin + (int)threadIdx.x; base < s.end;
         base += SAMPLE_AHEAD * SAMPLE_THREADS) {
        float x[SAMPLE_AHEAD];
#pragma unroll
        for (int i = 0; i < SAMPLE_AHEAD; i++) {
            int at = base + i * SAMPLE_THREADS;
            x[i] = at < s.end ? s.x[at] : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < SAMPLE_AHEAD; i++) {
            int at = base + i * SAMPLE_THREADS;
            if (at < s.end)
                f(x[i], s.first + at);
        }
    }
}

/* Keys have the order of logits, NaNs aside; both zeros have one. */
DEVICE unsigned key_of(float x)
{
    unsigned bits = x == 0.0f ? 0u : __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

DEVICE float logit_of(unsigned key)
{
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

/* The likelier token is the larger, of equal ones the lower id; a NaN is the largest. */
DEVICE wide top_of(float x, int id)
{
    return x != x ? ~0ull : (wide)key_of(x) << 32 | ~(unsigned)id;
}

DEVICE wide block_max(wide x, wide *warps)
{
    for (int step = 16; step > 0; step /= 2)
        x = max(x, __shfl_xor_sync(ALL_LANES, x, step));
    if (lane_id() == 0)
        warps[threadIdx.x / 32] = x;
    __syncthreads();
    for (int w = 0; w < SAMPLE_WARPS; w++)
        x = max(x, warps[w]);
    __syncthreads();
    return x;
}

/* The sum over the threads before this one; *all: over all of the block. */
DEVICE wide block_sum_before(wide x, wide *warps, wide *all)
{
    int warp = threadIdx.x / 32, lane = lane_id();
    wide upto = x;
    for (int step = 1; step < 32; step *= 2) {
        wide y = __shfl_up_sync(ALL_LANES, upto, step);
        upto += lane >= step ? y : 0;
    }
    if (lane == 31)
        warps[warp] = upto;
    __syncthreads();
    wide before = upto - x, sum = 0;
    for (int w = 0; w < SAMPLE_WARPS; w++) {
        before += w < warp ? warps[w] : 0;
        sum += warps[w];
    }
    __syncthreads();
    *all = sum;
    return before;
}

/* Is this block the last of its row in this launch? All that the others wrote is then to be seen,
 * and the count zero again. */
DEVICE bool last_of_row(row_state *r, int *flag)
{
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        *flag = atomicAdd(&r->done, 1u) == gridDim.y - 1;
        __threadfence(); /* by the thread that counted: the barrier passes it on */
        if (*flag)
            r->done = 0;
    }
    __syncthreads();
    return *flag;
}

/* Of the row, from what `scan` found. */
DEVICE wide row_top(const sample_job &j, wide *warps)
{
    wide top = 0;
    for (unsigned i = threadIdx.x; i < gridDim.y; i += SAMPLE_THREADS)
        top = max(top, j.top[blockIdx.x * gridDim.y + i]);
    return block_max(top, warps);
}

/* Has the row a token to draw: a finite maximum and no NaN? */
DEVICE bool drawable(wide top)
{
    unsigned key = (unsigned)(top >> 32);
    return key > key_of(-INFINITY) && key < key_of(INFINITY);
}

/* --- what a draw asks for --- */

DEVICE bool cuts_by_count(const sample_job &j, const cuda_draw &d)
{
    return d.temperature != 0.0f && d.top_k > 0 && d.top_k < j.vocab;
}

DEVICE bool cuts_by_mass(const cuda_draw &d)
{
    return d.temperature != 0.0f && d.top_p < 1.0f;
}

/* In units of 2^-32. A logit so far below the maximum that the mass rounds to zero (e^-22.88 is
 * 2^-33) is told without the exponential; 2^-20 of the distance is far more than roundings. */
DEVICE wide mass_units(float x, float top, const cuda_draw &d)
{
    if ((top - x) > 22.95f * d.temperature)
        return 0;
    return (wide)(sampler_mass(x, top, d.temperature) * 0x1p32);
}

/* --- edits of logits --- */

static __global__ void __launch_bounds__(SAMPLE_THREADS) edit_rows(const sample_job j)
{
    grid_dependency_wait();
    grid_dependency_launch();
    const cuda_draw d = j.draw[blockIdx.x];
    for (int i = blockIdx.y * SAMPLE_THREADS + threadIdx.x; i < d.edits;
         i += EDIT_BLOCKS * SAMPLE_THREADS) {
        cuda_edit *e = j.edit + d.first_edit + i;
        float *l = logit_at(j, d.row, e->id), old = *l;
        *l = sampler_edited(old, e->add, e->repeated, d.repetition_penalty);
        e->add = old;
    }
}

static __global__ void __launch_bounds__(SAMPLE_THREADS) restore_rows(const sample_job j)
{
    grid_dependency_wait();
    grid_dependency_launch();
    const cuda_draw d = j.draw[blockIdx.x];
    for (int i = blockIdx.y * SAMPLE_THREADS + threadIdx.x; i < d.edits;
         i += EDIT_BLOCKS * SAMPLE_THREADS) {
        const cuda_edit *e = j.edit + d.first_edit + i;
        *logit_at(j, d.row, e->id) = e->add;
    }
}

/* --- the likeliest token --- */

static __global__ void __launch_bounds__(SAMPLE_THREADS) scan(const sample_job j)
{
    __shared__ wide warps[SAMPLE_WARPS];
    grid_dependency_wait();
    grid_dependency_launch();
    const cuda_draw d = j.draw[blockIdx.x];
    row_state *r = j.rows_state + blockIdx.x;
    wide top = 0;
    for_each(own_stretch(j, d), [&](float x, int id) { top = max(top, top_of(x, id)); });
    top = block_max(top, warps);
    if (threadIdx.x == 0)
        j.top[blockIdx.x * gridDim.y + blockIdx.y] = top;
    if (blockIdx.y == 0 && threadIdx.x == 0)
        r->done = 0;
    if (!cuts_by_count(j, d) && !cuts_by_mass(d))
        return;
    for (unsigned i = blockIdx.y * SAMPLE_THREADS + threadIdx.x; i < LEVELS * DIGITS;
         i += gridDim.y * SAMPLE_THREADS) {
        r->digits[i / DIGITS].mass[i % DIGITS] = 0;
        r->digits[i / DIGITS].count[i % DIGITS] = 0;
    }
}

/* --- the cut of top_k and top_p --- */

/* Digit `level` of a key, and whether those before it are `prefix`. */
DEVICE unsigned digit_of(unsigned key, int level)
{
    return level == 0 ? key >> 21 : level == 1 ? key >> 10 & 2047u : key & 1023u;
}

DEVICE bool has_prefix(unsigned key, int level, unsigned prefix)
{
    return level == 0 || (level == 1 ? key >> 21 : key >> 10) == prefix;
}

/* A block's digits. Masses in two words: the lower's overflows are counted in the upper. */
struct block_digits {
    unsigned count[DIGITS], low[DIGITS], high[DIGITS];
};

DEVICE void count_digits(const sample_job &j, const cuda_draw &d, float top, int level,
                         unsigned prefix, block_digits *b, digits *out)
{
    bool masses = cuts_by_mass(d);
    for (int i = threadIdx.x; i < DIGITS; i += SAMPLE_THREADS)
        b->count[i] = b->low[i] = b->high[i] = 0;
    __syncthreads();
    for_each(own_stretch(j, d), [&](float x, int) {
        unsigned key = key_of(x), digit = digit_of(key, level);
        if (!has_prefix(key, level, prefix))
            return;
        atomicAdd(&b->count[digit], 1u);
        wide m = masses ? mass_units(x, top, d) : 0;
        unsigned low = (unsigned)m, high = (unsigned)(m >> 32);
        if (low > 0)
            high += atomicAdd(&b->low[digit], low) > ~low;
        if (high > 0)
            atomicAdd(&b->high[digit], high);
    });
    __syncthreads();
    for (int i = threadIdx.x; i < DIGITS; i += SAMPLE_THREADS) {
        wide m = (wide)b->high[i] << 32 | b->low[i];
        if (b->count[i] > 0)
            atomicAdd(&out->count[i], b->count[i]);
        if (m > 0)
            atomicAdd(&out->mass[i], m);
    }
}

/* The digit at which what is wanted is reached, from the largest down. */
DEVICE void choose_digit(const digits *t, int level, cut *c, wide *warps)
{
    wide mass[DIGITS_THREAD], weight[DIGITS_THREAD], own_mass = 0, own_weight = 0, all;
    unsigned count[DIGITS_THREAD];
    int by_mass = c->by_mass;
    int from = DIGITS - 1 - DIGITS_THREAD * (int)threadIdx.x;
#pragma unroll
    for (int i = 0; i < DIGITS_THREAD; i++) {
        mass[i] = t->mass[from - i];
        count[i] = t->count[from - i];
        weight[i] = by_mass ? mass[i] : count[i];
        own_mass += mass[i];
        own_weight += weight[i];
    }
    const cut old = *c; /* read before the barriers: one thread writes behind them */
    wide mass_before = block_sum_before(own_mass, warps, &all);
    wide before = block_sum_before(own_weight, warps, &all);
#pragma unroll
    for (int i = 0; i < DIGITS_THREAD; i++) {
        if (before < old.want && old.want <= before + weight[i])
            *c = {old.want - before,
                  old.mass + mass_before,
                  old.prefix << (level == 2 ? 10 : 11) | (unsigned)(from - i),
                  count[i],
                  old.by_mass,
                  0};
        before += weight[i];
        mass_before += mass[i];
    }
    __syncthreads();
}

/* A cut after the fewest of the likeliest tokens that hold top_p of `units` of mass. */
DEVICE cut cut_of_mass(const cuda_draw &d, wide units)
{
    double target = (double)d.top_p * ((double)units * 0x1p-32);
    return {(wide)ceil(target * 0x1p32), 0, 0, 0, 1, 0};
}

/* After which id all `wanted` tokens of the key have come. */
DEVICE int end_of_ties(const sample_job &j, const cuda_draw &d, unsigned key, int wanted,
                       int *found)
{
    __shared__ int ties[SAMPLE_WARPS];
    int warp = threadIdx.x / 32, seen = 0;
    for (int id = threadIdx.x; seen < wanted; id += SAMPLE_THREADS) {
        bool tie = false;
        if (id < j.vocab) {
            stretch s = stretch_of(j, d.row, id / j.cols, 0);
            tie = key_of(s.x[id - s.first]) == key;
        }
        unsigned lanes = __ballot_sync(ALL_LANES, tie);
        if (lane_id() == 0)
            ties[warp] = __popc(lanes);
        __syncthreads();
        int before = seen + __popc(lanes & ((1u << lane_id()) - 1u));
        for (int w = 0; w < SAMPLE_WARPS; w++) {
            before += w < warp ? ties[w] : 0;
            seen += ties[w];
        }
        if (tie && before == wanted - 1)
            *found = id + 1;
        __syncthreads();
    }
    return *found;
}

/* The whole key is known: how many of its tokens are left, and which. */
DEVICE void end_cut(const sample_job &j, const cuda_draw &d, float top, bool again, row_state *r,
                    cut *c, wide *warps)
{
    __shared__ int found;
    wide units = cuts_by_mass(d) ? mass_units(logit_of(c->prefix), top, d) : 0;
    wide each = c->by_mass ? units : 1, left = (c->want + each - 1) / each;
    if (again) { /* top_p, over what top_k leaves */
        cut next = cut_of_mass(d, c->mass + left * units);
        for (int i = threadIdx.x; i < DIGITS; i += SAMPLE_THREADS)
            for (int level = 1; level < LEVELS; level++) {
                r->digits[level].mass[i] = 0;
                r->digits[level].count[i] = 0;
            }
        __syncthreads();
        if (threadIdx.x == 0)
            *c = next;
        __syncthreads();
        choose_digit(&r->digits[0], 0, c, warps);
        return;
    }
    int end = j.vocab;
    if (left < c->ties)
        end = end_of_ties(j, d, c->prefix, (int)left, &found);
    __syncthreads();
    if (threadIdx.x == 0)
        c->tie_end = end;
    __syncthreads();
}

/* Passes 0 to 2 find the three digits of the first cut, 3 and 4 the last two of the second. */
static __global__ void __launch_bounds__(SAMPLE_THREADS) narrow(const sample_job j, int pass)
{
    __shared__ wide warps[SAMPLE_WARPS];
    __shared__ block_digits block;
    __shared__ cut c;
    __shared__ int last;
    grid_dependency_wait();
    grid_dependency_launch();
    const cuda_draw d = j.draw[blockIdx.x];
    bool counts = cuts_by_count(j, d), masses = cuts_by_mass(d);
    if (pass < 3 ? !counts && !masses : !counts || !masses)
        return;
    wide row = row_top(j, warps);
    if (!drawable(row))
        return;
    float top = logit_of((unsigned)(row >> 32));
    int level = pass < 3 ? pass : pass - 2;
    row_state *r = j.rows_state + blockIdx.x;
    unsigned prefix = level > 0 ? r->cut.prefix : 0;
    count_digits(j, d, top, level, prefix, &block, &r->digits[level]);
    if (!last_of_row(r, &last))
        return;

    if (pass > 0) {
        if (threadIdx.x == 0)
            c = r->cut;
    } else if (counts) {
        if (threadIdx.x == 0)
            c = {(wide)d.top_k, 0, 0, 0, 0, 0};
    } else {
        wide own = 0, all;
        for (int i = threadIdx.x; i < DIGITS; i += SAMPLE_THREADS)
            own += r->digits[0].mass[i];
        block_sum_before(own, warps, &all);
        if (threadIdx.x == 0)
            c = cut_of_mass(d, all);
    }
    __syncthreads();
    choose_digit(&r->digits[level], level, &c, warps);
    if (level == LEVELS - 1)
        end_cut(j, d, top, pass == 2 && counts && masses, r, &c, warps);
    if (threadIdx.x == 0)
        r->cut = c;
}

/* --- the draw --- */

DEVICE bool better(scored a, scored b)
{
    return a.score > b.score || (a.score == b.score && a.id < b.id);
}

DEVICE double score_of(float x, int id, const cuda_draw &d)
{
    return (double)x / (double)d.temperature + sampler_gumbel(sampler_bits(d.seed, d.position, id));
}

DEVICE scored block_best(scored b, scored *warps)
{
    for (int step = 16; step > 0; step /= 2) {
        scored o = {__shfl_xor_sync(ALL_LANES, b.score, step),
                    __shfl_xor_sync(ALL_LANES, b.id, step)};
        b = better(o, b) ? o : b;
    }
    if (lane_id() == 0)
        warps[threadIdx.x / 32] = b;
    __syncthreads();
    for (int w = 0; w < SAMPLE_WARPS; w++)
        b = better(warps[w], b) ? warps[w] : b;
    __syncthreads();
    return b;
}

/*
 * What tells in fp32, for nearly every token, that it cannot be drawn, so that few need logarithms.
 * Noise is -log(-log u) <= -log(1 - u) and never above 36.74: with a = logit / T, a token beats the
 * score `best` only where 1 - u <= e^(a - best). `slack` holds off roundings, which are relative to
 * a and best; where numbers are so large that they overflow, comparisons are false and nothing is
 * ruled out.
 */
struct hurdle {
    float inverse; /* of T */
    float floor;   /* a below this cannot win, or has not min_p's mass */
    float best, slack;
};

DEVICE float hurdle_slack(float a)
{
    return 1e-6f * fabsf(a) + 1e-3f;
}

DEVICE hurdle hurdle_of(float top, double best, const cuda_draw &d)
{
    float a = top / d.temperature, floor = (float)best - 37.0f;
    if (d.min_p > 0x1p-31f) /* a mass is rounded by 2^-33 at most */
        floor = max(floor, a + (float)detmath_log((double)d.min_p - 0x1p-32));
    return {1.0f / d.temperature, floor - hurdle_slack(floor) - hurdle_slack(a), (float)best,
            hurdle_slack((float)best)};
}

DEVICE bool ruled_out(float a, uint64_t bits, const hurdle &h)
{
    float miss = (float)~(unsigned)(bits >> 32) * 0x1p-32f; /* at most 1 - u, roundings aside */
    float gap = h.best - a - h.slack - hurdle_slack(a);
    return gap > 0.0f && miss > 1.001f * detmath_expf(-gap);
}

static __global__ void __launch_bounds__(SAMPLE_THREADS) score(const sample_job j)
{
    __shared__ wide warps[SAMPLE_WARPS];
    __shared__ scored best_of_warps[SAMPLE_WARPS], first;
    __shared__ hurdle hurdle_of_row;
    __shared__ int last;
    grid_dependency_wait();
    grid_dependency_launch();
    const cuda_draw d = j.draw[blockIdx.x];
    row_state *r = j.rows_state + blockIdx.x;
    wide row = row_top(j, warps);
    if (!drawable(row) || d.temperature == 0.0f) {
        if (blockIdx.y == 0 && threadIdx.x == 0)
            j.drawn[blockIdx.x] = drawable(row) ? (int)~(unsigned)row : -1;
        return;
    }
    float top = logit_of((unsigned)(row >> 32));
    bool cuts = cuts_by_count(j, d) || cuts_by_mass(d);
    unsigned least = cuts ? r->cut.prefix : 0;
    int tie_end = cuts ? r->cut.tie_end : j.vocab;
    if (threadIdx.x == 0) { /* the likeliest token is always left: the others have it to beat */
        int id = (int)~(unsigned)row;
        first = {score_of(top, id, d), id};
        hurdle_of_row = hurdle_of(top, first.score, d);
    }
    __syncthreads();
    scored best = first;
    const hurdle h = hurdle_of_row;
    for_each(own_stretch(j, d), [&](float x, int id) {
        unsigned key = key_of(x);
        float a = x * h.inverse;
        if (key < least || (key == least && id >= tie_end) || a < h.floor || x == -INFINITY)
            return;
        uint64_t bits = sampler_bits(d.seed, d.position, id);
        if (ruled_out(a, bits, h))
            return;
        scored s = {(double)x / (double)d.temperature + sampler_gumbel(bits), id};
        if (better(s, best) && !(sampler_mass(x, top, d.temperature) < (double)d.min_p))
            best = s;
    });
    best = block_best(best, best_of_warps);
    if (threadIdx.x == 0)
        j.best[blockIdx.x * gridDim.y + blockIdx.y] = best;
    if (!last_of_row(r, &last))
        return;
    for (unsigned i = threadIdx.x; i < gridDim.y; i += SAMPLE_THREADS) {
        scored s = j.best[blockIdx.x * gridDim.y + i];
        best = better(s, best) ? s : best;
    }
    best = block_best(best, best_of_warps);
    if (threadIdx.x == 0)
        j.drawn[blockIdx.x] = (int32_t)best.id;
}

/* --- the host's side --- */

/* Blocks of a row's shard. */
static int pieces_of(int draws, int cols, int shards)
{
    int most = (cols + SAMPLE_PIECE - 1) / SAMPLE_PIECE;
    int fair = (SAMPLE_BLOCKS + draws * shards - 1) / (draws * shards);
    return most < fair ? most : fair;
}

/* Blocks of all rows, at most. */
static uint64_t blocks_of(int draws, int shards)
{
    return SAMPLE_BLOCKS + (uint64_t)draws * (uint64_t)shards;
}

uint64_t cuda_sample_bytes(int32_t draws, int32_t shards)
{
    draws = draws < SAMPLE_DRAWS ? draws : SAMPLE_DRAWS;
    return (uint64_t)draws * sizeof(row_state) +
           blocks_of(draws, shards) * (sizeof(wide) + sizeof(scored));
}

/* At most SAMPLE_DRAWS. */
static int sample_some(int draws, const cuda_draw *draw, cuda_edit *edit, const cuda_logits &logits,
                       int vocab, int cuts, void *work, int32_t *drawn, cuda_stream stream)
{
    int shards = (vocab + logits.cols - 1) / logits.cols;
    int pieces = pieces_of(draws, logits.cols, shards);
    row_state *states = (row_state *)work;
    scored *best = (scored *)(void *)(states + draws);
    const sample_job j = {draw,        edit,
                          logits.data, logits.rows,
                          logits.cols, vocab,
                          pieces,      (logits.cols + pieces - 1) / pieces,
                          states,      (wide *)(void *)(best + blocks_of(draws, shards)),
                          best,        drawn};
    const launch_shape shape = {dim3((unsigned)draws, (unsigned)(pieces * shards)),
                                dim3(SAMPLE_THREADS), 0, (device_stream)stream, true};
    const launch_shape edits = {dim3((unsigned)draws, EDIT_BLOCKS), dim3(SAMPLE_THREADS), 0,
                                (device_stream)stream, true};
    int e = edit ? launch(edit_rows, edits, j) : 0;
    e = e ? e : launch(scan, shape, j);
    for (int pass = 0; e == 0 && cuts && pass < PASSES; pass++)
        e = launch(narrow, shape, j, pass);
    e = e ? e : launch(score, shape, j);
    return e || !edit ? e : launch(restore_rows, edits, j);
}

int cuda_sample(int32_t draws, const struct cuda_draw *draw, struct cuda_edit *edit,
                const struct cuda_logits *logits, int32_t vocab, int32_t cuts, void *work,
                int32_t *drawn, cuda_stream stream)
{
    int e = 0;
    for (int32_t at = 0; e == 0 && at < draws; at += SAMPLE_DRAWS) {
        int some = draws - at < SAMPLE_DRAWS ? draws - at : SAMPLE_DRAWS;
        e = sample_some(some, draw + at, edit, *logits, vocab, cuts, work, drawn + at, stream);
    }
    return e;
}
