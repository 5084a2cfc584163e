/*
 * Sequences that wait, and who comes next: by class, strictly; within a class the tenant that has
 * been served least; within a tenant by id, so one that was preempted comes before newer ones.
 *
 * A tenant's service is the rows fed for it. One that becomes active is lifted to the least served
 * of the active ones, so that nobody saves up turns by idling (the virtual token counter of Sheng
 * et al., "Fairness in Serving Large Language Models", OSDI 2024). Tenants are remembered up to a
 * bound, the least recently active forgotten; active ones beyond it share a turn.
 *
 * Allocates at creation alone. For the engine thread.
 */
#ifndef WITAN_WORKER_QUEUE_H
#define WITAN_WORKER_QUEUE_H

#include "worker/sequence.h"

enum { QUEUE_TENANTS = 4096 };

struct queue;

enum status queue_create(struct queue **out, struct error *err);
void queue_destroy(struct queue *q);

/* A sequence becomes one of its tenant's, or has ended. */
void queue_enter(struct queue *q, struct sequence *s);
void queue_leave(struct queue *q, struct sequence *s);

/* It waits, or does no more. Between enter and leave. */
void queue_add(struct queue *q, struct sequence *s);
void queue_remove(struct queue *q, struct sequence *s);

/* Its tenant has been served so many rows. */
void queue_charge(const struct sequence *s, int32_t rows);

/* Who comes next; NULL: none waits. */
struct sequence *queue_first(const struct queue *q);

/* Of all that wait the one that came first; the others by `newer`. */
struct sequence *queue_oldest(const struct queue *q);
int32_t queue_count(const struct queue *q);

#endif
