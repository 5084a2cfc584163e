/* The CUDA backend's fast products: see cuda_fast.h. */
#include "worker/cuda_fast.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdlib.h>

enum status cuda_fast_init(struct cuda_fast *f, const struct cuda_plugin *plugin, int device,
                           struct memory *memory, struct error *err)
{
    struct cuda_device_info info = {0};
    int e = plugin->device_info(device, &info);
    if (e != 0)
        return error_set(err, ERR_IO, "--fast: asking the GPU what it is: %s",
                         plugin->error_text(e));
    if (info.major != 9 || info.minor != 0)
        return error_set(err, ERR_UNSUPPORTED,
                         "--fast: expected a GPU of compute capability 9.0 (Hopper), found %s of "
                         "%d.%d: leave out --fast",
                         info.name, info.major, info.minor);
    if (!plugin->fast)
        return error_set(err, ERR_UNSUPPORTED,
                         "--fast: expected a CUDA plug-in with kernels for Hopper, found one "
                         "without on %s: leave out --fast",
                         info.name);
    *f = (struct cuda_fast){.table = plugin->fast, .memory = memory};
    log_info("GPU %d: numerics class cuda-1-sm90-fast: other bits than cuda-1-sm90, not the same "
             "in every batch and layout",
             device);
    return OK;
}

void cuda_fast_fini(struct cuda_fast *f)
{
    if (f->maps)
        f->memory->free(f->memory, f->maps);
    if (f->work)
        f->memory->free(f->memory, f->work);
    *f = (struct cuda_fast){0};
}

static enum status check_bf16(const struct matrix *m, const char *what, struct error *err)
{
    if (m->rows == 0 || m->cols == 0 || m->dtype == DTYPE_BF16)
        return OK;
    return error_set(err, ERR_UNSUPPORTED,
                     "--fast: %s: expected BF16, found %s in memory: leave out --fast", what,
                     dtype_name(m->dtype));
}

static enum status check_layer(const struct layer_weights *l, struct error *err)
{
    TRY(check_bf16(&l->q, "q_proj", err));
    TRY(check_bf16(&l->k, "k_proj", err));
    TRY(check_bf16(&l->v, "v_proj", err));
    TRY(check_bf16(&l->o, "o_proj", err));
    for (int32_t e = 0; e < l->ffn_count; e++) {
        TRY(check_bf16(&l->ffn[e].gate, "gate_proj", err));
        TRY(check_bf16(&l->ffn[e].up, "up_proj", err));
        TRY(check_bf16(&l->ffn[e].down, "down_proj", err));
    }
    if (l->ffn_count > CUDA_FAST_EXPERTS)
        return error_set(err, ERR_UNSUPPORTED,
                         "--fast: expected at most %d experts of a rank, found %d: cut them over "
                         "more ranks, or leave out --fast",
                         CUDA_FAST_EXPERTS, l->ffn_count);
    return OK;
}

/* The maps of one layer's experts, of the host. */
static int map_layer(const struct cuda_fast *f, const struct layer_weights *l, int32_t hidden,
                     struct cuda_fast_ffn *out)
{
    int e = 0;
    for (int32_t i = 0; e == 0 && i < l->ffn_count; i++) {
        const struct ffn *x = &l->ffn[i];
        const struct cuda_ffn one = {.gate = x->gate.data, .up = x->up.data, .down = x->down.data};
        e = f->table->maps(&one, 1, x->gate.rows, hidden, out + i);
    }
    return e;
}

static enum status send_maps(struct cuda_fast *f, int32_t hidden, const struct weights *w,
                             struct error *err)
{
    int64_t count = 0;
    for (int32_t i = 0; i < w->layer_count; i++)
        count += w->layers[i].ffn_count;
    uint64_t bytes = (uint64_t)count * sizeof *f->maps;
    struct cuda_fast_ffn *maps = calloc((size_t)count + 1, sizeof *maps);
    f->maps = f->memory->alloc(f->memory, bytes, false);
    if (!maps || !f->maps) {
        free(maps);
        return error_set(err, ERR_NO_MEMORY, "--fast: no memory for maps of %" PRId64 " experts",
                         count);
    }
    int e = 0;
    for (int32_t i = 0; e == 0 && i < w->layer_count; i++)
        if (w->layers[i].ffn_count > 0)
            e = map_layer(f, &w->layers[i], hidden, maps + (w->layers[i].ffn - w->ffns));
    enum status st = OK;
    if (e != 0)
        st = error_set(err, ERR_UNSUPPORTED,
                       "--fast: the driver makes no tensor maps (error %d): expected one for CUDA "
                       "12 or later: leave out --fast",
                       e);
    else if (count > 0)
        st = f->memory->put(f->memory, f->maps, bytes, maps, bytes, bytes, 1, err);
    free(maps);
    return st;
}

/* Of `work`. */
static uint64_t work_bytes(const struct model_config *config, const struct engine_limits *limits)
{
    uint64_t slots = (uint64_t)limits->max_rows * (uint64_t)(config->top_k > 0 ? config->top_k : 1);
    uint64_t products = slots * (uint64_t)config->hidden * sizeof(float);
    uint64_t packed = (uint64_t)limits->max_logits * (uint64_t)config->hidden * sizeof(cuda_bf16);
    return products > packed ? products : packed;
}

uint64_t cuda_fast_bytes(const struct model_config *config, const struct engine_limits *limits,
                         uint64_t ffns)
{
    return ffns * sizeof(struct cuda_fast_ffn) + work_bytes(config, limits);
}

enum status cuda_fast_prepare(struct cuda_fast *f, const struct model_config *config,
                              const struct engine_limits *limits, const struct weights *w,
                              struct error *err)
{
    if (!f->table)
        return OK;
    TRY(check_bf16(&w->lm_head, "lm_head", err));
    for (int32_t i = 0; i < w->layer_count; i++)
        TRY(check_layer(&w->layers[i], err));
    TRY(send_maps(f, config->hidden, w, err));
    uint64_t bytes = work_bytes(config, limits);
    f->work = f->memory->alloc(f->memory, bytes, false);
    if (!f->work)
        return error_set(err, ERR_NO_MEMORY,
                         "--fast: no memory for %" PRIu64 " bytes of workspace: lower "
                         "--step-tokens, or leave out --fast",
                         bytes);
    return OK;
}

bool cuda_fast_takes(const struct cuda_fast *f, int32_t rows)
{
    return f->table && rows >= CUDA_FAST_ROWS;
}
