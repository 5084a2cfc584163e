/*
 * Handlers of Ollama's API but for what generates: which models there are, and what this server
 * does not do. All on the loop thread.
 */
#ifndef WITAN_COORDINATOR_HTTP_OLLAMA_H
#define WITAN_COORDINATOR_HTTP_OLLAMA_H

#include "coordinator/http_exchange.h"

/* POST /api/chat and /api/generate. Without messages or prompt Ollama's clients want a model to be
 * loaded, which it is. */
void http_ollama_ask(struct exchange *x);

void http_ollama_tags(struct exchange *x); /* GET /api/tags and /api/ps */
void http_ollama_show(struct exchange *x); /* POST /api/show */
void http_ollama_version(struct exchange *x);

/* 501: what changes the models, and embeddings. */
void http_ollama_refuse(struct exchange *x);

#endif
