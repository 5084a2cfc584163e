/* What a group's energy went to: see joules.h. State: the struct. */
#include "coordinator/joules.h"
#include "base/check.h"

#include <stdlib.h>

static const double MOST = 1e15;          /* no figure is larger */
static const double MOST_SECONDS = 86400; /* nor a share of a step longer */
static const double LEAST_SECONDS = 1e-6; /* of which a rate is known */

void joules_init(struct joules *j, int32_t world)
{
    *j = (struct joules){.world = world};
    j->ranks = check_calloc((size_t)world, sizeof *j->ranks);
}

void joules_fini(struct joules *j)
{
    free(j->ranks);
    j->ranks = NULL;
}

static bool is_figure(const Witan__Cluster__V1__Joules *m)
{
    return m->all >= 0 && m->all <= MOST && m->steps >= 0 && m->steps <= m->all + 1e-3;
}

/* False: it counts, and what it says is no figure. */
static bool source_heard(struct joules *j, struct joules_source *s,
                         const Witan__Cluster__V1__Joules *m, double share)
{
    s->counts = m != NULL;
    if (!m)
        return true;
    if (!is_figure(m)) {
        s->begun = false;
        return false;
    }
    bool anew = !s->begun || m->all < s->all || m->steps < s->steps;
    double all = anew ? 0 : (m->all - s->all) * share;
    double steps = anew ? 0 : (m->steps - s->steps) * share;
    bool same = !anew && m->all == s->all;
    s->begun = true;
    s->all = m->all;
    s->steps = m->steps;
    if (same) /* it has not been read since */
        return true;
    steps = steps < all ? steps : all;
    j->all += all;
    j->idle += all - steps;
    j->pending += steps;
    s->since += steps;
    if (!anew && j->seconds - s->at < LEAST_SECONDS)
        return true; /* within a step */
    s->rated = s->rated || !anew;
    s->rate = anew ? s->rate : s->since / (j->seconds - s->at);
    s->since = 0;
    s->at = j->seconds;
    return true;
}

void joules_heard(struct joules *j, int32_t rank, const Witan__Cluster__V1__Energy *e,
                  double host_share)
{
    struct joules_rank *r = &j->ranks[rank];
    r->known = e != NULL;
    if (!e)
        return;
    bool host = source_heard(j, &r->host, e->host, host_share);
    bool gpu = source_heard(j, &r->gpu, e->gpu, 1);
    r->known = host && gpu;
    j->any |= r->known && (e->host || e->gpu);
}

/* Adds what the counter is likely to have counted since it was read, and its rate. False: its rate
 * is not known. */
static bool expect(const struct joules *j, const struct joules_source *s, double *since,
                   double *rate)
{
    if (!s->counts)
        return true;
    double more = s->rate * (j->seconds - s->at) - s->since;
    *since += more > 0 ? more : 0;
    *rate += s->rate;
    return s->rated;
}

/* Joules of a second of the steps that are told now; false: not known. */
static bool find_price(const struct joules *j, double told, double *price)
{
    double since = 0, rate = 0;
    for (int32_t i = 0; i < j->world; i++)
        if (!j->ranks[i].known || !expect(j, &j->ranks[i].host, &since, &rate) ||
            !expect(j, &j->ranks[i].gpu, &since, &rate))
            return false;
    *price = told > 0 ? (j->pending + since) / told : rate;
    *price = *price > 2 * rate ? 2 * rate : *price < rate / 2 ? rate / 2 : *price;
    return j->any;
}

void joules_step(struct joules *j, Witan__Cluster__V1__Tokens *t, double host_share)
{
    double told = 0, price = 0;
    for (size_t i = 0; i < t->n_sequences; i++) {
        double *seconds = &t->sequences[i]->step_seconds;
        if (!(*seconds >= 0 && *seconds <= MOST_SECONDS))
            *seconds = 0;
        told += *seconds;
    }
    j->seconds += told;
    joules_heard(j, 0, t->energy, host_share);
    bool priced = find_price(j, told, &price);
    for (size_t i = 0; i < t->n_sequences; i++) {
        Witan__Cluster__V1__SequenceTokens *s = t->sequences[i];
        s->metered = priced;
        s->joules = priced ? price * s->step_seconds : 0;
    }
    if (priced || told == 0 || j->pending < 0)
        return;
    j->other += j->pending;
    j->pending = 0;
}

void joules_told(struct joules *j, const Witan__Cluster__V1__SequenceTokens *s, bool taken)
{
    j->pending -= s->joules;
    *(taken ? &j->requests : &j->other) += s->joules;
}

bool joules_known(const struct joules *j)
{
    bool known = j->any;
    for (int32_t i = 0; i < j->world; i++)
        known = known && j->ranks[i].known;
    return known;
}

void joules_gone(struct joules *j, int32_t rank)
{
    j->ranks[rank] = (struct joules_rank){0};
}

void joules_lost(struct joules *j)
{
    if (j->pending > 0) {
        j->other += j->pending;
        j->pending = 0;
    }
}
