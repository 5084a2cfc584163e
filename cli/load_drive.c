/* See load_drive.h. State: struct load_drive, the loop's, but for `ended` under its lock. */
#include "cli/load_drive.h"

#include "base/check.h"
#include "base/clock.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum {
    WARM_AT_ONCE = 16,
    MAX_UNREACHABLE = 32, /* requests in a row that found nobody */
    PROGRESS_MS = 250,
};

static const int64_t PAUSE_NS = 100000000;    /* a slot's, after it found nobody */
static const int64_t REFUSED_NS = 1000000000; /* after a refusal that says no time */
static const double MAX_PAUSE_S = 60;

struct load_drive {
    struct event_base *base;
    struct load_plan plan;
    struct load_client *client;
    struct load_dataset *dataset;
    pthread_mutex_t lock;
    struct load_flight *ended; /* under the lock: not yet looked at */
    struct event *wake, *due, *progress, *interrupts[2];
    /* Of the phase: warming up, then the load. */
    bool warm, open, stopping, interrupted, biting;
    int64_t to_send, sent, began_ns, ended_ns, next_ns;
    int64_t full_ns; /* open loop: until when there was no room for another */
    int32_t in_flight, limit;
    int64_t *free_ns; /* [limit] closed loop: when each slot may send; INT64_MAX: it waits */
    struct load_flight *flying;
    int64_t succeeded, refused, failed, tokens;
    int32_t unreachable; /* in a row */
    struct error why;    /* of stopping */
    /* Of all. */
    struct load_flight **flights; /* [count], of [cap]; those that have ended */
    size_t count, cap;
    int32_t held_back;
    double cpu_share;
    int64_t start_unix_s;
};

/* --- one request -------------------------------------------------------------------------------
 */

void load_flight_end(struct load_flight *f)
{
    struct load_drive *d = f->drive;
    pthread_mutex_lock(&d->lock);
    f->next = d->ended;
    d->ended = f;
    pthread_mutex_unlock(&d->lock);
    event_active(d->wake, EV_READ, 0);
}

static void on_timeout(evutil_socket_t fd, short what, void *flight)
{
    (void)fd, (void)what;
    struct load_flight *f = flight;
    char words[64];
    snprintf(words, sizeof words, "not answered in %.6g s",
             (double)f->drive->plan.timeout_ns * 1e-9);
    f->drive->client->cancel(f->drive->client, f, LOAD_TIMEOUT, words);
}

static struct timeval span(int64_t ns)
{
    ns = ns > 0 ? ns : 0;
    return (struct timeval){.tv_sec = ns / 1000000000, .tv_usec = ns % 1000000000 / 1000};
}

static void take_off(struct load_drive *d, int64_t intended_ns, int32_t slot)
{
    struct load_request request;
    struct load_flight *f = check_calloc(1, sizeof *f);
    f->drive = d;
    f->slot = slot;
    f->retry_after_s = -1;
    f->after = d->flying;
    if (d->flying)
        d->flying->before = f;
    d->flying = f;
    load_dataset_get(d->dataset, (d->warm ? 0 : d->plan.first) + (size_t)d->sent, d->warm,
                     &request);
    f->record.warm_up = d->warm;
    f->record.prompt_tokens = request.input_tokens;
    struct timeval limit = span(d->plan.timeout_ns);
    f->timeout = evtimer_new(d->base, on_timeout, f);
    CHECK(f->timeout, "no memory for a timer");
    evtimer_add(f->timeout, event_base_init_common_timeout(d->base, &limit));
    f->record.sent_ns = clock_now_ns();
    f->record.intended_ns = d->open ? intended_ns : f->record.sent_ns;
    d->sent++;
    d->in_flight++;
    d->client->start(d->client, f, &request);
}

/* --- what is due -------------------------------------------------------------------------------
 */

static bool more(const struct load_drive *d, int64_t due_ns)
{
    int64_t duration = d->warm ? 0 : d->plan.duration_ns;
    return !d->stopping && d->sent < d->to_send &&
           (duration == 0 || due_ns - d->began_ns < duration);
}

static void pump_closed(struct load_drive *d, int64_t now)
{
    int64_t soonest = INT64_MAX;
    for (int32_t i = 0; i < d->limit && more(d, now); i++) {
        if (d->free_ns[i] <= now) {
            d->free_ns[i] = INT64_MAX;
            take_off(d, now, i);
        } else if (d->free_ns[i] < soonest) {
            soonest = d->free_ns[i];
        }
    }
    if (soonest == INT64_MAX)
        return;
    if (!d->warm && d->plan.duration_ns > 0 && d->began_ns + d->plan.duration_ns < soonest)
        soonest = d->began_ns + d->plan.duration_ns;
    struct timeval wait = span(soonest - now);
    evtimer_add(d->due, &wait);
}

/* When the next request is to go out. */
static void plan_next(struct load_drive *d)
{
    int64_t at;
    if (d->plan.traced)
        at = (int64_t)((double)load_dataset_at_ns(d->dataset, d->plan.first + (size_t)d->sent) /
                       d->plan.speed);
    else
        at = load_arrivals_next(&d->plan.arrivals);
    d->next_ns = d->began_ns + at;
}

static void pump_open(struct load_drive *d)
{
    while (more(d, d->next_ns)) {
        int64_t now = clock_now_ns();
        if (d->next_ns > now) {
            struct timeval wait = span(d->next_ns - now);
            evtimer_add(d->due, &wait);
            return;
        }
        if (d->in_flight >= d->limit) {
            if (!d->biting)
                fprintf(stderr,
                        "%switan bench: --max-in-flight: %d requests are under way, so the next go "
                        "out late; their latencies count from when they were due\n",
                        d->plan.progress ? "\r\033[K" : "", (int)d->limit);
            d->biting = true;
            return; /* until one ends */
        }
        d->held_back += d->next_ns <= d->full_ns;
        take_off(d, d->next_ns, 0);
        if (d->sent < d->to_send)
            plan_next(d);
    }
}

static bool more_to_come(const struct load_drive *d)
{
    return more(d, d->open ? d->next_ns : clock_now_ns());
}

static void pump(struct load_drive *d)
{
    if (d->open)
        pump_open(d);
    else
        pump_closed(d, clock_now_ns());
    if (d->in_flight == 0 && !more_to_come(d))
        event_base_loopbreak(d->base);
}

static void on_due(evutil_socket_t fd, short what, void *drive)
{
    (void)fd, (void)what;
    pump(drive);
}

/* --- ends --------------------------------------------------------------------------------------
 */

static bool is_kind(const struct load_flight *f, const char *kind)
{
    return strncmp(f->record.error, kind, strlen(kind)) == 0;
}

/* A slot whose request was refused waits as it was told: to ask again at once measures nothing. */
static void free_slot(struct load_drive *d, const struct load_flight *f)
{
    int64_t pause = 0;
    if (is_kind(f, LOAD_UNREACHABLE) || is_kind(f, LOAD_LOST))
        pause = PAUSE_NS;
    else if (is_kind(f, LOAD_REFUSED))
        pause = f->retry_after_s >= 0 ? (int64_t)(fmin(f->retry_after_s, MAX_PAUSE_S) * 1e9)
                                      : REFUSED_NS;
    d->free_ns[f->slot] = clock_now_ns() + pause;
}

static void stop(struct load_drive *d)
{
    d->stopping = true;
    evtimer_del(d->due);
}

static void count(struct load_drive *d, const struct load_flight *f)
{
    bool good = !*f->record.error;
    d->succeeded += good;
    d->refused += is_kind(f, LOAD_REFUSED);
    d->failed += !good && !is_kind(f, LOAD_REFUSED);
    d->tokens += f->record.output_tokens;
    d->unreachable = is_kind(f, LOAD_UNREACHABLE) ? d->unreachable + 1 : 0;
    if (d->unreachable < MAX_UNREACHABLE || d->stopping)
        return;
    error_set(&d->why, ERR_PEER, "stopped: %d requests in a row could not reach the server: %s",
              MAX_UNREACHABLE, f->record.error);
    stop(d);
}

static void keep(struct load_drive *d, struct load_flight *f)
{
    if (d->count == d->cap) {
        d->cap = d->cap ? d->cap * 2 : 1024;
        d->flights = realloc(d->flights, d->cap * sizeof *d->flights);
        CHECK(d->flights, "no memory for %zu records", d->cap);
    }
    d->flights[d->count++] = f;
}

static void land(struct load_drive *d, struct load_flight *f)
{
    event_free(f->timeout);
    if (d->client->release)
        d->client->release(d->client, f);
    if (f->before)
        f->before->after = f->after;
    else
        d->flying = f->after;
    if (f->after)
        f->after->before = f->before;
    if (!f->record.usage)
        f->record.output_tokens = f->record.chunks;
    f->record.chunk_ns = f->chunk_ns;
    d->in_flight--;
    d->ended_ns = clock_now_ns();
    if (is_kind(f, LOAD_INTERRUPTED)) { /* the server has not failed it */
        free(f->chunk_ns);
        free(f);
        return;
    }
    count(d, f);
    if (!d->open)
        free_slot(d, f);
    keep(d, f);
}

static void on_wake(evutil_socket_t fd, short what, void *drive)
{
    (void)fd, (void)what;
    struct load_drive *d = drive;
    if (d->open && d->in_flight >= d->limit)
        d->full_ns = clock_now_ns();
    pthread_mutex_lock(&d->lock);
    struct load_flight *f = d->ended;
    d->ended = NULL;
    pthread_mutex_unlock(&d->lock);
    while (f) {
        struct load_flight *next = f->next;
        land(d, f);
        f = next;
    }
    pump(d);
}

static void on_interrupt(evutil_socket_t number, short what, void *drive)
{
    (void)what;
    struct load_drive *d = drive;
    for (int i = 0; i < 2; i++)
        event_del(d->interrupts[i]); /* the next one ends the process */
    error_set(&d->why, ERR_CANCELLED, "interrupted by %s: %d requests under way are left out",
              number == SIGINT ? "Ctrl-C" : "SIGTERM", (int)d->in_flight);
    d->interrupted = true;
    stop(d);
    for (struct load_flight *f = d->flying, *next; f; f = next) {
        next = f->after;
        d->client->cancel(d->client, f, LOAD_INTERRUPTED, "before its end");
    }
    pump(d);
}

static void on_progress(evutil_socket_t fd, short what, void *drive)
{
    (void)fd, (void)what;
    enum { CELLS = 24 };
    const struct load_drive *d = drive;
    double seconds = (double)(clock_now_ns() - d->began_ns) * 1e-9, share = 0;
    int64_t done = d->sent - d->in_flight;
    if (d->to_send < INT64_MAX)
        share = (double)done / (double)d->to_send;
    if (!d->warm && d->plan.duration_ns > 0)
        share = fmax(share, seconds / ((double)d->plan.duration_ns * 1e-9));
    int cells = (int)(fmin(share, 1) * CELLS);
    fprintf(stderr, "\r\033[K%s [%.*s%*s] %3.0f %% %lld done", d->warm ? "warming up" : "measuring",
            cells, "########################", CELLS - cells, "", fmin(share, 1) * 100,
            (long long)done);
    if (d->refused + d->failed > 0)
        fprintf(stderr, " (%lld refused, %lld failed)", (long long)d->refused,
                (long long)d->failed);
    fprintf(stderr, ", %d under way, %.0f tokens/s, %.0f s", (int)d->in_flight,
            (double)d->tokens / fmax(seconds, 1e-3), seconds);
}

/* --- phases ------------------------------------------------------------------------------------
 */

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static void begin(struct load_drive *d, bool warm)
{
    d->warm = warm;
    d->open = !warm && d->plan.mode == LOAD_OPEN;
    d->to_send = warm ? d->plan.warm_up : d->plan.requests;
    d->limit = d->plan.mode == LOAD_CLOSED ? d->plan.concurrency
               : warm                      ? WARM_AT_ONCE
                                           : d->plan.max_in_flight;
    d->full_ns = 0;
    d->sent = d->succeeded = d->refused = d->failed = d->tokens = 0;
    d->unreachable = 0;
    free(d->free_ns);
    d->free_ns = check_calloc((size_t)d->limit, sizeof *d->free_ns);
    d->start_unix_s = (int64_t)time(NULL);
    d->began_ns = d->ended_ns = clock_now_ns();
    if (d->open)
        plan_next(d);
}

static enum status phase(struct load_drive *d, bool warm, struct error *err)
{
    struct timeval often = {.tv_usec = PROGRESS_MS * 1000};
    begin(d, warm);
    double cpu = cpu_seconds();
    if (d->plan.progress)
        evtimer_add(d->progress, &often);
    event_active(d->due, EV_TIMEOUT, 0);
    if (event_base_loop(d->base, EVLOOP_NO_EXIT_ON_EMPTY) != 0)
        error_set(&d->why, ERR_IO, "the event loop has failed");
    if (d->plan.progress) {
        evtimer_del(d->progress);
        fprintf(stderr, "\r\033[K");
    }
    double seconds = (double)(clock_now_ns() - d->began_ns) * 1e-9;
    d->cpu_share = seconds > 0 ? (cpu_seconds() - cpu) / seconds : 0;
    if (d->why.code != OK && err)
        *err = d->why;
    return d->why.code;
}

enum status load_drive_warm_up(struct load_drive *d, struct error *err)
{
    return d->plan.warm_up > 0 ? phase(d, true, err) : OK;
}

enum status load_drive_measure(struct load_drive *d, struct error *err)
{
    return phase(d, false, err);
}

/* --- life --------------------------------------------------------------------------------------
 */

struct load_drive *load_drive_create(struct event_base *base, const struct load_plan *plan,
                                     struct load_client *client, struct load_dataset *dataset)
{
    static const int signals[] = {SIGINT, SIGTERM};
    struct load_drive *d = check_calloc(1, sizeof *d);
    d->base = base;
    d->plan = *plan;
    d->client = client;
    d->dataset = dataset;
    pthread_mutex_init(&d->lock, NULL);
    d->wake = event_new(base, -1, EV_PERSIST, on_wake, d);
    d->due = evtimer_new(base, on_due, d);
    d->progress = event_new(base, -1, EV_PERSIST, on_progress, d);
    CHECK(d->wake && d->due && d->progress, "no memory for events");
    for (int i = 0; i < 2; i++) {
        d->interrupts[i] = evsignal_new(base, signals[i], on_interrupt, d);
        CHECK(d->interrupts[i] && event_add(d->interrupts[i], NULL) == 0, "no signal events");
    }
    return d;
}

void load_drive_destroy(struct load_drive *d)
{
    for (size_t i = 0; i < d->count; i++) {
        free(d->flights[i]->chunk_ns);
        free(d->flights[i]);
    }
    free(d->flights);
    free(d->free_ns);
    for (int i = 0; i < 2; i++)
        event_free(d->interrupts[i]);
    event_free(d->progress);
    event_free(d->due);
    event_free(d->wake);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

static int by_intended(const void *a, const void *b)
{
    int64_t x = (*(struct load_flight *const *)a)->record.intended_ns;
    int64_t y = (*(struct load_flight *const *)b)->record.intended_ns;
    return (x > y) - (x < y);
}

void load_drive_take(struct load_drive *d, struct load_run *run)
{
    if (d->count > 0)
        qsort(d->flights, d->count, sizeof *d->flights, by_intended);
    run->records = check_calloc(d->count + 1, sizeof *run->records);
    run->count = d->count;
    run->began_ns = d->began_ns;
    for (size_t i = 0; i < d->count; i++) {
        run->records[i] = d->flights[i]->record;
        free(d->flights[i]);
    }
    d->count = 0;
    for (size_t i = run->count; i-- > 0 && !run->records[i].warm_up;)
        run->began_ns = run->records[i].intended_ns;
    run->mode = d->plan.mode;
    run->concurrency = d->plan.concurrency;
    run->rate = d->plan.mode == LOAD_OPEN ? d->plan.arrivals.rate : 0;
    run->ended_ns = d->ended_ns;
    run->start_unix_s = d->start_unix_s;
    run->cpu_share = d->cpu_share;
    run->held_back = d->held_back;
    run->interrupted = d->interrupted;
}
