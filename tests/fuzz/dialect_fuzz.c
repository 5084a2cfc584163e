/*
 * Any bytes as the body of a request of another API than OpenAI's chat; the first byte says of
 * which: refused with a message that its errors can carry, or a request within its bounds.
 */
#include "base/check.h"
#include "coordinator/dialect.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct {
    const struct dialect *dialect;
    enum openai_kind kind;
} doors[] = {
    {&dialect_anthropic, OPENAI_CHAT},       {&dialect_anthropic, OPENAI_TOKENIZE},
    {&dialect_responses, OPENAI_CHAT},       {&dialect_ollama_chat, OPENAI_CHAT},
    {&dialect_ollama_generate, OPENAI_CHAT},
};

static void check_refusal(const struct dialect *d, const struct error *err)
{
    struct openai_failure f = {.message = err->msg, .type = "t", .status = 400};
    struct buf b;
    struct error why;
    json_t *root = NULL;
    CHECK(err->msg[0], "no message");
    buf_init(&b, 1 << 20);
    CHECK(d->error(&b, &f, &why) == OK, "%s", why.msg);
    CHECK(json_parse("answer", b.data, b.len, &root, &why) == OK, "%s", why.msg);
    json_decref(root);
    buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct generation_config defaults = {
        .temperature = 1.0f, .top_p = 1.0f, .repetition_penalty = 1.0f};
    struct openai_request r;
    struct error err = {0};
    if (size == 0)
        return 0;
    size_t door = data[0] % COUNT_OF(doors);
    enum openai_kind kind = doors[door].kind;
    if (dialect_read(doors[door].dialect, &kind, (const char *)data + 1, size - 1, &defaults, &r,
                     &err) != OK) {
        CHECK(!r.root && !r.kwargs, "%s", err.msg);
        check_refusal(doors[door].dialect, &err);
        return 0;
    }
    CHECK(r.n == 1 && r.best_of == 1 && r.max_tokens >= 0 && r.default_max_tokens, "n %d", r.n);
    CHECK(kind == OPENAI_COMPLETION ? r.prompt_count == 1 && !r.prompt_ids
                                    : json_array_size(r.messages) > 0,
          "nothing to answer");
    CHECK(r.logprobs == 0 && r.prompt_logprobs == 0 && !r.echo && !r.prompt_only, "logprobs");
    CHECK(sampling_check(&r.sampling, NULL) == OK, "sampling");
    openai_request_fini(&r);
    return 0;
}
