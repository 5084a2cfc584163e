/* What `witan serve` keeps of its processes in its run folder, for `witan status`: see status.h. */
#include "cli/status.h"

#include "base/check.h"
#include "base/json.h"
#include "cli/run_folder.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_STATE_BYTES = 1 << 20 };

enum status status_serve_read(const char *run_dir, json_t **out, struct error *err)
{
    char folder[RUN_FOLDER_MAX_PATH], path[RUN_FOLDER_MAX_PATH];
    int fd = -1;
    pid_t pid;
    *out = NULL;
    if (run_dir)
        snprintf(folder, sizeof folder, "%s", run_dir);
    else if (run_folder_default(folder, err) != OK)
        return OK; /* nobody said that there is one */
    enum status st = run_folder_holder(folder, &fd, &pid, err);
    if (fd >= 0)
        close(fd);
    if (!run_dir && (st != OK || pid == 0))
        return OK;
    TRY(st);
    if (pid == 0)
        return error_set(err, ERR_NOT_FOUND, "no `witan serve` runs in %.500s", folder);
    run_folder_file(folder, RUN_FOLDER_STATE, path);
    st = json_parse_file(path, MAX_STATE_BYTES, out, err);
    return run_dir ? st : OK; /* it may have just begun, or end */
}

static const char *string_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static int64_t int_of(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

const char *status_serve_address(const json_t *serve)
{
    const char *at = string_of(serve, "grpc");
    return *at ? at : NULL;
}

/* One line of something that has ended since; nothing of what never did. */
static void show_end(const struct status_page *p, const char *what, int64_t starts, const char *why,
                     int64_t at)
{
    char *words = NULL;
    size_t len = 0;
    if (!*why)
        return;
    FILE *f = open_memstream(&words, &len);
    CHECK(f, "no memory for a line");
    fprintf(f, "%s: ", what);
    if (starts > 0) /* else others start it */
        fprintf(f, "started %" PRId64 " %s, ", starts, status_times((uint64_t)starts));
    double age = difftime(time(NULL), (time_t)at);
    fputs("last ended ", f);
    status_put_age(f, age > 0 ? age : 0);
    fprintf(f, ": %s", why);
    fclose(f);
    status_wrap(p, words);
    free(words);
}

void status_serve_show(const struct status_page *p, const json_t *serve)
{
    size_t i;
    json_t *group;
    fprintf(p->f, "\nwitan serve, process %" PRId64 ": %.20s\n", int_of(serve, "pid"),
            string_of(serve, "state"));
    show_end(p, "the coordinator", int_of(serve, "coordinator_starts"),
             string_of(serve, "coordinator_last_end"), int_of(serve, "coordinator_last_end_at"));
    json_array_foreach(json_object_get(serve, "groups"), i, group)
    {
        char what[100];
        snprintf(what, sizeof what, "group %.80s", string_of(group, "name"));
        show_end(p, what, int_of(group, "starts"), string_of(group, "last_end"),
                 int_of(group, "last_end_at"));
    }
}
