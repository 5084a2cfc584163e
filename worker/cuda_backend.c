/*
 * The CUDA backend: see cuda_backend.h. A stage is launched on one stream and not waited for; the
 * first error is kept, with the stage's name, until `finish`. A step's batch goes to the device in
 * one copy. Decode steps are recorded at the start and then run again (cuda_graphs.h), all but the
 * draw: what it launches depends on what is asked for.
 */
#include "worker/cuda_private.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SPIN_NS = 5000000, PAUSE_US = 50 }; /* of a wait under a watch */

static struct backend *backend_of(struct memory *m)
{
    return (struct backend *)((char *)m - offsetof(struct backend, memory));
}

static enum status cuda_failed(const struct backend *be, int code, const char *what,
                               struct error *err)
{
    return error_set(err, ERR_IO, "GPU %d: %s: %s", be->device, what, be->cuda->error_text(code));
}

void cuda_note(struct backend *be, int code, const char *stage)
{
    if (code != 0 && be->err.code == OK)
        cuda_failed(be, code, stage, &be->err);
}

/* Until the stream has run, or up to the event where there is one. Under a watch it is asked, at
 * first without a pause, for decode steps take a few milliseconds. */
static enum status wait_for(struct backend *be, cuda_event event, const char *what,
                            struct error *err)
{
    const struct cuda_plugin *c = be->cuda;
    int64_t start = clock_now_ns();
    bool done = false;
    int e = 0;
    if (!be->watch.look)
        e = event ? c->event_wait(event) : c->wait(be->stream);
    while (be->watch.look && e == 0 && !done) {
        e = event ? c->event_query(event, &done) : c->query(be->stream, &done);
        int64_t waited = clock_now_ns() - start;
        if (e != 0 || done || waited < SPIN_NS)
            continue;
        TRY(be->watch.look(be->watch.arg, what, waited / 1000000, err));
        usleep(PAUSE_US);
    }
    return e == 0 ? OK : cuda_failed(be, e, what, err);
}

/* --- memory --- */

static void *device_alloc(struct memory *m, uint64_t bytes, bool zero)
{
    struct backend *be = backend_of(m);
    void *p = NULL;
    if (be->cuda->use(be->device) != 0 || be->cuda->alloc(&p, bytes ? bytes : 1) != 0)
        return NULL;
    if (zero && (be->cuda->zero(p, bytes, be->stream) != 0 || be->cuda->wait(be->stream) != 0)) {
        be->cuda->free(p);
        return NULL;
    }
    return p;
}

static void device_free(struct memory *m, void *p)
{
    struct backend *be = backend_of(m);
    if (p && be->cuda->use(be->device) == 0)
        be->cuda->free(p);
}

static enum status device_put(struct memory *m, void *to, uint64_t to_stride, const void *from,
                              uint64_t from_stride, uint64_t run, uint64_t rows, struct error *err)
{
    struct backend *be = backend_of(m);
    int e = be->cuda->use(be->device);
    if (e == 0)
        e = be->cuda->put(to, to_stride, from, from_stride, run, rows, be->stream);
    return e == 0 ? wait_for(be, NULL, "copying to it", err)
                  : cuda_failed(be, e, "copying to it", err);
}

static enum status device_get(struct memory *m, void *to, const void *from, uint64_t bytes,
                              struct error *err)
{
    struct backend *be = backend_of(m);
    int e = be->cuda->use(be->device);
    if (e == 0 && be->watch.look) /* the copy below may wait by itself */
        TRY(wait_for(be, NULL, "copying from it", err));
    if (e == 0)
        e = be->cuda->get(to, from, bytes, be->stream);
    return e == 0 ? wait_for(be, NULL, "copying from it", err)
                  : cuda_failed(be, e, "copying from it", err);
}

static enum status device_clear(struct memory *m, void *p, uint64_t bytes, struct error *err)
{
    struct backend *be = backend_of(m);
    int e = be->cuda->use(be->device);
    if (e == 0)
        e = be->cuda->zero(p, bytes, be->stream);
    return e == 0 ? OK : cuda_failed(be, e, "clearing it", err);
}

struct memory *cuda_memory(struct backend *be)
{
    return &be->memory;
}

/* --- a step's batch --- */

/* Rows of one sequence stand together and share a table: each table goes over once. */
static int32_t flatten_tables(const struct backend *be, const struct batch *b, int32_t *table,
                              int32_t *blocks)
{
    int32_t used = 0;
    for (int32_t i = 0, end; i < b->rows; i = end) {
        int32_t last = b->pos[i];
        for (end = i; end < b->rows && b->block_table[end] == b->block_table[i]; end++) {
            table[end] = used;
            last = b->pos[end] > last ? b->pos[end] : last;
        }
        int32_t n = last / KV_BLOCK + 1;
        CHECK(used + n <= be->max_blocks, "%d blocks of a step's tables", used + n);
        memcpy(blocks + used, b->block_table[i], (size_t)n * sizeof *blocks);
        used += n;
    }
    return used;
}

/* The step's batch in a buffer at `at`, here or on the device. */
static struct cuda_batch lay_out(int32_t *at, int32_t rows, int32_t logits, int32_t longest,
                                 const int32_t *drawn)
{
    return (struct cuda_batch){
        .rows = rows,
        .live = at,
        .token = at + 1,
        .pos = at + 1 + rows,
        .table = at + 1 + 2 * rows,
        .logit_row = at + 1 + 3 * rows,
        .blocks = at + 1 + 3 * rows + logits,
        .drawn = drawn,
        .longest = longest,
        .logits = logits,
    };
}

/* Copies of the last row, with tables of their own; returns the blocks in use. */
static int32_t fill_up(const struct backend *be, const struct batch *b, int32_t rows, int32_t *at,
                       int32_t used)
{
    int32_t last = b->rows - 1, n = b->pos[last] / KV_BLOCK + 1;
    int32_t *token = at + 1, *pos = token + rows, *table = pos + rows, *logit = table + rows;
    int32_t *blocks = logit + rows;
    for (int32_t i = b->rows; i < rows; i++, used += n) {
        CHECK(used + n <= be->max_blocks, "%d blocks of a step's tables", used + n);
        token[i] = token[last];
        pos[i] = pos[last];
        logit[i] = i;
        table[i] = used;
        memcpy(blocks + used, b->block_table[last], (size_t)n * sizeof *blocks);
    }
    return used;
}

/* One row of each sequence, all of which want logits: what is recorded. */
static bool is_decode(const struct batch *b)
{
    for (int32_t i = 1; i < b->rows; i++)
        if (b->block_table[i] == b->block_table[i - 1])
            return false;
    return b->logits == b->rows;
}

static size_t draw_bytes(const struct engine_limits *l)
{
    return (size_t)batch_max_draws(l) * sizeof(struct cuda_draw);
}

/* The draws at the slot's begin, their edits at `edit`; returns how many of these. */
static int32_t lay_out_draws(struct backend *be, const struct batch *b, struct cuda_edit *edit)
{
    int32_t edits = 0;
    CHECK(b->draws <= batch_max_draws(&be->limits), "%d draws", b->draws);
    for (int32_t i = 0; i < b->draws; i++) {
        const struct draw *d = &b->draw[i];
        CHECK(edits + d->edits <= batch_max_edits(&be->limits), "%d edits", edits + d->edits);
        be->slots[be->slot].draw[i] = (struct cuda_draw){
            .row = d->row,
            .position = d->position,
            .seed = d->sampling.seed,
            .temperature = d->sampling.temperature,
            .top_p = d->sampling.top_p,
            .min_p = d->sampling.min_p,
            .top_k = d->sampling.top_k,
            .first_edit = edits,
            .edits = d->edits,
            .repetition_penalty = d->repetition_penalty};
        for (int32_t k = 0; k < d->edits; k++)
            edit[edits++] = (struct cuda_edit){d->edit[k].id, d->edit[k].add, d->edit[k].repeated};
    }
    return edits;
}

void cuda_begin(struct backend *be, const struct batch *b)
{
    const struct step_slot *slot = &be->slots[be->slot];
    int32_t rows = b->rows, logits = b->logits, *at = slot->batch, longest = 0;
    CHECK(be->ended < SLOTS, "%d steps under way", be->ended);
    CHECK(rows <= be->limits.max_rows && logits <= be->limits.max_logits, "%d rows, %d logits",
          rows, logits);
    if (be->mode == STEP_RECORD) {
        be->batch = lay_out(be->device_batch, rows, logits, be->step->longest, be->drawn);
        cuda_note(be, be->cuda->record_begin(be->stream), "recording");
        return;
    }
    for (int32_t i = 0; i < rows; i++)
        longest = b->pos[i] + 1 > longest ? b->pos[i] + 1 : longest;
    be->step = is_decode(b) ? cuda_graphs_find(&be->graphs, rows, longest) : NULL;
    be->mode = be->step ? STEP_REPLAY : STEP_PLAIN;
    be->segment = 0;
    be->draws = 0;
    if (be->step)
        rows = logits = be->step->rows;

    *at = b->rows;
    memcpy(at + 1, b->token, (size_t)b->rows * sizeof *at);
    memcpy(at + 1 + rows, b->pos, (size_t)b->rows * sizeof *at);
    if (b->logits > 0)
        memcpy(at + 1 + 3 * rows, b->logit_row, (size_t)b->logits * sizeof *at);
    int32_t fixed = 1 + 3 * rows + logits;
    int32_t blocks = flatten_tables(be, b, at + 1 + 2 * rows, at + fixed);
    if (be->step)
        blocks = fill_up(be, b, rows, at, blocks);
    fixed += blocks;
    be->batch = lay_out(be->device_batch, rows, logits, longest, be->drawn);
    if (!be->step) { /* recorded steps have no runs */
        struct cuda_batch *batch = &be->batch;
        batch->unit = (const struct cuda_unit *)(be->device_batch + fixed);
        batch->runs = be->cuda->attention_units(&be->attention, rows, at + 1 + rows,
                                                at + 1 + 2 * rows, (struct cuda_unit *)(at + fixed),
                                                &batch->alone);
        fixed += 2 * (batch->runs + batch->alone);
    }
    int32_t edits = lay_out_draws(be, b, (struct cuda_edit *)(void *)(at + fixed));
    be->edits = edits > 0 ? (struct cuda_edit *)(void *)(be->device_batch + fixed) : NULL;
    size_t bytes = draw_bytes(&be->limits) + (size_t)fixed * sizeof *at +
                   (size_t)edits * sizeof *be->edits;
    cuda_note(be, be->cuda->put(be->device_draw, bytes, slot->draw, bytes, bytes, 1, be->stream),
              "batch");
}

/* --- recorded steps --- */

bool cuda_record(struct backend *be, int32_t i, struct batch *b)
{
    if (i >= be->graphs.count) {
        const struct recorded_step *last = i > 0 ? &be->graphs.steps[i - 1] : NULL;
        if (last && be->err.code == OK)
            log_info("GPU %d: %d decode steps recorded, up to %d rows, %d nodes in the largest",
                     be->device, i, last->rows, last->nodes);
        return false;
    }
    be->step = &be->graphs.steps[i];
    be->mode = STEP_RECORD;
    *b = (struct batch){.rows = be->step->rows, .logits = be->step->rows};
    return true;
}

void cuda_replay_segment(struct backend *be)
{
    const struct recorded_step *s = be->step;
    CHECK(be->segment < s->count, "segment %d of %d", be->segment, s->count);
    cuda_note(be, be->cuda->graph_run(s->segments[be->segment++], be->stream), "a recorded step");
}

bool cuda_meet(struct backend *be, bool captured)
{
    be->gathered = captured; /* the last to meet before a draw gather its logits */
    if (be->mode == STEP_PLAIN || (be->mode == STEP_RECORD && captured))
        return true;
    if (captured)
        return false;
    if (be->mode == STEP_REPLAY) {
        cuda_replay_segment(be);
        return true;
    }
    cuda_note(be, recorded_step_cut(be->step, be->cuda, be->stream), "recording");
    cuda_note(be, be->cuda->record_begin(be->stream), "recording");
    return false;
}

int32_t cuda_backend_recorded(const struct backend *be, int32_t rows, int32_t longest,
                              int32_t *segments)
{
    const struct recorded_step *s = cuda_graphs_find(&be->graphs, rows, longest);
    *segments = s ? s->count : 0;
    return s ? s->nodes : 0;
}

/* --- life --- */

void cuda_end(struct backend *be)
{
    const struct step_slot *slot = &be->slots[be->slot];
    if (be->mode == STEP_RECORD)
        cuda_note(be, recorded_step_cut(be->step, be->cuda, be->stream), "recording");
    if (be->mode == STEP_REPLAY)
        cuda_replay_segment(be);
    be->mode = STEP_PLAIN;
    if (be->draws > 0)
        cuda_note(be,
                  be->cuda->get(slot->drawn, be->drawn, (size_t)be->draws * sizeof *be->drawn,
                                be->stream),
                  "drawn tokens");
    cuda_note(
        be,
        be->cuda->get(slot->out_of_range, be->out_of_range, sizeof *be->out_of_range, be->stream),
        "end");
    cuda_note(be, be->cuda->event_record(slot->done, be->stream), "end");
    be->slot = (be->slot + 1) % SLOTS;
    be->ended++;
}

enum status cuda_finish(struct backend *be, struct error *err)
{
    CHECK(be->ended > 0, "no step has ended");
    be->finished = (be->slot + SLOTS - be->ended) % SLOTS;
    be->ended--;
    struct error e;
    if (wait_for(be, be->slots[be->finished].done, "a stage of this step", &e) != OK &&
        be->err.code == OK)
        be->err = e;
    if (be->err.code != OK && err)
        *err = be->err;
    return be->err.code;
}

cuda_stream cuda_backend_stream(const struct backend *be)
{
    return be->stream;
}

void cuda_backend_watch(struct backend *be, const struct cuda_watch *watch)
{
    be->watch = *watch;
}

uint64_t cuda_range_exceeded(const struct backend *be)
{
    return *be->slots[be->finished].out_of_range;
}

void cuda_destroy(struct backend *be)
{
    if (!be)
        return;
    be->cuda->use(be->device);
    cuda_graphs_fini(&be->graphs, be->cuda);
    cuda_fast_fini(&be->fast);
    void *there[] = {be->device_draw,  be->drawn, be->sample_work, be->partial,
                     be->router_zeros, be->ffn,   be->out_of_range};
    for (size_t i = 0; i < COUNT_OF(there); i++)
        device_free(&be->memory, there[i]);
    for (size_t i = 0; i < SLOTS; i++) {
        struct step_slot *slot = &be->slots[i];
        if (slot->draw)
            be->cuda->free_host(slot->draw);
        if (slot->drawn)
            be->cuda->free_host(slot->drawn);
        if (slot->out_of_range)
            be->cuda->free_host(slot->out_of_range);
        if (slot->done)
            be->cuda->event_destroy(slot->done);
    }
    be->cuda->stream_destroy(be->stream);
    free(be);
}

static enum status check_model(const struct backend *be, struct error *err)
{
    const struct model_config *c = &be->config;
    if (be->limits.kv_dtype == KV_F32)
        return error_set(err, ERR_UNSUPPORTED,
                         "the CUDA backend keeps the KV cache in bf16 or int8: leave out --kv f32");
    if (be->limits.fast && c->quant.format != FORMAT_PLAIN)
        return error_set(err, ERR_UNSUPPORTED,
                         "--fast has products of bf16 weights alone, and this model's are "
                         "quantised: leave it out");
    if (be->attention.row > CUDA_MAX_HEAD || c->top_k > CUDA_MAX_TOP_K)
        return error_set(
            err, ERR_UNSUPPORTED,
            "the CUDA backend has heads of at most %d and %d experts a token, found %d "
            "and %d: run this model on CPUs",
            CUDA_MAX_HEAD, CUDA_MAX_TOP_K, c->head_dim, c->top_k);
    if (c->head_dim % 8 != 0) /* a leaf of o_proj begins at a multiple of 16 bytes */
        return error_set(err, ERR_UNSUPPORTED,
                         "attention heads: expected a head_dim that is a multiple of 8, found %d: "
                         "run this model on CPUs",
                         c->head_dim);
    return OK;
}

static struct cuda_attention attention_of(const struct model_config *config,
                                          const struct rank_plan *rank)
{
    return (struct cuda_attention){
        .q_begin = rank->q_heads.begin,
        .q_heads = range_size(rank->q_heads),
        .kv_begin = rank->kv_heads.begin,
        .kv_heads = range_size(rank->kv_heads),
        .group = config->q_heads / config->kv_heads,
        .head_dim = config->head_dim,
        .row = head_row(config->head_dim),
        .eps = config->rms_eps,
    };
}

/* KV blocks of all tables of a step. */
static int64_t table_blocks(const struct engine_limits *l)
{
    return (int64_t)l->max_seqs * ((l->context + KV_BLOCK - 1) / KV_BLOCK);
}

struct cuda_backend_bytes cuda_backend_bytes(const struct cuda_plugin *plugin,
                                             const struct model_config *config,
                                             const struct rank_plan *rank,
                                             const struct engine_limits *l)
{
    struct cuda_attention a = attention_of(config, rank);
    uint64_t ffns = 0;
    int32_t shards = 0;
    if (rank->layers.end == config->layers) /* the last stage draws */
        shards = (config->vocab + rank->vocab_padded - 1) / rank->vocab_padded;
    for (int32_t i = rank->layers.begin; i < rank->layers.end; i++)
        ffns += config->layer_is_moe[i] ? (uint64_t)range_size(rank->experts) : 1;
    return (struct cuda_backend_bytes){
        .batch = draw_bytes(l) +
                 (1 + 5 * (uint64_t)l->max_rows + (uint64_t)l->max_logits +
                  (uint64_t)table_blocks(l)) *
                     sizeof(int32_t) +
                 (uint64_t)batch_max_edits(l) * sizeof(struct cuda_edit),
        .tables = ffns * sizeof(struct cuda_ffn) + sizeof(unsigned long long) + CUDA_ROUTER_ZEROS,
        .sampling = (uint64_t)batch_max_draws(l) * sizeof(int32_t) +
                    (shards > 0 ? plugin->sample_bytes(batch_max_draws(l), shards) : 0),
        .partial = plugin->attention_bytes(l->max_rows, l->context, &a),
        .fast = l->fast ? cuda_fast_bytes(config, l, ffns) : 0,
    };
}

static bool allocate_slot(struct backend *be, struct step_slot *slot, uint64_t there,
                          uint64_t drawn)
{
    if (be->cuda->alloc_host((void **)&slot->draw, there) != 0 ||
        be->cuda->alloc_host((void **)&slot->drawn, drawn) != 0 ||
        be->cuda->alloc_host((void **)&slot->out_of_range, sizeof *slot->out_of_range) != 0 ||
        be->cuda->event_create(&slot->done) != 0)
        return false;
    memset(slot->draw, 0, draw_bytes(&be->limits));
    slot->batch = (int32_t *)(void *)(slot->draw + batch_max_draws(&be->limits));
    *slot->out_of_range = 0;
    return true;
}

static enum status allocate(struct backend *be, const struct rank_plan *rank, struct error *err)
{
    const struct engine_limits *l = &be->limits;
    int64_t tables = table_blocks(l);
    if (tables > INT32_MAX)
        return error_set(err, ERR_LIMIT, "%d sequences of %d tokens are too many KV blocks",
                         l->max_seqs, l->context);
    be->max_blocks = (int32_t)tables;
    TRY(cuda_graphs_init(&be->graphs, l, err));
    struct cuda_backend_bytes n = cuda_backend_bytes(be->cuda, &be->config, rank, l);
    uint64_t drawn = (uint64_t)batch_max_draws(l) * sizeof *be->drawn;
    be->device_draw = device_alloc(&be->memory, n.batch, false);
    be->drawn = device_alloc(&be->memory, drawn, true);
    be->sample_work = device_alloc(&be->memory, n.sampling - drawn, false);
    be->partial = device_alloc(&be->memory, n.partial, true); /* as stages.h asks */
    be->router_zeros = device_alloc(&be->memory, CUDA_ROUTER_ZEROS, true);
    be->out_of_range = device_alloc(&be->memory, sizeof *be->out_of_range, true);
    bool there = be->device_draw && be->drawn && be->sample_work && be->partial &&
                 be->router_zeros && be->out_of_range;
    for (size_t i = 0; there && i < SLOTS; i++)
        there = allocate_slot(be, &be->slots[i], n.batch, drawn);
    if (!there)
        return error_set(err, ERR_NO_MEMORY,
                         "GPU %d: no memory for %" PRIu64 " bytes of a step's buffers: lower "
                         "--step-tokens, --max-seqs or --context",
                         be->device, n.batch + n.sampling + n.partial);
    be->device_batch = (int32_t *)(void *)(be->device_draw + batch_max_draws(l));
    return OK;
}

enum status cuda_backend_create(const struct cuda_plugin *plugin, int device,
                                const struct model_config *config, const struct rank_plan *rank,
                                const struct engine_limits *limits, const struct kernels **kernels,
                                struct backend **out, struct error *err)
{
    struct backend *be = calloc(1, sizeof *be);
    if (!be)
        return error_set(err, ERR_NO_MEMORY, "no memory for the CUDA backend");
    be->cuda = plugin;
    be->device = device;
    be->memory = (struct memory){false,      device_alloc, device_free,
                                 device_put, device_get,   device_clear};
    be->config = *config;
    be->limits = *limits;
    be->attention = attention_of(config, rank);
    struct cuda_device_info info;
    enum status st = check_model(be, err);
    if (st == OK)
        st = cuda_plugin_device(plugin, device, &info, err);
    int e = st == OK ? plugin->stream_create(&be->stream) : 0;
    if (e != 0)
        st = cuda_failed(be, e, "opening it", err);
    if (st != OK) {
        free(be);
        return st;
    }
    st = allocate(be, rank, err);
    if (st == OK && limits->fast)
        st = cuda_fast_init(&be->fast, plugin, device, &be->memory, err);
    if (st != OK) {
        cuda_destroy(be);
        return st;
    }
    *kernels = &cuda_kernels;
    *out = be;
    return OK;
}
