/* The mailbox: see mailbox.h. State: all under one mutex, held for moments only. */
#include "worker/control/mailbox.h"
#include "base/clock.h"
#include "base/log.h"

#include <pthread.h>
#include <stdlib.h>

enum { RING = MAILBOX_COMMANDS + 1 }; /* room is kept for the tokens' bytes */

struct mailbox {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct command *ring; /* [RING] */
    int32_t first, count;
    int32_t submits;    /* of them */
    int64_t prompt_ids; /* theirs */
    bool planned;
    struct assignment plan;
    uint64_t generation; /* the highest of a Wake */
    bool stopped, ended, refused;
    struct error why; /* the stream ended, or the plan was refused */
};

enum status mailbox_create(struct mailbox **out, struct error *err)
{
    struct mailbox *m = calloc(1, sizeof *m);
    struct command *ring = calloc(RING, sizeof *ring);
    if (!m || !ring) {
        free(m);
        free(ring);
        return error_set(err, ERR_NO_MEMORY, "no memory for the mailbox");
    }
    m->ring = ring;
    pthread_mutex_init(&m->mutex, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&m->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *out = m;
    return OK;
}

void mailbox_destroy(struct mailbox *m)
{
    if (!m)
        return;
    for (int32_t i = 0; i < m->count; i++)
        command_fini(&m->ring[(m->first + i) % RING]);
    pthread_cond_destroy(&m->changed);
    pthread_mutex_destroy(&m->mutex);
    free(m->ring);
    free(m);
}

/* --- putting in; the mutex is held ------------------------------------------------------------ */

static enum status put_plan(struct mailbox *m, const Witan__Cluster__V1__Plan *p, struct error *err)
{
    if (m->planned) {
        log_warn("a second plan is ignored");
        return OK;
    }
    enum status st = assignment_read(p, &m->plan, err);
    m->planned = st == OK;
    m->refused = st != OK;
    if (st != OK)
        m->why = *err;
    return st;
}

static void append(struct mailbox *m, const struct command *c)
{
    m->ring[(m->first + m->count++) % RING] = *c;
}

static enum status put_submit(struct mailbox *m, const Witan__Cluster__V1__Submit *s,
                              struct error *err)
{
    struct command c;
    if (!m->planned)
        return error_set(err, ERR_INVALID, "a request before the plan");
    if (m->submits == MAILBOX_SUBMITS || m->count >= MAILBOX_COMMANDS)
        return error_set(err, ERR_LIMIT, "%d requests have not been looked at yet", m->submits);
    if (m->prompt_ids + (int64_t)(s->n_prompt + s->n_answer) > MAILBOX_PROMPT_IDS)
        return error_set(err, ERR_LIMIT, "%lld prompt tokens have not been looked at yet",
                         (long long)m->prompt_ids);
    TRY(command_read_submit(s, &m->plan, &c, err));
    append(m, &c);
    m->submits++;
    m->prompt_ids += c.prompt_len + c.answer_len;
    return OK;
}

/* A stream brings them once, and does not say them again: room for them is never another's. `c` is
 * made. */
static enum status put_words(struct mailbox *m, struct command *c, struct error *err)
{
    if (m->count == RING) {
        command_fini(c);
        return error_set(err, ERR_LIMIT, "%d commands have not been looked at yet", m->count);
    }
    append(m, c);
    return OK;
}

static void put_cancel(struct mailbox *m, const Witan__Cluster__V1__Cancel *c)
{
    if (!m->planned || c->epoch != m->plan.epoch)
        return;
    if (m->count >= MAILBOX_COMMANDS) {
        log_warn("a cancellation is dropped: %d commands wait", m->count);
        return;
    }
    append(m, &(struct command){
                  .kind = COMMAND_CANCEL,
                  .key = {.request_id = c->request_id, .attempt = c->attempt, .epoch = c->epoch},
              });
}

static enum status put_locked(struct mailbox *m,
                              const Witan__Cluster__V1__CoordinatorMessage *message,
                              struct error *err)
{
    switch (message->body_case) {
    case WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_PLAN:
        return put_plan(m, message->plan, err);
    case WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_SUBMIT:
        return put_submit(m, message->submit, err);
    case WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_CANCEL:
        put_cancel(m, message->cancel);
        return OK;
    case WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_WAKE:
        if (message->wake->generation > m->generation)
            m->generation = message->wake->generation;
        return OK;
    case WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_STOP:
        m->stopped = true;
        return OK;
    default: /* of a later release */
        return OK;
    }
}

enum status mailbox_put(struct mailbox *m, const Witan__Cluster__V1__CoordinatorMessage *message,
                        struct error *err)
{
    const bool words = message->body_case == WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_WORDS;
    struct command c;
    if (words) /* sorting takes longer than the engine thread may be held up */
        TRY(command_read_words(message->words, &c, err));
    pthread_mutex_lock(&m->mutex);
    enum status st = words ? put_words(m, &c, err) : put_locked(m, message, err);
    pthread_cond_signal(&m->changed);
    pthread_mutex_unlock(&m->mutex);
    return st;
}

void mailbox_end(struct mailbox *m, const struct error *why)
{
    pthread_mutex_lock(&m->mutex);
    if (!m->ended && !m->refused)
        m->why = *why;
    m->ended = true;
    pthread_cond_signal(&m->changed);
    pthread_mutex_unlock(&m->mutex);
}

/* --- taking out ------------------------------------------------------------------------------- */

/* Waits for a change until `deadline_ns` (below 0: for ever); false when that has passed. */
static bool wait_change(struct mailbox *m, int64_t deadline_ns)
{
    if (deadline_ns < 0) {
        pthread_cond_wait(&m->changed, &m->mutex);
        return true;
    }
    if (clock_now_ns() >= deadline_ns)
        return false;
    struct timespec t = {.tv_sec = deadline_ns / 1000000000, .tv_nsec = deadline_ns % 1000000000};
    pthread_cond_timedwait(&m->changed, &m->mutex, &t);
    return true;
}

static int64_t deadline(int64_t wait_ns)
{
    return wait_ns < 0 ? -1 : clock_now_ns() + wait_ns;
}

static void take_first(struct mailbox *m, struct command *out)
{
    *out = m->ring[m->first];
    m->first = (m->first + 1) % RING;
    m->count--;
    if (out->kind == COMMAND_SUBMIT) {
        m->submits--;
        m->prompt_ids -= out->prompt_len + out->answer_len;
    }
}

enum mail mailbox_take(struct mailbox *m, int64_t wait_ns, struct command *out, struct error *err)
{
    int64_t until = deadline(wait_ns);
    enum mail got = MAIL_NONE;
    pthread_mutex_lock(&m->mutex);
    while (!m->stopped && !m->ended && m->count == 0)
        if (!wait_change(m, until))
            break;
    if (m->stopped) {
        got = MAIL_STOP;
    } else if (m->ended) {
        got = MAIL_ENDED;
        *err = m->why;
    } else if (m->count > 0) {
        got = MAIL_COMMAND;
        take_first(m, out);
    }
    pthread_mutex_unlock(&m->mutex);
    return got;
}

enum status mailbox_wait_plan(struct mailbox *m, int64_t wait_ns, struct assignment *out,
                              struct error *err)
{
    int64_t until = deadline(wait_ns);
    bool late = false;
    enum status st = OK;
    pthread_mutex_lock(&m->mutex);
    while (!m->planned && !m->refused && !m->stopped && !m->ended && !late)
        late = !wait_change(m, until);
    /* A plan has gone to all ranks of the group, and a Stop behind it: they end as one that serves.
     */
    if (m->planned)
        *out = m->plan;
    else if (m->stopped)
        st = error_set(err, ERR_CANCELLED, "stopped before there was a plan");
    else if (m->refused || m->ended)
        st = (*err = m->why).code;
    else
        st = error_set(err, ERR_LIMIT, "no plan has come in time");
    pthread_mutex_unlock(&m->mutex);
    return st;
}

enum status mailbox_wait_wake(struct mailbox *m, uint64_t parks, int64_t stop_ns, struct error *err)
{
    int64_t until = -1;
    enum status st = OK;
    pthread_mutex_lock(&m->mutex);
    while (m->generation <= parks && !m->ended) {
        if (m->stopped && until < 0)
            until = deadline(stop_ns);
        if (!wait_change(m, until)) {
            st = error_set(err, ERR_PEER,
                           "rank 0 has not let go %lld s after the coordinator's "
                           "Stop",
                           (long long)(stop_ns / 1000000000));
            break;
        }
    }
    if (m->ended && !m->stopped && m->generation <= parks)
        st = (*err = m->why).code;
    pthread_mutex_unlock(&m->mutex);
    return st;
}

bool mailbox_wait_end(struct mailbox *m, int64_t wait_ns)
{
    int64_t until = deadline(wait_ns);
    pthread_mutex_lock(&m->mutex);
    while (!m->ended)
        if (!wait_change(m, until))
            break;
    bool ended = m->ended;
    pthread_mutex_unlock(&m->mutex);
    return ended;
}

void mailbox_reopen(struct mailbox *m)
{
    pthread_mutex_lock(&m->mutex);
    for (int32_t i = 0; i < m->count; i++)
        command_fini(&m->ring[(m->first + i) % RING]);
    m->first = m->count = m->submits = 0;
    m->prompt_ids = 0;
    m->planned = m->refused = m->ended = false;
    pthread_mutex_unlock(&m->mutex);
}

bool mailbox_stopped(struct mailbox *m)
{
    pthread_mutex_lock(&m->mutex);
    bool stopped = m->stopped;
    pthread_mutex_unlock(&m->mutex);
    return stopped;
}
