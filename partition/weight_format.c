/* Quantised checkpoints: see weight_format.h. No state. */
#include "partition/weight_format.h"
#include "base/check.h"
#include "partition/shown.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum {
    MAX_BLOCK = 1 << 16,
    NAME_BYTES = 256,
    WORD_BITS = 32, /* int4 weights are packed into words of this size */
};

/* The roles that a format may cover, from Q on, and the words for their modules. */
static const struct {
    enum weight_role role;
    const char *attention, *dense, *moe; /* after "model.layers.N."; NULL = not there */
} modules[] = {
    {WEIGHT_Q, "self_attn.q_proj", NULL, NULL},
    {WEIGHT_K, "self_attn.k_proj", NULL, NULL},
    {WEIGHT_V, "self_attn.v_proj", NULL, NULL},
    {WEIGHT_O, "self_attn.o_proj", NULL, NULL},
    {WEIGHT_GATE, NULL, "mlp.gate_proj", "mlp.experts.*.gate_proj"},
    {WEIGHT_UP, NULL, "mlp.up_proj", "mlp.experts.*.up_proj"},
    {WEIGHT_DOWN, NULL, "mlp.down_proj", "mlp.experts.*.down_proj"},
};

static unsigned role_bit(enum weight_role role)
{
    return 1u << (role - WEIGHT_Q);
}

const char *weight_format_name(enum weight_format format)
{
    static const char *const names[] = {"plain", "fp8", "gptq", "awq"};
    CHECK((unsigned)format < sizeof names / sizeof *names, "format %d", (int)format);
    return names[format];
}

/* --- what stays unquantised --------------------------------------------------------------------
 */

/* Does `entry` stand in `name` as whole words between dots? "mlp.gate" is not in "mlp.gate_proj".
 */
static bool names_module(const char *entry, const char *name)
{
    size_t n = strlen(entry);
    for (const char *at = name; *at; at++) {
        bool begins = at == name || at[-1] == '.';
        if (begins && strncmp(at, entry, n) == 0 && (at[n] == '\0' || at[n] == '.'))
            return true;
    }
    return false;
}

/* An entry of one expert, which no engine keeps apart from its layer's others. */
static bool names_one_expert(const char *entry)
{
    const char *at = strstr(entry, "experts.");
    return at && isdigit((unsigned char)at[strlen("experts.")]);
}

/* Marks in each layer the roles whose modules `entry` names. */
static void mark_plain(const char *entry, struct model_config *c)
{
    for (int32_t i = 0; i < c->layers; i++)
        for (size_t m = 0; m < COUNT_OF(modules); m++) {
            const char *words = modules[m].attention;
            char name[NAME_BYTES];
            if (!words)
                words = c->layer_is_moe[i] ? modules[m].moe : modules[m].dense;
            snprintf(name, sizeof name, "model.layers.%d.%s", i, words);
            if (names_module(entry, name))
                c->quant.plain[i] |= (uint16_t)role_bit(modules[m].role);
        }
}

static enum status add_plain(const char *at, const char *entry, struct model_config *c,
                             struct error *err)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.";
    if (!*entry || entry[strspn(entry, letters)])
        return error_set(err, ERR_UNSUPPORTED, "%s: expected names of modules, found \"%s\"", at,
                         shown(entry).s);
    if (names_one_expert(entry))
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: expected modules of whole layers, found \"%s\" of one expert", at,
                         shown(entry).s);
    mark_plain(entry, c);
    return OK;
}

static enum status parse_plain(const char *at, const json_t *obj, struct model_config *c,
                               struct error *err)
{
    static const char key[] = "modules_to_not_convert";
    const json_t *list = json_object_get(obj, key);
    if (!list || json_is_null(list))
        return OK;
    if (!json_is_array(list))
        return error_set(err, ERR_INVALID, "%s: %s: expected an array, found %s", at, key,
                         json_type_words(list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        char where[NAME_BYTES * 3];
        const char *entry = json_string_value(json_array_get(list, i));
        snprintf(where, sizeof where, "%s: %s[%zu]", at, key, i);
        if (!entry)
            return error_set(err, ERR_INVALID, "%s: expected a string, found %s", where,
                             json_type_words(json_array_get(list, i)));
        TRY(add_plain(where, entry, c, err));
    }
    return OK;
}

/* The module that a pattern of `dynamic` names. Of regular expressions only "any text" at the ends,
 * the marks of both ends and quoted dots are read; what is left is checked as a name. */
static void name_of_pattern(const char *pattern, char name[NAME_BYTES])
{
    size_t n = 0;
    pattern += *pattern == '^';
    pattern += strncmp(pattern, ".*", 2) == 0 ? 2 : 0;
    pattern += strncmp(pattern, "\\.", 2) == 0 ? 2 : 0;
    for (; *pattern && strcmp(pattern, "$") != 0 && strcmp(pattern, ".*") != 0; pattern++)
        if ((pattern[0] != '\\' || pattern[1] != '.') && n + 1 < NAME_BYTES)
            name[n++] = *pattern;
    name[n] = '\0';
}

/* GPTQModel's way to leave modules out: {"-:REGEX": {}}. */
static enum status parse_dynamic(const char *at, const json_t *obj, struct model_config *c,
                                 struct error *err)
{
    json_t *dynamic = json_object_get(obj, "dynamic"), *value;
    const char *pattern;
    if (!dynamic || json_is_null(dynamic))
        return OK;
    if (!json_is_object(dynamic))
        return error_set(err, ERR_INVALID, "%s: dynamic: expected an object, found %s", at,
                         json_type_words(dynamic));
    char where[NAME_BYTES * 3], name[NAME_BYTES];
    snprintf(where, sizeof where, "%s: dynamic", at);
    json_object_foreach(dynamic, pattern, value)
    {
        if (strncmp(pattern, "-:", 2) != 0)
            return error_set(err, ERR_UNSUPPORTED,
                             "%s: expected modules left out (\"-:NAME\"), found \"%s\"", where,
                             shown(pattern).s);
        name_of_pattern(pattern + 2, name);
        TRY(add_plain(where, name, c, err));
    }
    return OK;
}

/* --- formats -----------------------------------------------------------------------------------
 */

static enum status expect_string(const char *at, const json_t *obj, const char *key,
                                 const char *expected, const char *other, struct error *err)
{
    const char *found = expected;
    TRY(json_get_string(obj, at, key, false, &found, err));
    if (strcmp(found, expected) != 0 && strcmp(found, other) != 0)
        return error_set(err, ERR_UNSUPPORTED, "%s: %s: expected \"%s\", found \"%s\"", at, key,
                         expected, shown(found).s);
    return OK;
}

static enum status parse_fp8(const char *at, const json_t *obj, struct quantization *q,
                             struct error *err)
{
    TRY(expect_string(at, obj, "fmt", "e4m3", "float8_e4m3fn", err));
    TRY(expect_string(at, obj, "activation_scheme", "dynamic", "dynamic", err));
    const json_t *size = json_object_get(obj, "weight_block_size");
    if (!json_is_array(size) || json_array_size(size) != 2)
        return error_set(err, json_is_null(size) ? ERR_UNSUPPORTED : ERR_INVALID,
                         "%s: weight_block_size: expected an array of rows and columns, found %s%s",
                         at, json_type_words(size),
                         json_is_array(size) ? " of another length" : "");
    int32_t *const out[] = {&q->block_rows, &q->block_cols};
    for (size_t i = 0; i < 2; i++) {
        const json_t *v = json_array_get(size, i);
        json_int_t n = json_is_integer(v) ? json_integer_value(v) : 0;
        if (!json_is_integer(v))
            return error_set(err, ERR_INVALID,
                             "%s: weight_block_size[%zu]: expected an integer, found %s", at, i,
                             json_type_words(v));
        if (n < 1 || n > MAX_BLOCK)
            return error_set(err, ERR_INVALID,
                             "%s: weight_block_size[%zu]: expected 1 to %d, found %lld", at, i,
                             MAX_BLOCK, (long long)n);
        *out[i] = (int32_t)n;
    }
    q->bits = 8;
    return OK;
}

/* gptq and awq: `bits` wide integers in groups of columns. */
static enum status parse_packed(const char *at, const json_t *obj, struct quantization *q,
                                struct error *err)
{
    int64_t bits = 0, group = 0;
    bool lm_head = false;
    TRY(json_get_int(obj, at, "bits", true, 1, 16, &bits, err));
    if (bits != 4 && (bits != 8 || q->format != FORMAT_GPTQ))
        return error_set(err, ERR_UNSUPPORTED, "%s: bits: expected 4%s, found %lld", at,
                         q->format == FORMAT_GPTQ ? " or 8" : "", (long long)bits);
    q->bits = (int32_t)bits;
    q->block_rows = WORD_BITS / q->bits;
    TRY(json_get_int(obj, at, "group_size", true, -1, MAX_BLOCK, &group, err));
    if (group == 0 || (group > 0 && group % q->block_rows != 0))
        return error_set(err, ERR_INVALID,
                         "%s: group_size: expected -1 or a multiple of %d, found %lld", at,
                         q->block_rows, (long long)group);
    q->block_cols = group > 0 ? (int32_t)group : 0;
    TRY(json_get_bool(obj, at, "desc_act", false, &q->act_order, err));
    TRY(json_get_bool(obj, at, "lm_head", false, &lm_head, err));
    if (lm_head)
        return error_set(err, ERR_UNSUPPORTED, "%s: lm_head: expected false, found true", at);
    const json_t *only = json_object_get(obj, "modules_in_block_to_quantize");
    if (only && !json_is_null(only))
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: modules_in_block_to_quantize: expected nothing, found %s", at,
                         json_type_words(only));
    if (q->format == FORMAT_AWQ)
        return expect_string(at, obj, "version", "gemm", "GEMM", err);
    return expect_string(at, obj, "checkpoint_format", "gptq", "gptq", err);
}

static enum status parse_method(const char *at, const json_t *obj, struct quantization *q,
                                struct error *err)
{
    static const enum weight_format formats[] = {FORMAT_FP8, FORMAT_GPTQ, FORMAT_AWQ};
    const char *method = NULL;
    TRY(json_get_string(obj, at, "quant_method", true, &method, err));
    for (size_t i = 0; i < COUNT_OF(formats); i++) {
        if (strcmp(method, weight_format_name(formats[i])) != 0)
            continue;
        q->format = formats[i];
        return q->format == FORMAT_FP8 ? parse_fp8(at, obj, q, err) : parse_packed(at, obj, q, err);
    }
    return error_set(err, ERR_UNSUPPORTED,
                     "%s: quant_method: expected \"fp8\", \"gptq\" or \"awq\", found \"%s\"", at,
                     shown(method).s);
}

enum status weight_format_parse(const char *what, const json_t *root, struct model_config *c,
                                struct error *err)
{
    const json_t *obj = json_object_get(root, "quantization_config");
    c->quant = (struct quantization){.format = FORMAT_PLAIN};
    if (!obj || json_is_null(obj))
        return OK;
    if (!json_is_object(obj))
        return error_set(err, ERR_INVALID, "%s: quantization_config: expected an object, found %s",
                         what, json_type_words(obj));
    char at[512];
    snprintf(at, sizeof at, "%s: quantization_config", what);
    enum status st = parse_method(at, obj, &c->quant, err);
    if (st == OK)
        st = parse_plain(at, obj, c, err);
    if (st == OK)
        st = parse_dynamic(at, obj, c, err);
    if (st != OK)
        error_advise(err, st, "take the model plain, as GGUF, or quantised as is expected here");
    return st;
}

/* --- cuts --------------------------------------------------------------------------------------
 */

bool weight_format_covers(const struct quantization *q, enum weight_role role, int32_t layer)
{
    bool linear = (role >= WEIGHT_Q && role <= WEIGHT_V) || role == WEIGHT_O ||
                  (role >= WEIGHT_GATE && role <= WEIGHT_DOWN);
    return q->format != FORMAT_PLAIN && linear && !(q->plain[layer] & role_bit(role));
}

int32_t weight_format_block_rows(const struct quantization *q)
{
    return q->block_rows;
}

/* In activation order (desc_act) a group's columns lie anywhere: there are no borders. */
int32_t weight_format_block_columns(const struct quantization *q)
{
    return q->act_order ? 0 : q->block_cols;
}

static bool border(int32_t block, int64_t at, int64_t total)
{
    return at == 0 || at == total || (block > 0 && at % block == 0);
}

bool weight_format_row_border(const struct quantization *q, int64_t at, int64_t total)
{
    return border(weight_format_block_rows(q), at, total);
}

bool weight_format_column_border(const struct quantization *q, int64_t at, int64_t total)
{
    return border(weight_format_block_columns(q), at, total);
}

/* Blocks that [begin, begin + count) touches. */
static uint64_t blocks(int32_t block, int64_t begin, int64_t count)
{
    if (count == 0 || block == 0)
        return count > 0;
    return (uint64_t)((begin + count - 1) / block - begin / block + 1);
}

uint64_t weight_format_bytes(const struct quantization *q, int64_t row, int64_t rows, int64_t col,
                             int64_t cols)
{
    uint64_t values = ((uint64_t)rows * (uint64_t)cols * (uint64_t)q->bits + 7) / 8;
    uint64_t groups = blocks(q->block_cols, col, cols);
    if (q->format == FORMAT_FP8)
        return values + blocks(q->block_rows, row, rows) * groups * sizeof(float);
    uint64_t zeros = blocks(q->block_rows, row, rows) * groups * sizeof(uint32_t);
    uint64_t scales = (uint64_t)rows * groups * sizeof(uint16_t);
    uint64_t order = q->format == FORMAT_GPTQ ? (uint64_t)cols * sizeof(uint32_t) : 0;
    return values + scales + zeros + order;
}
