/* Inside the parsing of OpenAI bodies: values read with errors that name their path, the fields of
 * sampling, and fields that the API knows and that change nothing here. */
#ifndef WITAN_COORDINATOR_OPENAI_FIELDS_H
#define WITAN_COORDINATOR_OPENAI_FIELDS_H

#include "coordinator/openai_request.h"

/* --- values: ERR_INVALID names `path`, what was expected and what was found --- */

enum status openai_mistyped(const char *path, const char *expected, const json_t *found,
                            struct error *err);
enum status openai_read_int(const char *path, const json_t *v, int64_t min, int64_t max,
                            int64_t *out, struct error *err);
enum status openai_read_int32(const char *path, const json_t *v, int32_t min, int32_t max,
                              int32_t *out, struct error *err);
enum status openai_read_bool(const char *path, const json_t *v, bool *out, struct error *err);

/* --- fields --- */

/* How tokens are drawn, of chat and completions both (openai_sampling.c). ERR_NOT_FOUND without a
 * message: it is no such field. */
enum status openai_sampling_field(struct openai_request *r, const char *name, const json_t *v,
                                  struct error *err);

/* A field that this build accepts with any value (notes for the provider), or with its neutral
 * value alone. ERR_NOT_FOUND without a message: it is no such field. ERR_UNSUPPORTED names it. */
enum status openai_neutral_field(enum openai_kind kind, const char *name, const json_t *value,
                                 struct error *err);

/* --- tools and thinking: openai_tools.c --- */

/* Sets r->tools. A tool that is none, or has another's name, is ERR_INVALID; one that is no
 * function ERR_UNSUPPORTED. */
enum status openai_read_tools(struct openai_request *r, json_t *v, struct error *err);
enum status openai_read_tool_choice(struct openai_request *r, json_t *v, struct error *err);
/* Do the two fit together? */
enum status openai_check_tools(const struct openai_request *r, struct error *err);
/* reasoning_effort. */
enum status openai_read_effort(json_t *v, bool *thinks, struct error *err);

/* The messages of a chat request: their roles and fields; "developer" becomes "system". Content is
 * left to the template's own checks, and fields that nobody knows are passed over. */
enum status openai_check_messages(json_t *messages, struct error *err);

#endif
