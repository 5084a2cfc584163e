/*
 * Strings that protobuf-c would cut: it hands them out as C strings, so a text with a NUL in it
 * would end there, silently. Such a message is refused before anybody sees half of what was sent.
 * The wire format: protobuf.dev/programming-guides/encoding.
 */
#include "proto/rpc_private.h"

#include <string.h>

enum wire_type { WIRE_VARINT, WIRE_64_BIT, WIRE_BYTES, WIRE_32_BIT = 5 };

struct wire {
    const uint8_t *at, *end;
};

static bool take_varint(struct wire *w, uint64_t *out)
{
    *out = 0;
    for (unsigned shift = 0; shift < 64 && w->at < w->end; shift += 7) {
        uint8_t byte = *w->at++;
        *out |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return true;
    }
    return false;
}

static bool skip(struct wire *w, uint64_t bytes)
{
    if (bytes > (uint64_t)(w->end - w->at))
        return false;
    w->at += bytes;
    return true;
}

static bool is_whole(const ProtobufCFieldDescriptor *field, const uint8_t *data, size_t len)
{
    if (field && field->type == PROTOBUF_C_TYPE_STRING)
        return len == 0 || !memchr(data, 0, len);
    if (field && field->type == PROTOBUF_C_TYPE_MESSAGE)
        return rpc_texts_are_whole(field->descriptor, data, len);
    return true;
}

bool rpc_texts_are_whole(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t len)
{
    struct wire w = {.at = data, .end = data + len};
    uint64_t tag, count;
    while (w.at < w.end) {
        bool good = take_varint(&w, &tag);
        switch (good ? (int)(tag & 7) : -1) {
        case WIRE_VARINT:
            good = take_varint(&w, &count);
            break;
        case WIRE_64_BIT:
            good = skip(&w, 8);
            break;
        case WIRE_32_BIT:
            good = skip(&w, 4);
            break;
        case WIRE_BYTES:
            good = take_varint(&w, &count) && skip(&w, count) &&
                   is_whole(protobuf_c_message_descriptor_get_field(type, (unsigned)(tag >> 3)),
                            w.at - count, (size_t)count);
            break;
        default:
            good = false; /* groups are no part of proto3 */
        }
        if (!good)
            return false;
    }
    return true;
}
