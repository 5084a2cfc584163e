/* Inside the parsing of OpenAI bodies: fields that the API knows and that change nothing here. */
#ifndef WITAN_COORDINATOR_OPENAI_FIELDS_H
#define WITAN_COORDINATOR_OPENAI_FIELDS_H

#include "coordinator/openai_request.h"

/* A field that this build accepts with any value (notes for the provider), or with its neutral
 * value alone. ERR_NOT_FOUND without a message: it is no such field. ERR_UNSUPPORTED names it. */
enum status openai_neutral_field(enum openai_kind kind, const char *name, const json_t *value,
                                 struct error *err);

/* The messages of a chat request: their roles and fields; "developer" becomes "system". Content is
 * left to the template's own checks. */
enum status openai_check_messages(json_t *messages, struct error *err);

#endif
