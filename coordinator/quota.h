/*
 * How much a key and a tenant may ask for: requests and tokens in any 60 seconds, and requests at
 * once. What is asked is counted in slots of 5 s of which the last 13 hold the minute, so that no
 * 60 seconds ever have more than the limit; a bucket that is refilled would allow twice of it.
 *
 * Tokens are reserved when a request is let in, its prompt and all that it may draw, and what it
 * has really used is counted when it ends. So a tenant never passes its tokens by more than what
 * was under way when the last request came in, and that only where a request did not say how much
 * it may draw: it reserves what is left, and may draw more.
 *
 * Pure but for memory, the caller gives the time (monotonic). Owned by the loop thread. Who has not
 * asked for a minute is forgotten; at most QUOTA_MAX are known.
 */
#ifndef WITAN_COORDINATOR_QUOTA_H
#define WITAN_COORDINATOR_QUOTA_H

#include <stdbool.h>
#include <stdint.h>

enum {
    QUOTA_MAX = 200000, /* keys and tenants that have asked within a minute: twice AUTH_MAX_KEYS */
    QUOTA_MOST_REQUESTS = 1 << 20, /* bounds of limits */
    QUOTA_MOST_TOKENS = 1 << 30,
    QUOTA_MOST_CONCURRENT = 1 << 20,
};

/* 0: no limit. */
struct quota_limits {
    int32_t requests, tokens; /* in 60 s */
    int32_t concurrent;
};

/* A key with limits of its own. All zero: none has any. */
struct quota_key {
    uint64_t id;
    struct quota_limits limits;
};

struct quota;
struct quota_entry;

/* `tenants`: what each tenant may, copied. */
struct quota *quota_create(const struct quota_limits *tenants);
void quota_destroy(struct quota *q); /* NULL is fine */

struct quota_ask {
    int64_t prompt, answer; /* tokens: of the prompt, and the most that may be drawn */
    bool open;              /* nobody has said how many may be drawn: what is left is enough */
    bool request;           /* counts as a request, and not as one more choice of one */
};

/* What one request holds; all zero: nothing. */
struct quota_ticket {
    struct quota_entry *of[2]; /* the key's and the tenant's */
    int64_t reserved[2];
    int64_t slot; /* that its request was counted in */
    bool request;
};

enum quota_limit { QUOTA_REQUESTS, QUOTA_TOKENS, QUOTA_CONCURRENT, QUOTA_FULL };

struct quota_refusal {
    enum quota_limit limit;
    bool tenant;        /* the tenant's, not the key's */
    int64_t most, used; /* of the limit; tokens that are reserved are used */
    int64_t wanted;     /* more of it */
    int64_t wait_ns;    /* until there is room; 0: when others end */
};

/* Would a request of one token be let in? */
bool quota_check(struct quota *q, const struct quota_key *key, uint64_t tenant, int64_t now_ns,
                 struct quota_refusal *why);

/* Lets a request in, or changes nothing. *ticket is to be settled or returned. */
bool quota_take(struct quota *q, const struct quota_key *key, uint64_t tenant,
                const struct quota_ask *ask, int64_t now_ns, struct quota_ticket *ticket,
                struct quota_refusal *why);
/* It has ended and used so many tokens. */
void quota_settle(struct quota_ticket *ticket, int64_t tokens, int64_t now_ns);
/* Nothing of it was done. */
void quota_return(struct quota_ticket *ticket, int64_t now_ns);

/* What is left, of the key's or the tenant's limit whichever has less; `limit` 0: there is none. */
struct quota_left {
    int64_t limit, left;
    int64_t reset_ns; /* until nothing is counted any more */
};
void quota_look(struct quota *q, const struct quota_key *key, uint64_t tenant, int64_t now_ns,
                struct quota_left *requests, struct quota_left *tokens);

#endif
