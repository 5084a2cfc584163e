/*
 * Any text as a file of requests for `witan bench`, of the kind that the first byte says: what is
 * taken can be asked for, within its bounds.
 */
#include "base/check.h"
#include "cli/load_dataset.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ask(struct load_dataset *d, size_t index, bool warm_up)
{
    struct load_request r;
    load_dataset_get(d, index, warm_up, &r);
    CHECK(r.max_tokens >= 0 && r.max_tokens <= LOAD_MAX_LENGTH, "%d tokens", (int)r.max_tokens);
    CHECK(load_dataset_at_ns(d, index) >= 0, "before the trace began");
    if (r.input == LOAD_TEXT)
        CHECK(r.text_len > 0 && strlen(r.text) == r.text_len, "a text of %zu bytes", r.text_len);
    else if (r.input == LOAD_MESSAGES)
        CHECK(json_array_size(r.messages) > 0, "no messages");
    for (int32_t i = 0; i < r.id_count; i++)
        CHECK(r.ids[i] >= 0 && r.ids[i] < 1000, "id %d", (int)r.ids[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum load_dataset_kind kinds[] = {LOAD_TRACE, LOAD_PROMPTS, LOAD_SHAREGPT};
    struct load_dataset *d;
    struct error err;
    if (size < 1)
        return 0;
    struct load_dataset_options o = {
        .kind = kinds[data[0] % 3],
        .path = "file",
        .vocabulary = 1000,
        .output = {.a = 5},
        .has_output = data[0] % 3 == 2 || data[0] & 64,
        .prefix_groups = 1,
        .block_tokens = 16,
        .messages = (data[0] & 128) != 0,
    };
    if (load_dataset_parse(&o, "file", (const char *)data + 1, size - 1, &d, &err) != OK) {
        CHECK(strncmp(err.msg, "file: ", 6) == 0 && !strchr(err.msg, '\n'), "%s", err.msg);
        return 0;
    }
    CHECK(load_dataset_count(d) > 0, "nothing to ask");
    for (size_t i = 0; i < load_dataset_count(d) && i < 20; i++)
        ask(d, i, i % 3 == 2);
    load_dataset_destroy(d);
    return 0;
}
