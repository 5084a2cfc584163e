/* The tokens' bytes, which a group's rank 0 is told before the first request that holds its answer
 * to a form: see members_private.h. On the loop thread; no state. */
#include "base/check.h"
#include "coordinator/members_private.h"

#include <stdlib.h>

typedef Witan__Cluster__V1__CoordinatorMessage coordinator_message;

/* Words.kinds */
enum word_kind { WORD_KIND_PLAIN, WORD_KIND_ADDED, WORD_KIND_NEVER };

enum { WORDS_MOST_BYTES = 15 << 20 }; /* of all tokens: what a message may have */

/* Of a token: a tag may be said in a thought, what is special never. */
static enum word_kind word_of(const struct tokenizer *t, uint32_t id, const char **bytes,
                              size_t *len)
{
    struct error err;
    *len = 0;
    if (tokenizer_is_special(t, id) || tokenizer_token_bytes(t, id, bytes, len, &err) != OK)
        return WORD_KIND_NEVER;
    return tokenizer_is_added(t, id) ? WORD_KIND_ADDED : WORD_KIND_PLAIN;
}

/*
 * A stream brings them once. What it took it delivers, or ends: then rank 0 says hello anew, and
 * they are sent anew. A rank has room for them whatever else waits there
 * (worker/control/mailbox.c). One that cannot use them, as they do not fit its model, could not the
 * second time either; it refuses what asks for a form, and its log says why.
 */
enum status words_send(struct group *g, const Witan__Cluster__V1__Submit *q, struct error *err)
{
    const struct served *s = &g->members->core->served;
    const struct tokenizer *t = s->text->tokenizer;
    uint32_t count = (uint32_t)s->vocab;
    Witan__Cluster__V1__Words words = WITAN__CLUSTER__V1__WORDS__INIT;
    coordinator_message message = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__INIT;
    struct buf text;
    if (!q->constraint || g->words_sent)
        return OK;
    buf_init(&text, WORDS_MOST_BYTES);
    words.lengths = check_calloc(count + 1, sizeof *words.lengths);
    words.kinds.data = check_calloc(count + 1, 1);
    enum status st = OK;
    for (uint32_t id = 0; id < count && st == OK; id++) {
        const char *bytes = "";
        size_t len;
        words.kinds.data[id] = (uint8_t)word_of(t, id, &bytes, &len);
        words.lengths[id] = (uint32_t)len;
        st = buf_append(&text, bytes, len, err);
    }
    words.n_lengths = words.kinds.len = count;
    words.text.data = (uint8_t *)text.data;
    words.text.len = text.len;
    message.body_case = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_WORDS;
    message.words = &words;
    if (st == OK)
        st = rpc_send(g->ranks[0]->call, &message.base, err);
    g->words_sent = st == OK;
    buf_fini(&text);
    free(words.lengths);
    free(words.kinds.data);
    return st;
}
