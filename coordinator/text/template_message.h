/*
 * Inside the chat templates: a conversation checked once, so that the renderers meet only
 * well-typed values. Errors name the path of what is wrong: `messages[2].content[0].text`.
 */
#ifndef WITAN_COORDINATOR_TEXT_TEMPLATE_MESSAGE_H
#define WITAN_COORDINATOR_TEXT_TEMPLATE_MESSAGE_H

#include "coordinator/text/template_out.h"

enum template_content {
    TEMPLATE_CONTENT_MISSING,
    TEMPLATE_CONTENT_NULL,
    TEMPLATE_CONTENT_STRING,
    TEMPLATE_CONTENT_PARTS, /* an array of {"type": "text", "text": ...} */
};

/* One message. Points into the caller's JSON but for `joined`. */
struct template_message {
    const json_t *role; /* a string */
    enum template_content kind;
    const json_t *content;     /* NULL when missing */
    struct template_text text; /* the string, the parts joined, or "" */
    char *joined;              /* owned; NULL unless parts had to be joined */
    const json_t *reasoning;   /* a string; NULL when missing or null */
    const json_t *calls;       /* an array of objects; NULL when missing or null */
};

struct template_conversation {
    struct template_message *messages; /* owned */
    size_t count;                      /* at least 1 */
};

/* On failure *c is empty. template_conversation_fini releases. */
enum status template_conversation_init(struct template_conversation *c, const json_t *messages,
                                       struct error *err);
void template_conversation_fini(struct template_conversation *c);

bool template_role_is(const struct template_message *m, const char *role);

/* One tool call: the object in "function", or the call itself without one. */
struct template_call {
    const json_t *function;  /* the object that holds name and arguments */
    const json_t *name;      /* a string */
    const json_t *arguments; /* an object, a string or null; NULL when missing */
    char path[80];           /* "messages[2].tool_calls[0].function" */
};

/* Call `j` of message `i`, its types checked. */
enum status template_call_get(const struct template_conversation *c, size_t i, size_t j,
                              struct template_call *call, struct error *err);

/* ERR_INVALID unless the arguments are an object or a string. */
enum status template_call_need_arguments(const struct template_call *call, struct error *err);

/* The object that the string `arguments` of `call` holds, {} for an empty one; json_decref(*out).
 * NULL: an object that jansson does not hold (json_text.h); its text serves as it is. */
enum status template_call_parse(const struct template_call *call, json_t **out, struct error *err);

/* ERR_INVALID "PATH: expected WORDS, found a string". */
enum status template_mistyped(const char *path, const char *expected, const json_t *found,
                              struct error *err);

#endif
