/*
 * Attention against softmax in double precision, and its bits against themselves: alone and in a
 * batch, rows of a sequence together and row by row, whatever the chunks, the blocks and the cut of
 * the heads. The cache is NaN wherever a test wrote nothing.
 */
#include "tests/cuda/batch.h"

#include "worker/kv8_inline.h"

#include <algorithm>
#include <numeric>

enum { NAN_BITS = 0x7fff };

/* A model's heads, and what its sequences hold: k, v [position][KV head][head_dim]. */
struct model {
    int32_t kv_heads, group, head_dim;
    double q_scale;
    std::vector<std::vector<cuda_bf16>> k, v;

    model(int32_t kv_heads_, int32_t group_, int32_t head_dim_, const std::vector<int32_t> &lengths,
          double q_scale_ = 4.0)
        : kv_heads(kv_heads_), group(group_), head_dim(head_dim_), q_scale(q_scale_)
    {
        for (size_t s = 0; s < lengths.size(); s++) {
            size_t n = (size_t)(lengths[s] * kv_heads * head_dim);
            k.push_back(bf16_of(random_numbers(100 + s, n)));
            v.push_back(bf16_of(random_numbers(200 + s, n)));
        }
    }
    int32_t row() const
    {
        return (head_dim + 15) / 16 * 16;
    }
    int32_t length(size_t s) const
    {
        return (int32_t)k[s].size() / (kv_heads * head_dim);
    }
    /* q of all heads at a position: [head][head_dim] */
    std::vector<cuda_bf16> q(size_t s, int32_t pos) const
    {
        size_t n = (size_t)(kv_heads * group * head_dim);
        std::vector<float> x = random_numbers(1000003 * (s + 1) + (uint64_t)pos, n);
        for (float &f : x)
            f *= (float)(q_scale / sqrt((double)head_dim));
        return bf16_of(x);
    }
};

/* K, or V, of one head and position in int8. */
struct rounded {
    std::vector<int8_t> code; /* [row] */
    std::vector<cuda_bf16> scale;

    rounded(const cuda_bf16 *x, int32_t head_dim, int32_t row) : code((size_t)row, 0)
    {
        for (int32_t g = 0; g < row; g += CUDA_KV8_GROUP) {
            uint32_t greatest = 0;
            int32_t end = std::min(g + CUDA_KV8_GROUP, head_dim);
            for (int32_t d = g; d < end; d++)
                greatest = std::max(greatest, kv8_magnitude(bf16_value(x[d])));
            float s = kv8_scale(greatest);
            scale.push_back(bf16_of(s));
            for (int32_t d = g; d < end; d++)
                code[(size_t)d] = kv8_code(bf16_value(x[d]), s);
        }
    }
    cuda_bf16 value(size_t d) const
    {
        return bf16_of((float)code[d] * bf16_value(scale[d / CUDA_KV8_GROUP]));
    }
};

/* Positions [begin, begin + rows) of sequence s in one step. */
struct chunk {
    size_t s;
    int32_t begin, rows;
};

struct cut {
    int32_t q_begin, q_heads;
};

enum { AS_FED = -1 };

struct step {
    std::vector<chunk> chunks;
    cut heads;
    int32_t cached;       /* positions of a sequence that are in the cache, or AS_FED: up to the
                           * step's last row; the rest is NaN */
    uint64_t blocks_seed; /* which blocks the sequences have */
    int32_t longest;      /* 0: as it is */
    int32_t times;        /* launched one after the other over one workspace */
    bool apart;           /* each row alone, also those of one sequence */
    bool int8;            /* the cache */
};

/* The whole step, as it is. */
static step whole(const model &m, const std::vector<chunk> &chunks)
{
    return {chunks, {0, m.kv_heads * m.group}, INT32_MAX, 1, 0, 1, false, false};
}

static std::vector<std::vector<int32_t>> deal_blocks(const model &m, uint64_t seed, int32_t *total)
{
    std::vector<std::vector<int32_t>> blocks(m.k.size());
    *total = 3; /* some are nobody's */
    for (size_t s = 0; s < blocks.size(); s++)
        *total += (m.length(s) + CUDA_KV_BLOCK - 1) / CUDA_KV_BLOCK;
    std::vector<int32_t> free_blocks((size_t)*total);
    std::iota(free_blocks.begin(), free_blocks.end(), 0);
    for (size_t i = free_blocks.size() - 1; i > 0; i--)
        std::swap(free_blocks[i], free_blocks[(size_t)random_int(&seed, 0, (int32_t)i)]);
    for (size_t s = 0; s < blocks.size(); s++)
        for (int32_t p = 0; p < m.length(s); p += CUDA_KV_BLOCK) {
            blocks[s].push_back(free_blocks.back());
            free_blocks.pop_back();
        }
    return blocks;
}

/* Positions of each sequence that are in the cache. */
static std::vector<int32_t> cached_of(const model &m, const step &st)
{
    std::vector<int32_t> cached(m.k.size(), st.cached == AS_FED ? 0 : st.cached);
    for (const chunk &c : st.chunks)
        if (st.cached == AS_FED)
            cached[c.s] = std::max(cached[c.s], c.begin + c.rows);
    return cached;
}

/* A rank's cache: K [row][KV_BLOCK], V [KV_BLOCK][row], padding zero. */
static std::vector<cuda_bf16> fill_cache(const model &m, int32_t kv_begin, int32_t kv_heads,
                                         const std::vector<int32_t> &cached, int32_t total,
                                         const std::vector<std::vector<int32_t>> &blocks)
{
    int32_t row = m.row();
    std::vector<cuda_bf16> cache((size_t)(total * kv_heads * 2 * CUDA_KV_BLOCK * row), NAN_BITS);
    for (size_t s = 0; s < blocks.size(); s++)
        for (int32_t p = 0; p < m.length(s) && p < cached[s]; p++)
            for (int32_t h = 0; h < kv_heads; h++) {
                int32_t block = blocks[s][(size_t)(p / CUDA_KV_BLOCK)], slot = p % CUDA_KV_BLOCK;
                cuda_bf16 *k = cache.data() + (block * kv_heads + h) * 2 * CUDA_KV_BLOCK * row;
                cuda_bf16 *v = k + CUDA_KV_BLOCK * row;
                size_t from = (size_t)((p * m.kv_heads + kv_begin + h) * m.head_dim);
                for (int32_t d = 0; d < row; d++) {
                    bool inside = d < m.head_dim;
                    k[d * CUDA_KV_BLOCK + slot] = inside ? m.k[s][from + (size_t)d] : 0;
                    v[slot * row + d] = inside ? m.v[s][from + (size_t)d] : 0;
                }
            }
    return cache;
}

/* The same in int8; scales NaN where nothing is. */
static std::vector<cuda_bf16> fill_int8(const model &m, int32_t kv_begin, int32_t kv_heads,
                                        const std::vector<int32_t> &cached, int32_t total,
                                        const std::vector<std::vector<int32_t>> &blocks)
{
    int32_t row = m.row(), groups = (row + CUDA_KV8_GROUP - 1) / CUDA_KV8_GROUP;
    int32_t scales = CUDA_KV_BLOCK / 2 * row, tile = scales + CUDA_KV_BLOCK * groups;
    std::vector<cuda_bf16> cache((size_t)(total * kv_heads * 2 * tile), NAN_BITS);
    for (size_t s = 0; s < blocks.size(); s++)
        for (int32_t p = 0; p < m.length(s) && p < cached[s]; p++)
            for (int32_t h = 0; h < 2 * kv_heads; h++) {
                bool of_k = h < kv_heads;
                int32_t block = blocks[s][(size_t)(p / CUDA_KV_BLOCK)], slot = p % CUDA_KV_BLOCK;
                int32_t at = (block * kv_heads + h % kv_heads) * 2 + (of_k ? 0 : 1);
                size_t from = (size_t)((p * m.kv_heads + kv_begin + h % kv_heads) * m.head_dim);
                rounded r((of_k ? m.k : m.v)[s].data() + from, m.head_dim, row);
                cuda_bf16 *to = cache.data() + (size_t)(at * tile);
                for (int32_t d = 0; d < row; d++)
                    ((int8_t *)to)[of_k ? d * CUDA_KV_BLOCK + slot : slot * row + d] =
                        r.code[(size_t)d];
                for (int32_t g = 0; g < groups; g++)
                    to[scales + g * CUDA_KV_BLOCK + slot] = r.scale[(size_t)g];
            }
    return cache;
}

/* q[rows, heads of the cut, row] */
static std::vector<cuda_bf16> fill_q(const model &m, const step &st)
{
    std::vector<cuda_bf16> q;
    for (const chunk &c : st.chunks)
        for (int32_t i = 0; i < c.rows; i++) {
            std::vector<cuda_bf16> all = m.q(c.s, c.begin + i);
            for (int32_t h = st.heads.q_begin; h < st.heads.q_begin + st.heads.q_heads; h++)
                for (int32_t d = 0; d < m.row(); d++)
                    q.push_back(d < m.head_dim ? all[(size_t)(h * m.head_dim + d)] : 0);
        }
    return q;
}

/* out[rows, heads of the cut, head_dim]. parts, if any: what was written of the workspace, sorted.
 */
static std::vector<cuda_bf16> run(const model &m, const step &st,
                                  std::vector<uint32_t> *parts = NULL)
{
    int32_t total;
    std::vector<std::vector<int32_t>> blocks = deal_blocks(m, st.blocks_seed, &total);
    std::vector<test_sequence> sequences;
    for (const chunk &c : st.chunks)
        sequences.push_back({c.begin, c.rows, blocks[c.s]});
    test_batch t(sequences);
    int32_t kv_begin = st.heads.q_begin / m.group;
    int32_t kv_end = (st.heads.q_begin + st.heads.q_heads + m.group - 1) / m.group;
    cuda_attention a = {st.heads.q_begin, st.heads.q_heads, kv_begin, kv_end - kv_begin,
                        m.group,          m.head_dim,       m.row(),  1e-6f};
    if (!st.apart)
        t.cut(a);
    t.b.longest = st.longest ? st.longest : t.b.longest;
    device_array<cuda_bf16> q(fill_q(m, st));
    device_array<cuda_bf16> cache((st.int8 ? fill_int8 : fill_cache)(
        m, kv_begin, a.kv_heads, cached_of(m, st), total, blocks));
    device_array<cuda_bf16> out((size_t)(t.b.rows * a.q_heads * m.head_dim));
    simt_protect(q.p, true);
    simt_protect(cache.p, true);
    uint64_t bytes = cuda_attention_bytes(t.b.rows, t.b.longest, &a);
    device_array<uint8_t> partial(bytes ? bytes : 1);
    if (parts)
        assert_int_equal(device_fill(partial.p, 0xff, partial.n, NULL), 0);
    if (bytes)
        assert_int_equal(device_fill(partial.p, 0, CUDA_ATTENTION_ZEROS, NULL), 0);
    for (int32_t i = 0; i < st.times; i++) {
        if (i > 0)
            assert_int_equal(device_fill(out.p, 0xff, out.n * sizeof *out.p, NULL), 0);
        assert_ran(cuda_attention_run(&t.b, &a, q.p, {cache.p, a.kv_heads, a.row, st.int8},
                                      bytes ? partial.p : NULL, out.p, NULL));
    }
    if (parts) {
        std::vector<uint8_t> words = partial.read();
        parts->resize(words.size() / 4);
        memcpy(parts->data(), words.data(), words.size());
        parts->erase(parts->begin(), parts->begin() + CUDA_ATTENTION_ZEROS / 4);
        parts->erase(std::remove(parts->begin(), parts->end(), UINT32_MAX), parts->end());
        std::sort(parts->begin(), parts->end());
    }
    return out.read();
}

/* One head of one row by the formula, with the error that its arithmetic may have: weights rounded
 * to bf16 (relative 2^-8) and normalised by their own sum, scores in fp32, the result as bf16. */
static void assert_head(const model &m, size_t s, int32_t pos, int32_t head, const cuda_bf16 *q,
                        const cuda_bf16 *found)
{
    size_t hd = (size_t)m.head_dim, kv_head = (size_t)(head / m.group);
    std::vector<double> w;
    double top = -INFINITY, sum = 0.0, largest = 0.0;
    for (size_t p = 0; p <= (size_t)pos; p++) {
        const cuda_bf16 *k = m.k[s].data() + (p * (size_t)m.kv_heads + kv_head) * hd;
        double dot = 0.0, size = 0.0;
        for (size_t d = 0; d < hd; d++) {
            double product = (double)bf16_value(q[d]) * (double)bf16_value(k[d]);
            dot += product;
            size += fabs(product);
        }
        w.push_back(dot);
        top = std::max(top, dot);
        largest = std::max(largest, size);
    }
    for (double &x : w)
        sum += x = exp(x - top);
    for (size_t d = 0; d < hd; d++) {
        double o = 0.0, spread = 0.0;
        const cuda_bf16 *v = m.v[s].data() + kv_head * hd + d;
        size_t stride = (size_t)m.kv_heads * hd;
        for (size_t p = 0; p < w.size(); p++)
            o += w[p] / sum * (double)bf16_value(v[p * stride]);
        for (size_t p = 0; p < w.size(); p++)
            spread += w[p] / sum * fabs((double)bf16_value(v[p * stride]) - o);
        double weights = 0x1.02p-8 + 0x1p-20 * largest;
        assert_near(d, (double)bf16_value(found[d]), o,
                    weights * spread + 0x1.02p-8 * fabs(o) + 1e-6);
    }
}

static void check(const model &m, const std::vector<chunk> &chunks)
{
    std::vector<cuda_bf16> out = run(m, whole(m, chunks));
    int32_t heads = m.kv_heads * m.group;
    const cuda_bf16 *found = out.data();
    for (const chunk &c : chunks)
        for (int32_t i = 0; i < c.rows; i++) {
            std::vector<cuda_bf16> q = m.q(c.s, c.begin + i);
            for (int32_t h = 0; h < heads; h++, found += m.head_dim)
                assert_head(m, c.s, c.begin + i, h, q.data() + h * m.head_dim, found);
        }
}

static const std::vector<int32_t> lengths = {1, 63, 64, 65, 511, 512, 513, 1100};

/* The last row of every sequence. */
static std::vector<chunk> decode(const model &m)
{
    std::vector<chunk> chunks;
    for (size_t s = 0; s < m.k.size(); s++)
        chunks.push_back({s, m.length(s) - 1, 1});
    return chunks;
}

static void groups_and_head_sizes(void **state)
{
    (void)state;
    uint64_t seed = 0;
    for (int32_t group : {1, 4, 8, 16})
        for (int32_t head_dim : {16, 64, 80, 128}) {
            simt_seed(++seed);
            model m(1, group, head_dim, lengths);
            check(m, decode(m));
        }
}

static void odd_groups_and_head_sizes(void **state)
{
    (void)state;
    simt_seed(2);
    model seven(2, 7, 96, {65, 530});
    check(seven, decode(seven));
    model padded(2, 3, 24, {65, 530});
    check(padded, decode(padded));
    model wide(1, 40, 48, {65, 530}); /* three tiles of heads */
    check(wide, decode(wide));
    model low(3, 5, 112, {10, 600}), tiny(2, 2, 8, {70});
    check(low, decode(low));
    check(tiny, decode(tiny));
}

/* One position outweighs all others, so that running maxima and their rescaling matter. */
static void sharp_scores(void **state)
{
    (void)state;
    for (double q_scale : {0.0, 60.0, 400.0}) {
        model m(1, 4, 64, lengths, q_scale);
        check(m, decode(m));
    }
}

static void prompts(void **state)
{
    (void)state;
    simt_seed(3);
    model m(2, 2, 32, {130, 70});
    check(m, {{0, 0, 130}, {1, 60, 10}});
    model other(1, 8, 128, {530, 1100, 40});
    check(other, {{0, 500, 30}, {1, 1099, 1}, {2, 0, 40}, {1, 1020, 6}});
}

static std::vector<cuda_bf16> rows_of(const model &m, const std::vector<cuda_bf16> &out,
                                      size_t first, size_t count, int32_t heads)
{
    size_t row = (size_t)(heads * m.head_dim);
    return part(out, first * row, count * row);
}

static void alone_as_in_a_batch(void **state)
{
    (void)state;
    model m(2, 4, 80, lengths);
    std::vector<chunk> chunks = decode(m);
    std::vector<cuda_bf16> together = run(m, whole(m, chunks));
    for (size_t i = 0; i < chunks.size(); i++) {
        simt_seed(10 + i);
        assert_same(run(m, whole(m, {chunks[i]})), rows_of(m, together, i, 1, 8));
    }
    std::vector<chunk> turned(chunks.rbegin(), chunks.rend());
    std::vector<cuda_bf16> other = run(m, whole(m, turned));
    for (size_t i = 0; i < chunks.size(); i++)
        assert_same(rows_of(m, other, chunks.size() - 1 - i, 1, 8), rows_of(m, together, i, 1, 8));
}

/* Chunks of a prompt; at each the cache holds what was fed so far, and NaN beyond. */
static void chunks_of_a_prompt(void **state)
{
    (void)state;
    const int32_t begin = 440, end = 580;
    model m(1, 4, 64, {end});
    std::vector<cuda_bf16> all = run(m, whole(m, {{0, begin, end - begin}}));
    uint64_t seed = 0;
    for (int32_t size : {1, 7, 64, 100})
        for (int32_t at = begin; at < end; at += size == 1 ? 9 : size) {
            int32_t rows = std::min(size, end - at);
            step st = whole(m, {{0, at, rows}});
            st.cached = at + rows;
            simt_seed(++seed);
            assert_same(run(m, st), rows_of(m, all, (size_t)(at - begin), (size_t)rows, 4));
        }
}

static void any_blocks(void **state)
{
    (void)state;
    model m(2, 2, 48, {600, 65, 513, 130});
    step st = whole(m, decode(m));
    std::vector<cuda_bf16> expected = run(m, st);
    for (st.blocks_seed = 2; st.blocks_seed <= 5; st.blocks_seed++) {
        simt_seed(st.blocks_seed);
        assert_same(run(m, st), expected);
    }
}

static void any_cut_of_the_heads(void **state)
{
    (void)state;
    model m(2, 8, 64, {1, 65, 700});
    step st = whole(m, decode(m));
    std::vector<cuda_bf16> all = run(m, st);
    for (cut heads :
         {cut{0, 8}, {8, 8}, {0, 4}, {4, 8}, {12, 4}, {3, 7}, {7, 2}, {15, 1}, {1, 15}}) {
        st.heads = heads;
        simt_seed((uint64_t)heads.q_begin + 1);
        std::vector<cuda_bf16> found = run(m, st);
        for (size_t i = 0; i < 3; i++)
            assert_same(
                part(found, i * (size_t)(heads.q_heads * 64), (size_t)(heads.q_heads * 64)),
                part(all, (i * 16 + (size_t)heads.q_begin) * 64, (size_t)(heads.q_heads * 64)));
    }
}

/* More splits than any row has, in several launches. */
static void an_overstated_length(void **state)
{
    (void)state;
    model m(1, 2, 16, {513, 30, 1030});
    std::vector<chunk> chunks = {{0, 505, 8}, {1, 20, 10}, {2, 1022, 8}};
    step st = whole(m, chunks);
    std::vector<cuda_bf16> expected = run(m, st);
    st.longest = 1500 * CUDA_SPLIT; /* 21 rows a launch */
    assert_same(run(m, st), expected);
}

/* The bits of a step's rows together are those of its rows one by one. */
static void assert_as_apart(const model &m, const step &together)
{
    step apart = together;
    apart.apart = true;
    assert_same(run(m, together), run(m, apart));
}

/* Runs that begin and end anywhere in tiles and splits, rows alone between them. */
static const std::vector<chunk> mixed = {{0, 0, 70},   {1, 699, 1}, {2, 505, 30}, {3, 63, 1},
                                         {4, 120, 9},  {5, 0, 1},   {6, 1020, 9}, {2, 511, 2},
                                         {7, 448, 65}, {0, 62, 3},  {6, 0, 2}};
static const std::vector<int32_t> mixed_lengths = {130, 700, 600, 64, 300, 1, 1500, 530};

static void runs_in_a_mixed_step(void **state)
{
    (void)state;
    uint64_t seed = 0;
    for (int32_t group : {1, 3, 8, 16}) {
        simt_seed(++seed);
        model m(group == 8 ? 2 : 1, group, group == 8 ? 32 : 16, mixed_lengths);
        step st = whole(m, mixed);
        st.cached = AS_FED;
        assert_as_apart(m, st);
    }
}

static void runs_of_any_shape(void **state)
{
    (void)state;
    uint64_t seed = 20;
    for (int32_t head_dim : {64, 80, 96, 128})
        for (int32_t group : {2, 5, 7, 8, 12, 16}) {
            std::vector<chunk> chunks;
            for (size_t s = 0; s < 4; s++) {
                int32_t begin = random_int(&seed, 0, s == 0 ? 590 : 120);
                chunks.push_back({s, begin, random_int(&seed, 1, 10)});
            }
            simt_seed(seed);
            model m(head_dim == 64 ? 3 : 1, group, head_dim, {600, 130, 130, 130});
            step st = whole(m, chunks);
            st.cached = AS_FED;
            assert_as_apart(m, st);
        }
}

/* The longest prompt that fits one step, up to its third split, and sharp scores. */
static void a_prompt_together(void **state)
{
    (void)state;
    for (double q_scale : {0.0, 4.0, 400.0}) {
        model m(1, 8, 16, {1100}, q_scale);
        step st = whole(m, {{0, 0, 130}, {0, 480, 50}, {0, 1000, 60}});
        assert_as_apart(m, st);
    }
}

/* Before they are joined and rounded to bf16, which would hide a last bit. */
static void splits_in_all_their_bits(void **state)
{
    (void)state;
    for (int32_t group : {3, 8}) {
        model m(2, group, 48, {1100, 700});
        step st = whole(m, {{0, 1017, 20}, {1, 600, 32}, {0, 520, 5}}), apart = st;
        std::vector<uint32_t> parts, expected;
        apart.apart = true;
        assert_same(run(m, st, &parts), run(m, apart, &expected));
        assert_in_range(expected.size(), 57 * 2 * 2 * group * 50, 57 * 3 * 2 * group * 50);
        assert_same(parts, expected);
    }
}

/* So many that a block goes over all splits of its rows and joins them itself. */
static void enough_runs_to_fill_a_device(void **state)
{
    (void)state;
    model m(4, 16, 16, {1100, 530});
    std::vector<chunk> chunks;
    uint64_t seed = 7;
    for (int32_t i = 0; i < 32; i++)
        chunks.push_back({0, random_int(&seed, 0, 1090), random_int(&seed, 2, 8)});
    chunks.push_back({1, 510, 8});
    chunks.push_back({1, 505, 20});
    chunks.push_back({0, 1020, 10});
    step st = whole(m, chunks);
    simt_seed(3);
    assert_as_apart(m, st);
}

/* What a later row of the chunk has in the cache does not touch the rows before it. */
static void infinities_in_a_chunk(void **state)
{
    (void)state;
    for (int32_t group : {1, 5, 8}) {
        model m(1, group, 32, {140, 530});
        for (size_t s = 0; s < 2; s++)
            for (int32_t p : {5, 64, 77, 100, 515}) {
                if (p >= m.length(s))
                    continue;
                cuda_bf16 what = p == 77 ? NAN_BITS : p == 64 ? 0xff80 : 0x7f80;
                m.v[s][(size_t)(p * 32 + p % 32)] = what;
                if (p % 2)
                    m.k[s][(size_t)(p * 32 + 3)] = what;
            }
        simt_seed((uint64_t)group);
        step st = whole(m, {{0, 0, 80}, {0, 60, 50}, {1, 508, 12}});
        st.cached = AS_FED;
        assert_as_apart(m, st);
        std::vector<cuda_bf16> out = run(m, st);
        for (int32_t i = 0; i < 5 * group * 32; i++) /* rows before all of them */
            assert_true(fabs((double)bf16_value(out[(size_t)i])) < 2.0);
    }
}

static void runs_under_a_cut_of_the_heads(void **state)
{
    (void)state;
    model m(3, 8, 16, {30, 600});
    step st = whole(m, {{0, 3, 20}, {1, 500, 24}});
    std::vector<cuda_bf16> all = run(m, st);
    for (cut heads : {cut{0, 16}, {4, 4}, {3, 7}, {15, 1}, {7, 10}, {1, 23}}) {
        st.heads = heads;
        assert_as_apart(m, st);
        std::vector<cuda_bf16> found = run(m, st);
        for (size_t i = 0; i < 44; i++)
            assert_same(
                part(found, i * (size_t)(heads.q_heads * 16), (size_t)(heads.q_heads * 16)),
                part(all, (i * 24 + (size_t)heads.q_begin) * 16, (size_t)(heads.q_heads * 16)));
    }
    model wide(1, 40, 16, {70}), wider(1, 70, 16, {70}); /* 3 rows of a run; 1 */
    assert_as_apart(wide, whole(wide, {{0, 60, 10}}));
    assert_as_apart(wider, whole(wider, {{0, 66, 4}}));
}

/* Every row is in one unit, of one sequence, at positions one after the other. */
static void cutting_into_units(void **state)
{
    (void)state;
    uint64_t seed = 5;
    for (int32_t group : {1, 8, 40, 64, 65, 200}) {
        std::vector<test_sequence> sequences;
        for (int32_t i = 0; i < 40; i++)
            sequences.push_back({random_int(&seed, 0, 500),
                                 random_int(&seed, 0, 2) ? 1 : random_int(&seed, 1, 300),
                                 {0}});
        test_batch t(sequences);
        t.pos[10] = t.pos[9]; /* not one after the other */
        cuda_attention a = {0, 2 * group, 0, 2, group, 16, 16, 1e-6f};
        size_t rows = t.pos.size();
        std::vector<cuda_unit> unit(rows);
        std::vector<int> seen(rows, 0);
        int32_t alone;
        int32_t runs = cuda_attention_units(&a, t.b.rows, t.pos.data(), t.table.data(), unit.data(),
                                            &alone);
        assert_in_range(runs, group > 64 ? 0 : 1, rows);
        for (int32_t u = 0; u < runs + alone; u++) {
            cuda_unit x = unit[(size_t)u];
            assert_true(u < runs ? x.rows > 1 && x.rows * group <= 128 : x.rows == 1);
            for (int32_t r = x.row; r < x.row + x.rows; r++) {
                seen[(size_t)r]++;
                assert_int_equal(t.table[(size_t)r], t.table[(size_t)x.row]);
                assert_int_equal(t.pos[(size_t)r], t.pos[(size_t)x.row] + r - x.row);
            }
        }
        for (int s : seen)
            assert_int_equal(s, 1);
        for (int32_t u = 1; u < runs; u++)
            assert_true(unit[(size_t)u].row < unit[(size_t)u - 1].row);
    }
}

/* As a graph does: each launch finds the workspace as the one before left it. */
static void launched_again(void **state)
{
    (void)state;
    model m(2, 4, 64, {600, 30, 1300, 513});
    for (const std::vector<chunk> &chunks : {decode(m), {{0, 505, 40}, {2, 1290, 2}}}) {
        step st = whole(m, chunks);
        std::vector<cuda_bf16> expected = run(m, st);
        st.times = 3;
        simt_seed(5);
        assert_same(run(m, st), expected);
    }
}

static void bytes_of_the_workspace(void **state)
{
    (void)state;
    cuda_attention a = {0, 64, 0, 4, 16, 128, 128, 1e-6f};
    assert_int_equal(cuda_attention_bytes(8192, CUDA_SPLIT, &a), 0);
    assert_int_equal(cuda_attention_bytes(0, 40960, &a), 0);
    assert_int_equal(cuda_attention_bytes(1, CUDA_SPLIT + 1, &a),
                     CUDA_ATTENTION_ZEROS + 64 * 2 * (128 + 2) * 4);
    uint64_t last = 0;
    for (int32_t rows = 1; rows <= 8192; rows *= 2) {
        uint64_t bytes = cuda_attention_bytes(rows, 40960, &a);
        assert_true(bytes >= last && bytes <= 64 << 20);
        last = bytes;
    }
}

/* The model whose K and V are what int8 keeps of this one's. */
static model as_rounded(const model &m)
{
    model r = m;
    for (auto *values : {&r.k, &r.v})
        for (std::vector<cuda_bf16> &x : *values)
            for (size_t at = 0; at < x.size(); at += (size_t)m.head_dim) {
                rounded head(x.data() + at, m.head_dim, m.row());
                for (size_t d = 0; d < (size_t)m.head_dim; d++)
                    x[at + d] = head.value(d);
            }
    return r;
}

/* Over int8 the bits are those over bf16 of what it keeps: rows alone and together, in any blocks
 * and cut, NaN beyond what was fed. */
static void int8_has_the_bits_of_what_it_keeps(void **state)
{
    (void)state;
    uint64_t seed = 40;
    for (int32_t head_dim : {8, 24, 80, 128}) {
        simt_seed(++seed);
        model m(2, 4, head_dim, mixed_lengths);
        step st = whole(m, mixed), narrow = st;
        narrow.int8 = true;
        narrow.cached = AS_FED;
        narrow.blocks_seed = seed;
        std::vector<cuda_bf16> expected = run(as_rounded(m), st);
        assert_same(run(m, narrow), expected);
        narrow.apart = true;
        assert_same(run(m, narrow), expected);
        narrow.heads = st.heads = {3, 5};
        assert_same(run(m, narrow), run(as_rounded(m), st));
    }
}

static void nothing_to_do(void **state)
{
    (void)state;
    cuda_batch b = {};
    cuda_attention a = {0, 4, 0, 1, 4, 16, 16, 1e-6f};
    assert_int_equal(cuda_attention_run(&b, &a, NULL, {NULL, 1, 16}, NULL, NULL, NULL), 0);
    assert_null(simt_report());
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(groups_and_head_sizes),
    cmocka_unit_test(odd_groups_and_head_sizes),
    cmocka_unit_test(sharp_scores),
    cmocka_unit_test(prompts),
    cmocka_unit_test(alone_as_in_a_batch),
    cmocka_unit_test(chunks_of_a_prompt),
    cmocka_unit_test(any_blocks),
    cmocka_unit_test(any_cut_of_the_heads),
    cmocka_unit_test(an_overstated_length),
    cmocka_unit_test(int8_has_the_bits_of_what_it_keeps),
    cmocka_unit_test(runs_in_a_mixed_step),
    cmocka_unit_test(runs_of_any_shape),
    cmocka_unit_test(a_prompt_together),
    cmocka_unit_test(splits_in_all_their_bits),
    cmocka_unit_test(enough_runs_to_fill_a_device),
    cmocka_unit_test(infinities_in_a_chunk),
    cmocka_unit_test(runs_under_a_cut_of_the_heads),
    cmocka_unit_test(cutting_into_units),
    cmocka_unit_test(launched_again),
    cmocka_unit_test(bytes_of_the_workspace),
    cmocka_unit_test(nothing_to_do),
};

KERNEL_MAIN(tests)
