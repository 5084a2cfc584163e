/* Words of a GGUF: see gguf_words.h. */
#include "coordinator/text/gguf_words.h"
#include "base/log.h"
#include "partition/manifest.h"

#include <stdio.h>
#include <stdlib.h>

static enum status read_first_file(void *arg, uint64_t offset, void *to, size_t bytes,
                                   struct error *err)
{
    return checkpoint_read(arg, 0, offset, to, bytes, err);
}

static enum status name_file(const char *dir, struct gguf_words *w, struct error *err)
{
    if (asprintf(&w->path, "%s/%s", dir, checkpoint_file_name(w->ck, 0)) < 0) {
        w->path = NULL;
        return error_set(err, ERR_NO_MEMORY, "%s: no memory", dir);
    }
    w->what = w->path;
    return OK;
}

enum status gguf_words_open(const char *dir, const struct manifest *manifest, struct gguf_words *w,
                            struct error *err)
{
    *w = (struct gguf_words){0};
    if (!checkpoint_is_gguf(dir, manifest))
        return error_set(err, ERR_NOT_FOUND, "%s: no weights in a GGUF", dir);
    TRY(checkpoint_open_proven(dir, manifest, &w->ck, err));
    enum status st = name_file(dir, w, err);
    if (st != OK) {
        gguf_words_close(w);
        return st;
    }
    const struct tensor_entry *embed = checkpoint_find(w->ck, "token_embd.weight");
    w->gguf = checkpoint_gguf(w->ck);
    w->rows = embed && embed->dims == 2 ? embed->shape[0] : 0;
    w->source = (struct gguf_source){read_first_file, w->ck, checkpoint_file_bytes(w->ck, 0)};
    return OK;
}

void gguf_words_close(struct gguf_words *w)
{
    checkpoint_close(w->ck);
    free(w->path);
    *w = (struct gguf_words){0};
}

enum status gguf_words_read(const struct gguf_words *w, const char *key, enum gguf_kind kind,
                            size_t limit_bytes, char **data, struct gguf_place *place,
                            struct error *err)
{
    TRY(gguf_get_place(w->gguf, w->what, key, kind, place, err));
    if (place->bytes > limit_bytes)
        return error_set(err, ERR_LIMIT, "%s: %s: expected at most %zu bytes, found %llu", w->what,
                         key, limit_bytes, (unsigned long long)place->bytes);
    char *p = malloc((size_t)place->bytes + 1);
    if (!p)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for %s", w->what, key);
    p[place->bytes] = '\0';
    enum status st = w->source.read(w->source.arg, place->offset, p, (size_t)place->bytes, err);
    if (st != OK) {
        free(p);
        return st;
    }
    *data = p;
    return OK;
}

void gguf_words_say_file_wins(const char *dir, const struct manifest *manifest, const char *file)
{
    if (checkpoint_is_gguf(dir, manifest))
        log_info("%s: %s is used, not the metadata of the GGUF beside it: it is the model's own, "
                 "they are a part of it",
                 dir, file);
}
