/* See svg.h. No state. */
#include "cli/svg.h"
#include "coordinator/text/utf8.h"

#include <string.h>

void svg_escaped(FILE *out, const char *text)
{
    size_t len = strlen(text);
    for (size_t i = 0; i < len;) {
        unsigned char c = (unsigned char)text[i];
        struct utf8_head head = utf8_head(text + i, len - i);
        if (head.kind != UTF8_CHAR)
            fputc('?', out);
        else if (c == '<' || c == '>' || c == '&' || c == '"' || c == '\'')
            fprintf(out, "&#%d;", c);
        else if (c < 0x20 || c == 0x7f)
            fputc('?', out);
        else
            fwrite(text + i, 1, head.len, out);
        i += head.len;
    }
}
