/* Ranks that prove their weights by a manifest. */
#include "tests/unit/partition/signed_folder.h"
#include "tests/unit/worker/control/ranks.h"

#define OTHER_DIGEST "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

/* The model, listed and signed by alice, and what a coordinator says of it. */
struct proof {
    struct signed_folder s;
    char digest[MANIFEST_DIGEST_HEX + 1];
    Witan__Cluster__V1__Manifest message;
};

static void proof_make(struct proof *p)
{
    struct manifest *m = NULL;
    struct error err;
    p->s = signed_make();
    signed_create_of(&p->s, WITAN_SOURCE_DIR "/" MODEL);
    signed_by(&p->s, "alice");
    must(manifest_open(p->s.manifest, WITAN_SOURCE_DIR "/" MODEL, p->s.trust, 1, &m, &err), &err);
    strcpy(p->digest, manifest_digest(m));
    manifest_close(m);
    p->message = (Witan__Cluster__V1__Manifest)WITAN__CLUSTER__V1__MANIFEST__INIT;
    p->message.path = p->s.manifest;
    p->message.trust = p->s.trust;
    p->message.threshold = 1;
    p->message.digest = p->digest;
}

static void ranks_prove_their_weights_and_say_by_what(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct group g;
    struct proof proof;
    struct fake_plan p = plan_for(two);
    proof_make(&proof);
    p.manifest = &proof.message;
    group_start(&g, f, 2);
    fake_bring_up(f, &p);
    for (int i = 0; i < 2; i++)
        assert_string_equal(f->ranks[i].manifest, proof.digest);
    const struct fake_request q = {
        .id = 1, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = ANSWER};
    fake_submit(f, &q);
    assert_answer(f, &q);
    for (int i = 0; i < 2; i++) /* or rank 1 may have gone before it is told to */
        wait_parked(f, &f->ranks[i]);
    fake_stop(f, 2);
    group_wait(&g, OK);
    fake_end(f);
    signed_remove(&proof.s);
}

/* Ranks with these keys of their own refuse the plan with all the words, before they load. */
static void assert_plan_refused(const Witan__Cluster__V1__Manifest *m, const char *trust,
                                int threshold, const char *first, const char *second)
{
    struct fake *f = fake_start();
    struct group g;
    struct fake_plan p = plan_for(two);
    Witan__Cluster__V1__Manifest message;
    if (m) {
        message = *m;
        p.manifest = &message;
    }
    group_start_trusting(&g, f, 2, trust, threshold);
    fake_plan(f, &p);
    pthread_join(g.thread, NULL);
    for (int i = 0; i < 2; i++) {
        FAKE_WAIT(f, f->ranks[i].closed);
        const char *said = f->ranks[i].failed;
        if (!strstr(said, first) || !strstr(said, second))
            fail_msg("expected \"%s\" and \"%s\", found \"%s\"", first, second, said);
        assert_false(f->ranks[i].ready);
    }
    fake_end(f);
}

/* Another folder on this host than on the coordinator's: both digests are named. */
static void another_manifest_is_refused(void **state)
{
    (void)state;
    struct proof proof;
    proof_make(&proof);
    proof.message.digest = (char *)OTHER_DIGEST;
    assert_plan_refused(&proof.message, NULL, 0,
                        "m.json: expected the manifest that the coordinator has opened (SHA-256 "
                        "" OTHER_DIGEST "), found ",
                        proof.digest);
    signed_remove(&proof.s);
}

/* Keys on a rank's command line count, whatever the coordinator says. */
static void own_keys_come_first(void **state)
{
    (void)state;
    struct group g;
    struct proof proof;
    struct fake_plan p = plan_for(one);
    char alice[512], eve[512];
    proof_make(&proof);
    snprintf(alice, sizeof alice, "%s", beside(&proof.s, "alice.pem"));
    snprintf(eve, sizeof eve, "%s", beside(&proof.s, "eve.pem"));
    assert_plan_refused(NULL, alice, 0, "expected one, as this rank was started with --trust",
                        "found none: give the coordinator model.manifest and model.trust");
    assert_plan_refused(&proof.message, eve, 0, "found 0", "not by: eve");
    assert_plan_refused(&proof.message, proof.s.trust, 2, "found 1", "not by: bob");
    proof.message.trust = eve;
    assert_plan_refused(&proof.message, NULL, 0, "found 0", "not by: eve");
    struct fake *f = fake_start();
    p.manifest = &proof.message;
    group_start_trusting(&g, f, 1, alice, 1);
    fake_bring_up(f, &p);
    assert_string_equal(f->ranks[0].manifest, proof.digest);
    fake_stop(f, 1);
    group_wait(&g, OK);
    fake_end(f);
    signed_remove(&proof.s);
}

static void a_broken_plan_of_a_manifest_is_refused(void **state)
{
    (void)state;
    struct proof proof;
    static char empty[] = "", upper[] = "ABCD", hex[] = OTHER_DIGEST "00";
    proof_make(&proof);
    Witan__Cluster__V1__Manifest m = proof.message;
    m.threshold = 0;
    assert_plan_refused(&m, NULL, 0, "plan: manifest.threshold: expected 1 to 64", "found 0");
    m = proof.message;
    m.path = empty;
    assert_plan_refused(&m, NULL, 0, "plan: manifest.path: expected a path", "found nothing");
    m = proof.message;
    m.trust = empty;
    assert_plan_refused(&m, NULL, 0, "plan: manifest.trust: expected a path", "found nothing");
    m = proof.message;
    m.digest = upper;
    assert_plan_refused(&m, NULL, 0, "plan: manifest.digest: expected 64 hex digits", "\"ABCD\"");
    m.digest = hex;
    assert_plan_refused(&m, NULL, 0, "plan: manifest.digest: expected at most 64", "found 66");
    signed_remove(&proof.s);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(ranks_prove_their_weights_and_say_by_what),
    cmocka_unit_test(another_manifest_is_refused),
    cmocka_unit_test(own_keys_come_first),
    cmocka_unit_test(a_broken_plan_of_a_manifest_is_refused),
};

UNIT_MAIN(tests)
