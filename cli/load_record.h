/*
 * What `witan bench` has measured against a server: one record a request, one run a load. The
 * clients fill them (cli/load*.c), the statistics and the reports read them (cli/load_stats.h,
 * cli/load_report.h). Times are CLOCK_MONOTONIC in ns, taken when the bytes were read. One thread.
 */
#ifndef WITAN_CLI_LOAD_RECORD_H
#define WITAN_CLI_LOAD_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct load_record {
    /* When the request was to go out, and when it did. Latencies count from `intended_ns`: in an
     * open loop that is its arrival, so that a late generator or its --max-in-flight is in the
     * figures and not beside them; in a closed loop it is sent_ns. */
    int64_t intended_ns, sent_ns;
    int64_t first_ns, last_ns; /* first and last chunk with tokens; 0: none came */
    /* By the server's usage. Where it sends none (`usage` false) prompt_tokens is what was asked
     * for, 0 where that is not known, and output_tokens is `chunks`. */
    int32_t prompt_tokens, output_tokens, cached_tokens;
    int32_t chunks;          /* pieces of the answer with tokens; one may hold several of them */
    const int64_t *chunk_ns; /* [chunks] when each came; the run's; NULL where there are none */
    int http_status;         /* 0: no answer came, or gRPC */
    char error[160];         /* "": it succeeded; else "KIND: words", see load_flight.h */
    bool warm_up;            /* not counted */
    bool usage;
};

enum load_mode {
    LOAD_CLOSED, /* `concurrency` requests at once, one after another */
    LOAD_OPEN,   /* arrivals at `rate`, whatever the server does */
};

struct load_run {
    char label[64]; /* "concurrency 8", "4 requests/s"; of a sweep's run */
    enum load_mode mode;
    int32_t concurrency; /* closed loop */
    double rate;         /* open loop: requests/s; INFINITY: all at once */
    uint64_t seed;
    char dataset[200];    /* "random, input 512, output uniform 64:128" */
    char server[300];     /* "http://127.0.0.1:8000/v1/completions, model lexicon" */
    int64_t start_unix_s; /* wall time of `began_ns` */
    int64_t began_ns;     /* first counted request's intended time */
    int64_t ended_ns;     /* the last counted one's end */
    double energy_j;      /* the server's ranks between the two; NAN: no meter */
    double cpu_share;     /* of one core, that this program took meanwhile */
    int32_t held_back;    /* open loop: requests that --max-in-flight sent later than intended */
    bool interrupted;     /* Ctrl-C: what there was until then */
    struct load_record *records; /* [count], in the order of intended_ns; owned */
    size_t count;
};

/* Releases the records and their chunk_ns. */
void load_run_fini(struct load_run *run);

#endif
