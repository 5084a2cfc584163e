/*
 * The APIs that the HTTP door speaks: for each a table of what it calls things and how it writes
 * them. Answers are told in OpenAI's terms (openai_response.h); a dialect turns them into its own.
 * Pure; any thread.
 *
 * A stream is first (of each choice), text, ..., finish (of each choice), end. Every function
 * appends to `b` and may write several events or none. APIs other than OpenAI's chat completions
 * and completions have one choice and no logprobs: their translators see to that.
 */
#ifndef WITAN_COORDINATOR_DIALECT_H
#define WITAN_COORDINATOR_DIALECT_H

#include "coordinator/openai_request.h"
#include "coordinator/openai_response.h"

/* What a stream has told, and when; of APIs with one choice. */
struct telling {
    enum { TOLD_NOTHING, TOLD_THOUGHT, TOLD_TEXT, TOLD_CALL } open; /* the block that is told */
    int32_t blocks; /* begun, the open one with them */
    int32_t events;
    const char *finish;
    char stop[OPENAI_MAX_STOP_BYTES + 1]; /* the stop string that ended it; "": none did */
    struct buf text;                      /* of the open block, where its end tells it again */
    struct buf id, name;                  /* of the open call, the same */
    struct buf items;                     /* JSON of the blocks before, commas between */
    int64_t began_ns, first_ns, ended_ns; /* the request, its first token, its last; 0: not yet */
};

void telling_init(struct telling *t, size_t limit_bytes);
void telling_fini(struct telling *t);

/* What openai_request.h calls a field, and what the API does. */
struct dialect_name {
    const char *openai, *theirs;
};

struct dialect {
    const char *id;          /* ids of answers begin so: "chatcmpl-" */
    const char *stream_type; /* content type of a stream */
    const char *quiet;       /* said in a stream that was quiet for long; NULL: nothing */
    const char *request_id;  /* header that has what errors call request_id; NULL: none */
    bool positions;          /* its streams may be resumed inside: http_resume.h */
    bool latest;             /* "NAME:latest" is NAME */
    /* A body as one of a chat (*kind, as the route has it, may become another), a new object; NULL:
     * it is that already. Lengths are bounds then: cut to what fits. `names` ends with NULLs. */
    enum status (*translate)(const json_t *body, enum openai_kind *kind, json_t **out,
                             struct error *err);
    const struct dialect_name *names;
    bool flat_tools;       /* tools[0].name is what chat calls tools[0].function.name */
    const char *arguments; /* what holds a call's arguments as an object; NULL: nothing does */
    enum status (*first)(struct buf *b, const struct openai_head *h, int32_t index,
                         struct error *err);
    enum status (*text)(struct buf *b, const struct openai_head *h, int32_t index, bool reasoning,
                        const char *text, size_t len, const struct openai_logprobs *logprobs,
                        struct error *err);
    /* Content and tool calls, in order, instead of text that is no reasoning; see
     * openai_write_pieces. NULL: this API tells no calls; they are content. */
    enum status (*pieces)(struct buf *b, const struct openai_head *h, int32_t index,
                          const struct openai_piece *pieces, int32_t count,
                          const struct openai_logprobs *logprobs, struct error *err);
    enum status (*finish)(struct buf *b, const struct openai_head *h, int32_t index,
                          const char *finish, const struct openai_logprobs *logprobs,
                          struct error *err);
    /* What stands behind all choices: usage, and that this is the end. */
    enum status (*end)(struct buf *b, const struct openai_head *h, const struct openai_usage *usage,
                       struct error *err);
    /* A whole answer: JSON. */
    enum status (*answer)(struct buf *b, const struct openai_head *h,
                          const struct openai_choice *choices, int32_t count,
                          const struct openai_usage *usage, struct error *err);
    /* The one model that is served, in a list and alone; of APIs that share a path for it. */
    enum status (*models)(struct buf *b, const struct openai_model *m, struct error *err);
    enum status (*model)(struct buf *b, const struct openai_model *m, struct error *err);
    /* An error instead of an answer, and in a stream that has begun. */
    enum status (*error)(struct buf *b, const struct openai_failure *f, struct error *err);
    enum status (*stream_error)(struct buf *b, const struct openai_head *h,
                                const struct openai_failure *f, struct error *err);
};

extern const struct dialect dialect_openai_chat, dialect_openai_completion;
extern const struct dialect dialect_anthropic, dialect_responses;
extern const struct dialect dialect_ollama_chat, dialect_ollama_generate;

/* The body of a request for this API's route. Errors name fields as the API does. */
enum status dialect_read(const struct dialect *d, enum openai_kind *kind, const char *body,
                         size_t len, const struct generation_config *defaults,
                         struct openai_request *out, struct error *err);

/* --- writing: each takes `v` over, and NULL for ERR_NO_MEMORY --- */

/* One line of JSON. */
enum status dialect_put(struct buf *b, json_t *v, struct error *err);
/* An event: "event: TYPE", "data: " and the JSON. */
enum status dialect_put_event(struct buf *b, const char *type, json_t *v, struct error *err);
/* A string of text that may be cut anywhere: messages quote a body's bytes. NULL: no memory. */
json_t *dialect_lossy(const char *s);

/* A call's arguments as the object that they are, or as near as json_text_load_near comes to it;
 * NULL: it broke off. */
json_t *dialect_arguments(const char *text, size_t len);

#endif
