/*
 * `witan tokenize` and `witan detokenize`: JSON lines in and out with the tokenizer of a
 * checkpoint's folder, so that ids can be compared with any other tokenizer's.
 */
#include "base/buf.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/lines.h"
#include "coordinator/text/tokenizer.h"
#include "coordinator/text/utf8.h"

#include <stdio.h>
#include <string.h>

static const char tokenize_usage[] =
    "usage: witan tokenize DIR [--plain]\n"
    "Reads {\"text\": \"...\"} or {\"hex\": \"...\"} a line and writes {\"ids\": [...]} a line, "
    "or\n"
    "{\"error\": \"...\"} in its place and exits with 1. Special tokens spelled in the text "
    "become\n"
    "those tokens; --plain adds \"ids_plain\", where they stay plain text. Of bytes given in hex,\n"
    "what is not UTF-8 becomes U+FFFD. DIR holds the checkpoint's tokenizer.json or GGUF.\n";

static const char detokenize_usage[] =
    "usage: witan detokenize DIR [--skip-special]\n"
    "Reads {\"ids\": [...]} a line and writes {\"text\": \"...\"} a line, or {\"error\": \"...\"} "
    "in\n"
    "its place and exits with 1. DIR holds the checkpoint's tokenizer.json or GGUF.\n";

struct session {
    struct tokenizer *tok;
    struct tokenizer_scratch *scratch;
    bool option; /* --plain or --skip-special */
    struct token_ids ids;
    struct buf text;
};

static enum status session_init(struct session *s, const char *dir, struct error *err)
{
    token_ids_init(&s->ids, LINES_MAX_BYTES);
    buf_init(&s->text, (size_t)LINES_MAX_BYTES * 4);
    TRY(tokenizer_load(dir, &s->tok, err));
    return tokenizer_scratch_create(s->tok, &s->scratch, err);
}

static void session_fini(struct session *s)
{
    token_ids_fini(&s->ids);
    buf_fini(&s->text);
    tokenizer_scratch_destroy(s->scratch);
    tokenizer_destroy(s->tok);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The text of bytes in hex, as a reader that replaces what is not UTF-8 sees it. */
static enum status read_hex(struct session *s, const char *hex, size_t len, struct error *err)
{
    struct buf bytes;
    buf_init(&bytes, LINES_MAX_BYTES);
    enum status st = OK;
    if (len % 2 != 0)
        st = error_set(err, ERR_INVALID, "hex: expected two digits a byte, found %zu digits", len);
    for (size_t i = 0; st == OK && i < len; i += 2) {
        int high = hex_digit(hex[i]);
        int low = hex_digit(hex[i + 1]);
        if (high < 0 || low < 0) {
            st = error_set(err, ERR_INVALID, "hex: expected digits 0-9 and a-f at %zu", i);
            break;
        }
        char byte = (char)(high << 4 | low);
        st = buf_append(&bytes, &byte, 1, err);
    }
    if (st == OK)
        st = utf8_append_lossy(&s->text, bytes.data, bytes.len, err);
    buf_fini(&bytes);
    return st;
}

static enum status read_text(struct session *s, const json_t *in, struct error *err)
{
    const json_t *text = json_object_get(in, "text");
    const json_t *hex = json_object_get(in, "hex");
    buf_clear(&s->text);
    if (json_is_string(hex)) /* with "text" beside it: the bytes count */
        return read_hex(s, json_string_value(hex), json_string_length(hex), err);
    if (hex || !json_is_string(text))
        return error_set(err, ERR_INVALID, "%s: expected a string, found %s", hex ? "hex" : "text",
                         json_type_words(hex ? hex : text));
    return buf_append(&s->text, json_string_value(text), json_string_length(text), err);
}

static enum status append_ids(struct session *s, enum tokenizer_mode mode, struct buf *out,
                              struct error *err)
{
    token_ids_clear(&s->ids);
    TRY(tokenizer_encode(s->tok, s->scratch, s->text.data ? s->text.data : "", s->text.len, mode,
                         &s->ids, err));
    TRY(buf_puts(out, "[", err));
    for (size_t i = 0; i < s->ids.len; i++)
        TRY(buf_printf(out, err, i ? ", %u" : "%u", s->ids.data[i]));
    return buf_puts(out, "]", err);
}

static enum status tokenize_line(void *state, const json_t *in, struct buf *out, struct error *err)
{
    struct session *s = state;
    TRY(read_text(s, in, err));
    TRY(buf_puts(out, "{\"ids\": ", err));
    TRY(append_ids(s, TOKENIZER_ADDED, out, err));
    if (s->option) {
        TRY(buf_puts(out, ", \"ids_plain\": ", err));
        TRY(append_ids(s, TOKENIZER_PLAIN, out, err));
    }
    return buf_puts(out, "}", err);
}

static enum status read_ids(struct session *s, const json_t *in, struct error *err)
{
    const json_t *ids = json_object_get(in, "ids");
    if (!json_is_array(ids))
        return error_set(err, ERR_INVALID, "ids: expected an array, found %s",
                         json_type_words(ids));
    token_ids_clear(&s->ids);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *v = json_array_get(ids, i);
        json_int_t last = (json_int_t)tokenizer_vocab_size(s->tok) - 1;
        if (!json_is_integer(v))
            return error_set(err, ERR_INVALID, "ids[%zu]: expected an integer, found %s", i,
                             json_type_words(v));
        if (json_integer_value(v) < 0 || json_integer_value(v) > last)
            return error_set(err, ERR_INVALID, "ids[%zu]: expected 0 to %lld, found %lld", i,
                             (long long)last, (long long)json_integer_value(v));
        uint32_t id = (uint32_t)json_integer_value(v);
        TRY(token_ids_append(&s->ids, &id, 1, err));
    }
    return OK;
}

static enum status detokenize_line(void *state, const json_t *in, struct buf *out,
                                   struct error *err)
{
    struct session *s = state;
    TRY(read_ids(s, in, err));
    buf_clear(&s->text);
    TRY(tokenizer_decode(s->tok, s->ids.data, s->ids.len, s->option, &s->text, err));
    TRY(buf_puts(out, "{\"text\": ", err));
    TRY(buf_json_string(out, s->text.data ? s->text.data : "", s->text.len, err));
    return buf_puts(out, "}", err);
}

static int run(int argc, char **argv, const char *option, const char *usage, lines_answer answer)
{
    struct session s = {0};
    const char *dir = NULL;
    if (flags_ask_help(argc, argv)) {
        fputs(usage, stdout);
        return 0;
    }
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], option) == 0) {
            s.option = true;
        } else if (argv[i][0] != '-' && !dir) {
            dir = argv[i];
        } else {
            fputs(usage, stderr);
            return 2;
        }
    }
    if (!dir) {
        fputs(usage, stderr);
        return 2;
    }
    char command[64];
    snprintf(command, sizeof command, "witan %s", argv[0]);
    struct error err;
    int code = 1;
    if (session_init(&s, dir, &err) == OK)
        code = lines_run(command, answer, &s);
    else
        fprintf(stderr, "%s: %s\n", command, err.msg);
    session_fini(&s);
    return code;
}

int cmd_tokenize(int argc, char **argv)
{
    return run(argc, argv, "--plain", tokenize_usage, tokenize_line);
}

int cmd_detokenize(int argc, char **argv)
{
    return run(argc, argv, "--skip-special", detokenize_usage, detokenize_line);
}
