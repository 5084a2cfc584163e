/*
 * Writes the plain twin of a checkpoint: the same model with every weight as fp32, quantised ones
 * as this build reads them. make_twin MODEL FOLDER MODEL has a config.json (beside a GGUF too); the
 * twin's is that without quantization_config. The folder must exist. What MODEL computes and what
 * its twin computes must be the same bits.
 */
#include "base/buf.h"
#include "base/check.h"
#include "base/json.h"
#include "partition/weight_read.h"
#include "tests/tools/model_source.h"
#include "tests/tools/weight_name.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t bytes_of(const struct weight *w)
{
    return (uint64_t)w->rows * (uint64_t)w->cols * sizeof(float);
}

static void write_header(const struct inventory *inv, FILE *out)
{
    struct buf b;
    struct error err;
    uint64_t at = 0;
    buf_init(&b, 1 << 26);
    for (int32_t i = 0; i < inv->count; i++) {
        const struct weight *w = &inv->weights[i];
        char name[128], shape[64];
        weight_name(w, name, sizeof name);
        if (weight_role_is_vector(w->role))
            snprintf(shape, sizeof shape, "%lld", (long long)(w->rows * w->cols));
        else
            snprintf(shape, sizeof shape, "%lld,%lld", (long long)w->rows, (long long)w->cols);
        model_must(
            buf_printf(&b, &err,
                       "%c\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%llu,%llu]}",
                       i ? ',' : '{', name, shape, (unsigned long long)at,
                       (unsigned long long)(at + bytes_of(w))),
            &err);
        at += bytes_of(w);
    }
    model_must(buf_puts(&b, "}", &err), &err);
    for (int i = 0; i < 8; i++)
        fputc((int)((uint64_t)b.len >> (8 * i) & 255), out);
    fwrite(b.data, 1, b.len, out);
    buf_fini(&b);
}

static void write_weight(const struct model_source *s, const struct weight *w, FILE *out)
{
    struct error err;
    size_t n = (size_t)w->rows * (size_t)w->cols;
    float *values = check_calloc(n, sizeof *values);
    if (w->store != STORE_PLAIN) {
        model_must(weight_read(s->ck, s->inv, w, &(struct quant_rect){0, w->rows, 0, w->cols},
                               values, &err),
                   &err);
    } else {
        model_must(
            checkpoint_read(s->ck, w->file, w->offset, values, n * dtype_size(w->dtype), &err),
            &err);
        for (size_t i = n; w->dtype != DTYPE_F32 && i-- > 0;) {
            uint16_t half;
            memcpy(&half, (const char *)values + i * sizeof half, sizeof half);
            values[i] = w->dtype == DTYPE_BF16 ? quant_bf16(half) : quant_f16(half);
        }
    }
    fwrite(values, sizeof *values, n, out);
    free(values);
}

static FILE *create(const char *folder, const char *file)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *out = fopen(path, "wb");
    if (!out) {
        perror(path);
        exit(1);
    }
    return out;
}

static void write_config(const char *model, const char *folder)
{
    char path[4096];
    struct error err;
    json_t *root = NULL;
    snprintf(path, sizeof path, "%s/config.json", model);
    model_must(json_parse_file(path, 1 << 24, &root, &err), &err);
    json_object_del(root, "quantization_config");
    FILE *out = create(folder, "config.json");
    json_dumpf(root, out, JSON_INDENT(2));
    json_decref(root);
    if (fclose(out) != 0)
        exit(1);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: make_twin MODEL FOLDER\n");
        return 2;
    }
    struct model_source s;
    model_open(&s, argv[1]);
    write_config(argv[1], argv[2]);
    FILE *out = create(argv[2], "model.safetensors");
    write_header(s.inv, out);
    for (int32_t i = 0; i < s.inv->count; i++)
        write_weight(&s, &s.inv->weights[i], out);
    bool failed = ferror(out) != 0;
    failed = fclose(out) != 0 || failed;
    model_close(&s);
    return failed;
}
