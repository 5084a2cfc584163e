/* See load_random.h. No state. */
#include "cli/load_random.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* --- numbers: SplitMix64 (Steele, Lea, Flood 2014) ----------------------------------------------
 */

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void load_rng_init(struct load_rng *r, uint64_t seed, uint64_t stream)
{
    r->state = mix(mix(seed + 0x9e3779b97f4a7c15u) ^ stream);
}

uint64_t load_rng_next(struct load_rng *r)
{
    return mix(r->state += 0x9e3779b97f4a7c15u);
}

uint32_t load_rng_below(struct load_rng *r, uint32_t n)
{
    return (uint32_t)((load_rng_next(r) >> 32) * n >> 32);
}

double load_rng_unit(struct load_rng *r)
{
    return (double)((load_rng_next(r) >> 11) + 1) * 0x1p-53;
}

static double unit_normal(struct load_rng *r)
{
    double radius = sqrt(-2 * log(load_rng_unit(r)));
    return radius * cos(6.283185307179586 * load_rng_unit(r));
}

/* --- lengths -----------------------------------------------------------------------------------
 */

/* "A" or, with `b`, "A:B", to the text's end. */
static bool take_numbers(const char *text, double *a, double *b)
{
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    *a = strtod(text, &end);
    if (b) {
        if (*end != ':' || end[1] < '0' || end[1] > '9')
            return false;
        *b = strtod(end + 1, &end);
    }
    return *end == '\0' && *a >= 1 && *a <= LOAD_MAX_LENGTH && (!b || *b <= LOAD_MAX_LENGTH);
}

enum status load_length_parse(const char *text, struct load_length *out, struct error *err)
{
    static const struct {
        const char *prefix;
        enum load_length_kind kind;
    } kinds[] = {{"uniform:", LOAD_LENGTH_UNIFORM},
                 {"normal:", LOAD_LENGTH_NORMAL},
                 {"lognormal:", LOAD_LENGTH_LOGNORMAL}};
    *out = (struct load_length){.kind = LOAD_LENGTH_FIXED};
    bool good = false;
    if (*text >= '0' && *text <= '9')
        good = take_numbers(text, &out->a, NULL) && out->a == floor(out->a);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t len = strlen(kinds[i].prefix);
        if (strncmp(text, kinds[i].prefix, len) != 0)
            continue;
        out->kind = kinds[i].kind;
        good = take_numbers(text + len, &out->a, &out->b);
    }
    if (out->kind == LOAD_LENGTH_UNIFORM)
        good = good && out->a == floor(out->a) && out->b == floor(out->b) && out->a <= out->b;
    if (good)
        return OK;
    return error_set(err, ERR_INVALID,
                     "expected tokens as N, uniform:FROM:TO, normal:MEAN:DEVIATION or "
                     "lognormal:MEAN:DEVIATION, 1 to %d, found \"%s\"",
                     LOAD_MAX_LENGTH, text);
}

/* The logarithm's own mean and deviation follow from the length's. */
static double draw_lognormal(const struct load_length *l, struct load_rng *r)
{
    double variance = log1p(l->b / l->a * (l->b / l->a));
    return exp(log(l->a) - variance / 2 + sqrt(variance) * unit_normal(r));
}

int32_t load_length_draw(const struct load_length *l, struct load_rng *r)
{
    double x = l->a;
    if (l->kind == LOAD_LENGTH_UNIFORM)
        x += load_rng_below(r, (uint32_t)(l->b - l->a) + 1);
    else if (l->kind == LOAD_LENGTH_NORMAL)
        x += l->b * unit_normal(r);
    else if (l->kind == LOAD_LENGTH_LOGNORMAL)
        x = draw_lognormal(l, r);
    x = floor(x + 0.5);
    return x < 1 ? 1 : x > LOAD_MAX_LENGTH ? LOAD_MAX_LENGTH : (int32_t)x;
}

/* --- arrivals ----------------------------------------------------------------------------------
 */

enum status load_arrivals_parse(const char *text, struct load_arrivals *out, struct error *err)
{
    char *end = NULL;
    long burst = 1;
    if (strcmp(text, "poisson") == 0)
        out->kind = LOAD_ARRIVALS_POISSON;
    else if (strcmp(text, "constant") == 0)
        out->kind = LOAD_ARRIVALS_CONSTANT;
    else if (strncmp(text, "burst:", 6) == 0 && text[6] >= '1' && text[6] <= '9' &&
             (burst = strtol(text + 6, &end, 10)) <= 1000000 && *end == '\0')
        out->kind = LOAD_ARRIVALS_BURST;
    else
        return error_set(err, ERR_INVALID,
                         "expected poisson, constant or burst:N (1 to 1000000), found \"%s\"",
                         text);
    out->burst = (int32_t)burst;
    return OK;
}

int64_t load_arrivals_next(struct load_arrivals *a)
{
    int64_t i = a->count++;
    if (isinf(a->rate))
        return 0;
    if (a->kind == LOAD_ARRIVALS_POISSON) {
        a->at_s += -log(load_rng_unit(&a->rng)) / a->rate;
    } else {
        int64_t first = i / a->burst * a->burst; /* of its burst */
        a->at_s = (double)first / a->rate;
    }
    return (int64_t)(a->at_s * 1e9);
}
