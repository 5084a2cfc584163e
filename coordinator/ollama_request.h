/*
 * Bodies of Ollama's API as chat bodies: see translate.h. Streams unless told otherwise. *out is a
 * new object for openai_request_read. Pure; any thread.
 */
#ifndef WITAN_COORDINATOR_OLLAMA_REQUEST_H
#define WITAN_COORDINATOR_OLLAMA_REQUEST_H

#include "coordinator/openai_request.h"

/* POST /api/chat. ERR_INVALID and ERR_UNSUPPORTED name the field as Ollama does:
 * "options.top_k: expected an integer, found a string". */
enum status ollama_translate_chat(const json_t *body, enum openai_kind *kind, json_t **out,
                                  struct error *err);
/* POST /api/generate: a conversation of one message, or with `raw` a completion of the text as it
 * is: *kind is then OPENAI_COMPLETION. */
enum status ollama_translate_generate(const json_t *body, enum openai_kind *kind, json_t **out,
                                      struct error *err);

/* Does the body ask for nothing but that the model be there: without messages or prompt? */
bool ollama_only_loads(const json_t *body);

#endif
