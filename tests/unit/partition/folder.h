/*
 * A temporary folder of a test, and files in it: sound or broken ones, made while the test runs.
 */
#ifndef WITAN_TESTS_UNIT_PARTITION_FOLDER_H
#define WITAN_TESTS_UNIT_PARTITION_FOLDER_H

#include "tests/unit/unit.h"

#include "base/error.h"

#include <dirent.h>

struct folder {
    char path[64];
};

static inline struct folder folder_make(void)
{
    struct folder f;
    snprintf(f.path, sizeof f.path, "/tmp/witan_test_XXXXXX");
    assert_non_null(mkdtemp(f.path));
    return f;
}

static inline const char *folder_path(const struct folder *f, const char *file)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", f->path, file);
    return path;
}

static inline void folder_remove(const struct folder *f)
{
    DIR *d = opendir(f->path);
    assert_non_null(d);
    struct dirent *e;
    while ((e = readdir(d)))
        if (e->d_name[0] != '.')
            unlink(folder_path(f, e->d_name));
    closedir(d);
    rmdir(f->path);
}

static inline void folder_write(const struct folder *f, const char *file, const void *data,
                                size_t len)
{
    FILE *out = fopen(folder_path(f, file), "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(data, 1, len, out), len);
    assert_int_equal(fclose(out), 0);
}

static inline void folder_puts(const struct folder *f, const char *file, const char *text)
{
    folder_write(f, file, text, strlen(text));
}

/* A safetensors file: `header`, then data_bytes bytes 0, 1, 2, ... */
static inline void folder_safetensors(const struct folder *f, const char *file, const char *header,
                                      size_t data_bytes)
{
    size_t len = strlen(header), total = 8 + len + data_bytes;
    unsigned char *p = calloc(1, total);
    assert_non_null(p);
    for (int i = 0; i < 8; i++)
        p[i] = (unsigned char)(len >> (8 * i));
    memcpy(p + 8, header, len);
    for (size_t i = 0; i < data_bytes; i++)
        p[8 + len + i] = (unsigned char)i;
    folder_write(f, file, p, total);
    free(p);
}

/* The status, one line, and every one of the words (a list that NULL ends) in the message. */
static inline void assert_says(enum status found, enum status expected, const struct error *err,
                               const char *const *words)
{
    if (found != expected)
        fail_msg("expected %s, found %s", status_name(expected), found == OK ? "ok" : err->msg);
    assert_int_equal(err->code, expected);
    if (strchr(err->msg, '\n'))
        fail_msg("more than one line: %s", err->msg);
    for (; *words; words++)
        if (!strstr(err->msg, *words))
            fail_msg("expected \"%s\" in: %s", *words, err->msg);
}

#define SAYS(found, expected, err, ...)                                                            \
    assert_says(found, expected, err, (const char *const[]){__VA_ARGS__, NULL})

#endif
