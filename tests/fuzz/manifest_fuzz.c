/*
 * Any bytes as what comes with a model's folder. Input: a byte that chooses a manifest, its
 * signatures or a hub's list of sums, then the text. A manifest that is accepted must be its own
 * one text, with sound paths in order; what is refused must say why in one line.
 */
#include "base/check.h"
#include "partition/manifest_private.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum status manifest(const char *text, size_t len, struct error *err)
{
    struct manifest *m = NULL;
    TRY(manifest_parse("m", text, len, &m, err));
    int count = 0;
    const struct manifest_file *files = manifest_files(m, &count);
    struct buf again;
    buf_init(&again, MANIFEST_MAX_BYTES);
    CHECK(manifest_print(m, &again, err) == OK, "%s", err->msg);
    CHECK(again.len == len && memcmp(again.data, text, len) == 0, "%zu of %zu", again.len, len);
    for (int i = 0; i < count; i++) {
        const char *path = files[i].path;
        CHECK(manifest_find(m, path) == i, "%s", path);
        CHECK(path[0] != '/' && strncmp(path, "../", 3) != 0 && !strstr(path, "/../"), "%s", path);
        CHECK(files[i].chunks == chunks_of(files[i].bytes), "%u chunks", files[i].chunks);
    }
    buf_fini(&again);
    manifest_close(m);
    return OK;
}

static enum status sums(const char *text, size_t len, struct error *err)
{
    struct manifest_sums s = {0};
    TRY(manifest_sums_parse("m", text, len, &s, err));
    for (size_t i = 1; i < s.count; i++)
        CHECK(strcmp(s.list[i - 1].path, s.list[i].path) < 0, "%s", s.list[i].path);
    manifest_sums_fini(&s);
    return OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const char *text = (const char *)data + 1;
    struct error err = {.code = OK};
    int count = 0;
    enum status st = data[0] % 3 == 0 ? manifest(text, size - 1, &err)
                     : data[0] % 3 == 1
                         ? manifest_parse_signatures("m", text, size - 1, &count, &err)
                         : sums(text, size - 1, &err);
    CHECK(count <= MANIFEST_MAX_KEYS, "%d", count);
    if (st == OK)
        return 0;
    CHECK(err.code == st && strncmp(err.msg, "m: ", 3) == 0, "%s", err.msg);
    CHECK(!strchr(err.msg, '\n') && strlen(err.msg) < sizeof err.msg - 1, "%s", err.msg);
    return 0;
}
