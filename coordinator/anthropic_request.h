/*
 * Bodies of Anthropic's Messages API as chat bodies: see translate.h. `kind` is OPENAI_CHAT for
 * POST /v1/messages and OPENAI_TOKENIZE for POST /v1/messages/count_tokens, which has no max_tokens
 * nor sampling. *out is a new object for openai_request_read. Pure; any thread.
 */
#ifndef WITAN_COORDINATOR_ANTHROPIC_REQUEST_H
#define WITAN_COORDINATOR_ANTHROPIC_REQUEST_H

#include "coordinator/openai_request.h"

/* ERR_INVALID and ERR_UNSUPPORTED name the field as Anthropic does:
 * "messages[1].content[0].text: expected a string, found an integer". */
enum status anthropic_translate(const json_t *body, enum openai_kind *kind, json_t **out,
                                struct error *err);

#endif
