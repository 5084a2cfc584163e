/* Leading and following: see lead.h. */
#include "worker/control/lead.h"
#include "base/clock.h"
#include "base/log.h"
#include "worker/control/answers.h"

enum { TAKES_A_STEP = 256 }; /* commands looked at between two steps */

struct leader {
    struct attach *attach;
    struct engine *engine;
    struct answers *answers;
    bool peers; /* other ranks, which must be woken and parked */
    bool parked;
    uint64_t *parks; /* the wake that follows has one number more */
    int64_t idle_ns; /* since when there is nothing to do */
};

/* Sends what was drawn since the last time. */
static enum status flush(struct leader *l, struct error *err)
{
    uint64_t step = engine_stats(l->engine)->steps;
    const Witan__Cluster__V1__Tokens *m = answers_message(l->answers, step);
    if (m->n_sequences == 0)
        return OK;
    enum status st = attach_send_tokens(l->attach, m, err);
    answers_clear(l->answers);
    /* The end of the stream is the mailbox's to tell. */
    return st == ERR_CANCELLED ? OK : st;
}

static enum status apply(struct leader *l, struct command *c, struct error *err)
{
    enum status st = OK;
    struct error refused;
    if (c->kind == COMMAND_WORDS) {
        /* What cannot be kept is refused with the request that asks for it. */
        if (engine_words(l->engine, c->words, &refused) != OK)
            log_warn("%s", refused.msg);
        c->words = NULL;
    } else if (c->kind == COMMAND_CANCEL) {
        if (answers_full(l->answers))
            st = flush(l, err);
        if (st == OK)
            answers_cancel(l->answers, l->engine, c);
    } else if (answers_submit(l->answers, l->engine, c, &refused) != OK) {
        st = attach_refuse(l->attach, &c->key, refused.msg, err);
        st = st == ERR_CANCELLED ? OK : st;
    }
    command_fini(c);
    return st;
}

static void tell_load(struct leader *l, struct engine_load *load)
{
    engine_load(l->engine, load);
    const struct attach_load out = {.running = (uint32_t)load->running,
                                    .waiting = (uint32_t)load->waiting,
                                    .kv_blocks_free = (uint32_t)load->kv_blocks_free,
                                    .kv_blocks = (uint32_t)load->kv_blocks};
    attach_load(l->attach, &out);
}

static void tell_figures(struct leader *l)
{
    struct engine_figures f;
    engine_figures(l->engine, &f);
    f.queue = *answers_queue(l->answers);
    attach_figures(l->attach, &f);
}

static enum status wake(struct leader *l, struct error *err)
{
    if (!l->parked)
        return OK;
    if (l->peers)
        TRY(attach_send_wake_peers(l->attach, *l->parks + 1, err));
    l->parked = false;
    attach_phase(l->attach, WITAN__CLUSTER__V1__PHASE__PHASE_WAITING);
    return OK;
}

static enum status park(struct leader *l, struct error *err)
{
    TRY(engine_park(l->engine, err));
    l->parked = true;
    ++*l->parks;
    attach_phase(l->attach, WITAN__CLUSTER__V1__PHASE__PHASE_IDLE);
    return OK;
}

static enum status step(struct leader *l, struct error *err)
{
    bool ran;
    TRY(flush(l, err)); /* a step needs all the room */
    enum status st = wake(l, err);
    if (st == ERR_CANCELLED) /* no peer will come; the mailbox tells that the stream has ended */
        return OK;
    TRY(st);
    answers_tell_shares(l->answers, attach_metered(l->attach));
    TRY(engine_step(l->engine, &ran, err));
    tell_figures(l);
    return flush(l, err);
}

/* How long the next look into the mailbox may wait. */
static int64_t patience(const struct leader *l, const struct engine_load *load)
{
    if (load->running + load->waiting > 0)
        return 0;
    if (l->parked)
        return -1;
    int64_t left = l->idle_ns + (int64_t)LEAD_IDLE_MS * 1000000 - clock_now_ns();
    return left > 0 ? left : 0;
}

/* Applies what has come. */
static enum status take(struct leader *l, int64_t wait_ns, enum mail *got, struct error *err)
{
    struct command c;
    *got = mailbox_take(attach_mailbox(l->attach), wait_ns, &c, err);
    for (int i = 0; *got == MAIL_COMMAND && i < TAKES_A_STEP; i++) {
        TRY(apply(l, &c, err));
        *got = mailbox_take(attach_mailbox(l->attach), 0, &c, err);
    }
    return *got == MAIL_COMMAND ? apply(l, &c, err) : OK;
}

static enum status stop(struct leader *l, struct error *err)
{
    TRY(wake(l, err));
    attach_phase(l->attach, WITAN__CLUSTER__V1__PHASE__PHASE_STOPPING);
    return engine_stop(l->engine, err);
}

/* The stream has ended: the peers may be in a step, and leave it parked. */
static enum status abandon(struct leader *l, struct error *err)
{
    struct engine_load load;
    answers_abandon(l->answers, l->engine);
    if (!l->parked)
        TRY(park(l, err));
    answers_clear(l->answers); /* what the last steps drew */
    tell_figures(l);
    tell_load(l, &load);
    return OK;
}

static enum status run(struct leader *l, bool *lost, struct error *err)
{
    struct engine_load load;
    for (;;) {
        enum mail got;
        tell_load(l, &load);
        TRY(take(l, patience(l, &load), &got, err));
        if (got == MAIL_STOP)
            return stop(l, err);
        if (got == MAIL_ENDED) {
            struct error why = *err;
            TRY(abandon(l, err));
            *lost = true;
            return (*err = why).code;
        }
        tell_load(l, &load);
        if (load.running + load.waiting > 0) {
            TRY(step(l, err));
            l->idle_ns = clock_now_ns();
        } else {
            TRY(flush(l, err));
            if (!l->parked && patience(l, &load) == 0)
                TRY(park(l, err));
        }
    }
}

enum status lead(struct attach *a, struct engine *e, const struct engine_limits *limits, int world,
                 uint64_t *parks, bool *lost, struct error *err)
{
    struct leader l = {
        .attach = a, .engine = e, .peers = world > 1, .parked = true, .parks = parks};
    *lost = false;
    TRY(answers_create(limits, &l.answers, err));
    tell_figures(&l);
    attach_phase(a, WITAN__CLUSTER__V1__PHASE__PHASE_IDLE);
    enum status st = run(&l, lost, err);
    answers_destroy(l.answers);
    return st;
}

enum status follow(struct attach *a, struct engine *e, uint64_t *parks, bool *lost,
                   struct error *err)
{
    enum engine_left why;
    for (;;) {
        attach_phase(a, WITAN__CLUSTER__V1__PHASE__PHASE_IDLE);
        *lost = true;
        TRY(mailbox_wait_wake(attach_mailbox(a), *parks, (int64_t)ATTACH_GRACE_MS * 1000000, err));
        *lost = false;
        attach_phase(a, WITAN__CLUSTER__V1__PHASE__PHASE_WAITING);
        TRY(engine_follow(e, &why, err));
        if (why == ENGINE_STOPPED)
            break;
        ++*parks;
    }
    attach_phase(a, WITAN__CLUSTER__V1__PHASE__PHASE_STOPPING);
    return OK;
}
