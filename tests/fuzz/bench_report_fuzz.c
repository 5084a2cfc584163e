/*
 * A report of `witan bench` from elsewhere: read, then shown in every way. What is not refused must
 * print without a control character and make a page without markup of its own.
 */
#include "cli/load_report_private.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool good)
{
    if (!good)
        abort();
}

static enum status put_text(FILE *out, const struct load_report *r, struct error *err)
{
    static const char *const names[] = {"a", "b"};
    const struct load_report twice[] = {*r, *r};
    load_report_text_head(out, r);
    for (size_t i = 0; i < r->count; i++)
        TRY(load_report_text_run(out, &r->runs[i], &r->slo, err));
    TRY(load_report_text_sweep(out, r, err));
    return r->count > 0 ? load_report_compare(out, twice, names, 2, false, err) : OK;
}

static void show(const struct load_report *r)
{
    struct error err;
    char *text = NULL, *page = NULL;
    size_t text_len = 0, page_len = 0;
    FILE *out = open_memstream(&text, &text_len);
    require(out != NULL);
    require(put_text(out, r, &err) == OK);
    require(fclose(out) == 0);
    for (size_t i = 0; i < text_len; i++)
        require((unsigned char)text[i] >= 0x20 || text[i] == '\n');
    out = open_memstream(&page, &page_len);
    require(out != NULL);
    require(load_report_put_page(out, r, &err) == OK);
    require(fclose(out) == 0);
    require(strlen(page) == page_len && !strstr(page, "<script"));
    require(!strstr(page, "=\"nan") && !strstr(page, "=\"Mnan")); /* quotes are our own */
    free(text);
    free(page);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct load_report r;
    struct error err;
    char path[64];
    int fd = memfd_create("report", MFD_CLOEXEC);
    require(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (load_report_read_json(path, &r, &err) == OK) {
        show(&r);
        load_report_fini(&r);
    }
    close(fd);
    return 0;
}
