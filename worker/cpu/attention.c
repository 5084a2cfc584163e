/*
 * The CPU backend's stage of attention: see worker/kernels.h. Rows of one sequence go over the
 * cache together, so that a tile is read once for all of them and for all heads that share it; who
 * goes with whom changes no bit (attention_ops.h).
 */
#include "base/beat.h"
#include "worker/cpu/stages_private.h"

#include <string.h>

struct attention_job {
    struct backend *be;
    const struct batch *b;
    const struct attention *a;
    const float *q;
    const struct kv_layer *kv;
    float *out;
    int32_t block_rows; /* rows that go together, at most */
    atomic_llong next;  /* block and KV head to be taken */
};

/* The query heads of this rank that read a KV head. */
static struct range heads_of(const struct attention *a, int32_t kv_head)
{
    int32_t first = kv_head * a->group, last = first + a->group;
    return (struct range){.begin = first > a->q_heads.begin ? first : a->q_heads.begin,
                          .end = last < a->q_heads.end ? last : a->q_heads.end};
}

/* Of a block of rows and a KV head. */
struct block {
    int32_t begin, end; /* rows */
    int32_t kv_head;
    struct range heads;
    struct attention_queries queries; /* [rows][heads] */
    int32_t *count;                   /* queries.count */
};

/* The queries side by side, in the thread's scratch: see plan_thread_scratch. */
static void lay_out(const struct attention_job *j, struct block *b, float *scratch)
{
    int32_t heads = range_size(b->heads), n = (b->end - b->begin) * heads, hd = j->a->row;
    int32_t room = (n + LANES - 1) / LANES * LANES + LANES;
    const float *q = j->q + ((int64_t)b->begin * range_size(j->a->q_heads) + b->heads.begin -
                             j->a->q_heads.begin) *
                                hd;
    float *o = scratch, *m = o + (int64_t)n * hd, *l = m + room, *copy = l + 2 * (int64_t)room;
    b->count = (int32_t *)(void *)(l + room);
    for (int32_t r = 0; b->end - b->begin > 1 && r < b->end - b->begin; r++)
        memcpy(copy + (int64_t)r * heads * hd, q + (int64_t)r * range_size(j->a->q_heads) * hd,
               (size_t)heads * (size_t)hd * sizeof *q);
    b->queries = (struct attention_queries){.n = n,
                                            .hd = hd,
                                            .q = b->end - b->begin > 1 ? copy : q,
                                            .count = b->count,
                                            .m = m,
                                            .l = l,
                                            .o = o,
                                            .scratch = copy + (int64_t)n * hd};
}

/* The queries of the rows that see any of tile t: the last ones, since positions ascend. */
static struct attention_queries queries_of_tile(const struct attention_job *j,
                                                const struct block *b, int32_t t)
{
    int32_t heads = range_size(b->heads), row = b->begin, n = 0;
    while (j->b->pos[row] < t * KV_BLOCK)
        row++;
    for (int32_t r = row; r < b->end; r++)
        for (int32_t h = 0; h < heads; h++) {
            int32_t seen = j->b->pos[r] + 1 - t * KV_BLOCK;
            b->count[n++] = seen < KV_BLOCK ? seen : KV_BLOCK;
        }
    struct attention_queries q = b->queries;
    int64_t skipped = q.n - n;
    q.n = n;
    q.q += skipped * q.hd;
    q.o += skipped * q.hd;
    q.m += skipped;
    q.l += skipped;
    return q;
}

static const char *tile_of(const struct attention_job *j, const struct block *b, int32_t t)
{
    return kv_tile(j->kv, j->b->block_table[b->begin][t], b->kv_head - j->a->kv_heads.begin);
}

static void store_values(const struct attention_job *j, const struct block *b)
{
    const struct attention *a = j->a;
    int32_t heads = range_size(b->heads);
    for (int32_t i = 0; i < b->queries.n; i++) {
        int64_t row = b->begin + i / heads, head = b->heads.begin + i % heads - a->q_heads.begin;
        float *to = j->out + (row * range_size(a->q_heads) + head) * a->head_dim;
        const float *o = b->queries.o + (int64_t)i * a->row;
        float l = b->queries.l[i];
        for (int32_t d = 0; d < a->head_dim; d++)
            to[d] = o[d] / l;
    }
}

/* Tiles in the order of the sequence, joined one by one: online softmax with a fixed order. */
static void attend(const struct attention_job *j, struct block *b, float *scratch)
{
    int32_t tiles = j->b->pos[b->end - 1] / KV_BLOCK + 1;
    size_t bytes = kv_tile_bytes(j->kv->dtype, j->a->row);
    const char *k = tile_of(j, b, 0);
    lay_out(j, b, scratch);
    for (int32_t t = 0; t < tiles; t++) {
        const char *next = t + 1 < tiles ? tile_of(j, b, t + 1) : k;
        struct attention_queries q = queries_of_tile(j, b, t);
        j->be->ops->attention->tile(&q, k, k + bytes, j->kv->dtype, t == 0, next - k);
        k = next;
    }
    store_values(j, b);
}

/* Where the block of rows before `end` begins: of one sequence, positions ascending. */
static int32_t block_begin(const struct attention_job *j, int32_t end)
{
    const struct batch *b = j->b;
    int32_t r = end - 1;
    while (r > 0 && end - r < j->block_rows && b->block_table[r - 1] == b->block_table[r] &&
           b->pos[r - 1] < b->pos[r])
        r--;
    return r;
}

/* Threads take blocks from the last on, since later rows of a prompt see more positions. */
static void attention_thread(void *arg, int thread)
{
    struct attention_job *j = arg;
    int32_t heads = range_size(j->a->kv_heads);
    int64_t at = 0;
    struct block b = {.end = j->b->rows};
    b.begin = block_begin(j, b.end);
    for (;;) {
        int64_t item = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed);
        beat();
        for (; at < item / heads && b.begin > 0; at++) {
            b.end = b.begin;
            b.begin = block_begin(j, b.end);
        }
        if (at < item / heads)
            return;
        b.kv_head = j->a->kv_heads.begin + (int32_t)(item % heads);
        b.heads = heads_of(j->a, b.kv_head);
        attend(j, &b, scratch_of(j->be, thread));
    }
}

/* As many as the scratch holds, but not so many that threads would be left with nothing to do. */
static int32_t rows_together(const struct backend *be, int64_t rows, const struct attention *a)
{
    int32_t most = a->group < ATTENTION_QUERIES ? ATTENTION_QUERIES / a->group : 1;
    while (most > 1 && rows * range_size(a->kv_heads) < (int64_t)4 * be->threads * most)
        most = (most + 1) / 2;
    return most;
}

void cpu_attention(struct backend *be, const struct batch *b, const struct attention *a,
                   const float *q, const struct kv_layer *kv, float *out)
{
    struct attention_job j = {be, b, a, q, kv, out, rows_together(be, b->rows, a), 0};
    if (b->rows > 0)
        pool_run(be->pool, attention_thread, &j);
}
