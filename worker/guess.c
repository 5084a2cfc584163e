/* Guessing what a sequence draws next: see guess.h. */
#include "worker/guess.h"

enum { FIRST_TRIES = 2, FIRST_PAUSE = 8, LONGEST_PAUSE = 256, MISSES = 16 };

static int32_t min_of(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

void guess_init(struct guess *g, int32_t most)
{
    *g = (struct guess){.most = most, .tries = min_of(most, FIRST_TRIES), .pause = FIRST_PAUSE};
}

/* How many tokens up to `at` are those up to `last`, at most GUESS_MATCH. */
static int32_t match(const int32_t *tokens, int32_t at, int32_t last)
{
    int32_t n = 0;
    while (n < GUESS_MATCH && at - n >= 0 && tokens[at - n] == tokens[last - n])
        n++;
    return n;
}

int32_t guess_next(int32_t *tokens, int32_t known, int32_t most)
{
    int32_t last = known - 1, best = -1, longest = GUESS_LEAST_MATCH - 1;
    int32_t begin = last > GUESS_LOOKS_BACK ? last - GUESS_LOOKS_BACK : 0;
    for (int32_t i = last - 1; i >= begin && longest < GUESS_MATCH; i--) {
        int32_t n = tokens[i] == tokens[last] ? match(tokens, i, last) : 0;
        if (n > longest) {
            longest = n;
            best = i;
        }
    }
    if (best < 0)
        return 0;
    for (int32_t k = 1; k <= most; k++) /* what repeats itself goes on so */
        tokens[last + k] = tokens[best + k];
    return most;
}

static void fail(struct guess *g)
{
    g->tries = 0;
    g->missed = 0;
    g->rest = g->pause;
    g->pause = min_of(2 * g->pause, LONGEST_PAUSE);
}

void guess_note(struct guess *g, int32_t guesses, int32_t right)
{
    if (guesses == 0) {
        if (++g->missed == MISSES)
            fail(g);
        return;
    }
    g->missed = 0;
    if (right == guesses) {
        g->tries = min_of(2 * g->tries, g->most);
        g->pause = FIRST_PAUSE;
    } else if (right > 0) {
        g->tries = min_of(right + 1, g->most);
    } else if (g->tries > 1) {
        g->tries /= 2;
    } else {
        fail(g);
    }
}

void guess_rest(struct guess *g)
{
    if (g->most > 0 && g->tries == 0 && --g->rest <= 0)
        g->tries = 1;
}
