/*
 * Weights made up for benchmarks: see weights_random in weights.h. A few MB of random numbers a
 * width of matrix are enough: each matrix begins at another place among them. Panels are filled by
 * all threads.
 */
#include "base/check.h"
#include "base/pool.h"
#include "worker/weights.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { PATTERN = 4 << 20, WIDTHS = 8 }; /* numbers of a pattern; distinct widths of a model */

struct pattern {
    int32_t cols;
    uint16_t *bf16;
    float *f32;
};

enum { CODES = 1 << 18 }; /* bytes of random codes, twice: they stay in a processor's cache */

/* Panels of a matrix that one thread fills at a time. */
struct share {
    const struct matrix *matrix;
    int32_t first, count;
};

struct panel_maker {
    struct share *shares;
    size_t count, cap;
    atomic_size_t next;
    uint8_t *codes; /* [2 * CODES]: of 8 bits, none 0, which is no code; of 4 bits any will do */
};

struct maker {
    uint64_t state;
    struct pattern patterns[WIDTHS];
    struct panel_maker panels;
    struct weights *w;
};

/* xorshift64* (Vigna 2016). */
static uint32_t draw(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return (uint32_t)((x * UINT64_C(2685821657736338717)) >> 32);
}

/* Uniform with the variance 1 / cols, so that products keep the size of their vectors. */
static enum status pattern_of(struct maker *m, int32_t cols, const struct pattern **out,
                              struct error *err)
{
    int i = 0;
    while (i < WIDTHS && m->patterns[i].bf16 && m->patterns[i].cols != cols)
        i++;
    CHECK(i < WIDTHS, "%d widths of matrices", i);
    struct pattern *p = &m->patterns[i];
    *out = p;
    if (p->bf16)
        return OK;
    *p = (struct pattern){cols, malloc(PATTERN * sizeof *p->bf16), malloc(PATTERN * sizeof(float))};
    if (!p->bf16 || !p->f32)
        return error_set(err, ERR_NO_MEMORY, "no memory for random weights");
    float width = sqrtf(3.0f / (float)cols);
    for (int k = 0; k < PATTERN; k++) {
        float x = ((float)draw(&m->state) * 0x1p-31f - 1.0f) * width;
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        p->bf16[k] = (uint16_t)(bits >> 16);
        bits &= 0xffff0000u;
        memcpy(&p->f32[k], &bits, sizeof bits);
    }
    return OK;
}

/* Any codes but NaNs, which want bit 6; scales that make values of about the size of pattern_of. */
static enum status fill_packed(struct maker *m, const struct matrix *t, struct error *err)
{
    enum { BYTES = 1 << 16 };
    const struct weight_shape *s = &t->shape;
    char *to = (char *)(uintptr_t)t->data;
    uint32_t *words = malloc(BYTES), scale;
    float each = (s->form == FORM_E4M3 ? 1.5f : 0.2f) / sqrtf((float)t->cols);
    enum status st = OK;
    if (!words)
        return error_set(err, ERR_NO_MEMORY, "no memory for random weights");
    for (int part = 0; part < 2; part++) { /* rows, then scales */
        uint64_t end = part == 0 ? s->scales_at : s->used;
        memcpy(&scale, &each, sizeof scale);
        scale = s->form == FORM_INT4 ? (scale & ~31u) | 8 : scale;
        for (size_t i = 0; i < BYTES / sizeof *words; i++)
            words[i] = part == 0 ? draw(&m->state) & 0xbfbfbfbfu : scale;
        for (uint64_t at = part == 0 ? 0 : s->scales_at, n; st == OK && at < end; at += n) {
            n = end - at < BYTES ? end - at : BYTES;
            st = m->w->memory->put(m->w->memory, to + at, n, words, n, n, 1, err);
        }
    }
    free(words);
    return st;
}

/* --- panels --- */

/* Codes' mean square is about 73^2 in 8 bits and 67^2 in 4. */
static void fill_panel(const struct panel_maker *pm, const struct matrix *t, int32_t p, size_t at)
{
    int bits = weight_panel_bits(t->shape.form), rows = t->rows - p * PANEL_ROWS;
    size_t scale_bytes = panel_scale_bytes(t->cols), done = 0;
    uint8_t *to = (uint8_t *)(uintptr_t)t->data + (uint64_t)p * t->shape.row_bytes;
    uint16_t *scales = (void *)to, scale;
    float size = 1.0f / ((bits == 4 ? 67.0f : 73.0f) * sqrtf((float)t->cols));
    uint32_t word;
    memcpy(&word, &size, sizeof word);
    scale = (uint16_t)(word >> 16);
    memset(to, 0, scale_bytes);
    for (int32_t i = 0; i < panel_blocks(t->cols) * PANEL_ROWS; i++)
        scales[i] = i % PANEL_ROWS < rows ? scale : 0;
    for (size_t n, codes = t->shape.row_bytes - scale_bytes; done < codes; done += n) {
        n = codes - done < CODES ? codes - done : CODES;
        memcpy(to + scale_bytes + done, pm->codes + at, n);
    }
    for (size_t i = scale_bytes; rows < PANEL_ROWS && i < t->shape.row_bytes; i++)
        if ((int)((i - scale_bytes) / 4 % PANEL_ROWS) >= rows)
            to[i] = bits == 4 ? PANEL_ZERO4 : PANEL_ZERO8;
}

static void fill_shares(void *arg, int thread)
{
    struct panel_maker *pm = arg;
    (void)thread;
    for (size_t i; (i = atomic_fetch_add(&pm->next, 1)) < pm->count;) {
        const struct share *s = &pm->shares[i];
        uint64_t state = i + 1;
        for (int k = 0; k < 8; k++) /* small seeds are alike at first */
            draw(&state);
        for (int32_t p = s->first; p < s->first + s->count; p++)
            fill_panel(pm, s->matrix, p, draw(&state) % CODES / 64 * 64);
    }
}

/* A matrix for fill_shares, in pieces of a few MB. */
static enum status push_panels(struct panel_maker *pm, const struct matrix *t, struct error *err)
{
    int32_t count = panel_count(t->rows), step = (int32_t)((4 << 20) / (t->shape.row_bytes + 1));
    step = step > 0 ? step : 1;
    for (int32_t p = 0; p < count; p += step) {
        if (pm->count == pm->cap) {
            size_t cap = pm->cap ? 2 * pm->cap : 256;
            struct share *list = realloc(pm->shares, cap * sizeof *list);
            if (!list)
                return error_set(err, ERR_NO_MEMORY, "no memory for random weights");
            pm->shares = list;
            pm->cap = cap;
        }
        pm->shares[pm->count++] = (struct share){t, p, count - p < step ? count - p : step};
    }
    return OK;
}

static enum status fill_panels(struct maker *m, struct error *err)
{
    struct panel_maker *pm = &m->panels;
    struct pool *pool = NULL;
    if (pm->count == 0)
        return OK;
    CHECK(m->w->memory->host, "panels on a device");
    pm->codes = malloc(2 * CODES);
    if (!pm->codes)
        return error_set(err, ERR_NO_MEMORY, "no memory for random weights");
    for (size_t i = 0; i < CODES; i++) {
        pm->codes[i] = (uint8_t)draw(&m->state);
        if (pm->codes[i] == 0)
            pm->codes[i] = 1;
        pm->codes[CODES + i] = pm->codes[i];
    }
    TRY(pool_create(loader_threads(), false, &pool, err));
    pool_run(pool, fill_shares, pm);
    pool_destroy(pool);
    return OK;
}

static enum status fill(struct maker *m, const struct matrix *t, struct error *err)
{
    if (weight_panel_bits(t->shape.form))
        return push_panels(&m->panels, t, err);
    if (t->shape.form == FORM_E4M3 || t->shape.form == FORM_INT4)
        return fill_packed(m, t, err);
    const struct pattern *p = NULL;
    size_t count = (size_t)t->rows * (size_t)t->cols, each = dtype_size(t->dtype);
    if (count == 0)
        return OK;
    if (t->dtype != DTYPE_BF16 && t->dtype != DTYPE_F32)
        return error_set(err, ERR_UNSUPPORTED, "random weights: expected bf16 or fp32, found %s",
                         dtype_name(t->dtype));
    TRY(pattern_of(m, t->cols, &p, err));
    const char *from = t->dtype == DTYPE_BF16 ? (const char *)p->bf16 : (const char *)p->f32;
    size_t at = draw(&m->state) % (PATTERN / 2) / 8 * 8;
    for (size_t done = 0; done < count;) {
        size_t n = count - done < PATTERN - at ? count - done : PATTERN - at;
        TRY(m->w->memory->put(m->w->memory, (char *)(uintptr_t)t->data + done * each, n * each,
                              from + at * each, n * each, n * each, 1, err));
        done += n;
        at = 0;
    }
    return OK;
}

static enum status fill_layer(struct maker *m, const struct layer_weights *l, struct error *err)
{
    const struct matrix *const matrices[] = {&l->q, &l->k, &l->v, &l->o, &l->router};
    for (size_t i = 0; i < COUNT_OF(matrices); i++)
        TRY(fill(m, matrices[i], err));
    for (int32_t e = 0; e < l->ffn_count; e++) {
        TRY(fill(m, &l->ffn[e].gate, err));
        TRY(fill(m, &l->ffn[e].up, err));
        TRY(fill(m, &l->ffn[e].down, err));
    }
    return OK;
}

static enum status fill_vectors(struct weights *w, struct error *err)
{
    float *ones = malloc(w->vector_bytes + 1);
    if (!ones)
        return error_set(err, ERR_NO_MEMORY, "no memory for random weights");
    for (uint64_t i = 0; i < w->vector_bytes / sizeof *ones; i++)
        ones[i] = 1.0f;
    enum status st = w->memory->put(w->memory, w->vectors, w->vector_bytes, ones, w->vector_bytes,
                                    w->vector_bytes, 1, err);
    free(ones);
    return st;
}

enum status weights_random(struct weights *w, uint64_t seed, struct error *err)
{
    struct maker m = {.state = seed * 2 + 1, .w = w};
    enum status st = fill(&m, &w->embed, err);
    if (st == OK && w->lm_head.data != w->embed.data) /* tied */
        st = fill(&m, &w->lm_head, err);
    for (int32_t i = 0; st == OK && i < w->layer_count; i++)
        st = fill_layer(&m, &w->layers[i], err);
    if (st == OK)
        st = fill_vectors(w, err);
    if (st == OK)
        st = fill_panels(&m, err);
    free(m.panels.shares);
    free(m.panels.codes);
    for (int i = 0; i < WIDTHS; i++) {
        free(m.patterns[i].bf16);
        free(m.patterns[i].f32);
    }
    return st;
}
