/*
 * The handlers behind the HTTP door: one table of method, path, scope and handler. Each handler
 * owns its exchange from the call on (http_exchange.h). All on the loop thread.
 */
#ifndef WITAN_COORDINATOR_HTTP_API_H
#define WITAN_COORDINATOR_HTTP_API_H

#include "coordinator/http_exchange.h"
#include "coordinator/openai_request.h"

extern const struct http_route http_routes[];
extern const size_t http_route_count;

/* The body as a request of this kind, or what the route's API makes of it, for the model that is
 * served. False: answered with an error. Release with openai_request_fini. */
bool http_read_request(struct exchange *x, enum openai_kind *kind, struct openai_request *r);

/* Answers with an error from parsing, encoding or generation_start. */
void http_refuse(struct exchange *x, const struct error *err);

/* Is it the model that is served? NULL is. False: answered with an error. */
bool http_check_model(struct exchange *x, const char *model);

/* The ids of the conversation, or of prompt `i` as the key's scopes allow: special tokens in text
 * and ids only with `raw`. False: answered with an error. */
bool http_encode(struct exchange *x, const struct openai_request *r, int32_t i,
                 struct token_ids *ids, bool *thinking);

/* Headers with what is left of the caller's quotas, where there are any: http_quota.c. */
void http_tell_quota(struct exchange *x);

/* The routes that generate, chat where the API has both: http_generate.c. */
void http_chat(struct exchange *x);
void http_completion(struct exchange *x);

#endif
