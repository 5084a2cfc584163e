/*
 * What the translators of other APIs' bodies (anthropic_request.c, responses_request.c,
 * ollama_request.c) share: values taken from a body with errors that name their path, and values
 * put into the chat body that it becomes. Pure; any thread.
 *
 * A translator checks the types of the fields that its API knows, and refuses by name what is known
 * and not done; fields that the API does not know are left out. Bounds are checked by
 * openai_request_read. null is as good as absent.
 */
#ifndef WITAN_COORDINATOR_TRANSLATE_H
#define WITAN_COORDINATOR_TRANSLATE_H

#include "base/buf.h"

#include <jansson.h>
#include <stdbool.h>

enum { TRANSLATE_PATH_BYTES = 96 };

enum translate_type {
    TRANSLATE_STRING,
    TRANSLATE_OBJECT,
    TRANSLATE_ARRAY,
    TRANSLATE_INTEGER,
    TRANSLATE_NUMBER,
    TRANSLATE_BOOL,
};

/* Writes a path; one that is too long is cut. */
void translate_path(char out[TRANSLATE_PATH_BYTES], const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* ERR_INVALID "PATH: expected ..., found ..." unless `v` is of the type; NULL is none. */
enum status translate_check(const char *path, enum translate_type type, const json_t *v,
                            struct error *err);

/* obj[key], borrowed; NULL when absent or null. `path` is the object's, "" for the body. */
enum status translate_get(const json_t *obj, const char *path, const char *key,
                          enum translate_type type, const json_t **out, struct error *err);
/* The same; absent is ERR_INVALID. */
enum status translate_need(const json_t *obj, const char *path, const char *key,
                           enum translate_type type, const json_t **out, struct error *err);

/* ERR_UNSUPPORTED "PATH.KEY: not supported" where obj[key] is there and says something: is neither
 * null nor false nor 0 nor an empty string, array or object. */
enum status translate_refuse(const json_t *obj, const char *path, const char *key,
                             struct error *err);
/* ERR_UNSUPPORTED "PATH.type: "image" is not supported (only ONLY)". */
enum status translate_bad_type(const char *path, const json_t *type, const char *only,
                               struct error *err);

/* obj[key] = value, taken over; NULL is ERR_NO_MEMORY. */
enum status translate_put(json_t *obj, const char *key, json_t *value, struct error *err);
/* The same at the end of an array. */
enum status translate_add(json_t *array, json_t *value, struct error *err);

/* A field of the body that is copied under OpenAI's name. */
struct translate_field {
    const char *name;
    enum translate_type type;
    const char *openai; /* NULL: its type is checked, and nothing said */
};

/* Copies those that are there; the table ends with a NULL name. */
enum status translate_fields(const json_t *obj, const char *path,
                             const struct translate_field *fields, json_t *out, struct error *err);

bool translate_is(const json_t *v, const char *word); /* is it this string? */

/* {"type": "text", "text": v} */
json_t *translate_part(const json_t *text);
/* {"id", "type": "function", "function": {"name", "arguments"}}; `arguments` is a string, or an
 * object, which becomes one. `id` may be NULL. */
json_t *translate_call(const json_t *id, const json_t *name, const json_t *arguments);
/* obj.KEY: an object, or a string that holds one. */
enum status translate_arguments(const json_t *obj, const char *path, const char *key,
                                const json_t **out, struct error *err);
/* {"type": "function", "function": {...}} with what is not NULL. */
json_t *translate_tool(const json_t *name, const json_t *description, const json_t *parameters);

/* out.tools of body.tools: add(tools, body.tools[i], i) for each; none where there are none. */
enum status translate_tools(const json_t *body,
                            enum status (*add)(json_t *tools, const json_t *tool, size_t i,
                                               struct error *err),
                            json_t *out, struct error *err);

/* A message that is being made of pieces. */
struct translate_turn {
    json_t *messages; /* of the chat body, borrowed */
    bool assistant;   /* else the user's */
    json_t *parts, *calls;
    struct buf thoughts; /* joined */
    bool thought;        /* there was one, if empty */
};

void translate_turn_init(struct translate_turn *t, json_t *messages, bool assistant);
void translate_turn_fini(struct translate_turn *t);
/* More of what it thought. */
enum status translate_think(struct translate_turn *t, const json_t *text, struct error *err);
/* Puts the message, when there is anything in it, behind the others; t is then empty. */
enum status translate_end_turn(struct translate_turn *t, struct error *err);

#endif
