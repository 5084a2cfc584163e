/*
 * A call that broke is made again: how often, and when. Waits grow and have jitter, so that many
 * clients of one server that has gone do not come back at once. Pure but for retry_sleep.
 */
#ifndef WITAN_CLI_RETRY_H
#define WITAN_CLI_RETRY_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

enum { RETRY_TIMES = 5, RETRY_FIRST_MS = 500, RETRY_MOST_MS = 8000 };

/* Before the retry after `tries` others: half of the wait is certain, half by `random`, any 32
 * bits. */
int32_t retry_wait_ms(int32_t tries, uint32_t random);

/* Waits for it. False: *interrupted was not 0 meanwhile. */
bool retry_sleep(int32_t tries, const volatile sig_atomic_t *interrupted);

/* A key that no other request has: 32 hex digits. */
void retry_make_key(char out[33]);

#endif
