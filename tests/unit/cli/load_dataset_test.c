/* What loads ask: made-up prompts and files, and what files may not say. */
#include "cli/load_dataset.h"
#include "coordinator/text/tokenizer.h"
#include "tests/unit/unit.h"

static struct load_dataset_options options(enum load_dataset_kind kind)
{
    return (struct load_dataset_options){
        .kind = kind,
        .path = "dir/file.jsonl",
        .vocabulary = 1000,
        .input = {.kind = LOAD_LENGTH_UNIFORM, .a = 5, .b = 9},
        .output = {.a = 16},
        .prefix_groups = 1,
        .block_tokens = 4,
        .messages = true,
        .seed = 11,
    };
}

static struct load_dataset *parse(const struct load_dataset_options *o, const char *text)
{
    struct load_dataset *d;
    struct error err;
    if (load_dataset_parse(o, "file", text, strlen(text), &d, &err) != OK)
        fail_msg("%s", err.msg);
    return d;
}

/* The ids of a request, owned by the caller. */
struct ids {
    int32_t count, ids[64];
};

static struct ids ids_of(struct load_dataset *d, size_t index, bool warm_up)
{
    struct load_request r;
    struct ids out = {0};
    load_dataset_get(d, index, warm_up, &r);
    assert_int_equal(r.input, LOAD_IDS);
    assert_true(r.id_count <= 64 && r.id_count == r.input_tokens);
    out.count = r.id_count;
    memcpy(out.ids, r.ids, (size_t)r.id_count * sizeof *r.ids);
    return out;
}

static bool same(const struct ids *a, const struct ids *b, int32_t from, int32_t to)
{
    return memcmp(a->ids + from, b->ids + from, (size_t)(to - from) * sizeof a->ids[0]) == 0;
}

static void made_up_prompts_come_again_by_their_numbers(void **state)
{
    (void)state;
    struct load_dataset_options o = options(LOAD_RANDOM), other = o;
    other.seed = 12;
    struct load_dataset *a = parse(&o, ""), *b = parse(&o, ""), *c = parse(&other, "");
    bool long_one = false, short_one = false;
    assert_int_equal(load_dataset_count(a), 0);
    assert_string_equal(load_dataset_words(a), "random ids, input uniform:5:9, output 16");
    for (size_t i = 100; i-- > 0;) {
        struct ids x = ids_of(a, i, false), y = ids_of(b, i, false), z = ids_of(c, i, false);
        struct ids warm = ids_of(a, i, true), next = ids_of(a, i + 1, false);
        assert_true(x.count >= 5 && x.count <= 9);
        long_one |= x.count == 9;
        short_one |= x.count == 5;
        for (int32_t k = 0; k < x.count; k++)
            assert_true(x.ids[k] >= 0 && x.ids[k] < 1000);
        assert_true(x.count == y.count && same(&x, &y, 0, x.count));
        assert_false(same(&x, &z, 0, 5));
        assert_false(same(&x, &warm, 0, 5));
        assert_false(same(&x, &next, 0, 5));
    }
    assert_true(long_one && short_one);
    struct ids before = ids_of(a, 3, false);
    load_dataset_reseed(a, 12);
    struct ids after = ids_of(a, 3, false), wanted = ids_of(c, 3, false);
    assert_true(after.count == wanted.count && same(&after, &wanted, 0, after.count));
    assert_false(same(&before, &after, 0, 5));
    load_dataset_destroy(a);
    load_dataset_destroy(b);
    load_dataset_destroy(c);
}

static void groups_share_their_prefixes_alone(void **state)
{
    (void)state;
    struct load_dataset_options o = options(LOAD_RANDOM);
    o.prefix_tokens = 10;
    o.prefix_groups = 3;
    struct load_dataset *d = parse(&o, "");
    struct ids groups[3];
    int found = 0, members[3] = {0};
    assert_non_null(strstr(load_dataset_words(d), ", prefix 10 of 3 groups"));
    for (size_t i = 0; i < 300; i++) {
        struct ids x = ids_of(d, i, i % 2);
        assert_true(x.count >= 15 && x.count <= 19);
        int g = 0;
        while (g < found && !same(&groups[g], &x, 0, 10))
            g++;
        assert_true(g < 3);
        if (g == found)
            groups[found++] = x;
        else
            assert_false(same(&groups[g], &x, 10, 15));
        members[g]++;
    }
    assert_int_equal(found, 3);
    for (int g = 0; g < 3; g++)
        assert_true(members[g] > 60);
    load_dataset_destroy(d);
}

/* Words of the tokenizer's: the text has as many tokens as it was made of. */
static void words_keep_their_count_of_tokens(void **state)
{
    (void)state;
    struct tokenizer *tok = NULL;
    struct tokenizer_scratch *scratch = NULL;
    struct error err;
    struct load_dataset_options o = options(LOAD_RANDOM);
    if (tokenizer_load(WITAN_SOURCE_DIR "/deploy/lexicon/model", &tok, &err) != OK ||
        tokenizer_scratch_create(tok, &scratch, &err) != OK)
        fail_msg("%s", err.msg);
    o.tokenizer = tok;
    o.as_text = true;
    o.prefix_tokens = 4;
    struct load_dataset *d = parse(&o, "");
    for (size_t i = 0; i < 200; i++) {
        struct load_request r;
        struct token_ids ids;
        token_ids_init(&ids, 1000);
        load_dataset_get(d, i, false, &r);
        assert_int_equal(r.input, LOAD_TEXT);
        assert_int_equal(strlen(r.text), r.text_len);
        assert_int_equal(
            tokenizer_encode(tok, scratch, r.text, r.text_len, TOKENIZER_PLAIN, &ids, &err), OK);
        assert_int_equal(ids.len, r.input_tokens);
        assert_memory_equal(ids.data, r.ids, ids.len * sizeof *ids.data);
        token_ids_fini(&ids);
    }
    load_dataset_destroy(d);
    o.as_text = false; /* ids then, but never a special one */
    d = parse(&o, "");
    for (size_t i = 0; i < 500; i++) {
        struct ids x = ids_of(d, i, false);
        for (int32_t k = 0; k < x.count; k++)
            assert_false(tokenizer_is_special(tok, (uint32_t)x.ids[k]));
    }
    load_dataset_destroy(d);
    tokenizer_scratch_destroy(scratch);
    tokenizer_destroy(tok);
}

static void traces_share_what_their_hashes_share(void **state)
{
    (void)state;
    struct load_dataset_options o = options(LOAD_TRACE);
    struct load_dataset *d = parse(
        &o, "{\"timestamp\": 1000, \"input_length\": 10, \"output_length\": 3, "
            "\"hash_ids\": [7, 8, 9]}\n"
            "\r\n"
            "{\"timestamp\": 1000.5, \"input_length\": 12, \"output_length\": 4, "
            "\"hash_ids\": [7, 8, 9]}\r\n"
            "{\"timestamp\": 3000, \"input_length\": 12, \"output_length\": 5, "
            "\"hash_ids\": [7, 10, 9], \"type\": \"chat\"}\n"
            "{\"timestamp\": 3000, \"input_length\": 12, \"output_length\": 6}");
    struct load_request r;
    struct ids x[4];
    assert_int_equal(load_dataset_count(d), 4);
    assert_string_equal(load_dataset_words(d), "trace file.jsonl, 4 requests");
    for (size_t i = 0; i < 4; i++) {
        load_dataset_get(d, i, false, &r);
        assert_int_equal(r.max_tokens, 3 + (int)i);
        x[i] = ids_of(d, i, false);
    }
    assert_int_equal(load_dataset_at_ns(d, 0), 0);
    assert_int_equal(load_dataset_at_ns(d, 1), 500000);
    assert_int_equal(load_dataset_at_ns(d, 2), 2000000000);
    assert_true(x[0].count == 10 && same(&x[0], &x[1], 0, 10)); /* the last block is cut */
    assert_true(same(&x[1], &x[2], 0, 4) && same(&x[1], &x[2], 8, 12));
    assert_false(same(&x[1], &x[2], 4, 8));
    assert_false(same(&x[1], &x[3], 0, 4));
    struct ids warm = ids_of(d, 1, true);
    assert_int_equal(warm.count, 12);
    assert_false(same(&x[1], &warm, 0, 4));
    load_dataset_destroy(d);
    o.has_output = true;
    d = parse(&o, "{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 3}\n");
    load_dataset_get(d, 0, false, &r);
    assert_int_equal(r.max_tokens, 16);
    load_dataset_destroy(d);
}

static void takes_prompts_and_conversations(void **state)
{
    (void)state;
    struct load_dataset_options o = options(LOAD_PROMPTS);
    struct load_dataset *d = parse(
        &o, "{\"prompt\": \"one\", \"max_tokens\": 5}\n"
            "{\"messages\": [{\"role\": \"user\", \"content\": \"two\"}], \"id\": 7}\n");
    struct load_request r;
    load_dataset_get(d, 2, false, &r); /* the first again */
    assert_int_equal(r.input, LOAD_TEXT);
    assert_string_equal(r.text, "one");
    assert_int_equal(r.max_tokens, 5);
    load_dataset_get(d, 1, false, &r);
    assert_int_equal(r.input, LOAD_MESSAGES);
    assert_int_equal(json_array_size(r.messages), 1);
    assert_int_equal(r.max_tokens, 0);
    load_dataset_destroy(d);
}

static void takes_the_first_question_that_is_answered(void **state)
{
    (void)state;
    struct load_dataset_options o = options(LOAD_SHAREGPT);
    struct tokenizer *tok;
    struct error err;
    struct load_request r;
    static const char text[] =
        "[{\"id\": \"a\", \"conversations\": [{\"from\": \"system\", \"value\": \"s\"}, "
        "{\"from\": \"human\", \"value\": \"why?\"}, {\"from\": \"gpt\", \"value\": \"so\"}]},"
        "{\"conversations\": [{\"from\": \"gpt\", \"value\": \"nobody asked\"}]},"
        "{\"conversations\": []},"
        "{\"conversations\": [{\"from\": \"user\", \"value\": \"\"}, "
        "{\"from\": \"assistant\", \"value\": \"x\"}, {\"from\": \"user\", \"value\": \"how?\"}, "
        "{\"from\": \"assistant\", \"value\": \"a lighthouse by the sea\"}]}]";
    if (tokenizer_load(WITAN_SOURCE_DIR "/deploy/lexicon/model", &tok, &err) != OK)
        fail_msg("%s", err.msg);
    o.tokenizer = tok;
    struct load_dataset *d = parse(&o, text);
    assert_int_equal(load_dataset_count(d), 2);
    assert_int_equal(load_dataset_skipped(d), 2);
    load_dataset_get(d, 0, false, &r);
    assert_string_equal(r.text, "why?");
    load_dataset_get(d, 1, false, &r);
    assert_string_equal(r.text, "how?");
    struct tokenizer_scratch *scratch;
    struct token_ids ids;
    token_ids_init(&ids, 100);
    assert_int_equal(tokenizer_scratch_create(tok, &scratch, &err), OK);
    assert_int_equal(
        tokenizer_encode(tok, scratch, "a lighthouse by the sea", 23, TOKENIZER_PLAIN, &ids, &err),
        OK);
    assert_int_equal(r.max_tokens, ids.len);
    token_ids_fini(&ids);
    tokenizer_scratch_destroy(scratch);
    load_dataset_destroy(d);
    tokenizer_destroy(tok);
    o.tokenizer = NULL;
    assert_int_equal(load_dataset_parse(&o, "file", text, strlen(text), &d, &err), ERR_INVALID);
    assert_non_null(strstr(err.msg, "file: conversation 1: how long answers are"));
    o.has_output = true;
    d = parse(&o, text);
    load_dataset_get(d, 0, false, &r);
    assert_int_equal(r.max_tokens, 16);
    load_dataset_destroy(d);
}

static void names_the_line_and_the_field(void **state)
{
    (void)state;
#define GOOD "{\"timestamp\": 5, \"input_length\": 8, \"output_length\": 3, \"hash_ids\": [1, 2]}\n"
    static const struct {
        enum load_dataset_kind kind;
        const char *text, *error;
    } cases[] = {
        {LOAD_TRACE, "", "file: expected requests, found none"},
        {LOAD_TRACE, GOOD "{\"timestamp\": 6}\n",
         "file: line 2: input_length: expected an integer, found nothing"},
        {LOAD_TRACE, GOOD "\n{\"timestamp\": \"6\"}\n",
         "file: line 3: timestamp: expected a number, found a string"},
        {LOAD_TRACE, GOOD "{\"timestamp\": 4, \"input_length\": 8, \"output_length\": 3}",
         "file: line 2: timestamp: expected at least the line before's 5, found 4"},
        {LOAD_TRACE, "{\"timestamp\": 4, \"input_length\": 0, \"output_length\": 3}",
         "file: line 1: input_length: expected 1 to 1048576, found 0"},
        {LOAD_TRACE, "{\"timestamp\": 4, \"input_length\": 1, \"output_length\": 2.5}",
         "file: line 1: output_length: expected an integer, found a real number"},
        {LOAD_TRACE,
         GOOD "{\"timestamp\": 5, \"input_length\": 9, \"output_length\": 3, "
              "\"hash_ids\": [1, 2]}",
         "file: line 2: hash_ids: expected 3"},
        {LOAD_TRACE,
         "{\"timestamp\": 5, \"input_length\": 8, \"output_length\": 3, "
         "\"hash_ids\": [1, \"2\"]}",
         "file: line 1: hash_ids[1]: expected an integer, found a string"},
        {LOAD_TRACE,
         "{\"timestamp\": 5, \"input_length\": 8, \"output_length\": 3, "
         "\"hash_ids\": 4}",
         "file: line 1: hash_ids: expected an array, found an integer"},
        {LOAD_TRACE, GOOD "[]", "file: line 2: expected an object, found an array"},
        {LOAD_TRACE, GOOD "{\"timestamp\": 5,\n", "file: line 2: "},
        {LOAD_PROMPTS, "{\"prompt\": \"x\"}\n{}",
         "file: line 2: expected either prompt or messages"},
        {LOAD_PROMPTS, "{\"prompt\": \"x\", \"messages\": []}",
         "file: line 1: expected either prompt or messages, found both"},
        {LOAD_PROMPTS, "{\"prompt\": \"\"}", "file: line 1: prompt: expected a string that is not"},
        {LOAD_PROMPTS, "{\"prompt\": [1]}", "file: line 1: prompt: expected a string that is not"},
        {LOAD_PROMPTS, "{\"prompt\": \"x\", \"max_tokens\": 0}",
         "file: line 1: max_tokens: expected 1 to"},
        {LOAD_PROMPTS, "{\"messages\": []}", "file: line 1: messages: expected an array with"},
        {LOAD_PROMPTS, "{\"messages\": [{\"content\": \"x\"}]}",
         "file: line 1: messages[0].role: expected a string, found nothing"},
        {LOAD_SHAREGPT, "{}", "file: expected an array of conversations, found an object"},
        {LOAD_SHAREGPT, "[{\"conversations\": []}, 5]",
         "file: conversation 2: conversations: expected an array, found nothing"},
        {LOAD_SHAREGPT, "[{\"conversations\": [{\"from\": \"human\"}]}]",
         "file: conversation 1: conversations[0].value: expected a string, found nothing"},
        {LOAD_SHAREGPT, "[{\"conversations\": []}]", "file: expected requests, found none"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct load_dataset_options o = options(cases[i].kind);
        struct load_dataset *d;
        struct error err;
        if (load_dataset_parse(&o, "file", cases[i].text, strlen(cases[i].text), &d, &err) == OK)
            fail_msg("took %s", cases[i].text);
        if (strncmp(err.msg, cases[i].error, strlen(cases[i].error)) != 0)
            fail_msg("expected \"%s\", found \"%s\"", cases[i].error, err.msg);
    }
    struct load_dataset_options o = options(LOAD_PROMPTS);
    struct load_dataset *d;
    struct error err;
    static const char talk[] = "{\"messages\": [{\"role\": \"user\"}]}";
    o.messages = false;
    assert_int_equal(load_dataset_parse(&o, "file", talk, strlen(talk), &d, &err), ERR_INVALID);
    assert_string_equal(err.msg,
                        "file: line 1: messages: expected a prompt: --api chat takes both");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(made_up_prompts_come_again_by_their_numbers),
    cmocka_unit_test(groups_share_their_prefixes_alone),
    cmocka_unit_test(words_keep_their_count_of_tokens),
    cmocka_unit_test(traces_share_what_their_hashes_share),
    cmocka_unit_test(takes_prompts_and_conversations),
    cmocka_unit_test(takes_the_first_question_that_is_answered),
    cmocka_unit_test(names_the_line_and_the_field),
};

UNIT_MAIN(tests)
