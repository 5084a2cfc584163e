/*
 * The coordinator's one event loop: every request, group and connection is owned by the thread that
 * runs it. Other threads (the rpc thread) hand work over with loop_post.
 */
#ifndef WITAN_COORDINATOR_LOOP_H
#define WITAN_COORDINATOR_LOOP_H

#include "base/error.h"

struct event_base;
struct loop;

enum { LOOP_MAX_POSTED = 1 << 16 };

enum status loop_create(struct loop **out, struct error *err);
void loop_destroy(struct loop *l); /* what is posted and has not run is dropped unrun */

/* libevent's, for timers and sockets on the loop thread. */
struct event_base *loop_base(struct loop *l);

/* Runs fn(arg) on the loop thread, in order of posting. Any thread. ERR_LIMIT when the queue is
 * full: the loop is stuck or overwhelmed. */
enum status loop_post(struct loop *l, void (*fn)(void *arg), void *arg, struct error *err);

/* Runs what is posted, on the calling thread, when the loop does not run (any more): at the end,
 * after the threads that post have been told to stop. */
void loop_drain(struct loop *l);

/* Runs until loop_stop, which any thread may call. */
void loop_run(struct loop *l);
void loop_stop(struct loop *l);

#endif
