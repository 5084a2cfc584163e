/* What the files of supervise.h share: the processes and what is known of them. One thread. */
#ifndef WITAN_CLI_SUPERVISE_PRIVATE_H
#define WITAN_CLI_SUPERVISE_PRIVATE_H

#include "cli/restart.h"
#include "cli/supervise.h"

#include <sys/types.h>

/* See supervise.c. */
enum phase { START, SERVE, SETTLE, STOP, TERMINATE, KILL };

enum { SUPERVISE_MAX_LINE = 4096 }; /* of the notify pipe */

/* Why something ended, the last time: kept until it does again. */
struct last_end {
    char why[1200]; /* printable ASCII; "": it never did */
    int64_t at;     /* unix time */
};

struct job {
    const struct config_group *group;
    pid_t pid; /* mpirun; 0: not running */
    char layout[64];
    char state[16];
    char said[1200]; /* the last line shown of it */
    struct restart restart;
    int64_t kill_ns;        /* when it is killed, lost or started and not heard of; 0: never */
    int64_t starts, losses; /* processes started; times that the coordinator has lost it */
    struct last_end last;
    bool explained; /* `last` is of its present start */
    bool drained;   /* by `witan drain`: the next coordinator is told so */
    bool elsewhere; /* its ranks are at another coordinator, which this one serves it through */
};

struct supervisor {
    const struct supervise_options *o;
    int signals, notify;    /* signalfd; the coordinator's notify pipe, -1 when closed */
    pid_t coordinator;      /* 0: not running */
    struct restart restart; /* of the coordinator, as the next two */
    int64_t starts;
    struct last_end last;
    struct job *jobs;                        /* [config->groups_count] */
    char http[600], grpc[600], cluster[300]; /* where others reach it; "" until known */
    char http_at[300], grpc_at[300];         /* what it listens on, as `cluster` */
    char manifest[80], signers[1100];        /* its SHA-256; "": none */
    char line[SUPERVISE_MAX_LINE];           /* of the notify pipe, not yet whole */
    size_t line_len;
    enum phase phase;
    int64_t deadline_ns; /* of the phase, from SETTLE on */
    int64_t told_ns;     /* when a signal last told us to end */
    bool failed;
    bool explained; /* the coordinator has said itself why it ends */
    int ready_fd;
};

/* --- supervise.c --- */

/* One line on standard error, after "witan serve: ". */
void supervise_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Says what failed. What follows from it is said too, and then everything ends. */
void supervise_fail(struct supervisor *s, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Goes on to a phase; nothing when it, or a later one, has been entered. */
void supervise_enter(struct supervisor *s, enum phase phase);
/* In the environment of mpirun, and so of what it starts here: its group's name. */
#define SUPERVISE_GROUP_KEY "WITAN_GROUP"

/* Processes whose parent died became our children: they are in no group of processes that we
 * started. `group`: what is left of that group alone; another's are at work (an ssh that its
 * connections share, Open MPI's own daemon). NULL: all children. */
void supervise_signal_children(const struct supervisor *s, int number, const char *group);

/* --- supervise_jobs.c: starting processes, and starting them again --- */

/* One that has served listens where it did, whatever port that became. */
enum status jobs_start_coordinator(struct supervisor *s, struct error *err);
/* The coordinator has ended. True: it will be started again, as it has served and nobody told it to
 * end; groups go on. `how`: how it ended. */
bool jobs_coordinator_ended(struct supervisor *s, pid_t pid, int status, const char *how);
/* When jobs_tend has to be called next; INT64_MAX: when something happens. */
int64_t jobs_next_ns(const struct supervisor *s);
/* Once: when the coordinator listens. */
enum status jobs_start(struct supervisor *s, struct error *err);
/* Kills what is left of lost groups, and starts again what is due. */
void jobs_tend(struct supervisor *s);
/* A group that has served is started again when it ends, while all else is well. */
bool job_comes_again(const struct supervisor *s, const struct job *j);
/* It has ended: in how many seconds it will be started again. */
double job_plan_start(struct job *j);
/* Says that a group waits for ranks that others start, and after these words how. */
void job_say_elsewhere(const struct supervisor *s, const struct job *j, const char *words);

/* --- supervise_notify.c: what the coordinator tells, and what others may read of it --- */

void last_end_note(struct last_end *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Takes what the coordinator has said. */
void notify_drain(struct supervisor *s);
void supervise_write_state(struct supervisor *s);
/* Where others reach a listener: what it listens on, but for an address that means "any"; there, by
 * this host's name from afar. */
void supervise_dial_address(const char *listening, bool far, char out[600]);

#endif
