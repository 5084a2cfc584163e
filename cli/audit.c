/* `witan audit`: verifying an audit log, replaying a request of it, keys (docs/audit.md). */
#include "cli/audit_replay.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/flags.h"
#include "coordinator/audit_check.h"

#include <stdio.h>
#include <string.h>

static const char usage[] =
    "usage: witan audit verify LOG [--heads FILE] [--trust KEYS]\n"
    "       witan audit replay ID --log LOG --prompt-file FILE --hmac-key FILE [FLAG...]\n"
    "       witan audit hmac-key FILE\n"
    "verify finds every record of LOG that was removed, changed, moved or put in, and says where;\n"
    "exit code 1 when there is one. With --trust (a PEM file of public keys, or a folder of "
    "NAME.pem)\n"
    "the signatures of its heads too; with --heads, the second file, also records that were cut "
    "off\n"
    "at the end.\n"
    "replay asks a recorded request again, of any coordinator of the same model and numerics "
    "class,\n"
    "and tells whether prompt and answer are the recorded ones bit for bit. ID is the log's, or "
    "the\n"
    "door's (x-request-id, without the answer's prefix), then with:\n"
    "  --choice N         which of its choices (default 0)\n"
    "  --prompt-file FILE the request's body as it was sent; of one that came by gRPC, as\n"
    "                     {\"messages\": [...]}, {\"prompt\": \"...\"} or {\"prompt\": [IDS]}\n"
    "  --model DIR        the checkpoint, whose tokenizer makes ids of text\n";

static const char behind[] =
    "hmac-key makes the auditor's key, with mode 0600, for audit.hmac_key.\n";

struct told {
    const char *log, *heads;
};

static void tell(void *arg, const struct audit_finding *f)
{
    const struct told *t = arg;
    char seq[40] = "";
    if (f->seq >= 0)
        snprintf(seq, sizeof seq, ", record %lld", (long long)f->seq);
    printf("%s: line %lld%s: %s\n", f->heads ? t->heads : t->log, (long long)f->line, seq, f->what);
}

/* What was looked at, and what could not be. */
static void summarise(const struct audit_summary *s, bool trust, bool heads)
{
    printf("%lld lines of chain %s, the last record %lld at %s; %lld heads", (long long)s->lines,
           *s->chain ? s->chain : "(none)", (long long)s->last_seq,
           *s->last_time ? s->last_time : "(none)", (long long)s->heads);
    if (trust)
        printf(", %lld with a trusted signature, %lld records behind the last\n",
               (long long)s->signed_heads, (long long)s->unsigned_since);
    else
        puts(
            "; signatures not looked at: give --trust; whoever writes the file could have made all "
            "of it");
    if (heads)
        printf("%lld heads of the second file are where they belong\n", (long long)s->second_heads);
    else
        puts("without --heads nothing tells whether records were cut off at the end");
    if (s->findings == 0)
        puts("no record was removed, changed, moved or put in");
    else
        printf("FOUND: %lld\n", (long long)s->findings);
}

static int verify(int argc, char **argv)
{
    struct told t = {0};
    const char *keys = NULL;
    struct audit_trust *trust = NULL;
    struct audit_summary sum;
    struct error err;
    const struct flag flags[] = {{NULL, &t.log}, {"--heads", &t.heads}, {"--trust", &keys}, {0}};
    if (!flags_read("witan audit", argc, argv, 2, flags) || !t.log)
        return -1;
    enum status st = keys ? audit_trust_open(keys, &trust, &err) : OK;
    if (st == OK)
        st = audit_verify(t.log, t.heads, trust, tell, &t, &sum, &err);
    audit_trust_close(trust);
    if (st != OK) {
        fprintf(stderr, "witan audit: %s\n", err.msg);
        return 1;
    }
    summarise(&sum, keys != NULL, t.heads != NULL);
    return sum.findings == 0 && fflush(stdout) == 0 ? 0 : 1;
}

static int hmac_key(int argc, char **argv)
{
    const char *path = NULL;
    const struct flag flags[] = {{NULL, &path}, {0}};
    struct error err;
    if (!flags_read("witan audit", argc, argv, 2, flags) || !path)
        return -1;
    if (audit_hmac_key_make(path, &err) == OK)
        return 0;
    fprintf(stderr, "witan audit: %s\n", err.msg);
    return 1;
}

int cmd_audit(int argc, char **argv)
{
    if (flags_ask_help(argc, argv)) {
        printf("%s%s%s", usage, client_help, behind);
        return 0;
    }
    const char *verb = argc > 1 ? argv[1] : "";
    int code = -1;
    if (strcmp(verb, "verify") == 0)
        code = verify(argc, argv);
    else if (strcmp(verb, "hmac-key") == 0)
        code = hmac_key(argc, argv);
    else if (strcmp(verb, "replay") == 0)
        code = audit_replay(argc - 2, argv + 2);
    if (code == 0 || code == 1)
        return code;
    fputs(usage, stderr);
    return 2;
}
