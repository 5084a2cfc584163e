/*
 * Between a rank's rpc thread, which puts the coordinator's messages in, and its engine thread,
 * which takes them out between steps. Neither waits for the other: a full mailbox refuses.
 *
 * Submits and cancels queue in order of arrival. The rest is state, so that nothing of it can be
 * lost: the plan, the highest generation of Wake, whether Stop has come, whether (and why) the
 * stream has ended.
 */
#ifndef WITAN_WORKER_CONTROL_MAILBOX_H
#define WITAN_WORKER_CONTROL_MAILBOX_H

#include "worker/control/command.h"

enum {
    MAILBOX_SUBMITS = 4096,        /* waiting; the leader takes them all at each step */
    MAILBOX_COMMANDS = 8192,       /* with cancels; Words, which come once, besides */
    MAILBOX_PROMPT_IDS = 16 << 20, /* of all submits that wait */
};

struct mailbox;

enum status mailbox_create(struct mailbox **out, struct error *err);
void mailbox_destroy(struct mailbox *m);

/* --- the rpc thread --- */

/*
 * Checks a message and takes it in. A refused Submit can be answered; a refused Plan the engine
 * thread learns from mailbox_wait_plan. Cancels of another epoch, and messages that this release
 * does not know, are OK and ignored.
 */
enum status mailbox_put(struct mailbox *m, const Witan__Cluster__V1__CoordinatorMessage *message,
                        struct error *err);
/* The stream has ended, or cannot go on; the first reason stays. */
void mailbox_end(struct mailbox *m, const struct error *why);

/* --- the engine thread; `wait_ns`: 0 does not wait, below 0 is for ever --- */

enum mail {
    MAIL_NONE,    /* nothing came in time */
    MAIL_COMMAND, /* *out is the caller's, to command_fini */
    MAIL_STOP,
    MAIL_ENDED, /* err says why; not once Stop has come */
};

/* Stop and the end of the stream come before commands that wait. */
enum mail mailbox_take(struct mailbox *m, int64_t wait_ns, struct command *out, struct error *err);

/* Waits for the plan. Else says why there is none: what is wrong with it, ERR_CANCELLED after a
 * Stop, ERR_LIMIT when none came in time, or why the stream ended. */
enum status mailbox_wait_plan(struct mailbox *m, int64_t wait_ns, struct assignment *out,
                              struct error *err);

/* Waits for a Wake of a generation above `parks`. After a Stop, rank 0 is sure to send its last
 * step: then the end of the stream wakes too, and at most `stop_ns` more is waited. Else says why
 * none came. */
enum status mailbox_wait_wake(struct mailbox *m, uint64_t parks, int64_t stop_ns,
                              struct error *err);

/* Waits until the stream has ended; false when it has not in time. */
bool mailbox_wait_end(struct mailbox *m, int64_t wait_ns);

/* Before another try to connect: forgets why the stream ended, its plan and the commands that it
 * brought. Generations of Wake count on, and a Stop stays. */
void mailbox_reopen(struct mailbox *m);

/* Any thread. */
bool mailbox_stopped(struct mailbox *m);

#endif
