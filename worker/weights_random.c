/*
 * Weights made up for benchmarks: see weights_random in weights.h. A few MB of random numbers a
 * width of matrix are enough: each matrix begins at another place among them.
 */
#include "base/check.h"
#include "worker/weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PATTERN = 4 << 20, WIDTHS = 8 }; /* numbers of a pattern; distinct widths of a model */

struct pattern {
    int32_t cols;
    uint16_t *bf16;
    float *f32;
};

struct maker {
    uint64_t state;
    struct pattern patterns[WIDTHS];
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

static enum status fill(struct maker *m, const struct matrix *t, struct error *err)
{
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
    if (st == OK)
        st = fill(&m, &w->lm_head, err);
    for (int32_t i = 0; st == OK && i < w->layer_count; i++)
        st = fill_layer(&m, &w->layers[i], err);
    if (st == OK)
        st = fill_vectors(w, err);
    for (int i = 0; i < WIDTHS; i++) {
        free(m.patterns[i].bf16);
        free(m.patterns[i].f32);
    }
    return st;
}
