/* Every case of calls_cases.h in pieces, as tokens, and put together again. */
#include "tests/unit/random.h"
#include "tests/unit/unit.h"

#include "base/check.h"
#include "coordinator/answer_text.h"
#include "coordinator/text/chat_text.h"
#include "tests/unit/coordinator/calls_cases.h"
#include "tests/unit/coordinator/calls_telling.h"

#include <stdlib.h>

enum { SPLITS = 10000, LEAST_CASES = 300, LIMIT_BYTES = 1 << 16 };

/* --- cases -------------------------------------------------------------------------------------
 */

static struct split_case all_cases[COUNT_OF(hermes_cases) + COUNT_OF(coder_cases) +
                                   COUNT_OF(thought_cases) + COUNT_OF(recorded_cases)];

static struct split_case plain_case(enum call_format format, const struct calls_case *k)
{
    return (struct split_case){k->name, format, false, false, k->text, "", k->told};
}

static size_t gather_cases(void)
{
    size_t n = 0;
    for (size_t i = 0; i < COUNT_OF(hermes_cases); i++)
        all_cases[n++] = plain_case(CALLS_HERMES, &hermes_cases[i]);
    for (size_t i = 0; i < COUNT_OF(coder_cases); i++)
        all_cases[n++] = plain_case(CALLS_CODER, &coder_cases[i]);
    for (size_t i = 0; i < COUNT_OF(thought_cases); i++) {
        const struct thought_case *k = &thought_cases[i];
        all_cases[n++] = (struct split_case){k->name, CALLS_HERMES, true,   k->inside,
                                             k->text, k->thought,   k->told};
    }
    for (size_t i = 0; i < COUNT_OF(recorded_cases); i++)
        all_cases[n++] = recorded_cases[i];
    assert_int_equal(n, COUNT_OF(all_cases));
    return n;
}

/* --- the parsers of one answer -----------------------------------------------------------------
 */

struct parser {
    struct reasoning reasoning;
    bool split, thinks; /* a thought has begun */
    struct buf thought, answer;
    struct calls calls;
    struct telling told;
};

static void parser_init(struct parser *p, const struct split_case *k)
{
    p->split = k->split;
    p->thinks = k->inside;
    reasoning_init(&p->reasoning, k->inside);
    buf_init(&p->thought, LIMIT_BYTES);
    buf_init(&p->answer, LIMIT_BYTES);
    calls_init(&p->calls, k->format, telling_tools(), false);
    telling_init(&p->told);
}

static void parser_fini(struct parser *p)
{
    reasoning_fini(&p->reasoning);
    buf_fini(&p->thought);
    buf_fini(&p->answer);
    calls_fini(&p->calls);
}

static void parser_push(struct parser *p, const char *text, size_t len)
{
    struct error err;
    if (!p->split) {
        assert_int_equal(calls_push(&p->calls, text, len, &err), OK);
    } else {
        assert_int_equal(reasoning_push(&p->reasoning, text, len, &p->thought, &p->answer, &err),
                         OK);
        assert_int_equal(calls_push(&p->calls, p->answer.data, p->answer.len, &err), OK);
        buf_clear(&p->answer);
        p->thinks = p->thinks || p->reasoning.state == REASONING_OPENED ||
                    p->reasoning.state == REASONING_INSIDE;
    }
    telling_take(&p->told, &p->calls);
}

static void parser_flush(struct parser *p)
{
    struct error err;
    if (p->split) {
        assert_int_equal(reasoning_flush(&p->reasoning, &p->thought, &p->answer, &err), OK);
        assert_int_equal(calls_push(&p->calls, p->answer.data, p->answer.len, &err), OK);
    }
    assert_int_equal(calls_flush(&p->calls, &err), OK);
    telling_take(&p->told, &p->calls);
    telling_mend(&p->told);
    assert_int_equal(p->calls.text.len, 0);
}

/* In pieces of 1 to `most` bytes, 0: whole. */
static void parse(struct parser *p, const struct split_case *k, const char *text, size_t len,
                  uint64_t *random, int most)
{
    parser_init(p, k);
    for (size_t at = 0, n; at < len; at += n) {
        n = most == 0 ? len : most == 1 ? 1 : (size_t)random_int(random, 1, most);
        n = n < len - at ? n : len - at;
        parser_push(p, text + at, n);
    }
    parser_flush(p);
}

static const char *thought_of(const struct parser *p)
{
    return p->thought.len > 0 ? p->thought.data : "";
}

static void check_told(const struct split_case *k, const char *how, const struct parser *p)
{
    if (strcmp(thought_of(p), k->thought) != 0)
        fail_msg("%s, %s:\n%s\nthinks\n%s\nexpected\n%s", k->name, how, k->text, thought_of(p),
                 k->thought);
    if (strcmp(p->told.text, k->told) != 0)
        fail_msg("%s, %s:\n%s\nis told as\n%s\nexpected\n%s", k->name, how, k->text, p->told.text,
                 k->told);
}

/* --- pieces ------------------------------------------------------------------------------------
 */

static void cases_are_many_and_different(void **state)
{
    (void)state;
    size_t count = gather_cases();
    assert_true(count >= LEAST_CASES);
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < i; k++)
            if (all_cases[i].format == all_cases[k].format &&
                all_cases[i].split == all_cases[k].split &&
                all_cases[i].inside == all_cases[k].inside &&
                strcmp(all_cases[i].text, all_cases[k].text) == 0)
                fail_msg("%s is %s", all_cases[i].name, all_cases[k].name);
}

static void whole_and_byte_by_byte(void **state)
{
    (void)state;
    struct parser *p = check_calloc(1, sizeof *p);
    for (size_t i = gather_cases(); i-- > 0;) {
        const struct split_case *k = &all_cases[i];
        for (int most = 0; most <= 1; most++) {
            parse(p, k, k->text, strlen(k->text), NULL, most);
            check_told(k, most == 0 ? "whole" : "byte by byte", p);
            parser_fini(p);
        }
    }
    free(p);
}

static void ten_thousand_splits(void **state)
{
    (void)state;
    uint64_t random = 2026;
    size_t count = gather_cases();
    struct parser *p = check_calloc(1, sizeof *p);
    for (size_t i = 0; i < SPLITS; i++) {
        const struct split_case *k = &all_cases[i % count];
        size_t len = strlen(k->text);
        int longest = len > 2 ? (int)len : 2;
        int most = random_int(&random, 0, 1) ? random_int(&random, 2, 12)
                                             : random_int(&random, 2, longest);
        parse(p, k, k->text, len, &random, most);
        check_told(k, "in pieces", p);
        parser_fini(p);
    }
    free(p);
}

/* --- tokens ------------------------------------------------------------------------------------
 */

static struct chat_text *words;
static int32_t byte_ids[256];

static void load_words(void)
{
    struct error err;
    if (words)
        return;
    if (chat_text_load(WITAN_SOURCE_DIR "/deploy/lexicon/model", false, &words, &err))
        fail_msg("%s", err.msg);
    for (int32_t id = chat_vocab(words); id-- > 0;) {
        const char *bytes;
        size_t len;
        assert_int_equal(tokenizer_token_bytes(words->tokenizer, (uint32_t)id, &bytes, &len, NULL),
                         OK);
        if (len == 1)
            byte_ids[(unsigned char)bytes[0]] = id;
    }
}

/* The next token: of a tag that is one, or of one byte. */
static int32_t next_token(const char *text, size_t *len)
{
    static const char *const tags[] = {"<think>", "</think>", "<tool_call>", "</tool_call>"};
    for (size_t i = 0; i < COUNT_OF(tags); i++) {
        uint32_t id = 0;
        *len = strlen(tags[i]);
        if (strncmp(text, tags[i], *len) == 0 &&
            tokenizer_id_of_token(words->tokenizer, tags[i], *len, &id, NULL) == OK)
            return (int32_t)id;
    }
    *len = 1;
    return byte_ids[(unsigned char)*text];
}

static void take_settled(struct answer_text *t, bool last, struct parser *p)
{
    bool stopped = false;
    struct error err;
    assert_int_equal(answer_text_settle(t, last, &stopped, &err), OK);
    assert_int_equal(buf_append(&p->thought, t->thought.data, t->thought.len, &err), OK);
    for (size_t i = 0; i < t->calls.count; i++)
        telling_piece(&p->told, &t->calls, &t->calls.pieces[i]);
    answer_text_clear(t);
}

/* As an answer's tokens, up to 8 of them a step: characters are cut, tags are one or many. */
static void tokens_make_no_difference(void **state)
{
    (void)state;
    uint64_t random = 17;
    struct parser *p = check_calloc(1, sizeof *p);
    load_words();
    for (size_t i = gather_cases(); i-- > 0;) {
        const struct split_case *k = &all_cases[i];
        const struct generation_params params = {.split_reasoning = k->split,
                                                 .in_reasoning = k->inside,
                                                 .calls = k->format,
                                                 .tools = telling_tools()};
        struct answer_text t;
        struct error err;
        parser_init(p, k);
        assert_int_equal(answer_text_init(&t, words->tokenizer, &params, &err), OK);
        for (const char *s = k->text; *s;) {
            for (int n = random_int(&random, 1, 8); n > 0 && *s; n--) {
                size_t len = 0;
                int32_t id = next_token(s, &len);
                assert_int_equal(answer_text_push(&t, id, false, NULL, &err), OK);
                s += len;
            }
            take_settled(&t, false, p);
        }
        take_settled(&t, true, p);
        telling_mend(&p->told);
        check_told(k, "as tokens", p);
        answer_text_fini(&t);
        parser_fini(p);
    }
    chat_text_destroy(words);
    words = NULL;
    free(p);
}

/* --- together again ----------------------------------------------------------------------------
 */

/* The text of a call as its template has it, which takes earlier calls back. */
static void put_coder_call(struct buf *b, const char *name, const char *json)
{
    struct error err;
    struct template_rendered r;
    json_t *normal = NULL;
    json_t *messages = json_pack("[{s:s, s:s}, {s:s, s:s, s:[{s:{s:s, s:s}}]}]", "role", "user",
                                 "content", "u", "role", "assistant", "content", "", "tool_calls",
                                 "function", "name", name, "arguments", json);
    assert_non_null(messages);
    if (template_normalise(messages, &normal, &err) != OK)
        fail_msg("%s: %s", json, err.msg);
    assert_int_equal(
        template_render(TEMPLATE_QWEN3_CODER, normal, NULL, NULL, LIMIT_BYTES, &r, &err), OK);
    const char *begin = strstr(r.text, "<tool_call>"), *end = NULL;
    for (const char *at = begin; (at = strstr(at, "</tool_call>")); at++)
        end = at + strlen("</tool_call>");
    assert_non_null(end);
    assert_int_equal(buf_append(b, begin, (size_t)(end - begin), &err), OK);
    template_rendered_fini(&r);
    json_decref(normal);
    json_decref(messages);
}

static void put_hermes_call(struct buf *b, const char *name, const char *json, bool whole)
{
    struct error err;
    assert_int_equal(buf_puts(b, "<tool_call>\n{\"name\": ", &err), OK);
    assert_int_equal(buf_json_string(b, name, strlen(name), &err), OK);
    assert_int_equal(
        buf_printf(b, &err, ", \"arguments\": %s%s", json, whole ? "}\n</tool_call>" : ""), OK);
}

/* The fields with the format's tags between them. False: one is half a call of Coder's. */
static bool put_fields(struct buf *b, const struct split_case *k, const struct parser *p)
{
    struct error err;
    bool rest = p->told.count > 0 || p->reasoning.state == REASONING_ANSWER ||
                p->reasoning.state == REASONING_CLOSED;
    if (p->thinks)
        assert_int_equal(buf_printf(b, &err, "%s%s%s", k->inside ? "" : "<think>\n", thought_of(p),
                                    rest ? "\n</think>\n\n" : ""),
                         OK);
    for (size_t i = 0; i < p->told.count; i++) {
        const struct told_field *f = &p->told.fields[i];
        char *name = strndup(p->told.text + f->name, f->name_len);
        char *text = strndup(p->told.text + f->begin, f->len);
        if (f->call && i > 0)
            assert_int_equal(buf_puts(b, "\n", &err), OK);
        if (!f->call)
            assert_int_equal(buf_puts(b, text, &err), OK);
        else if (k->format == CALLS_HERMES)
            put_hermes_call(b, name, text, f->whole);
        else if (f->whole)
            put_coder_call(b, name, text);
        bool half = f->call && !f->whole && k->format == CALLS_CODER;
        free(name);
        free(text);
        if (half)
            return false;
    }
    return true;
}

/* Without white space, which the format is free to have between its parts. */
static void squeeze(const char *text, char *out)
{
    for (; *text; text++)
        if (!strchr(" \n\t\r", *text))
            *out++ = *text;
    *out = '\0';
}

static bool among(const char *const *names, const char *name)
{
    while (*names && strcmp(*names, name) != 0)
        names++;
    return *names != NULL;
}

/* Cases whose text says the same otherwise than the template would: what is left out, misspelt or
 * moved is the format's own. */
static const char *const hermes_otherwise[] = {
    "a name with escapes",
    "arguments first",
    "parameters for arguments",
    "parameters first",
    "arguments as a string",
    "arguments as a string, first",
    "arguments as an empty string",
    "arguments as white space",
    "arguments null",
    "arguments null, first",
    "no arguments",
    "other keys",
    "a key with escapes is another",
    "a newline in a string",
    "a newline in arguments before the name",
    "no closing tag",
    "no closing tag and a newline",
    "part of the closing tag",
    "the last brace forgotten",
    "the last brace not reached",
    "the last brace forgotten, arguments first",
    "the closing tag forgotten, another call",
    "the closing tag forgotten, text",
    "one brace too many",
    "cut behind arguments as a string",
    "the opening tag closes",
    "another closing tag",
    "the closing tag without its end",
    "two objects between one pair of tags",
    "two objects and a comma",
    "arguments beside the name, not inside",
    "arguments called input",
    "arguments as a string with newlines and tabs",
    "arguments as a string with a tag",
    "arguments as a string of another alphabet",
    "all control characters that have a letter",
    "a control character that has none",
    "a name by surrogates",
    "a name with a newline",
    "vllm_28806: nor are none in arguments that are left out",
    "a call behind a thought",
    "begun with a name, temperature 0.7, seed 1",
    "begun with a name, temperature 0.7, seed 3",
    NULL};

static const char *const coder_otherwise[] = {
    "a newline alone",
    "two newlines",
    "three newlines",
    "a number",
    "true",
    "null where it may be",
    "null or an integer, null",
    "no opening tag",
    "no opening tag, content",
    "no closing tags",
    "no end of the function",
    "no end of the parameter",
    "no end of parameter and function",
    "no end of the parameter, cut behind the function",
    "two calls, the first without an end",
    "vllm_23099: types and a missing end",
    "ollama_16686: no opening tag",
    "cut in the call's end",
    "two functions in one call",
    "no end at all, another call",
    "no end of two parameters",
    "the parameter's end with a slash at its end",
    "the parameter's end with its name",
    "the function's end with its name",
    "a parameter that closes as its name does",
    "text between the tags",
    "text between parameters",
    "text behind the last parameter",
    "text behind the function",
    "too much white space between tags",
    "a parameter twice",
    "TRUE",
    "an object with a newline in a string",
    "an object with tags in a string",
    "a carriage return at a string's begin",
    "no end of a parameter, windows newlines",
    "a call in a value",
    "vllm_57699: the parameter's end left out before the function's",
    "sglang_27336: an end of a parameter that is none",
    "sglang_39836: the parameter's own tag inside of its value",
    NULL};

/* Those that say something else once the template has printed them as Python would, a name that
 * comes twice once. */
static const char *const coder_prints[] = {
    "a number", "an object on lines", "a parameter twice",
    "sglang_39836: the parameter's own tag inside of its value", NULL};

/* Cases whose text is their fields with the template's tags between them, byte for byte; but for
 * white space; and which are told the same again. */
struct tally {
    int exact, alike, again;
};

static void check_together(const struct split_case *k, struct tally *tally)
{
    static char one[LIMIT_BYTES], other[LIMIT_BYTES];
    struct parser *p = check_calloc(2, sizeof *p), *q = p + 1;
    bool hermes = k->format == CALLS_HERMES;
    struct buf b;
    buf_init(&b, LIMIT_BYTES);
    parse(p, k, k->text, strlen(k->text), NULL, 1);
    if (put_fields(&b, k, p)) {
        const char *text = b.len > 0 ? b.data : "";
        squeeze(text, one);
        squeeze(k->text, other);
        bool same = strcmp(one, other) == 0;
        if (same == among(hermes ? hermes_otherwise : coder_otherwise, k->name))
            fail_msg("%s:\n%s\nis %stogether\n%s", k->name, k->text, same ? "" : "not ", text);
        parse(q, k, text, b.len, NULL, 0);
        bool stays = strcmp(q->told.text, p->told.text) == 0 &&
                     strcmp(thought_of(q), thought_of(p)) == 0;
        if (stays == (!hermes && among(coder_prints, k->name)))
            fail_msg("%s:\n%s\nis told as\n%s\nand before as\n%s", k->name, text, q->told.text,
                     p->told.text);
        parser_fini(q);
        tally->exact += strcmp(text, k->text) == 0;
        tally->alike += same;
        tally->again += stays;
    }
    parser_fini(p);
    buf_fini(&b);
    free(p);
}

static void fields_with_tags_are_the_text(void **state)
{
    (void)state;
    struct tally tally = {0};
    size_t count = gather_cases();
    for (size_t i = 0; i < count; i++)
        check_together(&all_cases[i], &tally);
    print_message("%zu cases: together they are %d exactly, %d but for white space; %d are told "
                  "the same again\n",
                  count, tally.exact, tally.alike, tally.again);
    assert_true(tally.exact >= 200 && tally.alike >= 350 && tally.again >= 430);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(cases_are_many_and_different),  cmocka_unit_test(whole_and_byte_by_byte),
    cmocka_unit_test(ten_thousand_splits),           cmocka_unit_test(tokens_make_no_difference),
    cmocka_unit_test(fields_with_tags_are_the_text),
};

UNIT_MAIN(tests)
