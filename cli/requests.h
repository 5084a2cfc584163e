/* A file of requests, answered together: `witan run --requests`. */
#ifndef WITAN_CLI_REQUESTS_H
#define WITAN_CLI_REQUESTS_H

#include "cli/chat.h"

struct requests;

/*
 * Reads and proves all lines of `path` ("-": standard input) before anything runs; an error names
 * the line. `sampling` and `shaping` give the defaults (a request without a seed gets
 * sampling->seed
 * + its index). `text` NULL: requests must have ids, answers have no text. `logits_path` (NULL:
 * none) takes the float32 logits of every drawn token, in the order of requests.
 */
enum status requests_read(const char *path, const struct chat_text *text,
                          const struct sampling *sampling, const struct shaping *shaping,
                          const char *logits_path, struct requests **out, struct error *err);
void requests_destroy(struct requests *r);

/* group_fn: runs all, prints {"ids", "text", "logprobs", "prompt_logprobs", "finish_reason"}, of
 * these what there is and is wanted, or {"error"} a line, in their order. */
enum status requests_run(struct engine *e, struct model *m, void *arg, struct error *err);

/* Requests that ended in an error. */
size_t requests_failed(const struct requests *r);

#endif
