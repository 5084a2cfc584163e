/* coordinator/text/template: which template a checkpoint has. */
#include "tests/unit/unit.h"

#include "base/json.h"
#include "coordinator/text/template.h"

static char folder[64];

static void write_file(const char *name, const char *text, size_t len)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    fclose(f);
}

static void write_config(json_t *chat_template)
{
    json_t *config = json_pack("{s:o}", "chat_template", chat_template);
    char *text = json_dumps(config, 0);
    write_file("tokenizer_config.json", text, strlen(text));
    free(text);
    json_decref(config);
}

static void make_folder(void)
{
    strcpy(folder, "/tmp/witan_template_XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static void remove_folder(void)
{
    static const char *const names[] = {"/chat_template.jinja", "/tokenizer_config.json", ""};
    for (size_t i = 0; i < 3; i++) {
        char path[200];
        snprintf(path, sizeof path, "%s%s", folder, names[i]);
        remove(path);
    }
}

static void names_are_known(void **state)
{
    (void)state;
    struct error err;
    for (int i = 0; i < TEMPLATE_COUNT; i++) {
        enum template_kind kind = TEMPLATE_COUNT;
        assert_int_equal(template_by_name(template_name((enum template_kind)i), &kind, &err), OK);
        assert_int_equal(kind, i);
    }
    enum template_kind kind;
    assert_int_equal(template_by_name("qwen2", &kind, &err), ERR_NOT_FOUND);
    assert_string_equal(
        err.msg, "template: expected one of qwen3, qwen3-rev, qwen3-instruct-2507, "
                 "qwen3-thinking-2507, qwen3-coder, qwen2.5, qwen3guard-gen, found \"qwen2\"");
}

static void official_template_is_detected(void **state)
{
    (void)state;
    struct error err;
    json_t *config;
    assert_int_equal(
        json_parse_file(shared_path("qwen3/tokenizer_config.json"), 1 << 20, &config, &err), OK);
    json_t *source = json_object_get(config, "chat_template");
    char *text = strdup(json_string_value(source));
    size_t len = json_string_length(source);
    enum template_kind kind = TEMPLATE_COUNT;
    make_folder();

    write_config(json_incref(source));
    assert_int_equal(template_detect(folder, &kind, &err), OK);
    assert_int_equal(kind, TEMPLATE_QWEN3);

    kind = TEMPLATE_COUNT;
    write_config(json_pack("[{s:s,s:s},{s:s,s:O}]", "name", "tool_use", "template", "x", "name",
                           "default", "template", source));
    assert_int_equal(template_detect(folder, &kind, &err), OK);
    assert_int_equal(kind, TEMPLATE_QWEN3);

    /* The file wins, with or without its last newline; two newlines are another template. */
    write_config(json_string("another"));
    write_file("chat_template.jinja", text, len);
    assert_int_equal(template_detect(folder, &kind, &err), OK);
    text = realloc(text, len + 3);
    memcpy(text + len, "\n\n", 3);
    write_file("chat_template.jinja", text, len + 1);
    assert_int_equal(template_detect(folder, &kind, &err), OK);
    write_file("chat_template.jinja", text, len + 2);
    assert_int_equal(template_detect(folder, &kind, &err), ERR_UNSUPPORTED);

    remove_folder();
    free(text);
    json_decref(config);
}

static void unknown_template_is_refused_with_the_list(void **state)
{
    (void)state;
    struct error err;
    enum template_kind kind;
    make_folder();
    write_config(json_string("{{ messages }}"));
    assert_int_equal(template_detect(folder, &kind, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "tokenizer_config.json: unknown chat template with SHA-256 "));
    static const char *const sums[] = {"qwen3 (87a2728c",
                                       "qwen3-rev (a55ee1b1",
                                       "qwen3-instruct-2507 (64f85b19",
                                       "qwen3-thinking-2507 (3802169b",
                                       "qwen3-coder (5a38bfa0",
                                       "qwen2.5 (cd8e9439",
                                       "qwen3guard-gen (5a2916bc",
                                       "--template"};
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        assert_non_null(strstr(err.msg, sums[i]));
    write_file("chat_template.jinja", "", 0);
    assert_int_equal(template_detect(folder, &kind, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "chat_template.jinja: "));
    remove_folder();
}

static void folder_without_a_template_says_so(void **state)
{
    (void)state;
    struct error err;
    enum template_kind kind;
    make_folder();
    assert_int_equal(template_detect(folder, &kind, &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.msg, "no chat template: expected chat_template.jinja, "));
    write_config(json_null());
    assert_int_equal(template_detect(folder, &kind, &err), ERR_NOT_FOUND);
    write_config(json_integer(1));
    assert_int_equal(template_detect(folder, &kind, &err), ERR_INVALID);
    assert_non_null(strstr(err.msg, "chat_template: expected a string or an array, found an int"));
    write_config(json_pack("[{s:s}, i]", "name", "default", 1));
    assert_int_equal(template_detect(folder, &kind, &err), ERR_INVALID);
    assert_non_null(strstr(err.msg, "\"default\""));
    write_file("tokenizer_config.json", "{", 1);
    assert_int_equal(template_detect(folder, &kind, &err), ERR_INVALID);
    remove_folder();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(names_are_known),
    cmocka_unit_test(official_template_is_detected),
    cmocka_unit_test(unknown_template_is_refused_with_the_list),
    cmocka_unit_test(folder_without_a_template_says_so),
};

UNIT_MAIN(tests)
