/*
 * Bodies of OpenAI's Responses API as chat bodies: see translate.h. Nothing is stored between
 * requests: `store` is taken for false, and what would need a stored response is refused by name.
 * *out is a new object for openai_request_read. Pure; any thread.
 */
#ifndef WITAN_COORDINATOR_RESPONSES_REQUEST_H
#define WITAN_COORDINATOR_RESPONSES_REQUEST_H

#include "coordinator/openai_request.h"

/* ERR_INVALID and ERR_UNSUPPORTED name the field as the API does: "input[2].content[0].text". */
enum status responses_translate(const json_t *body, enum openai_kind *kind, json_t **out,
                                struct error *err);

#endif
