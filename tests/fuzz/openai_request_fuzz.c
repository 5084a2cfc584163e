/*
 * Any bytes as the body of each request: refused with a message that an answer can carry, or a
 * request within its bounds.
 */
#include "base/check.h"
#include "coordinator/openai_request.h"
#include "coordinator/openai_response.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_refusal(const struct openai_request *r, const struct error *err)
{
    char param[OPENAI_PARAM_BYTES];
    struct buf b;
    json_t *root = NULL;
    struct error why;
    CHECK(err->msg[0] && !r->root && !r->prompts && !r->kwargs, "%s", err->msg);
    openai_error_param(err->msg, param);
    struct openai_failure f = {.message = err->msg, .type = "t", .param = param};
    buf_init(&b, 1 << 20);
    CHECK(openai_write_error(&b, &f, &why) == OK, "%s", why.msg);
    CHECK(json_parse("answer", b.data, b.len, &root, &why) == OK, "%s", why.msg);
    json_decref(root);
    buf_fini(&b);
}

static void check_request(const struct openai_request *r)
{
    CHECK(r->n >= 1 && r->n <= OPENAI_MAX_N, "n %d", r->n);
    CHECK(r->best_of >= r->n && r->best_of <= OPENAI_MAX_N, "best_of %d", r->best_of);
    CHECK(r->prompt_count * r->best_of <= OPENAI_MAX_CHOICES, "%d prompts", r->prompt_count);
    CHECK(r->stop_count <= OPENAI_MAX_STOPS && r->max_tokens >= 0, "%d stops", r->stop_count);
    CHECK(sampling_check(&r->sampling, NULL) == OK, "sampling");
    struct error err = {0};
    /* Ids and their repetition alone are left to who knows the vocabulary. */
    CHECK(shaping_check(&r->shaping, INT32_MAX, &err) == OK ||
              strstr(err.msg, "]: expected a token"),
          "%s", err.msg);
    CHECK(r->logprobs >= 0 && r->logprobs <= 1 + SAMPLING_MAX_LOGPROBS, "logprobs %d", r->logprobs);
    CHECK(r->prompt_logprobs >= 0 && r->prompt_logprobs <= 1 + SAMPLING_MAX_LOGPROBS, "logprobs");
    CHECK(r->priority >= -1 && r->priority <= 1 && (!r->prompt_only || r->echo), "priority");
    for (int32_t i = 0; i < r->stop_count; i++)
        CHECK(r->stop[i][0] && strlen(r->stop[i]) <= OPENAI_MAX_STOP_BYTES, "stop %d", i);
    for (int32_t i = 0; i < r->prompt_count; i++)
        CHECK(r->prompt_ids == (r->prompts[i].ids != NULL), "prompt %d", i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct generation_config defaults = {.temperature = 1.0f, .top_p = 1.0f};
    for (int kind = 0; kind < OPENAI_KINDS; kind++) {
        struct openai_request r;
        struct error err = {0};
        if (openai_request_parse((enum openai_kind)kind, (const char *)data, size, &defaults, &r,
                                 &err) == OK) {
            check_request(&r);
            openai_request_fini(&r);
        } else {
            check_refusal(&r, &err);
        }
    }
    return 0;
}
