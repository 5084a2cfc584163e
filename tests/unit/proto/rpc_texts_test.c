/* Strings with a NUL in packed messages, at every depth; bytes that are no message. */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "proto/inference.pb-c.h"
#include "proto/rpc_private.h"

#define TYPE (&witan__inference__v1__generate_request__descriptor)

static bool whole(const char *bytes, size_t len)
{
    return rpc_texts_are_whole(TYPE, (const uint8_t *)bytes, len);
}

#define WHOLE(literal) whole(literal, sizeof(literal) - 1)

static void texts(void **state)
{
    (void)state;
    assert_true(rpc_texts_are_whole(TYPE, NULL, 0));
    assert_true(WHOLE("\x12\x05"
                      "a cat"));
    assert_true(WHOLE("\x12\x00"));
    assert_false(WHOLE("\x12\x05"
                       "a\0cat"));
    assert_false(WHOLE("\x12\x01\0"));
    assert_false(WHOLE("\x3a\x01"
                       "x"
                       "\x3a\x02"
                       "y\0"));
}

static void texts_further_in(void **state)
{
    (void)state;
    /* conversation { messages { role: "user" content: ... } } */
    assert_true(WHOLE("\x22\x0d\x0a\x0b\x0a\x04user\x12\x03"
                      "cat"));
    assert_false(WHOLE("\x22\x0d\x0a\x0b\x0a\x04user\x12\x03"
                       "c\0t"));
    assert_false(WHOLE("\x22\x0d\x0a\x0b\x0a\x04us\0r\x12\x03"
                       "cat"));
}

static void other_fields(void **state)
{
    (void)state;
    assert_true(WHOLE("\x28\x00"));                     /* max_tokens: 0 */
    assert_true(WHOLE("\x1a\x05\x0a\x03\x00\x01\x02")); /* token_ids { ids: [0, 1, 2] } */
    assert_true(WHOLE("\xfa\x3f\x02\0\0"));             /* unknown fields of every wire type */
    assert_true(WHOLE("\xf8\x3f\x00"));
    assert_true(WHOLE("\xf9\x3f\0\0\0\0\0\0\0\0"));
    assert_true(WHOLE("\xfd\x3f\0\0\0\0"));
}

static void no_messages(void **state)
{
    (void)state;
    static const char *const cut[] = {"\x12",
                                      "\x12\x05_ ca",
                                      "\x28",
                                      "\x28\x80",
                                      "\x80",
                                      "\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                                      "\x13",
                                      "\x16",
                                      "\xf9\x3f",
                                      "\xfd\x3f\x01",
                                      "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"};
    for (size_t i = 0; i < COUNT_OF(cut); i++)
        assert_false(whole(cut[i], strlen(cut[i])));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(texts),
    cmocka_unit_test(texts_further_in),
    cmocka_unit_test(other_fields),
    cmocka_unit_test(no_messages),
};

UNIT_MAIN(tests)
