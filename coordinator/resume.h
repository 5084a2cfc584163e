/*
 * Requests that a client may ask again under a key of its own, and how far their answers have been
 * told: docs/api.md, "Resuming a stream". Nothing is kept of either. The same request has the same
 * tokens, so what a key needs is a seed that follows from it, and what a stream needs is to be
 * computed again and told from where the client says; a position carries all that shows it to be
 * the same stream.
 *
 * A position is "CREATED/CLASS/REQUEST/CHOICE[,CHOICE]...[/usage]": the unix time that the stream's
 * chunks tell; the numerics class, "" before one was chosen; 8 hex digits of the request's digest;
 * for each choice nothing (not begun) or "TOKENS-CHECK[-thought|-end]". TOKENS are told, and CHECK
 * is FNV-1a over their ids. "-thought": of what they say, the thought alone. "-end": the finish
 * reason too. "/usage": the usage of all.
 *
 * Pure but for resume_claim; a position's struct has one thread.
 */
#ifndef WITAN_COORDINATOR_RESUME_H
#define WITAN_COORDINATOR_RESUME_H

#include "base/buf.h"
#include "partition/hash.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    RESUME_MAX_KEY = 255,
    RESUME_MAX_CHOICES = 128,
    RESUME_MAX_CLASS = 63,
    RESUME_NAME_BYTES = 24,
    RESUME_MAX_POSITION = 160 + 32 * RESUME_MAX_CHOICES,
};

/* --- what a key makes of a request --- */

struct resume_key {
    struct digest key;     /* of tenant and key */
    struct digest request; /* of these and all that was asked */
};

/* `what` tells doors and paths apart; `body` is all else that was asked. ERR_INVALID: the key is
 * not 1 to 255 visible ASCII characters. */
enum status resume_key_init(struct resume_key *k, uint64_t tenant, const char *key,
                            const char *what, const void *body, size_t len, struct error *err);

/* A seed for a request that gives none. */
uint64_t resume_seed(const struct resume_key *k);

/* An id for its answer, in hex. */
void resume_name(const struct resume_key *k, char out[RESUME_NAME_BYTES + 1]);

/* --- how far one choice has been told --- */

struct resume_at {
    int32_t tokens;
    uint32_t check;
    bool begun;   /* anything of it at all */
    bool thought; /* the last tokens' thought, not their content */
    bool ended;
};

struct resume_at resume_nowhere(void);
uint32_t resume_check(uint32_t check, const int32_t *ids, int32_t count);
/* These tokens come next. */
void resume_add(struct resume_at *at, const int32_t *ids, int32_t count);

/* --- a position --- */

struct resume_position {
    int64_t created;
    char class[RESUME_MAX_CLASS + 1];
    uint32_t request;
    bool usage;
    bool resumed; /* resume_from has set it */
    int32_t count;
    struct resume_at at[RESUME_MAX_CHOICES]; /* [count] */
};

/* Of a stream that nothing has been told of. */
void resume_begin(struct resume_position *p, const struct resume_key *k, int32_t count,
                  int64_t created);
/* Goes on from `text`. ERR_INVALID: it is no position of `p->count` choices; ERR_CONFLICT: it is
 * another request's. *p is then as it was. */
enum status resume_from(struct resume_position *p, const char *text, struct error *err);
/* Writes it over what `out` holds. */
void resume_print(const struct resume_position *p, struct buf *out);

/* --- who runs now: on the loop thread --- */

/* One answer under way. A key has at most one: its table is a list of these, inside of answers. */
struct resume_claim {
    struct resume_claim *prev, *next, **list;
    struct resume_key key;
    void (*taken)(void *user, const struct error *why);
    void *user;
};

/* The answer under way that has this key; NULL: there is none. Looks at the key alone, which costs
 * little. */
const struct resume_claim *resume_under_way(struct resume_claim *list, uint64_t tenant,
                                            const char *key);

/*
 * Enters the claim, whose key is set, into the list. An older one of the same key and request is
 * told `taken`, no longer being in it, and ends its answer: its client has lost it and asks again.
 * ERR_CONFLICT: an older one of the same key asks for something else.
 */
enum status resume_claim(struct resume_claim **list, struct resume_claim *claim, struct error *err);
/* Fine for one that is in none. */
void resume_unclaim(struct resume_claim *claim);

#endif
