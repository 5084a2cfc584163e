/*
 * The loop that drives a load: sends requests when they are due, closed or open, looks after their
 * time, and gathers their records. One thread, that of the event base, but for load_flight_end.
 */
#ifndef WITAN_CLI_LOAD_DRIVE_H
#define WITAN_CLI_LOAD_DRIVE_H

#include "cli/load_flight.h"

#include <event2/event.h>

struct load_plan {
    enum load_mode mode;
    int32_t concurrency;           /* closed loop */
    struct load_arrivals arrivals; /* open loop */
    bool traced;                   /* open loop: by the dataset's times in place of arrivals */
    double speed;                  /* of a trace: 2: in half its time */
    int64_t requests;              /* at most; INT64_MAX: until the time is over */
    int64_t duration_ns;           /* nothing is sent after; 0: until all are sent */
    int32_t warm_up;               /* requests before, not counted */
    int32_t max_in_flight;         /* open loop */
    int64_t timeout_ns;            /* of a request, from when it is sent */
    size_t first;                  /* the dataset's number of the first counted request */
    bool progress;                 /* a line on standard error that is drawn again and again */
};

/* Ready for one load; everything is borrowed. `base` is thread-safe (evthread). */
struct load_drive *load_drive_create(struct event_base *base, const struct load_plan *plan,
                                     struct load_client *client, struct load_dataset *dataset);
void load_drive_destroy(struct load_drive *d);

/* Sends the requests for warming up and waits for their end: a closed loop, of at most 16 at once
 * where the load is open. Then the load. Each returns ERR_PEER when the server could not be reached
 * again and again, ERR_CANCELLED after SIGINT or SIGTERM (a second one ends the process): what
 * ended until then is kept. */
enum status load_drive_warm_up(struct load_drive *d, struct error *err);
enum status load_drive_measure(struct load_drive *d, struct error *err);

/* Moves the records, in the order of their intended times, and what the loop knows of the load into
 * `run`; label, seed, dataset, server, energy are the caller's to fill. */
void load_drive_take(struct load_drive *d, struct load_run *run);

#endif
