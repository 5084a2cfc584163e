/*
 * Any bytes as the coordinator's messages: up to 8 that follow each other, each behind two bytes of
 * its length, into one mailbox, and what the engine thread would take out. What is taken must keep
 * the bounds of command.h; what is refused must say why in one line.
 */
#include "base/check.h"
#include "base/log.h"
#include "worker/control/mailbox.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_plan(const struct assignment *a)
{
    const struct engine_limits *l = &a->limits;
    CHECK(*a->model_dir && *a->kernels && strlen(a->model_dir) < sizeof a->model_dir, "texts");
    CHECK(l->max_rows > 0 && l->max_seqs > 0 && l->context > 0 && l->kv_blocks >= 0 &&
              l->threads >= 0 && l->max_logits == plan_max_logits(l, a->speculate) &&
              a->stall_ms >= 0 && a->speculate >= 0,
          "limits");
    CHECK(a->layout.pp > 0 && a->layout.tp > 0 && a->layout.ep >= 0 && a->layout.w >= 0, "layout");
    CHECK(a->heartbeat_ms >= HEARTBEAT_MIN_MS && a->heartbeat_ms <= HEARTBEAT_MAX_MS, "%d ms",
          a->heartbeat_ms);
    if (*a->manifest.path)
        CHECK(*a->manifest.trust && strlen(a->manifest.digest) == MANIFEST_DIGEST_HEX &&
                  a->manifest.threshold > 0 && a->manifest.threshold <= MANIFEST_MAX_KEYS,
              "manifest");
#define X(name)                                                                                    \
    CHECK(a->slices.name.begin >= 0 && a->slices.name.begin <= a->slices.name.end, "range");
    SLICE_RANGES(X)
#undef X
}

static void check_command(const struct command *c, const struct assignment *a)
{
    struct error err;
    CHECK(c->key.epoch == a->epoch, "epoch");
    if (c->kind == COMMAND_CANCEL)
        return;
    CHECK(c->prompt && c->prompt_len > 0 && c->prompt_len <= a->limits.context, "prompt of %d",
          c->prompt_len);
    CHECK(c->max_tokens >= 0 && sampling_check(&c->sampling, &err) == OK, "parameters");
    const struct shaping *h = &c->shaping;
    CHECK(shaping_check(h, a->vocab_limit > 0 ? a->vocab_limit : INT32_MAX, &err) == OK, "%s",
          err.msg);
    CHECK(c->logprobs >= 0 && c->logprobs <= 1 + SAMPLING_MAX_LOGPROBS && c->prompt_logprobs >= 0 &&
              c->prompt_logprobs <= 1 + SAMPLING_MAX_LOGPROBS,
          "logprobs");
    CHECK(c->priority >= -1 && c->priority <= 1 && c->deadline_ns >= 0, "terms");
    int64_t sum = 0;
    for (int32_t i = 0; i < c->prompt_len; i++)
        sum += c->prompt[i];
    CHECK(sum <= (int64_t)c->prompt_len * INT32_MAX, "sum");
}

static void put(struct mailbox *m, const uint8_t *data, size_t size)
{
    struct error err = {.code = OK};
    Witan__Cluster__V1__CoordinatorMessage *message =
        witan__cluster__v1__coordinator_message__unpack(NULL, size, data);
    if (!message)
        return;
    enum status st = mailbox_put(m, message, &err);
    witan__cluster__v1__coordinator_message__free_unpacked(message, NULL);
    CHECK(st == OK || (err.code == st && *err.msg && !strchr(err.msg, '\n')), "%s", err.msg);
}

static void take(struct mailbox *m)
{
    struct assignment a;
    struct command c;
    struct error err, end;
    enum status st = mailbox_wait_plan(m, 0, &a, &err);
    if (st == OK)
        check_plan(&a);
    while (!mailbox_stopped(m) && mailbox_take(m, 0, &c, &err) == MAIL_COMMAND) {
        CHECK(st == OK, "a command without a plan");
        check_command(&c, &a);
        command_fini(&c);
    }
    if (st == OK)
        CHECK(assignment_compare(&a, &a, &err) == OK, "%s", err.msg);
    error_set(&end, ERR_IO, "the input's end");
    mailbox_end(m, &end);
    mailbox_reopen(m); /* of another stream: nothing of this one is left */
    CHECK(mailbox_stopped(m) || mailbox_wait_plan(m, 0, &a, &err) == ERR_LIMIT, "a plan is left");
    CHECK(mailbox_stopped(m) || mailbox_take(m, 0, &c, &err) == MAIL_NONE, "a command is left");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mailbox *m;
    struct error err;
    log_set_level(LOG_ERROR);
    CHECK(mailbox_create(&m, &err) == OK, "%s", err.msg);
    for (int i = 0; i < 8 && size >= 2; i++) {
        size_t n = (size_t)data[0] | (size_t)data[1] << 8;
        n = n < size - 2 ? n : size - 2;
        put(m, data + 2, n);
        data += 2 + n;
        size -= 2 + n;
    }
    take(m);
    mailbox_destroy(m);
    return 0;
}
