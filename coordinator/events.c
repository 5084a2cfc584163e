/* The last events of groups: see events.h. */
#include "coordinator/events.h"

#include <stdio.h>
#include <time.h>

void events_tell(struct events *e, const char *group, const char *what, const char *words)
{
    struct event_told *t = &e->ring[e->count % EVENTS_KEPT];
    t->number = ++e->count;
    t->unix_s = (int64_t)time(NULL);
    snprintf(t->group, sizeof t->group, "%s", group);
    snprintf(t->what, sizeof t->what, "%s", what);
    snprintf(t->words, sizeof t->words, "%s", words);
}

uint32_t events_kept(const struct events *e)
{
    return e->count < EVENTS_KEPT ? (uint32_t)e->count : EVENTS_KEPT;
}

const struct event_told *events_at(const struct events *e, uint32_t i)
{
    return &e->ring[(e->count - events_kept(e) + i) % EVENTS_KEPT];
}
