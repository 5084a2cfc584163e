/*
 * The official chat templates of Qwen3 and Qwen2.5, as C: a conversation in JSON becomes the prompt
 * that the model was trained on, byte for byte what the checkpoint's own Jinja template gives in
 * Transformers. Beside the text stand the spans of the special tokens that the template itself
 * wrote. The tokenizer makes added tokens of these spans and of nothing else, so that text from a
 * user, a tool or an earlier answer can spell `<|im_end|>` and still not end a turn.
 *
 * All functions are pure: any thread, no state. What the caller passes stays the caller's.
 */
#ifndef WITAN_COORDINATOR_TEXT_TEMPLATE_H
#define WITAN_COORDINATOR_TEXT_TEMPLATE_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct gguf_words; /* gguf_words.h */
struct manifest;

enum template_kind {
    TEMPLATE_QWEN3,               /* the first release: hybrid thinking */
    TEMPLATE_QWEN3_REV,           /* the hybrid models' current one */
    TEMPLATE_QWEN3_INSTRUCT_2507, /* no thinking */
    TEMPLATE_QWEN3_THINKING_2507, /* every prompt ends in an open <think> */
    TEMPLATE_QWEN3_CODER,         /* tools and calls in XML */
    TEMPLATE_QWEN2_5,             /* Instruct and Coder-Instruct: a system message by default */
    TEMPLATE_QWEN3GUARD_GEN,      /* asks for a verdict on the last message */
    TEMPLATE_COUNT,
};

enum {
    TEMPLATE_LIMIT_BYTES = 64 << 20, /* a good limit for template_render */
    TEMPLATE_MAX_MESSAGES = 1 << 16,
    TEMPLATE_MAX_DEPTH = 128, /* of JSON inside messages and tools */
};

/* Bytes [begin, end) of the text. */
struct template_span {
    size_t begin;
    size_t end;
    bool optional; /* plain text where the vocabulary has no such token */
};

/* A prompt. Release with template_rendered_fini. */
struct template_rendered {
    char *text; /* UTF-8, owned; may hold NUL bytes, and one more follows the last byte */
    size_t len;
    struct template_span *spans; /* owned; ascending, apart, each exactly one special token */
    size_t span_count;
};

/* "qwen3-coder", ...: the names that template_by_name takes. Static memory. */
const char *template_name(enum template_kind kind);

/* ERR_NOT_FOUND names what there is. */
enum status template_by_name(const char *name, enum template_kind *kind, struct error *err);

/* Knows a template by the SHA-256 of its Jinja source, with or without the one newline at its end
 * that Jinja ignores (files have it, JSON strings often not). ERR_UNSUPPORTED lists names and sums:
 * a template that was edited by so much as a space may say something else, so nothing is guessed.
 */
enum status template_by_source(const char *source, size_t len, enum template_kind *kind,
                               struct error *err);

/* Knows the template of a checkpoint's folder: chat_template.jinja when there is one (newer
 * Transformers saves and prefers it), else `chat_template` of tokenizer_config.json, a string or a
 * list of {"name", "template"} of which "default" counts, else the metadata of the folder's GGUF;
 * a log line where a file wins over a GGUF. ERR_NOT_FOUND: the folder has none. */
enum status template_detect(const char *dir, enum template_kind *kind, struct error *err);

/* The same with a manifest of the folder (NULL: none): what is read must be as it says. */
enum status template_detect_proven(const char *dir, const struct manifest *manifest,
                                   enum template_kind *kind, struct error *err);

/* The same of a GGUF's tokenizer.chat_template. */
enum status template_in_gguf(const struct gguf_words *w, enum template_kind *kind,
                             struct error *err);

/*
 * Renders `messages` (array of objects) with `tools` (array of objects; NULL or null is none) and
 * `kwargs` (object; NULL or null is none) of which add_generation_prompt counts by Python's truth
 * and enable_thinking only when it is exactly false. At most `limit_bytes` of text.
 *
 * The text is the reference's wherever that renders, its oddities included: later templates than
 * `qwen3` take content that is not a string as empty; `qwen3`, `qwen3-coder` and `qwen2.5` print a
 * tool's null content as None and its list as Python would; string `arguments` appear as they are,
 * but quoted in `qwen2.5`; `qwen3guard-gen` knows neither tools nor kwargs. Where the
 * reference raises, this is done instead: null or missing content is "", text parts are joined, and
 * for `qwen3-coder` string `arguments` are parsed to the object that they hold. A server that wants
 * these for every template calls template_normalise first.
 *
 * Refused although the reference may render it, since it can only be a mistake: a missing role;
 * content, reasoning or a name of another type; content parts that are not text; `arguments` other
 * than an object or a string; in the coder's tools a `function` that is no object. ERR_INVALID
 * names the path: `messages[2].tool_calls[0].function.name: expected a string, found nothing`.
 * In string `arguments` integers beyond 64 bits, reals beyond a double and halves of surrogate
 * pairs stay as they are written; elsewhere jansson refuses them while it parses. On failure *out
 * is empty.
 */
enum status template_render(enum template_kind kind, const json_t *messages, const json_t *tools,
                            const json_t *kwargs, size_t limit_bytes, struct template_rendered *out,
                            struct error *err);

void template_rendered_fini(struct template_rendered *r);

/* What chat clients send, made plain for every template: a new array in which null or missing
 * content is "", text parts are one string, and every call's `arguments` is an object (strings are
 * parsed; null, missing or "" is {}), or a string where it holds an object that jansson does not.
 * The same errors as template_render; json_decref(*out). */
enum status template_normalise(const json_t *messages, json_t **out, struct error *err);

/* Does the prompt end inside a <think> block, so that the answer starts as reasoning? */
bool template_prompt_ends_in_reasoning(const struct template_rendered *r);

#endif
