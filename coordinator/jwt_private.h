/* Between the set of keys (jwks.c) and what is checked with it (jwt.c). */
#ifndef WITAN_COORDINATOR_JWT_PRIVATE_H
#define WITAN_COORDINATOR_JWT_PRIVATE_H

#include "coordinator/jwt.h"

#include <openssl/evp.h>

enum jwt_algorithm { JWT_RS256, JWT_ES256, JWT_EDDSA, JWT_ALGORITHM_COUNT };

extern const char *const jwt_algorithm_words[JWT_ALGORITHM_COUNT];

struct jwk {
    char *id;
    enum jwt_algorithm algorithm;
    EVP_PKEY *key;
};

/* NULL: there is none of this id. */
const struct jwk *jwks_find(const struct jwks *k, const char *id);

/* `all` of them, for messages: "a", "b". At most so many characters. */
void jwks_print_ids(const struct jwks *k, char *out, size_t size);

#endif
