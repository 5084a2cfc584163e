/*
 * Parking: ranks that leave engine_follow with ENGINE_PARKED and follow again give the tokens of
 * ranks that never park. Ranks are threads; a condition variable stands for the coordinator's Wake.
 */
#include "tests/unit/unit.h"

#include "base/log.h"
#include "worker/engine.h"

#include <pthread.h>

enum { PROMPT = 30, ANSWER = 16, REQUESTS = 3 };

struct parked {
    struct layout layout;
    int park_every; /* steps; 0: never */
    int32_t ids[REQUESTS][ANSWER];
    int count[REQUESTS];
    int parks[8]; /* [rank] */
    int phases[8][2];
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int generation; /* of the last wake */
};

struct sink {
    struct parked *p;
    int request;
};

static void on_token(void *user, int32_t token, enum finish finish)
{
    struct sink *s = user;
    int *n = &s->p->count[s->request];
    (void)finish;
    if (token >= 0 && *n < ANSWER)
        s->p->ids[s->request][(*n)++] = token;
}

static void on_phase(void *user, enum engine_phase phase)
{
    ((int *)user)[phase]++;
}

static void wake(struct parked *p)
{
    pthread_mutex_lock(&p->mutex);
    p->generation++;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->mutex);
}

static enum status lead_steps(struct engine *e, struct parked *p, struct error *err)
{
    bool ran = true, asleep = false;
    for (int steps = 1; ran; steps++) {
        if (asleep)
            wake(p);
        asleep = false;
        TRY(engine_step(e, &ran, err));
        if (p->park_every > 0 && steps % p->park_every == 0) {
            TRY(engine_park(e, err));
            p->parks[0]++;
            asleep = true;
        }
    }
    if (asleep)
        wake(p);
    return engine_stop(e, err);
}

static enum status submit(struct engine *e, struct sink *sinks, struct parked *p, struct error *err)
{
    int32_t prompt[PROMPT];
    for (int i = 0; i < REQUESTS; i++) {
        sinks[i] = (struct sink){p, i};
        for (int32_t k = 0; k < PROMPT; k++)
            prompt[k] = (i * 29 + k * 13 + 7) % 200;
        const struct request q = {
            .prompt = prompt,
            .prompt_len = PROMPT - i,
            .max_tokens = ANSWER,
            .ignore_eos = true,
            .sampling = {.temperature = (float)i * 0.5f, .top_p = 0.95f, .seed = 5},
            .on_token = on_token,
            .user = &sinks[i]};
        TRY(engine_submit(e, &q, NULL, err));
    }
    struct engine_load load;
    engine_load(e, &load);
    if (load.waiting != REQUESTS || load.running != 0 || load.kv_blocks_free != load.kv_blocks)
        return error_set(err, ERR_INVALID, "%d waiting, %d running", load.waiting, load.running);
    return OK;
}

static enum status follow_steps(struct engine *e, struct parked *p, int rank, struct error *err)
{
    enum engine_left why = ENGINE_PARKED;
    for (int parks = 0;; parks++) {
        TRY(engine_follow(e, &why, err));
        if (why == ENGINE_STOPPED)
            return OK;
        p->parks[rank]++;
        pthread_mutex_lock(&p->mutex);
        while (p->generation <= parks)
            pthread_cond_wait(&p->changed, &p->mutex);
        pthread_mutex_unlock(&p->mutex);
    }
}

static enum status rank_main(struct comm *world, void *arg, struct error *err)
{
    struct parked *p = arg;
    struct sink sinks[REQUESTS];
    const struct model_options options = {
        .dir = WITAN_SOURCE_DIR "/tests/golden/oracle/odd",
        .layout = p->layout,
        .limits = {.max_rows = 16,
                   .max_logits = 2,
                   .max_seqs = 2,
                   .context = PROMPT + ANSWER,
                   .threads = 1,
                   .kv_dtype = KV_BF16},
        .kernels = "auto",
    };
    const struct engine_options eo = {.on_phase = on_phase, .user = p->phases[world->rank]};
    struct model *m = NULL;
    struct engine *e = NULL;
    TRY(model_create(&options, world, &m, err));
    enum status st = engine_create(m, &eo, &e, err);
    if (st == OK && world->rank == 0) {
        st = submit(e, sinks, p, err);
        if (st == OK)
            st = lead_steps(e, p, err);
    } else if (st == OK) {
        st = follow_steps(e, p, world->rank, err);
    }
    engine_destroy(e);
    model_destroy(m);
    return st;
}

static void run(struct parked *p, struct layout layout, int park_every)
{
    struct error err;
    memset(p, 0, sizeof *p);
    p->layout = layout;
    p->park_every = park_every;
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->changed, NULL);
    log_set_level(LOG_WARN);
    if (comm_local_run(layout.pp * layout.w, rank_main, p, &err) != OK)
        fail_msg("%s", err.msg);
    for (int i = 0; i < REQUESTS; i++)
        assert_int_equal(p->count[i], ANSWER);
    for (int rank = 0; rank < layout.pp * layout.w; rank++) {
        assert_int_equal(p->parks[rank], p->parks[0]);
        assert_true(p->phases[rank][ENGINE_FORWARD] > ANSWER);
        assert_int_equal(p->phases[rank][ENGINE_FORWARD], p->phases[rank][ENGINE_WAITING]);
    }
}

static void parking_changes_no_token(void **state)
{
    (void)state;
    static struct parked plain, often, alone;
    const struct layout one = {1, 1, 1, 1}, two = {1, 1, 2, 2}, stages = {2, 2, 2, 2};
    run(&plain, one, 0);
    run(&alone, one, 2);
    run(&often, two, 1);
    assert_true(often.parks[1] > ANSWER);
    assert_memory_equal(plain.ids, often.ids, sizeof plain.ids);
    assert_memory_equal(plain.ids, alone.ids, sizeof plain.ids);
    run(&often, stages, 3);
    assert_memory_equal(plain.ids, often.ids, sizeof plain.ids);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(parking_changes_no_token),
};

UNIT_MAIN(tests)
