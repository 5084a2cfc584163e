/*
 * The chance in a load: numbers from a seed, lengths by a distribution, times between arrivals. The
 * same seed gives the same load. Plain memory; one thread at a time.
 */
#ifndef WITAN_CLI_LOAD_RANDOM_H
#define WITAN_CLI_LOAD_RANDOM_H

#include "base/error.h"

#include <stdint.h>

struct load_rng {
    uint64_t state;
};

/* A stream of its own for each pair. */
void load_rng_init(struct load_rng *r, uint64_t seed, uint64_t stream);
uint64_t load_rng_next(struct load_rng *r);
uint32_t load_rng_below(struct load_rng *r, uint32_t n); /* 0 to n - 1; n above 0 */
double load_rng_unit(struct load_rng *r);                /* above 0, to 1 */

enum { LOAD_MAX_LENGTH = 1 << 20 }; /* tokens */

enum load_length_kind {
    LOAD_LENGTH_FIXED,
    LOAD_LENGTH_UNIFORM,
    LOAD_LENGTH_NORMAL,
    LOAD_LENGTH_LOGNORMAL,
};

struct load_length {
    enum load_length_kind kind;
    /* fixed: a; uniform: from a to b; normal and lognormal: the length's mean and deviation */
    double a, b;
};

/* "512", "uniform:64:128", "normal:512:100", "lognormal:512:400". ERR_INVALID says what was
 * expected. */
enum status load_length_parse(const char *text, struct load_length *out, struct error *err);
/* Whole tokens, from 1 to LOAD_MAX_LENGTH: what is drawn outside becomes the border. */
int32_t load_length_draw(const struct load_length *l, struct load_rng *r);

enum load_arrivals_kind {
    LOAD_ARRIVALS_POISSON,  /* independent of one another */
    LOAD_ARRIVALS_CONSTANT, /* evenly apart */
    LOAD_ARRIVALS_BURST,    /* `burst` at once, evenly apart */
};

struct load_arrivals {
    enum load_arrivals_kind kind;
    double rate; /* a second, of requests; INFINITY: all at once */
    int32_t burst;
    struct load_rng rng;
    double at_s;   /* of the last */
    int64_t count; /* that have been drawn */
};

/* "poisson", "constant", "burst:8" into kind and burst. */
enum status load_arrivals_parse(const char *text, struct load_arrivals *out, struct error *err);
/* When the next request is to go out, in ns since the load began; never before the last. */
int64_t load_arrivals_next(struct load_arrivals *a);

#endif
