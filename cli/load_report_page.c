/*
 * What the pages of reports share. They ask nothing of anybody: no script, no font, no picture from
 * elsewhere, and a policy that forbids them. See load_report_private.h. No state.
 */
#include "base/file.h"
#include "cli/load_report_private.h"
#include "cli/load_svg.h"
#include "cli/svg.h"

#include <stdlib.h>

static void put_style(FILE *out)
{
    fputs("<style>\n"
          ":root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--soft:#59636e;--rim:#d5dae0}\n"
          "@media screen and (prefers-color-scheme:dark){"
          ":root{--ink:#e8eaed;--paper:#16191d;--soft:#a0a8b1;--rim:#363c43}}\n"
          "body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.45 sans-serif}\n"
          "main{max-width:1120px;margin:auto;padding:16px}h1{font-size:22px;margin:0 0 8px}\n"
          "h2{font-size:18px;margin:28px 0 8px;border-bottom:1px solid var(--rim)}\n"
          "dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:8px "
          "0;align-content:start}\n"
          "dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}code{font:13px monospace}\n"
          ".t{overflow-x:auto}table{border-collapse:collapse;margin:8px 0}\n"
          "th,td{padding:3px 10px;text-align:right;border-bottom:1px solid var(--rim);"
          "font-variant-numeric:tabular-nums}\n"
          "td{white-space:nowrap}th{font-weight:600;vertical-align:bottom}"
          "@media(max-width:600px){th,td{padding:3px 6px}}\n"
          "th:first-child,td:first-child{text-align:left;padding-left:0}\n"
          ".a{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));"
          "gap:16px;margin:12px 0}\n"
          "figure{margin:0;max-width:560px}svg{display:block;width:100%;height:auto}\n"
          ".n{margin:8px 0;padding-left:20px}.n li{overflow-wrap:anywhere}"
          "footer{color:var(--soft);font-size:13px;margin-top:28px}\n"
          "@media print{figure,table,section h2{break-inside:avoid}h2{break-after:avoid}"
          "body{font-size:12px}.t{overflow:visible}th,td{padding:2px 5px}"
          "main{max-width:none;padding:0}.a{grid-template-columns:1fr 1fr}}\n",
          out);
    load_svg_style(out);
    fputs("</style>\n", out);
}

void load_page_begin(FILE *out, const char *title)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
          "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<meta name=\"referrer\" content=\"no-referrer\">\n<title>witan bench: ",
          out);
    svg_escaped(out, title);
    fputs("</title>\n", out);
    put_style(out);
    fputs("</head>\n<body>\n<main>\n<h1>witan bench</h1>\n", out);
}

void load_page_end(FILE *out)
{
    fputs(
        "<footer>\n<p>TTFT: from the time a request was to be sent to its first chunk. TPOT: from "
        "the first chunk to the last over the output tokens but one. ITL: the gaps between "
        "chunks. E2E: from the time a request was to be sent to its last chunk. Percentiles lie "
        "on the line between neighbouring samples. Rates count requests that succeeded, over the "
        "time from the first request to the end of the last. Warm-up is not counted.</p>\n"
        "</footer>\n</main>\n</body>\n</html>\n",
        out);
}

void load_page_fact(FILE *out, const char *name, const char *words, bool code)
{
    fprintf(out, "<dt>%s</dt><dd>%s", name, code ? "<code>" : "");
    svg_escaped(out, words);
    fprintf(out, "%s</dd>\n", code ? "</code>" : "");
}

void load_page_cell(FILE *out, double v)
{
    char number[32];
    fprintf(out, "<td>%s</td>", load_number(v, number));
}

enum status load_page_write(const char *path, load_page_fn put, const void *arg, struct error *err)
{
    char *page = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&page, &len);
    if (!out)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for the page", path);
    enum status st = put(out, arg, err);
    bool whole = !ferror(out);
    if ((fclose(out) != 0 || !whole) && st == OK)
        st = error_set(err, ERR_NO_MEMORY, "%s: no memory for the page", path);
    if (st == OK)
        st = file_write(path, page, len, 0644, true, err);
    free(page);
    return st;
}
