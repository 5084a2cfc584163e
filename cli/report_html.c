/* A document as a page: see report.h. No state. */
#include "cli/report.h"
#include "cli/svg.h"

#include <stdbool.h>
#include <string.h>

enum { MOST_DEPTH = 8, MOST_COLUMNS = 12 };

static void put_style(FILE *out)
{
    fputs("<style>\n"
          ":root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--soft:#59636e;--rim:#d5dae0}\n"
          "@media screen and (prefers-color-scheme:dark){"
          ":root{--ink:#e8eaed;--paper:#16191d;--soft:#a0a8b1;--rim:#363c43}}\n"
          "body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.45 sans-serif}\n"
          "main{max-width:1120px;margin:auto;padding:16px}h1{font-size:22px;margin:0 0 8px}\n"
          "h2{font-size:18px;margin:28px 0 8px;border-bottom:1px solid var(--rim)}\n"
          "dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:8px 0}\n"
          "dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}dd dl{margin:0}\n"
          ".t{overflow-x:auto}table{border-collapse:collapse;margin:8px 0}\n"
          "th,td{padding:3px 10px;text-align:left;vertical-align:top;"
          "border-bottom:1px solid var(--rim)}\n"
          "pre{font:13px monospace;white-space:pre-wrap;overflow-wrap:anywhere;margin:0}\n"
          "ul{margin:0;padding-left:18px}.q{color:var(--soft);font-style:italic}\n"
          "@media print{h2{break-after:avoid}table{break-inside:avoid}body{font-size:12px}\n"
          "main{max-width:none;padding:0}}\n"
          "</style>\n",
          out);
}

/* "metered_requests" as "metered requests". */
static void put_name(FILE *out, const char *key)
{
    char words[120];
    snprintf(words, sizeof words, "%s", key);
    for (char *c = words; *c; c++)
        *c = *c == '_' ? ' ' : *c;
    svg_escaped(out, words);
}

/* A pre's lines are escaped one by one: control characters are none of a text. */
static void put_lines(FILE *out, const char *text)
{
    fputs("<pre>", out);
    while (*text) {
        char line[1024];
        size_t whole = strcspn(text, "\n"), len = whole < sizeof line ? whole : sizeof line - 1;
        memcpy(line, text, len);
        line[len] = '\0';
        svg_escaped(out, line);
        text += len;
        if (*text == '\n') {
            fputc('\n', out);
            text++;
        }
    }
    fputs("</pre>", out);
}

static void put_value(FILE *out, const json_t *v, int depth);

static void put_members(FILE *out, const json_t *o, int depth)
{
    const char *key;
    json_t *value;
    fputs("<dl>", out);
    json_object_foreach((json_t *)o, key, value)
    {
        fputs("<dt>", out);
        put_name(out, key);
        fputs("</dt><dd>", out);
        put_value(out, value, depth + 1);
        fputs("</dd>\n", out);
    }
    fputs("</dl>", out);
}

static bool is_table(const json_t *list)
{
    size_t columns = json_object_size(json_array_get(list, 0));
    if (columns == 0 || columns > MOST_COLUMNS)
        return false;
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_object_size(json_array_get(list, i)) != columns)
            return false;
    return true;
}

static void put_table(FILE *out, const json_t *list, int depth)
{
    const char *key;
    json_t *value;
    fputs("<div class=\"t\"><table><tr>", out);
    json_object_foreach(json_array_get(list, 0), key, value)
    {
        fputs("<th>", out);
        put_name(out, key);
        fputs("</th>", out);
    }
    fputs("</tr>\n", out);
    for (size_t i = 0; i < json_array_size(list); i++) {
        fputs("<tr>", out);
        json_object_foreach(json_array_get(list, 0), key, value)
        {
            fputs("<td>", out);
            put_value(out, json_object_get(json_array_get(list, i), key), depth + 1);
            fputs("</td>", out);
        }
        fputs("</tr>\n", out);
    }
    fputs("</table></div>", out);
}

static void put_list(FILE *out, const json_t *list, int depth)
{
    if (json_array_size(list) == 0) {
        fputs("none", out);
        return;
    }
    if (is_table(list)) {
        put_table(out, list, depth);
        return;
    }
    fputs("<ul>", out);
    for (size_t i = 0; i < json_array_size(list); i++) {
        fputs("<li>", out);
        put_value(out, json_array_get(list, i), depth + 1);
        fputs("</li>\n", out);
    }
    fputs("</ul>", out);
}

static void put_value(FILE *out, const json_t *v, int depth)
{
    if (!v || json_is_null(v) || depth > MOST_DEPTH)
        fputs("<span class=\"q\">not recorded</span>", out);
    else if (json_is_string(v) && strchr(json_string_value(v), '\n'))
        put_lines(out, json_string_value(v));
    else if (json_is_string(v))
        svg_escaped(out, json_string_value(v));
    else if (json_is_boolean(v))
        fputs(json_is_true(v) ? "yes" : "no", out);
    else if (json_is_integer(v))
        fprintf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else if (json_is_real(v))
        fprintf(out, "%.6g", json_real_value(v));
    else if (json_is_object(v))
        put_members(out, v, depth);
    else
        put_list(out, v, depth);
}

void report_html(FILE *out, const char *title, const json_t *document)
{
    const char *key;
    json_t *value;
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
          "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<meta name=\"referrer\" content=\"no-referrer\">\n<title>",
          out);
    svg_escaped(out, title);
    fputs("</title>\n", out);
    put_style(out);
    fputs("</head>\n<body>\n<main>\n<h1>", out);
    svg_escaped(out, title);
    fputs("</h1>\n", out);
    json_object_foreach((json_t *)document, key, value)
    {
        fputs("<section><h2>", out);
        put_name(out, key);
        fputs("</h2>\n", out);
        put_value(out, value, 0);
        fputs("</section>\n", out);
    }
    fputs("</main>\n</body>\n</html>\n", out);
}
