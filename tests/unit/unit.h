/*
 * What every unit test program includes: cmocka, and a main that runs one case when it is named
 * (ctest does so, for a process a case) or all of them.
 */
#ifndef WITAN_TESTS_UNIT_H
#define WITAN_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The golden vectors of the real tokenizer lie beside the repository and a user may not have them:
 * the path of `name` in ../shared (or $WITAN_SHARED), or, saying so, the test counts as skipped. */
static inline const char *shared_path(const char *name)
{
    static char path[4096];
    const char *dir = getenv("WITAN_SHARED");
    snprintf(path, sizeof path, "%s/%s", dir ? dir : WITAN_SOURCE_DIR "/../shared", name);
    if (access(path, R_OK) != 0) {
        fprintf(stderr, "skipped: %s is absent (set WITAN_SHARED to its folder)\n", name);
        exit(77);
    }
    return path;
}

/* In a file that uses only part of this header the rest must not warn. */
#define UNIT_MAIN(tests)                                                                           \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        (void)shared_path;                                                                         \
        if (argc > 1)                                                                              \
            cmocka_set_test_filter(argv[1]);                                                       \
        return cmocka_run_group_tests(tests, NULL, NULL);                                          \
    }

#endif
