/*
 * Any bytes as an answer that must be a JSON object. The first byte says what may come before it.
 * As far as the bytes are taken, as many more as constraint_closing says make the answer whole, and
 * what is whole is an object for jansson.
 */
#include "base/check.h"
#include "partition/constraint.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The byte that brings a state one nearer to its end. */
static unsigned char nearer(const struct constraint *c, struct constraint_state *s)
{
    int32_t left = constraint_closing(c, s);
    for (int b = 0; b < 256; b++) {
        struct constraint_state next = *s;
        if (constraint_take(c, &next, (unsigned char)b) &&
            constraint_closing(c, &next) == left - 1) {
            *s = next;
            return (unsigned char)b;
        }
    }
    CHECK(false, "no byte leads to the end, %d away", left);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const struct constraint c = {.kind = CONSTRAINT_JSON_OBJECT,
                                 .thought = data[0] % CONSTRAINT_THOUGHTS};
    struct constraint_state s;
    constraint_start(&c, &s);
    char *text = check_calloc(1, size + 256);
    size_t len = 0, object = 0;
    for (size_t i = 1; i < size; i++) {
        struct constraint_state next = s;
        int32_t before = constraint_closing(&c, &s);
        if (!constraint_take(&c, &next, data[i]))
            break;
        CHECK(constraint_closing(&c, &next) >= before - 1, "%d after %d",
              constraint_closing(&c, &next), before);
        s = next;
        text[len++] = (char)data[i];
        object = constraint_is_free(&s) ? len : object;
    }
    for (int32_t left = constraint_closing(&c, &s); left > 0; left--) {
        text[len++] = (char)nearer(&c, &s);
        object = constraint_is_free(&s) ? len : object;
    }
    CHECK(constraint_closing(&c, &s) == 0 && !constraint_take(&c, &s, ' '),
          "the end is not the end");
    json_error_t error;
    json_t *v = json_loadb(text + object, len - object, 0, &error);
    CHECK(json_is_object(v), "%.*s: %s", (int)(len - object), text + object, error.text);
    json_decref(v);
    free(text);
    return 0;
}
