/*
 * Inside the chat templates: where a prompt is written, and values printed as Python and Jinja
 * print them. A template's own words go through template_literal, which records the special tokens
 * among them; everything from the conversation goes through the other functions, which never do.
 */
#ifndef WITAN_COORDINATOR_TEXT_TEMPLATE_OUT_H
#define WITAN_COORDINATOR_TEXT_TEMPLATE_OUT_H

#include "base/buf.h"
#include "coordinator/text/template.h"

/* A prompt being written. Owned by one template_render. */
struct template_out {
    struct buf text;
    struct template_span *spans; /* owned */
    size_t span_count;
    size_t span_cap;
};

/* UTF-8 that someone else owns; not terminated. */
struct template_text {
    const char *data;
    size_t len;
};

static inline struct template_text template_text_of(const json_t *string)
{
    return (struct template_text){json_string_value(string), json_string_length(string)};
}

enum status template_literal(struct template_out *o, const char *words, struct error *err);
enum status template_plain(struct template_out *o, struct template_text t, struct error *err);

/* json.dumps(v, ensure_ascii=False), which is what Transformers makes of `tojson`. */
enum status template_json(struct template_out *o, const json_t *v, struct error *err);

/* str(v): a string's own text, anything else its repr(). Which characters a repr() escapes follows
 * the Unicode version of utf8proc, as Python's follows its own. */
enum status template_str(struct template_out *o, const json_t *v, struct error *err);

/* str(v).strip() */
enum status template_str_stripped(struct template_out *o, const json_t *v, struct error *err);

/* float.__repr__: the shortest digits that read back as `x`. */
enum { TEMPLATE_FLOAT_CHARS = 32 };
void template_float(double x, char out[TEMPLATE_FLOAT_CHARS]);

/* bool(v) */
bool template_truth(const json_t *v);

/* str.strip(), str.lstrip("\n"), str.rstrip("\n") */
struct template_text template_strip(struct template_text t);
struct template_text template_lstrip_newlines(struct template_text t);
struct template_text template_rstrip_newlines(struct template_text t);

#endif
