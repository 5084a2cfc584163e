/* Tokens of experts over time: see experts.h. */
#include "coordinator/experts.h"
#include "base/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void experts_init(struct experts *x, const struct model_config *config)
{
    *x = (struct experts){.config = config};
}

void experts_fini(struct experts *x)
{
    free(x->total);
    free(x->recent);
    free(x->heard_ns);
    experts_init(x, x->config);
}

void experts_forget(struct experts *x)
{
    if (x->heard_ns)
        memset(x->heard_ns, 0, (size_t)x->config->layers * sizeof *x->heard_ns);
}

static void make_room(struct experts *x)
{
    size_t layers = (size_t)x->config->layers, counts = layers * (size_t)x->config->experts;
    if (x->total)
        return;
    x->total = check_calloc(counts, sizeof *x->total);
    x->recent = check_calloc(counts, sizeof *x->recent);
    x->heard_ns = check_calloc(layers, sizeof *x->heard_ns);
}

/* By how much tokens of `then` weigh less. */
static double faded(int64_t then_ns, int64_t now_ns)
{
    return exp2((double)(then_ns - now_ns) * 1e-9 / EXPERTS_HALF_LIFE_S);
}

static bool holds_together(const struct experts *x, const struct rank_plan *plan,
                           const Witan__Cluster__V1__ExpertLoad *m)
{
    size_t counts = (size_t)range_size(plan->layers) * (size_t)x->config->experts;
    if (counts == 0 || m->first_layer != (uint32_t)plan->layers.begin ||
        m->experts != (uint32_t)x->config->experts || m->n_tokens != counts)
        return false;
    for (size_t i = 0; i < counts; i++)
        if (m->tokens[i] > EXPERTS_MOST_TOKENS)
            return false;
    return true;
}

/* Is there a message before this one that it goes on from? */
static bool goes_on(const struct experts *x, int32_t first, const uint64_t *before,
                    const Witan__Cluster__V1__ExpertLoad *m)
{
    bool on = x->heard_ns[first] != 0;
    for (size_t i = 0; i < m->n_tokens && on; i++)
        on = m->tokens[i] >= before[i];
    return on;
}

bool experts_heard(struct experts *x, const struct rank_plan *plan,
                   const Witan__Cluster__V1__ExpertLoad *m, int64_t now_ns)
{
    int32_t first = plan->layers.begin, experts = x->config->experts;
    if (!holds_together(x, plan, m))
        return false;
    make_room(x);
    uint64_t *total = x->total + (int64_t)first * experts;
    double *recent = x->recent + (int64_t)first * experts;
    bool on = goes_on(x, first, total, m);
    double left = on ? faded(x->heard_ns[first], now_ns) : 0;
    for (size_t i = 0; i < m->n_tokens; i++) {
        recent[i] = on ? recent[i] * left + (double)(m->tokens[i] - total[i]) : 0;
        total[i] = m->tokens[i];
    }
    for (int32_t i = first; i < plan->layers.end; i++)
        x->heard_ns[i] = now_ns;
    return true;
}

static bool known(const struct experts *x, int32_t layer)
{
    return x->heard_ns && x->heard_ns[layer] != 0;
}

/* What one layer adds to the summary, whose means are sums so far. */
static void add_layer(const struct experts *x, const struct plan *plan, int32_t layer,
                      int64_t now_ns, struct experts_summary *s)
{
    int32_t experts = x->config->experts, ep = plan->layout.ep, busiest = 0;
    int32_t of_share = experts / ep; /* ep divides them */
    const double *n = x->recent + (int64_t)layer * experts;
    double sum = 0, share = 0, most = 0;
    for (int32_t e = 0; e < experts; e++) {
        share = (e % of_share == 0 ? 0 : share) + n[e];
        most = share > most ? share : most;
        busiest = n[e] > n[busiest] ? e : busiest;
        sum += n[e];
    }
    if (sum <= 0)
        return;
    double ratio = n[busiest] * experts / sum;
    s->tokens += sum * faded(x->heard_ns[layer], now_ns) / x->config->top_k;
    s->mean += ratio;
    s->shares += most * ep / sum;
    if (ratio <= s->worst)
        return;
    s->worst = ratio;
    s->worst_layer = layer;
    s->worst_expert = busiest;
}

void experts_summary(const struct experts *x, const struct plan *plan, int64_t now_ns,
                     struct experts_summary *out)
{
    const struct model_config *c = x->config;
    struct experts_summary s = {0};
    for (int32_t i = 0; i < c->layers; i++) {
        s.layers += c->layer_is_moe[i] != 0;
        if (!c->layer_is_moe[i] || !known(x, i))
            continue;
        s.known++;
        add_layer(x, plan, i, now_ns, &s);
    }
    if (s.known > 0) {
        s.tokens /= s.known;
        s.mean /= s.known;
        s.shares = plan->layout.ep > 1 ? s.shares / s.known : 0;
        s.enough = s.tokens * c->top_k >= (double)EXPERTS_ENOUGH * c->experts;
    }
    *out = s;
}

/* --- JSON --------------------------------------------------------------------------------------
 */

/* One of thousands: `tenths`, or a whole number where they are none. */
static enum status put_tenths(struct buf *b, uint64_t tenths, struct error *err)
{
    char digits[24], *at = digits + sizeof digits;
    if (tenths % 10 > 0) {
        *--at = (char)('0' + tenths % 10);
        *--at = '.';
    }
    uint64_t n = tenths / 10;
    do
        *--at = (char)('0' + n % 10);
    while ((n /= 10) > 0);
    return buf_append(b, at, (size_t)(digits + sizeof digits - at), err);
}

static enum status put_layer(const struct experts *x, int32_t layer, int64_t now_ns, struct buf *b,
                             struct error *err)
{
    int32_t experts = x->config->experts;
    if (!known(x, layer))
        return buf_printf(b, err, "{\"layer\":%d,\"recent\":null,\"total\":null}", layer);
    double left = faded(x->heard_ns[layer], now_ns);
    TRY(buf_printf(b, err, "{\"layer\":%d,\"recent\":[", layer));
    for (int32_t e = 0; e < experts; e++) {
        double n = x->recent[(int64_t)layer * experts + e] * left;
        TRY(buf_append(b, ",", e > 0, err));
        TRY(put_tenths(b, (uint64_t)llround(n * 10), err));
    }
    TRY(buf_puts(b, "],\"total\":[", err));
    for (int32_t e = 0; e < experts; e++) {
        TRY(buf_append(b, ",", e > 0, err));
        TRY(put_tenths(b, x->total[(int64_t)layer * experts + e] * 10, err));
    }
    return buf_puts(b, "]}", err);
}

enum status experts_json(const struct experts *x, const struct plan *plan, const char *name,
                         int64_t now_ns, struct buf *out, struct error *err)
{
    const struct model_config *c = x->config;
    const char *between = "";
    TRY(buf_puts(out, "{\"group\":", err));
    TRY(buf_json_string(out, name, strlen(name), err));
    TRY(buf_printf(out, err,
                   ",\"experts\":%d,\"top_k\":%d,\"ep\":%d,\"half_life_seconds\":%d,\"layers\":[",
                   c->experts, c->top_k, plan->layout.ep, (int)EXPERTS_HALF_LIFE_S));
    for (int32_t i = 0; i < c->layers; i++) {
        if (!c->layer_is_moe[i])
            continue;
        TRY(buf_puts(out, between, err));
        TRY(put_layer(x, i, now_ns, out, err));
        between = ",";
    }
    return buf_puts(out, "]}", err);
}
