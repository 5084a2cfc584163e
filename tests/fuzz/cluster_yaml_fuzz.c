/*
 * Any bytes as cluster.yaml. What is refused must say why in one line and change nothing; what is
 * accepted must print as YAML that reads back to the same, before the check and after it.
 */
#include "base/check.h"
#include "coordinator/config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_message(enum status st, const struct error *err)
{
    CHECK(err->code == st && !strchr(err->msg, '\n'), "%s", err->msg);
    CHECK(strlen(err->msg) > 8 && strlen(err->msg) < sizeof err->msg - 1, "%s", err->msg);
}

static void init(struct config *c)
{
    struct error err;
    CHECK(config_init(c, &err) == OK, "%s", err.msg);
}

static void print(const struct config *c, struct buf *out)
{
    struct error err;
    buf_init(out, 1 << 26);
    CHECK(config_print(c, out, &err) == OK, "%s", err.msg);
}

static void check_round_trip(const struct config *c)
{
    struct config again;
    struct buf first, second;
    struct error err;
    init(&again);
    print(c, &first);
    enum status st = config_read_text("printed", first.data, first.len, &again, &err);
    /* The same words with all defaults may be too long for a file. */
    if (st != ERR_LIMIT) {
        CHECK(st == OK, "%s in:\n%s", err.msg, first.data);
        print(&again, &second);
        CHECK(first.len == second.len && memcmp(first.data, second.data, first.len) == 0,
              "%s\nread back:\n%s", first.data, second.data);
        buf_fini(&second);
    }
    buf_fini(&first);
    config_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {.code = OK};
    struct config c;
    init(&c);
    enum status st = config_read_text("c.yaml", (const char *)data, size, &c, &err);
    if (st == OK) {
        check_round_trip(&c);
        st = config_check(&c, &err);
        if (st == OK) {
            check_round_trip(&c);
            CHECK(c.groups_count > 0 && c.model.name, "a group and a name");
            for (uint32_t i = 0; i < c.groups_count; i++)
                CHECK(config_group_world(&c.groups[i]) > 0, "group %u", i);
        } else {
            check_message(st, &err);
        }
    } else {
        check_message(st, &err);
        CHECK(strncmp(err.msg, "c.yaml: ", 8) == 0, "%s", err.msg);
        CHECK(c.groups_count == 0 && !c.model.path && !c.verbose, "nothing has changed");
    }
    config_fini(&c);
    return 0;
}
