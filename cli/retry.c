/* When a call is made again: see retry.h. */
#include "cli/retry.h"
#include "base/check.h"

#include <stdio.h>
#include <sys/random.h>
#include <sys/types.h>
#include <unistd.h>

enum { LOOK_MS = 50 };

int32_t retry_wait_ms(int32_t tries, uint32_t random)
{
    int32_t wait = RETRY_FIRST_MS;
    for (int32_t i = 0; i < tries && wait < RETRY_MOST_MS; i++)
        wait *= 2;
    wait = wait < RETRY_MOST_MS ? wait : RETRY_MOST_MS;
    return wait / 2 + (int32_t)((uint64_t)wait / 2 * random >> 32);
}

bool retry_sleep(int32_t tries, const volatile sig_atomic_t *interrupted)
{
    uint32_t random = 0;
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) != (ssize_t)sizeof random)
        random = UINT32_MAX / 2; /* jitter is a courtesy */
    for (int32_t left = retry_wait_ms(tries, random); left > 0 && !*interrupted; left -= LOOK_MS)
        usleep((useconds_t)(left < LOOK_MS ? left : LOOK_MS) * 1000);
    return !*interrupted;
}

void retry_make_key(char out[33])
{
    unsigned char random[16];
    CHECK(getrandom(random, sizeof random, 0) == (ssize_t)sizeof random, "no random numbers");
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(out + 2 * i, 3, "%02x", random[i]);
}
