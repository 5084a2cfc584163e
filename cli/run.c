/*
 * `witan run`: a prompt, a conversation or a file of requests, answered by a group inside this
 * process (or under mpirun), without a server.
 */
#include "cli/chat.h"
#include "cli/cli.h"
#include "cli/requests.h"

#include "base/process.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static const char usage[] =
    "usage: witan run DIR [PROMPT] [FLAG...]\n"
    "Answers PROMPT, or standard input when it is not a terminal, or asks for prompts on a "
    "terminal.\n"
    "  --requests FILE    JSON lines of requests instead (- is standard input): {\"prompt\" or\n"
    "                     \"messages\" or \"ids\", \"max_tokens\", \"temperature\", \"top_p\", "
    "\"top_k\",\n"
    "                     \"min_p\", \"seed\", \"ignore_eos\", \"min_tokens\", "
    "\"repetition_penalty\",\n"
    "                     \"presence_penalty\", \"frequency_penalty\", \"logit_bias\": {\"ID\": "
    "BIAS},\n"
    "                     \"stop_token_ids\": [ID], \"logprobs\" and \"prompt_logprobs\": how many "
    "of "
    "the\n"
    "                     likeliest tokens to list}; answers are JSON lines in the same order\n"
    "  --logits FILE      with --requests: float32 logits of every drawn token, in that order\n"
    "  --system TEXT      the system message\n"
    "  --no-think         ask the model not to think (enable_thinking = false)\n"
    "  --raw              PROMPT is text to continue, no chat template\n"
    "  --max-tokens N     of an answer (default: up to the context)\n"
    "  --temperature X, --top-p X, --top-k N, --min-p X, --seed N\n"
    "                     sampling (default: the checkpoint's generation_config.json; seed "
    "random)\n";

enum { REQUESTS_AT_ONCE = 8 };

struct run_args {
    struct group_options group;
    struct chat_options chat;
    const char *requests;
    const char *logits;
    bool have[5]; /* temperature, top_p, top_k, min_p, seed given */
    double given[4];
    uint64_t seed;
    int code;
};

static int take_sampling(struct run_args *a, const char *flag, const char *value)
{
    static const char *const names[] = {"--temperature", "--top-p", "--top-k", "--min-p", "--seed"};
    for (int k = 0; k < 5; k++) {
        if (strcmp(flag, names[k]) != 0)
            continue;
        char *end = NULL;
        errno = 0;
        if (value && k == 4)
            a->seed = strtoull(value, &end, 10);
        else if (value)
            a->given[k] = strtod(value, &end);
        if (!value || !*value || *end || errno || (k == 4 && *value == '-') ||
            (k == 2 && (a->given[k] != (int32_t)a->given[k]))) {
            fprintf(stderr, "witan: %s: expected a number, found %s\n", flag,
                    value ? value : "nothing");
            return -1;
        }
        a->have[k] = true;
        return 1;
    }
    return 0;
}

/* 1: taken; 0: not a flag of run; -1: bad, said. */
static int take_flag(struct run_args *a, int argc, char **argv, int *i)
{
    const char *flag = argv[*i], *value = *i + 1 < argc ? argv[*i + 1] : NULL;
    int taken = take_sampling(a, flag, value);
    if (taken != 0) {
        ++*i;
        return taken;
    }
    struct {
        const char *name;
        const char **out;
    } words[] = {
        {"--requests", &a->requests}, {"--logits", &a->logits}, {"--system", &a->chat.system}};
    for (int k = 0; k < 3; k++) {
        if (strcmp(flag, words[k].name) != 0)
            continue;
        ++*i;
        *words[k].out = value;
        if (!value)
            fprintf(stderr, "witan: %s: expected a value\n", flag);
        return value ? 1 : -1;
    }
    if (strcmp(flag, "--no-think") == 0)
        a->chat.no_think = true;
    else if (strcmp(flag, "--raw") == 0)
        a->chat.raw = true;
    else if (strcmp(flag, "--max-tokens") == 0) {
        char *end = NULL;
        long n = value ? strtol(value, &end, 10) : 0;
        ++*i;
        if (!value || *end || n < 1 || n > INT32_MAX) {
            fprintf(stderr, "witan: --max-tokens: expected 1 or more, found %s\n",
                    value ? value : "nothing");
            return -1;
        }
        a->chat.max_tokens = (int32_t)n;
    } else {
        return 0;
    }
    return 1;
}

/* 0: go on; else the exit code. */
static int parse(struct run_args *a, int argc, char **argv)
{
    group_init(&a->group);
    for (int i = 1; i < argc; i++) {
        int taken = group_flag(&a->group, argc, argv, &i);
        if (taken == 0)
            taken = take_flag(a, argc, argv, &i);
        if (taken < 0)
            return 2;
        if (taken)
            continue;
        if (strcmp(argv[i], "--help") == 0) {
            printf("%s%s", usage, group_help);
            exit(0);
        }
        if (argv[i][0] == '-' && argv[i][1] == '-') {
            fprintf(stderr, "witan run: unknown flag %s; `witan run` alone lists them\n", argv[i]);
            return 2;
        }
        if (!a->group.dir)
            a->group.dir = argv[i];
        else if (!a->chat.prompt)
            a->chat.prompt = argv[i];
        else {
            fprintf(stderr, "witan run: one PROMPT only; quote it\n");
            return 2;
        }
    }
    if (!a->group.dir || (a->logits && !a->requests)) {
        fprintf(stderr, "%s%s", usage, group_help);
        return 2;
    }
    return 0;
}

static enum status sampling_of(struct run_args *a, struct error *err)
{
    struct sampling *s = &a->chat.sampling;
    TRY(group_sampling(&a->group, s, &a->chat.shaping, err));
    if (a->have[0])
        s->temperature = (float)a->given[0];
    if (a->have[1])
        s->top_p = (float)a->given[1];
    if (a->have[2])
        s->top_k = (int32_t)a->given[2];
    if (a->have[3])
        s->min_p = (float)a->given[3];
    s->seed = a->seed;
    if (!a->have[4] && getrandom(&s->seed, sizeof s->seed, 0) != sizeof s->seed)
        return error_errno(err, errno, "cannot draw a random seed");
    return sampling_check(s, err);
}

static enum status run_requests(struct run_args *a, char **argv, const struct chat_text *text,
                                struct error *err)
{
    struct requests *r = NULL;
    enum status st = OK;
    if (group_is_leader())
        st = requests_read(a->requests, text, &a->chat.sampling, &a->chat.shaping, a->logits, &r,
                           err);
    if (st == OK)
        st = group_run(&a->group, argv, chat_vocab(text), requests_run, r, err);
    if (st == OK && r)
        a->code = requests_failed(r) ? 1 : 0;
    requests_destroy(r);
    return st;
}

static enum status run(struct run_args *a, char **argv, struct error *err)
{
    struct chat_text *text = NULL;
    /* On every rank: they must size their caches alike. */
    if (a->requests && a->group.limits.max_seqs == 0)
        a->group.limits.max_seqs = REQUESTS_AT_ONCE;
    /* Ranks other than 0 never see text: only the leader reads the tokenizer. Before mpirun takes
     * over nothing is read either. */
    if (!group_is_leader() || group_will_exec(&a->group))
        return group_run(&a->group, argv, 0, NULL, NULL, err);
    enum status st = group_open_manifest(&a->group, err);
    if (st == OK)
        st = sampling_of(a, err);
    if (st == OK)
        st = chat_text_load_proven(a->group.dir, a->group.manifest, a->requests != NULL, &text,
                                   err);
    a->chat.text = text;
    a->chat.fixed_seed = a->have[4];
    if (st == OK && a->requests)
        st = run_requests(a, argv, text, err);
    else if (st == OK)
        st = group_run(&a->group, argv, chat_vocab(text), chat_run, &a->chat, err);
    chat_text_destroy(text);
    return st;
}

int cmd_run(int argc, char **argv)
{
    struct run_args a = {0};
    process_no_dumps(); /* of prompts and answers */
    int code = parse(&a, argc, argv);
    if (code != 0)
        return code;
    struct error err = {0};
    enum status st = run(&a, argv - 1, &err);
    group_fini(&a.group);
    if (st != OK) {
        fprintf(stderr, "witan run: %s\n", err.msg);
        return 1;
    }
    return a.code;
}
