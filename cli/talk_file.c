/* Conversations in files: see talk.h. */
#include "cli/talk.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/file.h"
#include "base/json.h"

#include <jansson.h>
#include <string.h>
#include <unistd.h>

enum { MAX_FILE_BYTES = 64 << 20 };

/* The array of messages in a conversation's file, each proven: released with *root. */
static enum status read_messages(const char *path, json_t **root, json_t **messages,
                                 struct error *err)
{
    size_t i;
    json_t *turn;
    TRY(json_parse_file(path, MAX_FILE_BYTES, root, err));
    *messages = json_object_get(*root, "messages");
    if (!json_is_array(*messages))
        return error_set(err, ERR_INVALID, "%s: messages: expected an array, found %s", path,
                         json_type_words(*messages));
    if (json_array_size(*messages) > TALK_MAX_TURNS)
        return error_set(err, ERR_LIMIT, "%s: expected at most %d messages, found %zu", path,
                         TALK_MAX_TURNS, json_array_size(*messages));
    json_array_foreach(*messages, i, turn)
    {
        char what[64];
        const char *role, *content;
        snprintf(what, sizeof what, "messages[%zu]", i);
        enum status st = json_get_string(turn, what, "role", true, &role, err);
        if (st == OK)
            st = json_get_string(turn, what, "content", true, &content, err);
        if (st == OK && strcmp(role, "user") != 0 && strcmp(role, "assistant") != 0 &&
            !(i == 0 && strcmp(role, "system") == 0))
            st = error_set(err, ERR_INVALID,
                           "%s.role: expected user, assistant or, first, system, found %.40s", what,
                           role);
        if (st != OK) {
            error_prefix(err, "%s: ", path);
            return st;
        }
    }
    return OK;
}

enum status talk_load(struct talk *t, const char *path, struct error *err)
{
    json_t *root = NULL, *messages = NULL, *turn;
    size_t i;
    enum status st = read_messages(path, &root, &messages, err);
    if (st == OK) {
        const json_t *first = json_array_get(messages, 0);
        const char *role = json_string_value(json_object_get(first, "role"));
        bool system = role && strcmp(role, "system") == 0;
        talk_system(t, system ? json_string_value(json_object_get(first, "content")) : NULL);
        talk_begin(t);
        json_array_foreach(messages, i, turn)
        {
            if (i > 0 || !system)
                st = talk_add(t, json_string_value(json_object_get(turn, "role")),
                              json_string_value(json_object_get(turn, "content")), err);
            CHECK(st == OK, "more messages than were counted");
        }
    }
    json_decref(root);
    return st;
}

enum status talk_save(const struct talk *t, const char *path, struct error *err)
{
    struct buf text;
    if (access(path, F_OK) == 0) {
        json_t *root = NULL, *messages;
        enum status st = read_messages(path, &root, &messages, err);
        json_decref(root);
        if (st != OK)
            return error_advise(err, st, "it is no saved conversation, and stays as it is");
    }
    buf_init(&text, MAX_FILE_BYTES);
    enum status st = buf_puts(&text, "{\"messages\": [", err);
    for (size_t i = 0; st == OK && i < t->turn_count; i++) {
        const Witan__Inference__V1__Message *m = t->turns[i];
        st = buf_printf(&text, err, "%s\n  {\"role\": \"%s\", \"content\": ", i > 0 ? "," : "",
                        m->role);
        if (st == OK)
            st = buf_json_string(&text, m->content, strlen(m->content), err);
        if (st == OK)
            st = buf_puts(&text, "}", err);
    }
    if (st == OK)
        st = buf_puts(&text, "\n]}\n", err);
    if (st == OK)
        st = file_write(path, text.data, text.len, 0600, true, err);
    buf_fini(&text);
    return st;
}
