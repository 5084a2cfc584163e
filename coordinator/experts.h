/*
 * What each expert of a group's model was given of late, as the first rank of each stage tells it
 * in totals. The window fades: a token weighs half after EXPERTS_HALF_LIFE_S, so no old messages
 * are kept. Owned by the group, on the loop thread; nothing is allocated before a rank tells.
 */
#ifndef WITAN_COORDINATOR_EXPERTS_H
#define WITAN_COORDINATOR_EXPERTS_H

#include "base/buf.h"
#include "partition/plan.h"
#include "proto/cluster.pb-c.h"

enum {
    EXPERTS_HALF_LIFE_S = 30,
    EXPERTS_ENOUGH = 16, /* tokens of an expert, in the mean, from which a ratio says something */
};

/* Counts that no rank reaches, and that JavaScript's numbers still tell apart. */
#define EXPERTS_MOST_TOKENS ((uint64_t)1 << 53)

struct experts {
    const struct model_config *config; /* the caller's */
    uint64_t *total;                   /* [layers][experts]; owned; NULL: nothing was heard */
    double *recent;                    /* [layers][experts], as of heard_ns; owned */
    int64_t *heard_ns;                 /* [layers]; 0: not known; owned */
};

void experts_init(struct experts *x, const struct model_config *config);
void experts_fini(struct experts *x);
/* The group's ranks have gone: nothing is known of those that come. */
void experts_forget(struct experts *x);

/* Takes what the rank of this plan says. The first of a rank, and one that is less than the one
 * before, says since when: its tokens are of no known time. False: it does not hold together, and
 * changes nothing. */
bool experts_heard(struct experts *x, const struct rank_plan *plan,
                   const Witan__Cluster__V1__ExpertLoad *m, int64_t now_ns);

/* Of the window. A ratio is the busiest expert of a layer to the mean of the layer's experts; of
 * shares: the busiest of the ep shares of whole experts to their mean. 0: not known. */
struct experts_summary {
    int32_t layers, known;      /* that have experts; of which something is known */
    double tokens;              /* rows that a layer routed, in the mean of those that are known */
    bool enough;                /* for ratios that are not chance alone */
    double mean, worst, shares; /* ratios: mean of the layers, their highest, mean of shares */
    int32_t worst_layer, worst_expert; /* of the highest */
};

void experts_summary(const struct experts *x, const struct plan *plan, int64_t now_ns,
                     struct experts_summary *out);

/* Appends the whole as one JSON object (docs/page.md) of the group's `name`. ERR_LIMIT when it does
 * not fit. */
enum status experts_json(const struct experts *x, const struct plan *plan, const char *name,
                         int64_t now_ns, struct buf *out, struct error *err);

#endif
