/* A file of requests: see requests.h. */
#include "cli/requests.h"
#include "base/buf.h"
#include "base/json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_FILE_BYTES = 1 << 30, MAX_REQUESTS = SCHED_MAX_WAITING, DEFAULT_MAX_TOKENS = 256 };

struct one {
    struct requests *all;
    struct token_ids prompt;
    struct sampling sampling;
    struct shaping shaping;
    int32_t max_tokens;
    bool ignore_eos;
    struct logit_bias *bias; /* of shaping; owned, as its stop_ids are */
    int32_t *stop_ids;
    int32_t logprobs, prompt_logprobs; /* as in struct request */
    struct token_ids drawn;
    struct buf told, prompt_told; /* logprobs as JSON, behind one another */
    float *logits;                /* [drawn, vocab]; only with a logits file */
    size_t logits_rows, logits_cap;
    enum finish finish;
    bool failed;
    struct error err;
};

struct requests {
    const struct chat_text *text;
    const char *logits_path;
    struct one *each;
    size_t count, cap;
    size_t failed;
};

/* --- reading -----------------------------------------------------------------------------------
 */

static enum status prompt_ids(struct one *q, const json_t *ids, struct error *err)
{
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *v = json_array_get(ids, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
            return error_set(err, ERR_INVALID, "ids[%zu]: expected a token id, found %s", i,
                             json_type_words(v));
        uint32_t id = (uint32_t)json_integer_value(v);
        TRY(token_ids_append(&q->prompt, &id, 1, err));
    }
    return OK;
}

static enum status prompt_of(struct one *q, const json_t *in, const char *what, struct error *err)
{
    const struct chat_text *t = q->all->text;
    const json_t *ids = json_object_get(in, "ids"), *messages = json_object_get(in, "messages");
    const json_t *prompt = json_object_get(in, "prompt");
    bool thinking;
    if (!!ids + !!messages + !!prompt != 1)
        return error_set(err, ERR_INVALID, "%s: expected one of ids, messages and prompt", what);
    enum status st = OK;
    if (!t && !ids)
        st = error_set(err, ERR_NOT_FOUND, "the checkpoint has no tokenizer: expected ids");
    else if (json_is_array(ids))
        st = prompt_ids(q, ids, err);
    else if (json_is_array(messages))
        st = chat_encode(t, messages, NULL, NULL, &q->prompt, &thinking, err);
    else if (json_is_string(prompt))
        st = tokenizer_encode(t->tokenizer, t->scratch, json_string_value(prompt),
                              json_string_length(prompt), TOKENIZER_PLAIN, &q->prompt, err);
    else
        st = error_set(err, ERR_INVALID, "%s: expected %s",
                       ids        ? "ids"
                       : messages ? "messages"
                                  : "prompt",
                       prompt ? "a string" : "an array");
    if (st != OK)
        error_prefix(err, "%s: ", what);
    return st;
}

static enum status read_shaping(struct shaping *s, const json_t *in, const char *what,
                                struct error *err)
{
    double repetition = (double)s->repetition_penalty, presence = 0, frequency = 0;
    int64_t min_tokens = 0;
    TRY(json_get_real(in, what, "repetition_penalty", false, 0, 10, &repetition, err));
    TRY(json_get_real(in, what, "presence_penalty", false, -2, 2, &presence, err));
    TRY(json_get_real(in, what, "frequency_penalty", false, -2, 2, &frequency, err));
    TRY(json_get_int(in, what, "min_tokens", false, 0, INT32_MAX, &min_tokens, err));
    *s = (struct shaping){.repetition_penalty = (float)repetition,
                          .presence_penalty = (float)presence,
                          .frequency_penalty = (float)frequency,
                          .min_tokens = (int32_t)min_tokens};
    return OK;
}

/* {"id": bias, ...} */
static enum status read_biases(struct one *q, const json_t *in, const char *what, struct error *err)
{
    const json_t *map = json_object_get(in, "logit_bias"), *value;
    const char *key;
    if (!map)
        return OK;
    size_t most = json_object_size(map);
    if (!json_is_object(map) || most > SAMPLING_MAX_BIASES)
        return error_set(err, ERR_INVALID,
                         "%s: logit_bias: expected an object of at most %d tokens, found %s", what,
                         (int)SAMPLING_MAX_BIASES, json_type_words(map));
    q->bias = calloc(most + 1, sizeof *q->bias);
    if (!q->bias)
        return error_set(err, ERR_NO_MEMORY, "no memory for %zu biases", most);
    json_object_foreach((json_t *)(uintptr_t)map, key, value)
    {
        char *end;
        long id = strtol(key, &end, 10);
        if (end == key || *end || id < 0 || id > INT32_MAX || !json_is_number(value))
            return error_set(err, ERR_INVALID,
                             "%s: logit_bias: expected token ids with numbers, found \"%s\"", what,
                             key);
        q->bias[q->shaping.bias_count++] = (struct logit_bias){(int32_t)id,
                                                               (float)json_number_value(value)};
    }
    q->shaping.bias = q->bias;
    return OK;
}

static enum status read_stop_ids(struct one *q, const json_t *in, const char *what,
                                 struct error *err)
{
    const json_t *list = json_object_get(in, "stop_token_ids");
    size_t count = json_array_size(list);
    if (!list)
        return OK;
    if (!json_is_array(list) || count > SAMPLING_MAX_STOP_IDS)
        return error_set(err, ERR_INVALID,
                         "%s: stop_token_ids: expected an array of at most %d, found %s", what,
                         (int)SAMPLING_MAX_STOP_IDS, json_type_words(list));
    q->stop_ids = calloc(count + 1, sizeof *q->stop_ids);
    if (!q->stop_ids)
        return error_set(err, ERR_NO_MEMORY, "no memory for %zu stop ids", count);
    for (size_t i = 0; i < count; i++) {
        const json_t *v = json_array_get(list, i);
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || id > INT32_MAX)
            return error_set(err, ERR_INVALID, "%s: stop_token_ids[%zu]: expected a token id", what,
                             i);
        q->stop_ids[i] = (int32_t)id;
    }
    q->shaping.stop_ids = q->stop_ids;
    q->shaping.stop_id_count = (int32_t)count;
    return OK;
}

/* 1 + how many likeliest tokens to list; 0: the field is absent. */
static enum status read_wanted(const json_t *in, const char *what, const char *field, int32_t *out,
                               struct error *err)
{
    int64_t top = -1;
    TRY(json_get_int(in, what, field, false, 0, SAMPLING_MAX_LOGPROBS, &top, err));
    *out = (int32_t)top + 1;
    return OK;
}

static enum status read_fields(struct one *q, const json_t *in, const char *what, struct error *err)
{
    int64_t max_tokens = DEFAULT_MAX_TOKENS, seed = (int64_t)q->sampling.seed;
    int64_t top_k = q->sampling.top_k;
    double temperature = (double)q->sampling.temperature, top_p = (double)q->sampling.top_p;
    double min_p = (double)q->sampling.min_p;
    TRY(json_get_int(in, what, "max_tokens", false, 1, INT32_MAX, &max_tokens, err));
    TRY(json_get_int(in, what, "seed", false, INT64_MIN, INT64_MAX, &seed, err));
    TRY(json_get_int(in, what, "top_k", false, 0, INT32_MAX, &top_k, err));
    TRY(json_get_real(in, what, "temperature", false, 0, 1000, &temperature, err));
    TRY(json_get_real(in, what, "top_p", false, 0, 1, &top_p, err));
    TRY(json_get_real(in, what, "min_p", false, 0, 1, &min_p, err));
    TRY(json_get_bool(in, what, "ignore_eos", false, &q->ignore_eos, err));
    TRY(read_shaping(&q->shaping, in, what, err));
    TRY(read_biases(q, in, what, err));
    TRY(read_stop_ids(q, in, what, err));
    TRY(read_wanted(in, what, "logprobs", &q->logprobs, err));
    TRY(read_wanted(in, what, "prompt_logprobs", &q->prompt_logprobs, err));
    q->max_tokens = (int32_t)max_tokens;
    q->sampling = (struct sampling){.temperature = (float)temperature,
                                    .top_p = (float)top_p,
                                    .min_p = (float)min_p,
                                    .top_k = (int32_t)top_k,
                                    .seed = (uint64_t)seed};
    enum status st = sampling_check(&q->sampling, err);
    if (st != OK)
        error_prefix(err, "%s: ", what);
    return st;
}

static enum status add_line(struct requests *r, const struct sampling *sampling,
                            const struct shaping *shaping, const char *line, size_t len,
                            size_t number, struct error *err)
{
    char what[64];
    snprintf(what, sizeof what, "line %zu", number);
    if (r->count == MAX_REQUESTS)
        return error_set(err, ERR_LIMIT, "%s: more than %d requests", what, (int)MAX_REQUESTS);
    if (r->count == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 64;
        struct one *p = realloc(r->each, cap * sizeof *p);
        if (!p)
            return error_set(err, ERR_NO_MEMORY, "no memory for %zu requests", cap);
        r->each = p;
        r->cap = cap;
    }
    struct one *q = &r->each[r->count++];
    *q = (struct one){.all = r, .sampling = *sampling, .shaping = *shaping};
    q->sampling.seed += r->count - 1;
    token_ids_init(&q->prompt, 1 << 24);
    token_ids_init(&q->drawn, 1 << 24);
    buf_init(&q->told, 1 << 28);
    buf_init(&q->prompt_told, 1 << 28);
    json_t *in;
    TRY(json_parse(what, line, len, &in, err));
    enum status st = json_is_object(in)
                         ? prompt_of(q, in, what, err)
                         : error_set(err, ERR_INVALID, "%s: expected an object", what);
    if (st == OK)
        st = read_fields(q, in, what, err);
    json_decref(in);
    return st;
}

static enum status read_text(const char *path, char **text, size_t *len, struct error *err)
{
    if (strcmp(path, "-") != 0)
        return file_read_all(path, MAX_FILE_BYTES, text, len, err);
    struct buf b;
    buf_init(&b, MAX_FILE_BYTES);
    char chunk[65536];
    size_t n;
    enum status st = OK;
    while (st == OK && (n = fread(chunk, 1, sizeof chunk, stdin)) > 0)
        st = buf_append(&b, chunk, n, err);
    if (st != OK) {
        buf_fini(&b);
        return st;
    }
    *text = b.data;
    *len = b.len;
    return OK;
}

enum status requests_read(const char *path, const struct chat_text *text,
                          const struct sampling *sampling, const struct shaping *shaping,
                          const char *logits_path, struct requests **out, struct error *err)
{
    struct requests *r = calloc(1, sizeof *r);
    if (!r)
        return error_set(err, ERR_NO_MEMORY, "no memory for requests");
    r->text = text;
    r->logits_path = logits_path;
    char *data = NULL;
    size_t len = 0, number = 0;
    enum status st = read_text(path, &data, &len, err);
    for (size_t at = 0; st == OK && at < len;) {
        const char *end = memchr(data + at, '\n', len - at);
        size_t n = end ? (size_t)(end - (data + at)) : len - at;
        number++;
        if (n > 0)
            st = add_line(r, sampling, shaping, data + at, n, number, err);
        at += n + 1;
    }
    free(data);
    if (st == OK && r->count == 0)
        st = error_set(err, ERR_INVALID, "%s: no requests", path);
    if (st != OK) {
        requests_destroy(r);
        return st;
    }
    *out = r;
    return OK;
}

void requests_destroy(struct requests *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->count; i++) {
        token_ids_fini(&r->each[i].prompt);
        token_ids_fini(&r->each[i].drawn);
        buf_fini(&r->each[i].told);
        buf_fini(&r->each[i].prompt_told);
        free(r->each[i].bias);
        free(r->each[i].stop_ids);
        free(r->each[i].logits);
    }
    free(r->each);
    free(r);
}

size_t requests_failed(const struct requests *r)
{
    return r->failed;
}

/* --- running -----------------------------------------------------------------------------------
 */

static void fail(struct one *q, const struct error *err)
{
    if (!q->failed)
        q->all->failed++;
    q->failed = true;
    q->err = *err;
}

static void on_token(void *user, int32_t token, enum finish finish)
{
    struct one *q = user;
    struct error err;
    uint32_t id = (uint32_t)token;
    q->finish = finish;
    if (token >= 0 && token_ids_append(&q->drawn, &id, 1, &err) != OK)
        fail(q, &err);
    if (finish == FINISH_ERROR) {
        error_set(&err, ERR_INVALID, "the model's logits are not finite");
        fail(q, &err);
    }
}

static void on_logits(void *user, int32_t pos, const float *logits, int32_t vocab)
{
    (void)pos;
    struct one *q = user;
    struct error err;
    if (q->logits_rows == q->logits_cap) {
        size_t cap = q->logits_cap ? 2 * q->logits_cap : 16;
        float *p = realloc(q->logits, cap * (size_t)vocab * sizeof *p);
        if (!p) {
            error_set(&err, ERR_NO_MEMORY, "no memory for logits");
            fail(q, &err);
            return;
        }
        q->logits = p;
        q->logits_cap = cap;
    }
    memcpy(q->logits + q->logits_rows++ * (size_t)vocab, logits, (size_t)vocab * sizeof *logits);
}

/* JSON has no infinities. */
static enum status print_logprob(struct buf *out, float x, struct error *err)
{
    return isfinite(x) ? buf_printf(out, err, "%.9g", (double)x) : buf_puts(out, "null", err);
}

static enum status add_logprobs(struct buf *out, const struct logprobs *l, struct error *err)
{
    TRY(buf_puts(out, out->len ? ", {\"logprob\": " : "{\"logprob\": ", err));
    TRY(print_logprob(out, l->logprob, err));
    TRY(buf_printf(out, err, ", \"rank\": %d, \"top\": [", l->rank));
    for (int32_t i = 0; i < l->count; i++) {
        TRY(buf_printf(out, err, "%s[%d, ", i ? ", " : "", l->top[i].id));
        TRY(print_logprob(out, l->top[i].logprob, err));
        TRY(buf_puts(out, "]", err));
    }
    return buf_puts(out, "]}", err);
}

static void on_logprobs(void *user, int32_t pos, const struct logprobs *l)
{
    struct one *q = user;
    struct error err;
    struct buf *out = pos < (int32_t)q->prompt.len ? &q->prompt_told : &q->told;
    if (!q->failed && add_logprobs(out, l, &err) != OK)
        fail(q, &err);
}

static enum status print_told(struct buf *out, const char *name, const struct buf *told,
                              struct error *err)
{
    TRY(buf_printf(out, err, ", \"%s\": [", name));
    TRY(buf_append(out, told->data ? told->data : "", told->len, err));
    return buf_puts(out, "]", err);
}

static enum status print_text(const struct one *q, struct buf *out, struct error *err)
{
    struct buf text;
    buf_init(&text, 1 << 28);
    enum status st = tokenizer_decode(q->all->text->tokenizer, q->drawn.data, q->drawn.len, true,
                                      &text, err);
    if (st == OK)
        st = buf_puts(out, ", \"text\": ", err);
    if (st == OK)
        st = buf_json_string(out, text.data ? text.data : "", text.len, err);
    buf_fini(&text);
    return st;
}

static enum status print_one(const struct one *q, struct buf *out, struct error *err)
{
    static const char *const reasons[] = {"none",      "stop",  "length",
                                          "cancelled", "error", "deadline"};
    buf_clear(out);
    if (q->failed) {
        TRY(buf_puts(out, "{\"error\": ", err));
        TRY(buf_json_string(out, q->err.msg, strlen(q->err.msg), err));
        return buf_puts(out, "}\n", err);
    }
    TRY(buf_puts(out, "{\"ids\": [", err));
    for (size_t i = 0; i < q->drawn.len; i++)
        TRY(buf_printf(out, err, "%s%u", i ? ", " : "", q->drawn.data[i]));
    TRY(buf_puts(out, "]", err));
    if (q->all->text)
        TRY(print_text(q, out, err));
    if (q->logprobs > 0)
        TRY(print_told(out, "logprobs", &q->told, err));
    if (q->prompt_logprobs > 0)
        TRY(print_told(out, "prompt_logprobs", &q->prompt_told, err));
    return buf_printf(out, err, ", \"finish_reason\": \"%s\"}\n", reasons[q->finish]);
}

static enum status write_logits(const struct requests *r, FILE *f, int32_t vocab, struct error *err)
{
    for (size_t i = 0; i < r->count; i++) {
        size_t n = r->each[i].logits_rows * (size_t)vocab;
        if (fwrite(r->each[i].logits, sizeof(float), n, f) != n)
            return error_errno(err, errno, "%s", r->logits_path);
    }
    return fflush(f) == 0 ? OK : error_errno(err, errno, "%s", r->logits_path);
}

static enum status print_all(const struct requests *r, struct error *err)
{
    struct buf out;
    buf_init(&out, 1 << 29);
    enum status st = OK;
    for (size_t i = 0; st == OK && i < r->count; i++) {
        st = print_one(&r->each[i], &out, err);
        if (st == OK && fwrite(out.data, 1, out.len, stdout) != out.len)
            st = error_errno(err, errno, "standard output");
    }
    buf_fini(&out);
    if (st == OK && fflush(stdout) != 0)
        st = error_errno(err, errno, "standard output");
    return st;
}

static void submit_all(struct requests *r, struct engine *e)
{
    for (size_t i = 0; i < r->count; i++) {
        struct one *q = &r->each[i];
        struct request request = {.prompt = (const int32_t *)q->prompt.data,
                                  .prompt_len = (int32_t)q->prompt.len,
                                  .max_tokens = q->max_tokens,
                                  .ignore_eos = q->ignore_eos,
                                  .sampling = q->sampling,
                                  .shaping = q->shaping,
                                  .logprobs = q->logprobs,
                                  .prompt_logprobs = q->prompt_logprobs,
                                  .on_logprobs = on_logprobs,
                                  .on_token = on_token,
                                  .on_logits = r->logits_path ? on_logits : NULL,
                                  .user = q};
        struct error refused;
        if (engine_submit(e, &request, NULL, &refused) != OK)
            fail(q, &refused);
    }
}

enum status requests_run(struct engine *e, struct model *m, void *arg, struct error *err)
{
    struct requests *r = arg;
    FILE *logits = NULL;
    if (r->logits_path && !(logits = fopen(r->logits_path, "wbe")))
        return error_errno(err, errno, "%s", r->logits_path);
    submit_all(r, e);
    enum status st = OK;
    for (bool ran = true; st == OK && ran;)
        st = engine_step(e, &ran, err);
    if (st == OK)
        st = print_all(r, err);
    if (st == OK && logits)
        st = write_logits(r, logits, m->config.vocab, err);
    if (logits && fclose(logits) != 0 && st == OK)
        st = error_errno(err, errno, "%s", r->logits_path);
    return st;
}
