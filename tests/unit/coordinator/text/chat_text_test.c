/* coordinator/text/chat_text: what a checkpoint serves with and without a chat template it knows.
 */
#include "tests/unit/partition/folder.h"

#include "base/buf.h"
#include "coordinator/text/chat_text.h"

/* A folder with the golden tokenizer and, unless NULL, this chat_template.jinja. */
static struct folder folder_with(const char *chat_template)
{
    struct folder f = folder_make();
    struct error err;
    char *text;
    size_t len;
    if (file_read_all(WITAN_SOURCE_DIR "/tests/golden/tokenizer/tokenizer.json", 16 << 20, &text,
                      &len, &err) != OK)
        fail_msg("%s", err.msg);
    folder_write(&f, "tokenizer.json", text, len);
    free(text);
    if (chat_template)
        folder_puts(&f, "chat_template.jinja", chat_template);
    return f;
}

/* Loads the folder's words; what went to standard error meanwhile into `said`. */
static enum status load(const struct folder *f, struct chat_text **t, char *said, size_t size,
                        struct error *err)
{
    FILE *file = tmpfile();
    int kept = dup(STDERR_FILENO);
    assert_true(file && kept >= 0);
    fflush(stderr);
    dup2(fileno(file), STDERR_FILENO);
    enum status st = chat_text_load(f->path, false, t, err);
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    rewind(file);
    said[fread(said, 1, size - 1, file)] = '\0';
    fclose(file);
    return st;
}

static void assert_continues(const struct chat_text *t)
{
    struct token_ids ids;
    struct error err;
    token_ids_init(&ids, 100);
    assert_int_equal(tokenizer_encode(t->tokenizer, t->scratch, "to be continued", 15,
                                      TOKENIZER_PLAIN, &ids, &err),
                     OK);
    assert_true(ids.len > 0);
    token_ids_fini(&ids);
}

static void assert_no_chat(const struct chat_text *t, const char *why)
{
    struct token_ids ids;
    struct error err;
    bool thinking = false;
    json_t *messages = json_pack("[{s:s,s:s}]", "role", "user", "content", "hello");
    token_ids_init(&ids, 100);
    SAYS(chat_encode(t, messages, NULL, NULL, &ids, &thinking, &err), ERR_UNSUPPORTED, &err, why,
         "text can be continued, conversations cannot");
    assert_int_equal(ids.len, 0);
    token_ids_fini(&ids);
    json_decref(messages);
}

static void unknown_template_leaves_text(void **state)
{
    (void)state;
    struct folder f = folder_with("{{ messages }}");
    struct chat_text *t = NULL;
    struct error err;
    char said[4096];
    assert_int_equal(load(&f, &t, said, sizeof said, &err), OK);
    assert_non_null(strstr(said, "chat_template.jinja: unknown chat template with SHA-256 "));
    assert_non_null(strstr(said, ": text can be continued, conversations are refused\n"));
    assert_null(strstr(said, "known are"));
    assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
    assert_continues(t);
    assert_no_chat(t, "a chat template that is not known here");
    chat_text_destroy(t);
    folder_remove(&f);
}

static void no_template_leaves_text(void **state)
{
    (void)state;
    struct folder f = folder_with(NULL);
    struct chat_text *t = NULL;
    struct error err;
    char said[4096];
    assert_int_equal(load(&f, &t, said, sizeof said, &err), OK);
    assert_string_equal(said, "");
    assert_continues(t);
    assert_no_chat(t, "no chat template");
    chat_text_destroy(t);
    folder_remove(&f);
}

static void template_that_cannot_be_read_is_refused(void **state)
{
    (void)state;
    struct folder f = folder_with(NULL);
    struct chat_text *t = NULL;
    struct error err;
    char said[4096];
    folder_puts(&f, "tokenizer_config.json", "{\"chat_template\": 1}");
    SAYS(load(&f, &t, said, sizeof said, &err), ERR_INVALID, &err, "tokenizer_config.json",
         "chat_template: expected a string or an array");
    assert_null(t);
    folder_remove(&f);
}

/* Qwen2.5's vocabulary, like the golden one, has no <tool_response>: the tags are text then, in one
 * run with what they enclose, and the turns around them still are tokens. */
static void results_need_no_tokens_of_their_own(void **state)
{
    (void)state;
    static const char turns[] =
        "<|im_start|>user\n<tool_response>\n1\n</tool_response><|im_end|>\n";
    struct folder f = folder_with(NULL);
    struct chat_text *t = NULL;
    struct token_ids ids, want;
    struct error err;
    char said[4096];
    bool thinking = true;
    assert_int_equal(load(&f, &t, said, sizeof said, &err), OK);
    t->template = TEMPLATE_QWEN2_5;
    token_ids_init(&ids, 1000);
    token_ids_init(&want, 1000);
    json_t *messages = json_pack("[{s:s,s:s}]", "role", "tool", "content", "1");
    if (chat_encode(t, messages, NULL, NULL, &ids, &thinking, &err) != OK)
        fail_msg("%s", err.msg);
    assert_false(thinking);
    assert_int_equal(tokenizer_encode(t->tokenizer, t->scratch, turns, strlen(turns),
                                      TOKENIZER_ADDED, &want, &err),
                     OK);
    bool found = false;
    for (size_t i = 0; !found && i + want.len <= ids.len; i++)
        found = memcmp(ids.data + i, want.data, want.len * sizeof *want.data) == 0;
    assert_true(found);
    json_decref(messages);
    token_ids_fini(&ids);
    token_ids_fini(&want);
    chat_text_destroy(t);
    folder_remove(&f);
}

static void tools_need_a_template_that_knows_them(void **state)
{
    (void)state;
    struct folder f = folder_with(NULL);
    struct chat_text *t = NULL;
    struct token_ids ids;
    struct error err;
    char said[4096];
    bool thinking;
    assert_int_equal(load(&f, &t, said, sizeof said, &err), OK);
    json_t *messages = json_pack("[{s:s,s:s}]", "role", "user", "content", "1");
    json_t *tools = json_pack("[{s:s,s:{s:s}}]", "type", "function", "function", "name", "f");
    token_ids_init(&ids, 1000);
    t->template = TEMPLATE_QWEN3GUARD_GEN;
    SAYS(chat_encode(t, messages, tools, NULL, &ids, &thinking, &err), ERR_UNSUPPORTED, &err,
         "tools: not supported", "qwen3guard-gen");
    assert_int_equal(chat_encode(t, messages, NULL, NULL, &ids, &thinking, &err), OK);
    json_decref(messages);
    json_decref(tools);
    token_ids_fini(&ids);
    chat_text_destroy(t);
    folder_remove(&f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(tools_need_a_template_that_knows_them),
    cmocka_unit_test(unknown_template_leaves_text),
    cmocka_unit_test(no_template_leaves_text),
    cmocka_unit_test(template_that_cannot_be_read_is_refused),
    cmocka_unit_test(results_need_no_tokens_of_their_own),
};

UNIT_MAIN(tests)
